"""The training examples of one epoch: rows alone or packed, timed or not, and silence.

A pure function of rows and seed. Which rows have timestamps is decided by a hash of their ids, so
that a corpus that grows hardly changes it. Costs 5 us per row once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

from asr.features import FeatureRows
from asr.storage.hashing import fraction_of
from asr.training import examples
from asr.training.batches import Collator
from asr.training.examples import TrainingExample, TrainingRow


def speech_examples(
    rows: FeatureRows,
    usable: Sequence[TrainingRow],
    collator: Collator,
    timestamp_share: float,
    pack_to_window: bool,
    seed: int,
) -> list[TrainingExample]:
    """Training examples of one epoch: each usable row as often as its weight says.

    Args:
        timestamp_share: of the rows that have timestamps.
        pack_to_window: whether rows with timestamps share a window.
    """
    counts = repeats(rows)
    epoch: list[TrainingExample] = []
    # Rows that come again are packed apart, so that no window holds a row twice.
    for time in range(1, max(counts, default=1) + 1):
        rows_this_time = [row for row in usable if counts[row.index] >= time]
        epoch += _examples_once(
            rows, rows_this_time, collator, timestamp_share, pack_to_window, seed
        )
    return epoch


def repeats(rows: FeatureRows) -> list[int]:
    """How often each row comes in an epoch: once, unless `download.where` gave it more weight."""
    return [
        int(json.loads(attributes).get("repeat", 1)) if '"repeat"' in attributes else 1
        for attributes in rows.column("attributes")
    ]


def _examples_once(
    rows: FeatureRows,
    usable: Sequence[TrainingRow],
    collator: Collator,
    timestamp_share: float,
    pack_to_window: bool,
    seed: int,
) -> list[TrainingExample]:
    """Examples that hold each of these rows once, those with timestamps first."""
    ids = rows.column("id")
    timed: list[TrainingRow] = []
    plain: list[TrainingRow] = []
    for row in usable:
        if fraction_of(f"{seed}:times:{ids[row.index]}") < timestamp_share:
            timed.append(row)
        else:
            plain.append(row)
    groups: list[tuple[TrainingRow, ...]] = [(row,) for row in timed]
    if pack_to_window:
        max_tokens = collator.positions - len(collator.prompt)
        speakers = rows.column("speaker")
        groups = list(examples.pack_neighbors(timed, speakers, collator.frames, max_tokens))
    return [
        *(collator.example(group, timed=True) for group in groups),
        *(collator.example([row], timed=False) for row in plain),
    ]


def silence_examples(
    count: int, collator: Collator, timestamp_share: float, no_speech_share: float, seed: int
) -> list[TrainingExample]:
    """Windows without speech, of all lengths, as a share of an epoch.

    Args:
        count: of the epoch's other windows.
        no_speech_share: of these windows among all.
    """
    silences: list[TrainingExample] = []
    for number in range(math.ceil(count * no_speech_share / (1 - no_speech_share))):
        num_frames = max(int(collator.frames * fraction_of(f"{seed}:silence:{number}")), 1)
        timed = fraction_of(f"{seed}:silence times:{number}") < timestamp_share
        empty = collator.example([], timed)
        silences.append(replace(empty, num_frames=num_frames, number=number))
    return silences


def padding(lengths: Sequence[int], window_frames: int) -> float:
    """The share of frames that are padding, if each of these lengths has a window of its own."""
    return 1 - sum(lengths) / (len(lengths) * window_frames)
