"""Word and character error rates: text made comparable, errors counted, and how sure the number is.

WER is summed over the corpus (errors / reference words), never a mean over utterances.
`corpus_scores` goes through the local metric module in the `evaluate` library (4 s to import, so
only then); alignments are jiwer's.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jiwer
import numpy as np

MIN_SPEAKERS = 10
BLOCK = 1 << 22  # draws of the bootstrap held at once


@dataclass(frozen=True)
class Counts:
    """Words of one utterance that were hit, replaced, left out, put in."""

    hits: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def words(self) -> int:
        return self.hits + self.substitutions + self.deletions


@dataclass(frozen=True)
class Interval:
    low: float
    high: float
    unit: str


@dataclass(frozen=True)
class Difference:
    """WER of one model less another's on the same utterances, with what the 95 % interval allows
    one to say of the first.
    """

    difference: float
    low: float
    high: float
    unit: str
    verdict: str


def normalize(text: str) -> str:
    """NFKC, lower case, punctuation and symbols out; combining marks stay, for without them Hindi
    and Thai are other words.
    """
    heard = "".join(character for character in text if not _silent(character))
    lowered = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", heard).lower())
    kept = (
        character if unicodedata.category(character)[0] in "LMN" else " " for character in lowered
    )
    return " ".join("".join(kept).split())


def _silent(character: str) -> bool:
    """Joiners, variation selectors and enclosing marks shape letters and emoji; they are not heard."""
    return (
        unicodedata.category(character) in ("Cf", "Me")
        or "\ufe00" <= character <= "\ufe0f"
        or "\U000e0100" <= character <= "\U000e01ef"
    )


def collapse_spaces(text: str) -> str:
    """White space of any kind as single spaces; jiwer would take a tab for a letter."""
    return " ".join(text.split())


def count_words(reference: str, hypothesis: str) -> Counts:
    """Align two texts by words, each text split at white space."""
    reference, hypothesis = collapse_spaces(reference), collapse_spaces(hypothesis)
    if not reference.split():
        return Counts(0, 0, 0, len(hypothesis.split()))
    found = jiwer.process_words(reference, hypothesis)
    return Counts(found.hits, found.substitutions, found.deletions, found.insertions)


def count_characters(reference: str, hypothesis: str) -> tuple[int, int]:
    """Errors and reference characters, single spaces included."""
    reference, hypothesis = collapse_spaces(reference), collapse_spaces(hypothesis)
    if not reference:
        return len(hypothesis), 0
    found = jiwer.process_characters(reference, hypothesis)
    return found.substitutions + found.deletions + found.insertions, len(reference)


def rate(errors: int, total: int) -> float:
    """Errors per reference word; where the reference holds none, each word put in is a whole error."""
    return errors / max(total, 1)


def error_rates(references: list[str], hypotheses: list[str]) -> dict[str, float]:
    """The same scores without that import, for validation while training."""
    words = [count_words(*pair) for pair in zip(references, hypotheses, strict=True)]
    characters = [count_characters(*pair) for pair in zip(references, hypotheses, strict=True)]
    return {
        "wer": rate(sum(one.errors for one in words), sum(one.words for one in words)),
        "cer": rate(sum(errors for errors, _ in characters), sum(total for _, total in characters)),
    }


def bootstrap(
    errors: Sequence[int],
    words: Sequence[int],
    speakers: Sequence[str | None],
    resamples: int,
    seed: int,
) -> Interval:
    """95 % interval of the WER by drawing units with replacement: speakers from ten up, else
    utterances.

    Utterances of one speaker fail together, so an interval by utterance is too narrow where
    speakers are few.
    """
    by_speaker = len({name for name in speakers if name}) >= MIN_SPEAKERS and all(speakers)
    units = (
        np.unique([str(name) for name in speakers], return_inverse=True)[1]
        if by_speaker
        else np.arange(len(errors))
    )
    unit_errors = np.bincount(units, weights=np.asarray(errors, float))
    unit_words = np.bincount(units, weights=np.asarray(words, float))
    draw = np.random.default_rng(seed)
    rates = []
    for block in np.array_split(np.arange(resamples), -(-resamples * len(unit_errors) // BLOCK)):
        chosen = draw.integers(len(unit_errors), size=(len(block), len(unit_errors)))
        rates.append(unit_errors[chosen].sum(1) / np.maximum(unit_words[chosen].sum(1), 1))
    low, high = np.quantile(np.concatenate(rates), [0.025, 0.975])
    return Interval(float(low), float(high), "speaker" if by_speaker else "utterance")


def paired(
    ours: Sequence[int],
    theirs: Sequence[int],
    words: Sequence[int],
    speakers: Sequence[str | None],
    resamples: int,
    seed: int,
) -> Difference:
    """Compare two models on the same utterances, drawn together: what both find hard does not widen
    the interval.

    Args:
        ours, theirs: errors of each utterance.
        words: reference words of each utterance.
    """
    gained = [a - b for a, b in zip(ours, theirs, strict=True)]
    interval = bootstrap(gained, words, speakers, resamples, seed)
    verdict = (
        "better" if interval.high < 0 else "worse" if interval.low > 0 else "not distinguishable"
    )
    return Difference(
        rate(sum(gained), sum(words)), interval.low, interval.high, interval.unit, verdict
    )


def utterance_scores(reference: str, hypothesis: str) -> dict[str, Any]:
    """One row's counts, for normalised and for raw text."""
    pair = normalize(reference), normalize(hypothesis)
    words, raw = count_words(*pair), count_words(reference, hypothesis)
    errors, characters = count_characters(*pair)
    raw_errors, raw_characters = count_characters(reference, hypothesis)
    return {
        **_columns(words, ""),
        **_columns(raw, "raw_"),
        "cer_errors": errors,
        "cer_chars": characters,
        "raw_cer_errors": raw_errors,
        "raw_cer_chars": raw_characters,
    }


def _columns(counts: Counts, prefix: str) -> dict[str, int]:
    names = ("hits", "substitutions", "deletions", "insertions")
    return {f"{prefix}{name}": getattr(counts, name) for name in names}
