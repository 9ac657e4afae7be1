"""What is known of each row of data/raw without hearing it: seconds, rate of speech, script. And
single rows, by their place.

Costs 8 us a row and 9 bytes of memory; recordings whose header told no duration are decoded,
guarded, once and for all. Files are mapped and untouched columns cost nothing, so that the sound of
a large corpus is not read.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr.cleaning import measurements
from asr.stats import writing_systems
from asr.storage import shards

NO_SCRIPT = ""  # of a text without letters


@dataclass(frozen=True)
class RowStats:
    """The rows of one split.

    seconds: (N,) float32; NaN where nobody can tell.
    rates: (N,) float32: characters a second, spaces not counted; NaN where unknown.
    script: (N,) uint8: the script of most of a row's letters, by its place among all scripts that
        were met.
    letters: of all rows, by script.
    """

    seconds: np.ndarray
    rates: np.ndarray
    script: np.ndarray
    letters: Counter[str]

    @property
    def known(self) -> np.ndarray:
        """The durations that are known."""
        found: np.ndarray = self.seconds[np.isfinite(self.seconds)]
        return found


def take(split: Path, met: list[str]) -> RowStats:
    """One pass over a split; scripts that were not met before are added to `met`."""
    letters: Counter[str] = Counter()
    blocks = [(np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros(0, np.uint8))]
    places = list(shards.batch_places(split))
    for (path, offset, _), seconds in zip(places, durations(places), strict=True):
        texts = [text or "" for text in shards.read_batch(path, offset).column("text").to_pylist()]
        blocks.append((seconds, rates_of(texts, seconds), scripts_of(texts, met, letters)))
    seconds, rates, script = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return RowStats(seconds, rates, script, letters)


def durations(places: Sequence[tuple[Path, int, int]]) -> Iterator[np.ndarray]:
    """(N,) seconds of the rows of each record batch, as tables and headers tell, else as decoding
    does; NaN where it cannot be told.
    """
    told = measurements.measure([place for place in places if np.isnan(promised(place)).any()])
    for place in places:
        seconds = promised(place)
        if (unknown := np.isnan(seconds)).any():
            sounds = [math.nan if one.code else one.duration for one in next(told)]
            seconds[unknown] = np.array(sounds, np.float32)[unknown]
        yield seconds


def promised(place: tuple[Path, int, int]) -> np.ndarray:
    """(N,) seconds as tables and headers tell; NaN where they do not."""
    path, offset, _ = place
    seconds: np.ndarray = (
        shards.read_batch(path, offset)
        .column("duration")
        .to_numpy(zero_copy_only=False)
        .astype(np.float32)
    )
    return np.where(np.isfinite(seconds), seconds, np.float32(np.nan))


def rates_of(texts: list[str], seconds: np.ndarray) -> np.ndarray:
    """(N,) characters a second."""
    characters = np.array([len("".join(text.split())) for text in texts], np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(
            (characters > 0) & (seconds > 0), characters / seconds, np.float32(np.nan)
        ).astype(np.float32)


def scripts_of(texts: list[str], met: list[str], letters: Counter[str]) -> np.ndarray:
    """(N,) the script of most of each text's letters, by its place in `met`; all letters are added
    to `letters`.
    """
    found = np.zeros(len(texts), np.uint8)
    for row, text in enumerate(texts):
        counts = writing_systems.count(text)
        name = counts.most_common(1)[0][0] if counts.total() else NO_SCRIPT
        letters.update(counts)
        if name not in met:
            met.append(name)
        found[row] = met.index(name)
    return found


def rows_at(
    split: Path, places: Iterable[int], *columns: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Single rows of a split, by their place in it, in order."""
    wanted = np.unique(np.fromiter(places, np.int64))
    first = 0
    for entry, path in zip(shards.manifest(split)["files"], shards.paths(split), strict=True):
        if np.searchsorted(wanted, first) == np.searchsorted(wanted, first + entry["rows"]):
            first += entry["rows"]
            continue
        for batch in shards.batches(path, columns):
            low, high = np.searchsorted(wanted, [first, first + batch.num_rows])
            for place in wanted[low:high]:
                yield int(place), batch.slice(int(place) - first, 1).to_pylist()[0]
            first += batch.num_rows
