"""What every source gives: a corpus of utterances, each with a way to fetch its sound.

A source's `read(...)` returns a `Corpus`: what is known about it, and its utterances. An utterance
is light; its sound is fetched by `audio()` when its turn comes, and no source holds a list of its
rows, so a corpus of any size passes through in the memory of one recording.
"""

from __future__ import annotations

import errno
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Utterance:
    """One recording with its transcript.

    split: None where the source gives none, so that we split by speaker.
    audio: gives the encoded bytes, or None where the recording is missing.
    """

    id: str
    split: str | None
    text: str
    audio: Callable[[], bytes | None]
    speaker: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    duration: float | None = None


@dataclass(frozen=True)
class UtteranceIterable:
    """Utterances in the corpus's own order, read anew each time one goes through them."""

    read: Callable[[], Iterator[Utterance]]

    def __iter__(self) -> Iterator[Utterance]:
        return self.read()


@dataclass(frozen=True)
class Corpus:
    """`about` goes into the manifest: name, licence, counts that a person should see."""

    about: dict[str, Any]
    utterances: UtteranceIterable


def read_bytes(path: Path) -> bytes | None:
    """The file's bytes; None where it is not there, or has a name that no file has.

    A name whose accents one system has taken apart, or put together, is found under the other
    spelling.
    """
    spellings = (path, *(Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD")))
    try:
        return next((one.read_bytes() for one in spellings if one.is_file()), None)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise


def one_line(said: str) -> str:
    """Words on one line, with single spaces."""
    return " ".join(said.split())
