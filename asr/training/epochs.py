"""What one epoch teaches: each row that fits as often as it counts, alone or packed, with times or
without, and silence.

A pure function of rows and seed; which rows have times is a hash of their ids, so that a corpus
that grows hardly changes it. Costs 5 us per row once.
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
    chosen: Sequence[TrainingRow],
    collator: Collator,
    timestamp_share: float,
    pack_to_window: bool,
    seed: int,
) -> list[TrainingExample]:
    """The windows that hold each row as often as it counts: so large a share of rows with times,
    these packed if asked for.
    """
    counts = repeats(rows)
    often = [
        [one for one in chosen if counts[one.index] >= time]
        for time in range(1, max(counts, default=1) + 1)
    ]
    return [
        one
        for part in often
        for one in _once(rows, part, collator, timestamp_share, pack_to_window, seed)
    ]


def repeats(rows: FeatureRows) -> list[int]:
    """How often each row counts in an epoch: once, if `download.where` has not given it more
    weight.
    """
    return [
        int(json.loads(one).get("repeat", 1)) if '"repeat"' in one else 1
        for one in rows.column("attributes")
    ]


def _once(
    rows: FeatureRows,
    chosen: Sequence[TrainingRow],
    collator: Collator,
    timestamp_share: float,
    pack_to_window: bool,
    seed: int,
) -> list[TrainingExample]:
    ids = rows.column("id")
    timed = {
        one.index
        for one in chosen
        if fraction_of(f"{seed}:times:{ids[one.index]}") < timestamp_share
    }
    stamped = [one for one in chosen if one.index in timed]
    plain = [collator.window([one], timed=False) for one in chosen if one.index not in timed]
    if not pack_to_window:
        return [collator.window([one], timed=True) for one in stamped] + plain
    groups = examples.neighbours(
        stamped, rows.column("speaker"), collator.frames, collator.positions - len(collator.prompt)
    )
    return [collator.window(group, timed=True) for group in groups] + plain


def silence_examples(
    count: int, collator: Collator, timestamp_share: float, no_speech_share: float, seed: int
) -> list[TrainingExample]:
    """Windows without speech, of all lengths, that are such a share of an epoch with `count`
    others.
    """
    found = []
    for number in range(math.ceil(count * no_speech_share / (1 - no_speech_share))):
        frames = max(int(collator.frames * fraction_of(f"{seed}:silence:{number}")), 1)
        timed = fraction_of(f"{seed}:silence times:{number}") < timestamp_share
        found.append(replace(collator.window([], timed), num_frames=frames, number=number))
    return found


def padding(lengths: Sequence[int], window_frames: int) -> float:
    """The share of frames that are padding, where each of these fills a window."""
    return 1 - sum(lengths) / (len(lengths) * window_frames)
