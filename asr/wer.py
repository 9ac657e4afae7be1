"""Word and character error rates: normalize texts, count errors, compute confidence intervals.

WER is summed over the corpus (errors / reference words), never a mean over utterances. Words are
aligned by jiwer.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jiwer
import numpy as np

NORMALIZER = "earshot 1"  # name and version of `normalize`; a version is for ever
MIN_SPEAKERS = 10  # with fewer, utterances are drawn instead of speakers
BLOCK = 1 << 22  # draws of the bootstrap that are in memory at once
QUANTILES = (0.025, 0.975)  # of a 95 % interval


@dataclass(frozen=True)
class Counts:
    """The numbers of correct and wrong words of one utterance."""

    hits: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def words(self) -> int:
        """Words of the reference."""
        return self.hits + self.substitutions + self.deletions


@dataclass(frozen=True)
class Interval:
    """A 95 % interval.

    unit: what was drawn, `speaker` or `utterance`.
    """

    low: float
    high: float
    unit: str


@dataclass(frozen=True)
class Difference:
    """WER of one model minus another's on the same utterances, with its 95 % interval.

    unit: what was drawn, `speaker` or `utterance`.
    verdict: the first model is `better`, `worse`, or `not distinguishable`.
    """

    difference: float
    low: float
    high: float
    unit: str
    verdict: str


# Normalization


def normalize(text: str) -> str:
    """A text in NFKC and lower case, without punctuation and symbols.

    Combining marks are kept, because they distinguish words of Hindi and Thai.
    """
    pronounced = "".join(character for character in text if not _is_silent(character))
    # Lower case may undo a normal form, so NFKC comes before and after it.
    lowered = unicodedata.normalize("NFKC", pronounced).lower()
    words = "".join(
        character if unicodedata.category(character)[0] in "LMN" else " "
        for character in unicodedata.normalize("NFKC", lowered)
    )
    return collapse_spaces(words)


def _is_silent(character: str) -> bool:
    """Whether a character only shapes others: joiners, variation selectors, enclosing marks."""
    return (
        unicodedata.category(character) in ("Cf", "Me")
        or "\ufe00" <= character <= "\ufe0f"
        or "\U000e0100" <= character <= "\U000e01ef"
    )


def collapse_spaces(text: str) -> str:
    """Replace white space by single spaces; jiwer would count a tab as a letter."""
    return " ".join(text.split())


# Counting errors


def count_words(reference: str, hypothesis: str) -> Counts:
    """Align two texts word by word; words are separated by white space."""
    reference, hypothesis = collapse_spaces(reference), collapse_spaces(hypothesis)
    if not reference:  # jiwer refuses an empty reference
        return Counts(0, 0, 0, len(hypothesis.split()))
    alignment = jiwer.process_words(reference, hypothesis)
    return Counts(
        alignment.hits, alignment.substitutions, alignment.deletions, alignment.insertions
    )


def count_characters(reference: str, hypothesis: str) -> tuple[int, int]:
    """The number of errors, and of the reference's characters, single spaces included."""
    reference, hypothesis = collapse_spaces(reference), collapse_spaces(hypothesis)
    if not reference:
        return len(hypothesis), 0
    alignment = jiwer.process_characters(reference, hypothesis)
    errors = alignment.substitutions + alignment.deletions + alignment.insertions
    return errors, len(reference)


def rate(errors: int, total: int) -> float:
    """Errors divided by `total`; the number of errors if `total` is 0."""
    return errors / max(total, 1)


def bounded(errors: int, total: int) -> int:
    """Errors of one row, at most as many as its reference has words or characters; at most one
    where it has none.
    """
    return min(errors, max(total, 1))


def error_rates(references: list[str], hypotheses: list[str]) -> dict[str, float]:
    """WER and CER over all utterances.

    `asr.evaluation.metric` computes the same through the `evaluate` library, which takes 4 s to
    import; validation during training avoids that.
    """
    pairs = list(zip(references, hypotheses, strict=True))
    words = [count_words(*pair) for pair in pairs]
    characters = [count_characters(*pair) for pair in pairs]
    return {
        "wer": rate(sum(counts.errors for counts in words), sum(counts.words for counts in words)),
        "cer": rate(sum(errors for errors, _ in characters), sum(total for _, total in characters)),
    }


