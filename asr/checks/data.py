"""Checks of what a training is fed: batches, their order, and splits that share no sound."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from asr import features
from asr.checks.check import Check
from asr.features import FeatureRows, LogMel
from asr.model import tokenization
from asr.training import batches
from asr.training.batches import Collator
from asr.training.examples import TrainingExample
from asr.whisper import FRAMES_PER_SECOND

if TYPE_CHECKING:
    import torch

SHUFFLED = 32  # windows that cannot come in the same order twice by chance
QUIET = 0.5  # no silence is louder than this in any mel bin; speech has a hundred times that power
ROUNDING_SECONDS = 1e-6  # error of sums of durations
LOWEST = -1.5  # of Whisper's features: log-mel of a power of 1e-10, below which it does not go
FLOOR_ERROR = 0.01


def batch_is_sound(
    collator: Collator,
    rows: FeatureRows,
    made: Iterable[tuple[dict[str, torch.Tensor], Sequence[TrainingExample]]],
) -> Check:
    """Batches hold the rows' own texts and features, labels one token ahead, the floor as padding.

    Args:
        rows: of the training split.
        made: batches, each with the examples that it should hold.
    """
    wrong: set[str] = set()
    for batch, windows in made:
        wrong |= _wrong_in_batch(collator, rows, batch, windows)
    detail = "; ".join(sorted(wrong)) or "inputs, labels and padding are the rows' own"
    return Check("batch", not wrong, detail)


def _wrong_in_batch(
    collator: Collator,
    rows: FeatureRows,
    batch: dict[str, torch.Tensor],
    windows: Sequence[TrainingExample],
) -> set[str]:
    """What is wrong with a batch that should hold these examples."""
    wrong: set[str] = set()
    for number, window in enumerate(windows):
        inputs = batch["decoder_input_ids"][number].tolist()
        labels = batch["labels"][number].tolist()
        mel = batch["input_features"][number].numpy()
        wrong |= _wrong_tokens(collator, rows, window, inputs, labels)
        wrong |= _wrong_features(rows, window, mel)
    return wrong


def _wrong_tokens(
    collator: Collator,
    rows: FeatureRows,
    window: TrainingExample,
    inputs: list[int],
    labels: list[int],
) -> set[str]:
    """What is wrong with the decoder's inputs and the labels of a window."""
    prompt, text = _expected_tokens(collator, rows, window, inputs)
    tokens = [*prompt, *text, collator.end]
    num_inputs = len(tokens) - 1
    ignored = len(prompt) - 1  # labels at the prompt's own tokens, which are always given
    expected_labels = [batches.IGNORED] * ignored + tokens[ignored + 1 :]
    wrong = set()
    if inputs[:num_inputs] != tokens[:-1]:
        wrong.add("inputs are not prompt and text")
    padding_is_ignored = set(labels[num_inputs:]) <= {batches.IGNORED}
    if labels[:num_inputs] != expected_labels or not padding_is_ignored:
        wrong.add("labels are not the inputs that come next")
    return wrong


def _expected_tokens(
    collator: Collator, rows: FeatureRows, window: TrainingExample, inputs: list[int]
) -> tuple[list[int], list[int]]:
    """Prompt and text of a window, tokenized anew from the rows' texts.

    Where the window is taught with times, these are computed anew from the rows' durations.
    """
    plain_prompt = collator.plain_prompt
    texts = [rows.text(row) for row in window.rows]
    ids = tokenization.text_ids(
        collator.tokenizer, [collator.lead + text if text else "" for text in texts]
    )
    if not collator.timed or inputs[: len(plain_prompt)] == plain_prompt:
        return plain_prompt, [token for text in ids for token in text]
    times = _timestamp_ids(collator, [rows.duration(row) for row in window.rows])
    tokens: list[int] = []
    for text_ids, (start, end) in zip(ids, pairwise(times), strict=True):
        if text_ids:
            tokens += [start, *text_ids, end]
    return collator.prompt, tokens or times[:1]


