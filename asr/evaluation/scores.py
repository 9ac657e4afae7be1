"""What metrics.json says of one model's rows, and of how they differ from another model's.

The scores are sums over rows, and what one row can do to them is told beside them: bounded rates
count at most as many errors in a row as its reference has words or characters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from asr import wer
from asr.evaluation import normalizers
from asr.evaluation.metric import corpus_scores
from asr.evaluation.table import COUNTS, FORM_COUNTS, LOOPED, errors, form_errors, words
from asr.features import language_of

Row = dict[str, Any]
MOST_IDS = 100  # of rows with a loop that metrics.json names


@dataclass(frozen=True)
class Draws:
    """The bootstrap: how many resamples, from which seed."""

    resamples: int
    seed: int


@dataclass(frozen=True)
class Measure:
    """One way to count errors: of a row, and the words or characters that they are a share of."""

    errors: Callable[[Row], int]
    total: Callable[[Row], int]


def _cer_errors(row: Row) -> int:
    return int(row["cer_errors"])


def _characters(row: Row) -> int:
    return int(row["cer_chars"])


MEASURES = {
    "wer": Measure(errors, words),
    "cer": Measure(_cer_errors, _characters),
    "wer_bounded": Measure(lambda row: wer.bounded(errors(row), words(row)), words),
    "cer_bounded": Measure(
        lambda row: wer.bounded(_cer_errors(row), _characters(row)), _characters
    ),
    "wer_without_form": Measure(lambda row: errors(row) - form_errors(row), words),
}
OTHER_RATES = ("wer_bounded", "cer_bounded", "wer_without_form")
WITHOUT_LOOPS = ("wer", "cer")  # also told of the rows in which neither model loops


def score(rows: list[Row], language: str, draws: Draws) -> dict[str, Any]:
    """One model's scores, as fractions.

    Args:
        language: Whisper's code, of rows that name no other.
    """
    all_words = sum(map(words, rows))
    speakers = [row["speaker"] for row in rows]
    interval = wer.bootstrap(
        list(map(errors, rows)), list(map(words, rows)), speakers, draws.resamples, draws.seed
    )
    return {
        **_corpus(rows, wer.normalize, ""),
        "wer_low": interval.low,
        "wer_high": interval.high,
        "ci_unit": interval.unit,
        **_corpus(rows, str, "_raw"),
        **{name: _rate(rows, MEASURES[name]) for name in OTHER_RATES},
        "normalizer": wer.NORMALIZER,
        **_by_whisper(rows, language),
        **{name: sum(row[name] for row in rows) for name in COUNTS[1:]},
        "form": _form(rows),
        "loops": _loops(rows),
        "rows": len(rows),
        "words": all_words,
        "speakers": len({name for name in speakers if name}),
        "hours": sum(row["duration"] for row in rows) / 3600,
    }


def _corpus(rows: list[Row], normalize: Callable[[str], str], suffix: str) -> dict[str, float]:
    references = [normalize(row["reference"]) for row in rows]
    hypotheses = [normalize(row["hypothesis"]) for row in rows]
    return {
        f"{name}{suffix}": value for name, value in corpus_scores(references, hypotheses).items()
    }


def _by_whisper(rows: list[Row], language: str) -> dict[str, Any]:
    """WER and CER of texts normalized as OpenAI does, to set beside published figures."""
    languages = [language_of(row["attributes"]) or language for row in rows]
    columns = []
    for name in ("reference", "hypothesis"):
        texts = [row[name] for row in rows]
        pairs = zip(texts, languages, strict=True)
        columns.append([normalizers.whisper(code)(text) for text, code in pairs])
    by_letters = [[*map(normalizers.letters, column, languages)] for column in columns]
    rates = corpus_scores(*columns)
    if by_letters != columns:
        rates["cer"] = corpus_scores(*by_letters)["cer"]
    names = sorted({normalizers.whisper_name(code) for code in languages})
    return {
        "wer_whisper": rates["wer"],
        "cer_whisper": rates["cer"],
        "whisper_normalizer": " and ".join(names),
    }


def _rate(rows: list[Row], measure: Measure) -> float:
    return wer.rate(sum(map(measure.errors, rows)), sum(map(measure.total, rows)))


def _form(rows: list[Row]) -> dict[str, Any]:
    """Word errors by what they are a matter of, and the share of all errors that is form."""
    return {
        **{name: sum(row[name] for row in rows) for name in FORM_COUNTS},
        "share": sum(map(form_errors, rows)) / max(sum(map(errors, rows)), 1),
    }


def _loops(rows: list[Row]) -> dict[str, Any]:
    """The rows in which a model went round in circles, and their share of its errors."""
    looped = [row for row in rows if row[LOOPED]]
    return {
        "rows": len(looped),
        "share": sum(map(errors, looped)) / max(sum(map(errors, rows)), 1),
        "ids": [row["id"] for row in looped][:MOST_IDS],
    }


def difference(ours: list[Row], theirs: list[Row], draws: Draws) -> dict[str, Any]:
    """How the fine-tuned model's errors differ from a baseline's, with paired intervals.

    Returns:
        The WER's difference, its interval and verdict, and under `verdicts` the same of every
        measure; those without loops only where a row loops.
    """
    compared = {name: _paired(ours, theirs, one, draws) for name, one in MEASURES.items()}
    kept = [pair for pair in zip(ours, theirs, strict=True) if not any(row[LOOPED] for row in pair)]
    if 0 < len(kept) < len(ours):
        kept_ours, kept_theirs = (list(rows) for rows in zip(*kept, strict=True))
        for name in WITHOUT_LOOPS:
            found = _paired(kept_ours, kept_theirs, MEASURES[name], draws)
            compared[f"{name}_without_loops"] = found
    return {**compared["wer"], "verdicts": compared}


def _paired(
    ours: Sequence[Row], theirs: Sequence[Row], measure: Measure, draws: Draws
) -> dict[str, Any]:
    paired = wer.paired(
        [measure.errors(row) for row in ours],
        [measure.errors(row) for row in theirs],
        [measure.total(row) for row in ours],
        [row["speaker"] for row in ours],
        draws.resamples,
        draws.seed,
    )
    return {
        "difference": paired.difference,
        "difference_low": paired.low,
        "difference_high": paired.high,
        "verdict": paired.verdict,
    }
