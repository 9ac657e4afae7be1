"""Find rows that look wrong, so that the user can listen to them before training.

They are mostly silent, spoken at an improbable rate, written in another script, or have labels near
the limit. No row is left out because of it. Works on arrays of a few bytes a row; measuring silence
costs decoding SAMPLE_ROWS recordings of each split, 3 ms each.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from asr.audio import codec
from asr.cleaning.sandbox import guarded
from asr.stats import row_stats, writing_systems
from asr.stats.row_stats import RowStats
from asr.storage import shards
from asr.whisper import HOP, SAMPLE_RATE

SAMPLE_ROWS = 200  # recordings of each split that are decoded
SEED = 1
MAX_SHOWN_EXAMPLES = 5
SHOWN_CHARACTERS = 60  # of a transcript

# A frame is silent this far below its recording's loudest frame, or below -70 dB of full scale.
SILENT_DB = 40
SILENT_BELOW = 10 ** (-70 / 20)
MOSTLY = 0.8  # a recording with a larger share of silent frames is mostly silent

IMPROBABLE = 5.0  # robust standard deviations from the median rate of speech
LEAST_SPREAD = 0.05  # smallest standard deviation of log rates, where most rates are equal
NORMAL_SPREAD = 1.4826  # standard deviation of a normal distribution whose median deviation is 1

NEAR_LIMIT_SHARE = 0.9  # of the model's positions


def silent_frames(samples: np.ndarray) -> tuple[int, int]:
    """Count the silent frames of 10 ms of a recording, and all its frames.

    Args:
        samples: (S,) float32 in [-1, 1], 16 kHz.
    """
    frames = samples[: len(samples) // HOP * HOP].reshape(-1, HOP)
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    loudest = power.max(initial=0.0)
    floor = max(loudest * 10 ** (-SILENT_DB / 10), SILENT_BELOW**2)
    return int((power < floor).sum()), len(frames)


def silence_of(counts: Sequence[tuple[str, int, int]]) -> dict[str, Any]:
    """Summarize how much of some recordings is silent, with examples of those that mostly are.

    Args:
        counts: id, number of silent frames, and number of frames of each recording.
    """
    num_silent = sum(silent for _, silent, _ in counts)
    num_frames = sum(frames for _, _, frames in counts)
    shares = [(silent / max(frames, 1), id) for id, silent, frames in counts]
    mostly_silent = sorted((share for share in shares if share[0] > MOSTLY), reverse=True)
    examples = [
        {"id": id, "silent_share": round(share, 4)}
        for share, id in mostly_silent[:MAX_SHOWN_EXAMPLES]
    ]
    return {
        "recordings": len(counts),
        "silent_share": num_silent / max(num_frames, 1),
        "mostly_silent": len(mostly_silent),
        "examples": examples,
    }


def deviations(rates: np.ndarray) -> np.ndarray:
    """Measure how improbable each rate of speech is.

    Args:
        rates: (N,) characters a second; NaN where unknown.
    Returns:
        (N,) float32, the difference of log(rate) from the median, in robust standard deviations; 0
        where the rate is unknown.
    """
    is_known = np.isfinite(rates)
    result = np.zeros(len(rates), np.float32)
    if not is_known.any():
        return result
    logs = np.log(rates[is_known], dtype=np.float32)
    median = np.median(logs)
    spread = max(NORMAL_SPREAD * float(np.median(np.abs(logs - median))), LEAST_SPREAD)
    result[is_known] = (logs - median) / np.float32(spread)
    return result


def highest(values: np.ndarray, among: np.ndarray) -> list[int]:
    """Return the indices of the MAX_SHOWN_EXAMPLES highest values, the highest first.

    Args:
        values: (N,).
        among: the indices to choose from.
    """
    order = np.argsort(-values[among], kind="stable")
    return [int(index) for index in among[order[:MAX_SHOWN_EXAMPLES]]]


def labels(lengths: np.ndarray, positions: int) -> dict[str, Any]:
    """Count the training labels over or near the limit of the decoder's positions.

    Args:
        lengths: (N,) tokens, prompt included.
    """
    is_over = lengths > positions
    is_near = (lengths > NEAR_LIMIT_SHARE * positions) & ~is_over
    return {
        "max_target_positions": positions,
        "over_limit": int(is_over.sum()),
        "near_limit": int(is_near.sum()),
    }


def sample(split: Path, count: int, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Return `count` random rows of a split, always the same; all if it has fewer."""
    num_rows = shards.manifest(split)["rows"]
    indices = np.random.default_rng(SEED).choice(num_rows, min(count, num_rows), replace=False)
    return (row for _, row in row_stats.rows_at(split, indices, *columns))