def _timestamp_ids(collator: Collator, durations: Iterable[float]) -> list[int]:
    """Tokens of the moments at which the rows of a window begin, and of the end of the last."""
    num_frames = [
        math.ceil(seconds * FRAMES_PER_SECOND - ROUNDING_SECONDS) for seconds in durations
    ]
    frames = np.cumsum([0, *num_frames])
    # a timestamp token stands for two frames; halves are rounded up
    names = [f"<|{math.floor(frame / 2 + 0.5) / 50:.2f}|>" for frame in frames]
    ids: list[int] = collator.tokenizer.convert_tokens_to_ids(names)
    return ids


def _wrong_features(rows: FeatureRows, window: TrainingExample, mel: np.ndarray) -> set[str]:
    """What is wrong with a window's features, (M, T).

    The rows should follow one another, raised to the highest of their floors; the floor follows
    the last of them.
    """
    if not window.rows:
        return {"silence is loud"} if mel.max() > QUIET else set()
    clips = [rows.log_mel(row) for row in window.rows]
    floor = np.float32(max(clip.floor for clip in clips))
    wrong: set[str] = set()
    start = 0
    for clip in clips:
        if not _floor_is_whispers(clip):
            wrong.add("features do not span what Whisper's do")
        own = clip.mel[:, : -features.TAIL]
        end = start + own.shape[1]
        if not _same_frames(mel[:, start:end], np.maximum(own, floor)):
            wrong.add("features are not the row's")
        start = end
    if not (mel[:, start + features.TAIL :] == floor).all():
        wrong.add("padding is not the row's floor")
    return wrong


def _floor_is_whispers(clip: LogMel) -> bool:
    """Whether a clip's floor lies below its loudest value by the range that Whisper keeps."""
    floor = max(clip.mel.max() - features.RANGE, LOWEST)
    return bool(abs(floor - clip.floor) <= FLOOR_ERROR)


def _same_frames(mel: np.ndarray, expected: np.ndarray) -> bool:
    """Whether all frames but the last are equal: that one is reflected where a window is full."""
    return mel.shape == expected.shape and np.array_equal(mel[:, :-1], expected[:, :-1])


def splits_are_apart(train: set[bytes], validation: set[bytes]) -> Check:
    """No sound stands in both splits; takes the digests of the sounds."""
    shared = len(train & validation)
    return Check("splits", not shared, f"{shared:,} sounds were taught and judged by")


def order_is_whole(
    epochs: tuple[Sequence[TrainingExample], Sequence[TrainingExample]],
    expected: Sequence[int],
    num_windows: int,
    durations: Sequence[float],
    window_seconds: float,
) -> Check:
    """An epoch takes every row that fits as often as it counts, and the next has another order.

    No window holds more than fits into it.

    Args:
        epochs: the windows of the first two, in the order in which steps take them.
        expected: rows that an epoch should take, each as often as it counts.
        num_windows: that an epoch should have, those of silence too.
        durations: seconds of every row of the split.
        window_seconds: that the model hears at once.
    """
    first, second = epochs
    rows = [row for window in first for row in window.rows]
    wrong = []
    if len(first) != num_windows or sorted(rows) != sorted(expected):
        wrong.append("not all, each as often as it counts")
    if len(first) > SHUFFLED and list(first) == list(second):
        wrong.append("the second epoch has the same order")
    longest = max((sum(durations[row] for row in window.rows) for window in first), default=0.0)
    if longest > window_seconds + ROUNDING_SECONDS:
        wrong.append("windows that are fuller than full")
    detail = (
        f"{len(set(rows)):,} of {len(set(expected)):,} rows in the first epoch, "
        f"{len(rows):,} of {len(expected):,} in all"
    )
    return Check("order", not wrong, "; ".join([detail, *wrong]))
