"""Rows that look wrong before anything is trained: much silence, an improbable rate of speech, a
strange script, labels near the limit.

None of them is left out for it: these are rows to listen to. Works on arrays of a few bytes a row;
silence costs decoding a sample, 3 ms a recording.
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
from asr.runtime.sandbox import guarded
from asr.stats import row_stats, writing_systems
from asr.stats.row_stats import RowStats
from asr.storage import shards
from asr.whisper import HOP, SAMPLE_RATE

SAMPLE = 200  # recordings of each split that are heard
SEED = 1
SHOWN_CHARACTERS = 60
MAX_SHOWN_EXAMPLES = 5  # examples
SILENT_DB, SILENT_BELOW = (
    40,
    10 ** (-70 / 20),
)  # below a recording's loudest frame, or below this of full scale
MOSTLY = 0.8  # share of silence from which on a recording is named
IMPROBABLE = 5.0  # robust deviations from the median rate of speech
LEAST_SPREAD = 0.05  # of the logarithm of rates, where most are alike
NEAR_LIMIT_SHARE = 0.9  # of the model's positions


def silent_frames(samples: np.ndarray) -> tuple[int, int]:
    """Frames of 10 ms that are silent, and all of them: 40 dB below the loudest one, or below -70
    dB of full scale.

    Args:
        samples: (S,) float32 in [-1, 1], 16 kHz.
    """
    frames = samples[: len(samples) // HOP * HOP].reshape(-1, HOP)
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    loudest = power.max(initial=0.0)
    floor = max(loudest * 10 ** (-SILENT_DB / 10), SILENT_BELOW**2)
    return int((power < floor).sum()), len(frames)


def silence_of(heard: Sequence[tuple[str, int, int]]) -> dict[str, Any]:
    """How much of a sample of recordings is silent, and those that are nearly all silence.

    Args:
        heard: id, silent frames and all frames of each.
    """
    silent, frames = sum(one for _, one, _ in heard), sum(of for _, _, of in heard)
    shares = [(one / max(of, 1), id) for id, one, of in heard]
    worst = sorted(one for one in shares if one[0] > MOSTLY)[::-1]
    examples = [
        {"id": id, "silent_share": round(share, 4)} for share, id in worst[:MAX_SHOWN_EXAMPLES]
    ]
    return {
        "recordings": len(heard),
        "silent_share": silent / max(frames, 1),
        "mostly_silent": len(worst),
        "examples": examples,
    }


def deviations(rates: np.ndarray) -> np.ndarray:
    """(N,) how improbable each rate of speech is: the distance of its logarithm from the median, in
    robust standard deviations.

    Args:
        rates: (N,) characters a second; NaN where unknown, which deviates by nothing.
    """
    known = rates[np.isfinite(rates)]
    if not len(known):
        return np.zeros(len(rates), np.float32)
    logs = np.log(known, dtype=np.float32)
    middle = np.median(logs)
    spread = max(1.4826 * float(np.median(np.abs(logs - middle))), LEAST_SPREAD)
    found = np.zeros(len(rates), np.float32)
    found[np.isfinite(rates)] = (logs - middle) / np.float32(spread)
    return found


def most(values: np.ndarray, among: np.ndarray) -> list[int]:
    """The places of the SHOWN highest values among some places; of equals the first."""
    return [
        int(one) for one in among[np.argsort(-values[among], kind="stable")[:MAX_SHOWN_EXAMPLES]]
    ]


def labels(lengths: np.ndarray, positions: int) -> dict[str, Any]:
    """Training labels against the positions that the model's decoder has.

    Args:
        lengths: (N,) tokens, prompt included.
    """
    over, near = (
        lengths > positions,
        (lengths > NEAR_LIMIT_SHARE * positions) & (lengths <= positions),
    )
    return {
        "max_target_positions": positions,
        "over_limit": int(over.sum()),
        "near_limit": int(near.sum()),
    }


def sample(split: Path, count: int, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of a split, chosen by seed."""
    rows = shards.manifest(split)["rows"]
    chosen = np.random.default_rng(SEED).choice(rows, min(count, rows), replace=False)
    return (row for _, row in row_stats.rows_at(split, chosen, *columns))


