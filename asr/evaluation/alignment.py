"""Align references and hypotheses word by word: marked words of two texts, and errors of a table.

The edit operations and their order are jiwer's, so the marks are the errors that WER counts. A pair
of texts of ten words costs 10 us; 20,000 pairs half a second, most of it to normalize the words.
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
SUBSTITUTED, DELETED, INSERTED = range(len(ERRORS))  # their indices
NO_WORD = -1
UNKNOWN_WORD = -2
PAIRS_PER_REPORT = 2_000  # pairs of texts aligned between two reports of progress


class Mark(NamedTuple):
    """One step of an alignment.

    Attributes:
        said: the reference's word; None at an insertion.
        heard: the hypothesis's word; None at a deletion.
    """

    kind: str
    said: str | None
    heard: str | None


def align(reference: str, hypothesis: str) -> list[Mark]:
    """Align two texts word by word; returns the steps in the order of the texts."""
    reference_words = reference.split()
    hypothesis_words = hypothesis.split()
    numbers: dict[str, int] = {}
    steps = _steps(_numbered(reference_words, numbers), _numbered(hypothesis_words, numbers))
    return [
        Mark(
            kind,
            None if source is None else reference_words[source],
            None if target is None else hypothesis_words[target],
        )
        for kind, source, target in steps
    ]


def _numbered(words: list[str], numbers: dict[str, int]) -> list[int]:
    """The number of each word; a new word gets the next one."""
    return [numbers.setdefault(word, len(numbers)) for word in words]


def _steps(
    reference: list[int], hypothesis: list[int]
) -> Iterator[tuple[str, int | None, int | None]]:
    """Kind of each step, and the indices of its words in reference and hypothesis."""
    for block in Levenshtein.opcodes(reference, hypothesis):
        sources = range(block.src_start, block.src_end)
        targets = range(block.dest_start, block.dest_end)
        if block.tag == "delete":
            yield from ((DELETION, source, None) for source in sources)
        elif block.tag == "insert":
            yield from ((INSERTION, None, target) for target in targets)
        else:
            kind = HIT if block.tag == "equal" else SUBSTITUTION
            yield from ((kind, *pair) for pair in zip(sources, targets, strict=True))


@dataclass(frozen=True)
class Edits:
    """Every error of a table. E is their number.

    Attributes:
        rows: (E,) int32, the row of the table that has the error.
        kinds: (E,) int32, indices in ERRORS.
        reference_words: (E,) int32, the reference's word as an index in `words`, or NO_WORD.
        hypothesis_words: (E,) int32, the hypothesis's word likewise.
        words: all words of the table.
    """

    rows: np.ndarray
    kinds: np.ndarray
    reference_words: np.ndarray
    hypothesis_words: np.ndarray
    words: list[str]

    def frequent(
        self, kind: str, rows: np.ndarray, most: int
    ) -> list[tuple[str | None, str | None, int, int]]:
        """The most frequent errors of a kind.

        Args:
            rows: (rows of the table,) bool, the rows whose errors count.
            most: return at most so many errors.
        Returns:
            For each error: the reference's word, the hypothesis's word, how often it occurs, and in
            how many utterances.
        """
        counted = (self.kinds == ERRORS.index(kind)) & rows[self.rows]
        first = self.reference_words[counted].astype(np.int64)
        second = self.hypothesis_words[counted]
        # A pair of words as one number; 1 is added so that NO_WORD becomes 0.
        base = len(self.words) + 1
        codes = (first + 1) * base + second + 1
        pairs, pair_of_error, times = np.unique(codes, return_inverse=True, return_counts=True)
        most_frequent = np.lexsort((pairs, -times))[:most]
        errors = []
        for pair in most_frequent:
            first_code, second_code = divmod(int(pairs[pair]), base)
            utterances = len(np.unique(self.rows[counted][pair_of_error == pair]))
            reference_word = self.word(first_code - 1)
            hypothesis_word = self.word(second_code - 1)
            errors.append((reference_word, hypothesis_word, int(times[pair]), utterances))
        return errors

    def holding(
        self, kind: str, reference_word: str | None, hypothesis_word: str | None
    ) -> np.ndarray:
        """The rows that hold this error, each once, in ascending order."""
        pair = (reference_word, hypothesis_word)
        indices = {word: index for index, word in enumerate(self.words) if word in pair}

        def index_of(word: str | None) -> int:
            return NO_WORD if word is None else indices.get(word, UNKNOWN_WORD)

        matches = (
            (self.kinds == ERRORS.index(kind))
            & (self.reference_words == index_of(reference_word))
            & (self.hypothesis_words == index_of(hypothesis_word))
        )
        return np.unique(self.rows[matches])

    def word(self, index: int) -> str | None:
        """The word with this index; None for NO_WORD."""
        return None if index == NO_WORD else self.words[index]


class Normalizer:
    """A faster `wer.normalize` for many texts that share words: each word is normalized once."""

    def __init__(self) -> None:
        self.normalized: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        return " ".join(filter(None, map(self._word, text.split())))

    def _word(self, word: str) -> str:
        normalized = self.normalized.get(word)
        if normalized is None:
            plain = word.isascii() and word.isalnum()
            normalized = word.lower() if plain else wer.normalize(word)
            self.normalized[word] = normalized
        return normalized


def edits(
    references: Sequence[str], hypotheses: Sequence[str], normalized: bool
) -> Iterator[float | Edits]:
    """Align a whole table.

    Yields:
        the share that is done, now and then, and at the end the edits.
    """
    numbers: dict[str, int] = {}
    prepare = Normalizer() if normalized else wer.collapse_spaces
    errors: list[tuple[int, int, int, int]] = []
    for row, (reference, hypothesis) in enumerate(zip(references, hypotheses, strict=True)):
        if row % PAIRS_PER_REPORT == 0:
            yield row / len(references)
        reference_numbers = _numbered(prepare(reference).split(), numbers)
        hypothesis_numbers = _numbered(prepare(hypothesis).split(), numbers)
        errors += _errors(row, reference_numbers, hypothesis_numbers)
    rows, kinds, first, second = np.array(errors, np.int32).reshape(-1, 4).T
    yield Edits(rows, kinds, first, second, list(numbers))


def _errors(
    row: int, reference: list[int], hypothesis: list[int]
) -> Iterator[tuple[int, int, int, int]]:
    """Yield row, kind and both words of each step that is an error."""
    for block in Levenshtein.opcodes(reference, hypothesis):
        replaced = reference[block.src_start : block.src_end]
        replacing = hypothesis[block.dest_start : block.dest_end]
        if block.tag == "replace":
            pairs = zip(replaced, replacing, strict=True)
            yield from ((row, SUBSTITUTED, *pair) for pair in pairs)
        elif block.tag == "delete":
            yield from ((row, DELETED, word, NO_WORD) for word in replaced)
        elif block.tag == "insert":
            yield from ((row, INSERTED, NO_WORD, word) for word in replacing)