def bounded_error_rates(references: list[str], hypotheses: list[str]) -> dict[str, float]:
    """WER and CER in which no row counts for more errors than its reference is long.

    A model that repeats one phrase without end writes hundreds of words for one recording. In plain
    WER this row outweighs all others; here it counts like one of which nothing was understood. A
    row with an empty reference counts for at most one error.
    """
    pairs = list(zip(references, hypotheses, strict=True))
    words = [count_words(*pair) for pair in pairs]
    return {
        "wer_bounded": _bounded_rate([(counts.errors, counts.words) for counts in words]),
        "cer_bounded": _bounded_rate([count_characters(*pair) for pair in pairs]),
    }


def _bounded_rate(rows: list[tuple[int, int]]) -> float:
    """The rate over rows of which each has at most as many errors as its reference is long.

    Args:
        rows: errors, and length of the reference, of each.
    """
    return rate(sum(bounded(*row) for row in rows), sum(length for _, length in rows))


def utterance_scores(reference: str, hypothesis: str) -> dict[str, Any]:
    """One row's counts, for normalized and for raw text."""
    normalized = normalize(reference), normalize(hypothesis)
    raw = reference, hypothesis
    cer_errors, cer_chars = count_characters(*normalized)
    raw_cer_errors, raw_cer_chars = count_characters(*raw)
    return {
        **_columns(count_words(*normalized), ""),
        **_columns(count_words(*raw), "raw_"),
        "cer_errors": cer_errors,
        "cer_chars": cer_chars,
        "raw_cer_errors": raw_cer_errors,
        "raw_cer_chars": raw_cer_chars,
    }


def _columns(counts: Counts, prefix: str) -> dict[str, int]:
    names = ("hits", "substitutions", "deletions", "insertions")
    return {f"{prefix}{name}": getattr(counts, name) for name in names}


# Confidence intervals


def bootstrap(
    errors: Sequence[int],
    words: Sequence[int],
    speakers: Sequence[str | None],
    resamples: int,
    seed: int,
) -> Interval:
    """95 % interval of the WER, by drawing speakers with replacement, or utterances.

    Utterances of one speaker tend to fail together, so an interval by utterance is too narrow where
    speakers are few. Utterances are drawn if a speaker is unknown, or if there are fewer than
    MIN_SPEAKERS.

    Args:
        errors, words: word errors and reference words of each utterance.
    """
    names = {name for name in speakers if name}
    by_speaker = len(names) >= MIN_SPEAKERS and all(speakers)
    units = np.arange(len(errors))  # the number of each utterance's unit
    if by_speaker:
        units = np.unique([str(name) for name in speakers], return_inverse=True)[1]
    unit_errors = np.bincount(units, weights=np.asarray(errors, float))
    unit_words = np.bincount(units, weights=np.asarray(words, float))
    rates = _resampled_rates(unit_errors, unit_words, resamples, seed)
    low, high = np.quantile(rates, QUANTILES)
    return Interval(float(low), float(high), "speaker" if by_speaker else "utterance")


def _resampled_rates(
    unit_errors: np.ndarray, unit_words: np.ndarray, resamples: int, seed: int
) -> np.ndarray:
    """(resamples,) the WER of each resample, computed in blocks that fit in memory.

    Args:
        unit_errors, unit_words: (U,) word errors and reference words of each unit.
    """
    draw = np.random.default_rng(seed)
    num_units = len(unit_errors)
    num_blocks = -(-resamples * num_units // BLOCK)
    rates = []
    for block in np.array_split(np.arange(resamples), num_blocks):
        drawn = draw.integers(num_units, size=(len(block), num_units))
        rates.append(unit_errors[drawn].sum(1) / np.maximum(unit_words[drawn].sum(1), 1))
    return np.concatenate(rates)


def paired(
    ours: Sequence[int],
    theirs: Sequence[int],
    words: Sequence[int],
    speakers: Sequence[str | None],
    resamples: int,
    seed: int,
) -> Difference:
    """Compare two models on the same utterances.

    Each draw takes the same utterances of both, so utterances that are hard for both do not widen
    the interval.

    Args:
        ours, theirs: word errors of each utterance.
        words: reference words of each utterance.
    """
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    interval = bootstrap(differences, words, speakers, resamples, seed)
    difference = rate(sum(differences), sum(words))
    return Difference(difference, interval.low, interval.high, interval.unit, _verdict(interval))


def _verdict(interval: Interval) -> str:
    if interval.high < 0:
        return "better"
    if interval.low > 0:
        return "worse"
    return "not distinguishable"