def first_samples(row: Mapping[str, Any]) -> np.ndarray | None:
    """(S,) the first 30 s of a recording; None where it cannot be decoded."""
    try:
        return _first(
            codec.blocks(io.BytesIO(row["audio"] or b"")), codec.BLOCK_SECONDS * SAMPLE_RATE
        )
    except codec.Undecodable:
        return None


def _first(blocks: Iterator[np.ndarray], count: int) -> np.ndarray:
    """(S,) at most so many samples, of blocks that may be as short as a codec's frame."""
    found: list[np.ndarray] = []
    while sum(map(len, found)) < count and (block := next(blocks, None)) is not None:
        found.append(block)
    return np.concatenate(found)[:count]


def silence(split: Path) -> dict[str, Any]:
    """How much of a split's recordings is silent. They are decoded in a process that a broken one
    may end.
    """
    count = min(SAMPLE, shards.manifest(split)["rows"])
    found = guarded(_silent, [(count, (split,))], 1, lambda _: None) if count else ()
    return silence_of([one for one in found if one is not None])


def _silent(split: Path, start: int) -> Iterator[tuple[str, int, int] | None]:
    """Id, silent and all frames of the recordings of a sample, from one of them on; None for what
    cannot be decoded.
    """
    for row in islice(sample(split, SAMPLE, ["id", "audio"]), start, None):
        samples = first_samples(row)
        yield None if samples is None else (row["id"], *silent_frames(samples))


def improbable(raw: Path, by_split: Mapping[str, RowStats]) -> dict[str, Any]:
    """Rows whose rate of speech is far from the corpus's."""
    rates = np.concatenate([one.rates for one in by_split.values()])
    away = deviations(rates)
    far = np.flatnonzero(np.abs(away) > IMPROBABLE)
    examples = [
        {
            **row,
            "characters_per_second": round(float(rates[place]), 2),
            "deviations": round(float(away[place]), 2),
        }
        for place, row in example_rows(raw, by_split, most(np.abs(away), far))
    ]
    median = float(np.nanmedian(rates)) if np.isfinite(rates).any() else 0.0
    return {
        "median_characters_per_second": median,
        "threshold": IMPROBABLE,
        "outliers": len(far),
        "examples": examples,
    }


def strange(raw: Path, by_split: Mapping[str, RowStats], met: Sequence[str]) -> dict[str, Any]:
    """Rows that are written mostly in a script that is not the corpus's."""
    letters = sum((one.letters for one in by_split.values()), Counter())
    own = writing_systems.own(letters)
    script = np.concatenate([one.script for one in by_split.values()])
    foreign = [place for place, name in enumerate(met) if name not in (*own, row_stats.NO_SCRIPT)]
    found = np.flatnonzero(np.isin(script, foreign))
    examples = [
        {**row, "script": met[script[place]]}
        for place, row in example_rows(raw, by_split, found[:MAX_SHOWN_EXAMPLES].tolist())
    ]
    share = sum(letters[met[place]] for place in foreign) / max(letters.total(), 1)
    return {
        "own": sorted(own & set(met)),
        "strange_letters_share": share,
        "suspects": len(found),
        "examples": examples,
    }


def example_rows(
    raw: Path, by_split: Mapping[str, RowStats], places: Sequence[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Id, split and the beginning of the text of rows that are named by their place among all
    splits, in the order given.
    """
    found, first = {}, 0
    for split, one in by_split.items():
        here = [place - first for place in places if 0 <= place - first < len(one.seconds)]
        for place, row in row_stats.rows_at(raw / split, here, "id", "text"):
            found[first + place] = {
                "id": row["id"],
                "split": split,
                "text": (row["text"] or "")[:SHOWN_CHARACTERS],
            }
        first += len(one.seconds)
    return ((place, found[place]) for place in places)
