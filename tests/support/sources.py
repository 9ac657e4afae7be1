"""What the tests of all sources ask of a corpus."""

from __future__ import annotations

import hashlib
from typing import Any

from asr.sources.utterances import Corpus
from asr.storage.shards import SPLITS


def digest(content: bytes | None) -> str:
    return hashlib.sha256(content or b"none").hexdigest()


def listed(corpus: Corpus) -> list[tuple[Any, ...]]:
    """All that is known of each utterance, and its sound."""
    return [
        (one.id, one.split, one.text, one.speaker, one.attributes, one.duration, one.audio())
        for one in corpus.utterances
    ]


def by_split(corpus: Corpus, field: str) -> dict[str, set[Any]]:
    return {
        split: {getattr(one, field) for one in corpus.utterances if one.split == split}
        for split in SPLITS
    }


def disjoint(sets: dict[str, set[Any]]) -> bool:
    return sum(map(len, sets.values())) == len(set.union(*sets.values()))
