"""The training examples of one epoch: rows alone or packed, timed or not, and silence.

They are a pure function of rows and seed. A hash of its id decides whether a row has timestamps, so
a growing corpus hardly changes the choice. Costs 5 us per row, once.
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
    """Training examples of one epoch: each usable row as often as `repeats` returns.

    Args:
        timestamp_share: share of the rows that have timestamps.
        pack_to_window: whether rows with timestamps are joined to fill the window.
    """
    counts = repeats(rows)
    epoch: list[TrainingExample] = []
    # The second occurrences of rows are packed apart from the first, and so on, so that no window
    # holds a row twice.
    for occurrence in range(1, max(counts, default=1) + 1):
        occurring = [row for row in usable if counts[row.index] >= occurrence]
        epoch += _examples_once(rows, occurring, collator, timestamp_share, pack_to_window, seed)
    return epoch


def repeats(rows: FeatureRows) -> list[int]:
    """How often each row occurs in an epoch: once, unless `download.where` gave it more weight."""
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
    """Examples without speech, of random lengths, for an epoch.

    Args:
        count: number of the epoch's examples with speech.
        no_speech_share: share of examples without speech among all.
    """
    silences: list[TrainingExample] = []
    for number in range(math.ceil(count * no_speech_share / (1 - no_speech_share))):
        num_frames = max(int(collator.frames * fraction_of(f"{seed}:silence:{number}")), 1)
        timed = fraction_of(f"{seed}:silence times:{number}") < timestamp_share
        empty = collator.example([], timed)
        silences.append(replace(empty, num_frames=num_frames, number=number))
    return silences


def padding(lengths: Sequence[int], window_frames: int) -> float:
    """The share of frames that are padding, if each length (in frames) fills its own window."""
    return 1 - sum(lengths) / (len(lengths) * window_frames)
