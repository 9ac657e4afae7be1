"""Where a corpus can come from: one small module each, with one function `read`.

`read(...)` returns a `Corpus`: what is known about it, and its utterances. An utterance is light; its sound is fetched by
`audio()` when its turn comes, so a corpus of any size passes through in the memory of one recording.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Utterance:
    """One recording with its transcript; `audio` gives the encoded bytes, or None where the recording is missing."""

    id: str
    split: str
    text: str
    audio: Callable[[], bytes | None]
    speaker: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    duration: float | None = None


@dataclass(frozen=True)
class Corpus:
    """`about` goes into the manifest: name, licence, counts that a person should see."""

    about: dict[str, Any]
    utterances: list[Utterance]


def fraction_of(key: str) -> float:
    """A number in [0, 1) that depends on the key alone: how we split, so that growth moves nobody."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def split_of(key: str) -> str:
    """Eight in ten keys train, one validates, one tests."""
    place = fraction_of(f"split:{key}")
    return "train" if place < 0.8 else "validation" if place < 0.9 else "test"
