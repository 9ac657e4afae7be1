"""Checks of what a training is fed: batches, their order, and splits that share no sound."""

from __future__ import annotations

import math
from itertools import chain, count, islice, pairwise
from typing import TYPE_CHECKING

import numpy as np

from asr import features
from asr.checks.check import Check
from asr.features import FeatureRows
from asr.model import tokenization
from asr.training import batches, epochs
from asr.training.examples import TrainingExample
from asr.whisper import FRAMES_PER_SECOND

if TYPE_CHECKING:
    from asr.training.loop import Training

SHUFFLED = 32  # windows that cannot come in the same order twice by chance
QUIET = 0.5  # no silence is louder than this in any mel bin; speech has a hundred times that power
FRAME_ERROR = 1e-6  # of sums of durations
LOWEST = -1.5  # of Whisper's features: of 1e-10, where it stops
FLOOR_ERROR = 0.01


def batch_is_sound(training: Training) -> Check:
    """In batches as the model gets them: the rows' own texts between prompt and end, each label the
    next input, silence the floor.

    Looks at the first batch of two steps, and at one window of each kind: by number of rows, with
        times and without, silence.
    """
    kinds = list({(len(one.rows), one.prompt): one for one in training.windows}.values())
    mine = training.my_parts()[0]
    steps = [
        (training.micro_batches(step)[0], training.step_examples(step)[mine]) for step in (0, 1)
    ]
    wrong: set[str] = set()
    for batch, windows in (*steps, (training.collator.batch(training.train, kinds), kinds)):
        for row, window in enumerate(windows):
            wrong |= _wrong_label(
                training,
                window,
                batch["decoder_input_ids"][row].tolist(),
                batch["labels"][row].tolist(),
            )
            wrong |= _wrong_sound(training.train, window, batch["input_features"][row].numpy())
    return Check(
        "batch",
        not wrong,
        "; ".join(sorted(wrong)) or "inputs, labels and padding are the rows' own",
    )


def _wrong_label(
    training: Training, window: TrainingExample, given: list[int], labels: list[int]
) -> set[str]:
    """What is wrong with a window's inputs and labels."""
    prompt, said = _as_taught(training, window, given)
    wanted, start = [*prompt, *said, training.collator.end], len(prompt) - 1
    learnt, rest = [batches.IGNORED] * start + wanted[start + 1 :], set(labels[len(wanted) - 1 :])
    wrong = set() if given[: len(wanted) - 1] == wanted[:-1] else {"inputs are not prompt and text"}
    return wrong | (
        set()
        if labels[: len(wanted) - 1] == learnt and rest <= {batches.IGNORED}
        else {"labels are not the inputs that come next"}
    )


def _as_taught(
    training: Training, window: TrainingExample, given: list[int]
) -> tuple[list[int], list[int]]:
    """Prompt and text as a window must have them: spelt anew from the rows' texts, with times from
    their durations.
    """
    made, collator, rows = training.collator.made, training.collator, training.train
    texts = tokenization.text_ids(
        made, [collator.lead + text if (text := rows.text(row)) else "" for row in window.rows]
    )
    if not collator.timed or given[: len(collator.plain_prompt)] == collator.plain_prompt:
        return collator.plain_prompt, [token for text in texts for token in text]
    frames = np.cumsum(
        [
            0,
            *(
                math.ceil(rows.duration(row) * FRAMES_PER_SECOND - FRAME_ERROR)
                for row in window.rows
            ),
        ]
    )
    times = made.convert_tokens_to_ids(
        [f"<|{math.floor(end / 2 + 0.5) / 50:.2f}|>" for end in frames]
    )
    pairs = zip(texts, pairwise(times), strict=True)
    return collator.prompt, [
        token for text, (first, last) in pairs if text for token in (first, *text, last)
    ] or times[:1]


def _wrong_sound(rows: FeatureRows, window: TrainingExample, heard: np.ndarray) -> set[str]:
    """What is wrong with a window's features: each row stands at its place, raised to the highest
    floor, which comes after the last.
    """
    if not window.rows:
        return {"silence is loud"} if heard.max() > QUIET else set()
    clips = [rows.log_mel(row) for row in window.rows]
    floor, at, wrong = np.float32(max(clip.floor for clip in clips)), 0, set[str]()
    for clip in clips:
        if abs(max(clip.mel.max() - features.RANGE, LOWEST) - clip.floor) > FLOOR_ERROR:
            wrong.add("features do not span what Whisper's do")
        own = clip.mel[:, : -features.TAIL]
        there = heard[:, at : at + own.shape[1]]
        same = there.shape == own.shape and np.array_equal(
            there[:, :-1], np.maximum(own, floor)[:, :-1]
        )  # a full window's end is reflected
        wrong |= set() if same else {"features are not the row's"}
        at += own.shape[1]
    if not (heard[:, at + features.TAIL :] == floor).all():
        wrong.add("padding is not the row's floor")
    return wrong


def splits_are_apart(train: set[bytes], validation: set[bytes]) -> Check:
    """No sound that was taught is among those that the training was judged by."""
    return Check(
        "splits",
        not train & validation,
        f"{len(train & validation):,} sounds were taught and judged by",
    )


def order_is_whole(training: Training) -> Check:
    """An epoch takes every row that fits as often as it counts; the next one in another order; no
    window is fuller than full.
    """
    first, second = _epochs(training)
    counts = epochs.repeats(training.train)
    rows = [row for one in first for row in one.rows]
    wanted = [one.index for one in training.choice.examples for _ in range(counts[one.index])]
    durations, window = (
        training.train.column("duration"),
        training.collator.frames / FRAMES_PER_SECOND,
    )
    wrong = []
    if len(first) != len(training.windows) or sorted(rows) != sorted(wanted):
        wrong.append("not all, each as often as it counts")
    if len(first) > SHUFFLED and first == second:
        wrong.append("the second epoch has the same order")
    if any(
        sum(durations[row] for row in one.rows) > window + FRAME_ERROR for one in training.windows
    ):
        wrong.append("windows that are fuller than full")
    detail = f"{len(set(rows)):,} of {len(set(wanted)):,} rows in the first epoch, {len(rows):,} of {len(wanted):,} in all"
    return Check("order", not wrong, "; ".join([detail, *wrong]))


def _epochs(training: Training) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """What the first two epochs teach, in the order of the steps."""
    num_parts = -(-len(training.windows) // training.given.per_device_train_batch_size)
    parts = chain.from_iterable(map(training.step_examples, count()))
    first, second = ([one for part in islice(parts, num_parts) for one in part] for _ in range(2))
    return first, second
