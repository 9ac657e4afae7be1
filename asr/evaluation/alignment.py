"""Which word was heard as which: two texts as marked words, and every error of a table at once.

Alignments are jiwer's (the same edit operations in the same order), so what is marked is what WER
counts. A pair of ten words costs 10 us; 20,000 of them half a second, most of it for making words
comparable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein

from asr import wer

HIT, SUBSTITUTION, DELETION, INSERTION = "hit", "substitution", "deletion", "insertion"
ERRORS = (SUBSTITUTION, DELETION, INSERTION)
NO_WORD = -1
SLICE = 2_000  # pairs that are aligned before the caller hears of it


class Mark(NamedTuple):
    """One step of an alignment; a deletion has no word heard, an insertion none that was said."""

    kind: str
    said: str | None
    heard: str | None


def align(reference: str, hypothesis: str) -> list[Mark]:
    """Marked words of two texts, each split at white space. The words said, in order, are the
    reference's; those heard the hypothesis's.
    """
    said, heard = reference.split(), hypothesis.split()
    numbers: dict[str, int] = {}
    return [
        Mark(kind, said[at] if at is not None else None, heard[to] if to is not None else None)
        for kind, at, to in _steps(_numbered(said, numbers), _numbered(heard, numbers))
    ]


def _numbered(words: list[str], numbers: dict[str, int]) -> list[int]:
    return [numbers.setdefault(word, len(numbers)) for word in words]


def _steps(said: list[int], heard: list[int]) -> Iterator[tuple[str, int | None, int | None]]:
    """Kind of each step, with the places of its words."""
    for step in Levenshtein.opcodes(said, heard):
        if step.tag == "delete":
            yield from ((DELETION, at, None) for at in range(step.src_start, step.src_end))
        elif step.tag == "insert":
            yield from ((INSERTION, None, to) for to in range(step.dest_start, step.dest_end))
        else:
            kind, ahead = (
                HIT if step.tag == "equal" else SUBSTITUTION,
                step.dest_start - step.src_start,
            )
            yield from ((kind, at, at + ahead) for at in range(step.src_start, step.src_end))


@dataclass(frozen=True)
class Edits:
    """Every error of a table: the row it is in, its kind (a place in ERRORS), the words said and
    heard (places in `words`, or NO_WORD).
    """

    rows: np.ndarray
    kinds: np.ndarray
    said: np.ndarray
    heard: np.ndarray
    words: list[str]

    def frequent(
        self, kind: str, rows: np.ndarray, most: int
    ) -> list[tuple[str | None, str | None, int, int]]:
        """The most frequent errors of a kind among the rows where `rows` is true: said, heard,
        times, utterances.
        """
        here = (self.kinds == ERRORS.index(kind)) & rows[self.rows]
        pair = (self.said[here].astype(np.int64) + 1) * (len(self.words) + 1) + self.heard[here] + 1
        pairs, places, times = np.unique(pair, return_inverse=True, return_counts=True)
        first = np.lexsort((pairs, -times))[:most]
        found = []
        for one in first:
            said, heard = divmod(int(pairs[one]), len(self.words) + 1)
            utterances = len(np.unique(self.rows[here][places == one]))
            found.append((self._word(said - 1), self._word(heard - 1), int(times[one]), utterances))
        return found

    def holding(self, kind: str, said: str | None, heard: str | None) -> np.ndarray:
        """The rows in which this error stands."""
        places = {word: place for place, word in enumerate(self.words) if word in (said, heard)}
        wanted = [
            NO_WORD if word is None else places.get(word, NO_WORD - 1) for word in (said, heard)
        ]
        here = (
            (self.kinds == ERRORS.index(kind))
            & (self.said == wanted[0])
            & (self.heard == wanted[1])
        )
        return np.unique(self.rows[here])

    def _word(self, place: int) -> str | None:
        return None if place == NO_WORD else self.words[place]


def edits(
    references: Sequence[str], hypotheses: Sequence[str], normalised: bool
) -> Iterator[float | Edits]:
    """Align a whole table; yields the share that is done, and in the end the edits."""
    numbers: dict[str, int] = {}
    comparable = Normalizer() if normalised else wer.collapse_spaces
    found: list[tuple[int, int, int, int]] = []
    for row, (reference, hypothesis) in enumerate(zip(references, hypotheses, strict=True)):
        if row % SLICE == 0:
            yield row / len(references)
        said = _numbered(comparable(reference).split(), numbers)
        heard = _numbered(comparable(hypothesis).split(), numbers)
        found += _errors(row, said, heard)
    rows, kinds, words_said, words_heard = np.array(found, np.int32).reshape(-1, 4).T
    yield Edits(rows, kinds, words_said, words_heard, list(numbers))


def _errors(row: int, said: list[int], heard: list[int]) -> Iterator[tuple[int, int, int, int]]:
    """The steps that are no hits, as numbers."""
    for step in Levenshtein.opcodes(said, heard):
        if step.tag == "replace":
            pairs = zip(
                said[step.src_start : step.src_end],
                heard[step.dest_start : step.dest_end],
                strict=True,
            )
            yield from ((row, 0, one, other) for one, other in pairs)
        elif step.tag == "delete":
            yield from ((row, 1, one, NO_WORD) for one in said[step.src_start : step.src_end])
        elif step.tag == "insert":
            yield from (
                (row, 2, NO_WORD, other) for other in heard[step.dest_start : step.dest_end]
            )


class Normalizer:
    """`wer.normalise`, which looks at each character, for many texts of the same words: each word
    is made comparable once.
    """

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        return " ".join(filter(None, map(self._word, text.split())))

    def _word(self, word: str) -> str:
        found = self.known.get(word)
        if found is None:
            found = self.known[word] = (
                word.lower() if word.isascii() and word.isalnum() else wer.normalize(word)
            )
        return found
