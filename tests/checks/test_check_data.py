"""Batches, order and splits: sound ones pass, and the smallest violation is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.checks.check import Check
from asr.checks.data import batch_is_sound, order_is_whole, splits_are_apart
from asr.features import TAIL, FeatureRows
from asr.model.start import start_model
from asr.training.batches import Collator
from asr.training.examples import TrainingExample
from support.training import given as given_params

Batch = dict[str, torch.Tensor]


# Batches


@pytest.fixture(scope="module")
def rows(tiny_data: Path) -> FeatureRows:
    return FeatureRows(tiny_data / "data/features/train")


@pytest.fixture(scope="module")
def collator(tmp_path_factory: pytest.TempPathFactory, rows: FeatureRows) -> Collator:
    start = start_model(given_params(tmp_path_factory.mktemp("params")), rows)
    return Collator(start.model, start.tokenizer)


@pytest.fixture(scope="module")
def windows(collator: Collator, rows: FeatureRows) -> list[TrainingExample]:
    """Two rows alone, the shorter text first, and a silence of half a second."""
    alone = [collator.example([row], timed=False) for row in collator.choose(rows).rows]
    silence = replace(collator.example([], timed=False), num_frames=50, number=1)
    alone.sort(key=lambda window: len(window.text_ids))
    return [alone[0], alone[-1], silence]


def test_a_batch_of_the_rows_themselves_is_sound(
    collator: Collator, rows: FeatureRows, windows: list[TrainingExample]
) -> None:
    check = batch_is_sound(collator, rows, [(collator.batch(rows, windows), windows)])
    assert check == Check("batch", True, "inputs, labels and padding are the rows' own")


Spoil = Callable[[Batch, TrainingExample, int], None]


def another_input(batch: Batch, window: TrainingExample, _: int) -> None:
    batch["decoder_input_ids"][0, len(window.prompt)] += 1


def another_label(batch: Batch, window: TrainingExample, _: int) -> None:
    batch["labels"][0, len(window.prompt) - 1] += 1


def a_label_in_the_prompt(batch: Batch, window: TrainingExample, _: int) -> None:
    batch["labels"][0, 0] = window.prompt[1]


def a_label_in_the_padding(batch: Batch, *_: Any) -> None:
    batch["labels"][0, -1] = 0


def another_frame(batch: Batch, _: TrainingExample, num_frames: int) -> None:
    batch["input_features"][0, 0, num_frames // 2] += 0.01


def a_louder_padding(batch: Batch, _: TrainingExample, num_frames: int) -> None:
    batch["input_features"][0, 0, num_frames + TAIL] += 0.01


def a_loud_silence(batch: Batch, *_: Any) -> None:
    batch["input_features"][2] += 3


@pytest.mark.parametrize(
    ("spoil", "detail"),
    [
        (another_input, "inputs are not prompt and text"),
        (another_label, "labels are not the inputs that come next"),
        (a_label_in_the_prompt, "labels are not the inputs that come next"),
        (a_label_in_the_padding, "labels are not the inputs that come next"),
        (another_frame, "features are not the row's"),
        (a_louder_padding, "padding is not the row's floor"),
        (a_loud_silence, "silence is loud"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_one_wrong_value_of_a_batch_is_seen(
    spoil: Spoil,
    detail: str,
    collator: Collator,
    rows: FeatureRows,
    windows: list[TrainingExample],
) -> None:
    batch = collator.batch(rows, windows)
    spoil(batch, windows[0], windows[0].num_frames)
    check = batch_is_sound(collator, rows, [(batch, windows)])
    assert check == Check("batch", False, detail)


# Splits and order


@settings(deadline=None)
@given(st.sets(st.binary(min_size=1, max_size=2)), st.sets(st.binary(min_size=1, max_size=2)))
def test_splits_share_no_sound(train: set[bytes], validation: set[bytes]) -> None:
    assert splits_are_apart(train, validation - train).passed
    shared = splits_are_apart(train | {b"abc"}, (validation - train) | {b"abc"})
    assert shared == Check("splits", False, "1 sounds were taught and judged by")


def window(*rows: int) -> TrainingExample:
    return TrainingExample(rows, num_frames=100, prompt=(), text_ids=())


DURATIONS = [1.0] * 40


def order_of(
    first: list[TrainingExample],
    second: list[TrainingExample],
    num_windows: int = 40,
    expected: list[int] | None = None,
) -> Check:
    rows = list(range(40)) if expected is None else expected
    return order_is_whole((first, second), rows, num_windows, DURATIONS, window_seconds=2.0)


ALONE = [window(row) for row in range(40)]
ALL = "40 of 40 rows in the first epoch, 40 of 40 in all"


@settings(deadline=None)
@given(st.permutations(range(40)), st.integers(1, 39))
def test_any_order_of_all_rows_is_whole_if_the_next_epoch_has_another(
    order: list[int], turned: int
) -> None:
    first = [ALONE[row] for row in order]
    second = first[turned:] + first[:turned]
    assert order_of(first, second) == Check("order", True, ALL)
    assert order_of(first, first) == Check(
        "order", False, f"{ALL}; the second epoch has the same order"
    )


def test_a_row_that_counts_twice_comes_twice() -> None:
    twice = [*ALONE, window(7)]
    expected = [*range(40), 7]
    sound = "40 of 40 rows in the first epoch, 41 of 41 in all"
    assert order_of(twice, ALONE, 41, expected) == Check("order", True, sound)


@pytest.mark.parametrize(
    ("first", "num_windows", "seen"),
    [
        (ALONE[1:], 39, "39 of 40 rows in the first epoch, 39 of 40 in all"),
        ([*ALONE[1:], ALONE[1]], 40, "39 of 40 rows in the first epoch, 40 of 40 in all"),
        ([*ALONE, ALONE[0]], 41, "40 of 40 rows in the first epoch, 41 of 40 in all"),
        (ALONE, 41, ALL),
    ],
    ids=["one is missing", "one in place of another", "one comes twice", "a silence is missing"],
)
def test_a_row_too_few_or_too_many_is_seen(
    first: list[TrainingExample], num_windows: int, seen: str
) -> None:
    check = order_of(first, ALONE[::-1], num_windows)
    assert check == Check("order", False, f"{seen}; not all, each as often as it counts")


def test_a_window_is_full_and_no_fuller() -> None:
    full = [window(0, 1), *(window(row) for row in range(2, 40))]
    assert order_of(full, full[::-1], 39).passed
    overfull = [window(0, 1, 2), *(window(row) for row in range(3, 40))]
    check = order_of(overfull, overfull[::-1], 38)
    assert check == Check("order", False, f"{ALL}; windows that are fuller than full")