def first_samples(row: Mapping[str, Any]) -> np.ndarray | None:
    """(S,) the first 30 s of a recording; None where it cannot be decoded."""
    try:
        blocks = codec.blocks(io.BytesIO(row["audio"] or b""))
        return _first(blocks, codec.BLOCK_SECONDS * SAMPLE_RATE)
    except codec.Undecodable:
        return None


def _first(blocks: Iterator[np.ndarray], count: int) -> np.ndarray:
    """(S,) the first `count` samples of the blocks, or all if they have fewer."""
    first: list[np.ndarray] = []
    num_samples = 0
    for block in blocks:
        first.append(block)
        num_samples += len(block)
        if num_samples >= count:
            break
    return np.concatenate(first)[:count]


def silence(split: Path) -> dict[str, Any]:
    """Summarize how much of a sample of a split's recordings is silent.

    They are decoded in another process, because a broken file may crash it.
    """
    count = min(SAMPLE_ROWS, shards.manifest(split)["rows"])
    if not count:
        return silence_of([])
    counts = guarded(_silent, [(count, (split,))], 1, lambda _: None)
    return silence_of([row for row in counts if row is not None])


def _silent(split: Path, start: int) -> Iterator[tuple[str, int, int] | None]:
    """Yield id, number of silent frames, and number of frames of each recording of the sample.

    None for a recording that cannot be decoded. The first `start` recordings are skipped.
    """
    for row in islice(sample(split, SAMPLE_ROWS, ["id", "audio"]), start, None):
        samples = first_samples(row)
        yield None if samples is None else (row["id"], *silent_frames(samples))


def improbable_rates(raw: Path, by_split: Mapping[str, RowStats]) -> dict[str, Any]:
    """Find rows whose rate of speech is far from the corpus's median."""
    rates = np.concatenate([stats.rates for stats in by_split.values()])
    by_row = deviations(rates)
    distances = np.abs(by_row)
    outliers = np.flatnonzero(distances > IMPROBABLE)
    examples = [
        {
            **row,
            "characters_per_second": round(float(rates[index]), 2),
            "deviations": round(float(by_row[index]), 2),
        }
        for index, row in example_rows(raw, by_split, highest(distances, outliers))
    ]
    return {
        "median_characters_per_second": _median(rates),
        "threshold": IMPROBABLE,
        "outliers": len(outliers),
        "examples": examples,
    }


def _median(rates: np.ndarray) -> float:
    """The median of the known rates; 0 if no rate is known."""
    return float(np.nanmedian(rates)) if np.isfinite(rates).any() else 0.0


def strange_scripts(
    raw: Path, by_split: Mapping[str, RowStats], scripts: Sequence[str]
) -> dict[str, Any]:
    """Find rows written mostly in a script that is not one of the corpus's own.

    Args:
        scripts: the scripts of all rows, to which `RowStats.script` refers.
    """
    letters = sum((stats.letters for stats in by_split.values()), Counter())
    own = writing_systems.own(letters)
    allowed = {*own, row_stats.NO_SCRIPT}
    foreign = [index for index, name in enumerate(scripts) if name not in allowed]
    script = np.concatenate([stats.script for stats in by_split.values()])
    suspects = np.flatnonzero(np.isin(script, foreign))
    shown = suspects[:MAX_SHOWN_EXAMPLES].tolist()
    examples = [
        {**row, "script": scripts[script[index]]}
        for index, row in example_rows(raw, by_split, shown)
    ]
    num_foreign = sum(letters[scripts[index]] for index in foreign)
    return {
        "own": sorted(own & set(scripts)),
        "strange_letters_share": num_foreign / max(letters.total(), 1),
        "suspects": len(suspects),
        "examples": examples,
    }


def example_rows(
    raw: Path, by_split: Mapping[str, RowStats], indices: Sequence[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Return the index, and id, split and beginning of the text, of some rows.

    Args:
        indices: of the rows, counted over all splits; the result has their order.
    """
    rows = {}
    first = 0  # index of the split's first row
    for split, stats in by_split.items():
        in_split = [index - first for index in indices if 0 <= index - first < len(stats.seconds)]
        for index, row in row_stats.rows_at(raw / split, in_split, "id", "text"):
            text = (row["text"] or "")[:SHOWN_CHARACTERS]
            rows[first + index] = {"id": row["id"], "split": split, "text": text}
        first += len(stats.seconds)
    return ((index, rows[index]) for index in indices)
