"""Chance that depends on a key alone, so that a corpus which grows moves nobody. 1 us a key."""

from __future__ import annotations

import hashlib


def fraction_of(key: str) -> float:
    """A number in [0, 1), the same for the same key on any machine."""
    return int.from_bytes(hashlib.sha256(key.encode(errors="surrogateescape")).digest()[:8], "big") / 2**64


def split_of(key: str) -> str:
    """Eight in ten keys train, one validates, one tests."""
    place = fraction_of(f"split:{key}")
    return "train" if place < 0.8 else "validation" if place < 0.9 else "test"
