"""Which rows a model is trained on, in which order, and what a batch holds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr import features
from asr.features import FeatureRows, input_features
from asr.model import tokenization
from asr.training import batches
from asr.training.batches import IGNORED
from support.model import clip, noise, scratch, write_features

LENGTHS = st.lists(st.integers(1, 3000), min_size=1, max_size=300).map(tuple)
SIZES = st.integers(1, 9)
SEEDS = st.integers(0, 2**31)
ROWS = [
    {"id": "short", "text": "ett", "seconds": 0.5, "speaker": "a"},
    {"id": "empty", "text": "", "seconds": 1.0},
    {"id": "too-long", "text": "två", "seconds": 2.5, "speaker": "b"},
    {"id": "full", "text": "tre fyra", "seconds": 2.0, "speaker": "b"},
    {"id": "wordy", "text": "åtta " * 60, "seconds": 1.5, "speaker": "a"},
    {"id": "both", "text": "nio " * 60, "seconds": 3.0, "speaker": "a"},
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> FeatureRows:
    return FeatureRows(write_features(tmp_path_factory.mktemp("features") / "train", ROWS))


def padded_frames(lengths: tuple[int, ...], groups: list[list[int]]) -> int:
    return sum(len(group) * max(lengths[row] for row in group) for group in groups) - sum(lengths)


@settings(max_examples=40)
@given(LENGTHS, SIZES, SEEDS, st.integers(0, 50))
def test_every_row_comes_exactly_once_in_an_epoch(
    lengths: tuple[int, ...], size: int, seed: int, epoch: int
) -> None:
    order = batches.epoch_order(lengths, size, seed, epoch)
    assert sorted(row for group in order for row in group) == list(range(len(lengths)))
    assert max(map(len, order)) <= size


@settings(max_examples=40)
@given(LENGTHS, SIZES, SEEDS)
def test_batches_counted_through_are_the_epochs_one_after_the_other(
    lengths: tuple[int, ...], size: int, seed: int
) -> None:
    per_epoch = -(-len(lengths) // size)
    counted = [batches.batch_rows(lengths, size, seed, index) for index in range(3 * per_epoch)]
    assert counted == [
        group for epoch in range(3) for group in batches.epoch_order(lengths, size, seed, epoch)
    ]
    assert Counter(row for group in counted for row in group) == dict.fromkeys(
        range(len(lengths)), 3
    )


@settings(max_examples=20)
@given(LENGTHS, SIZES, SEEDS, st.integers(0, 500))
def test_a_batch_does_not_depend_on_what_was_asked_before(
    lengths: tuple[int, ...], size: int, seed: int, index: int
) -> None:
    first = batches.batch_rows(lengths, size, seed, index)
    batches.batch_rows(lengths, size, seed + 1, index + 7)
    batches.epoch_order.cache_clear()
    np.random.seed(index)
    assert batches.batch_rows(lengths, size, seed, index) == first


def test_epochs_and_seeds_differ_in_order() -> None:
    lengths = tuple(range(100, 300))
    orders = [batches.epoch_order(lengths, 8, seed, epoch) for seed in (1, 2) for epoch in range(4)]
    assert len({str(order) for order in orders}) == len(orders)


@settings(max_examples=20)
@given(SEEDS)
def test_rows_of_like_length_share_a_batch(seed: int) -> None:
    lengths = tuple(int(value) for value in np.random.default_rng(seed).integers(50, 3000, 600))
    shuffled = np.random.default_rng(seed).permutation(len(lengths)).tolist()
    unsorted = [shuffled[at : at + 8] for at in range(0, len(shuffled), 8)]
    assert padded_frames(lengths, batches.epoch_order(lengths, 8, seed, 0)) < 0.25 * padded_frames(
        lengths, unsorted
    )


def test_batches_do_not_come_in_order_of_length() -> None:
    lengths = tuple(range(1000))
    means = [float(np.mean(group)) for group in batches.epoch_order(lengths, 8, 1, 0)]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.5


def test_features_are_read_as_they_were_written(rows: FeatureRows) -> None:
    assert (len(rows), rows.num_mel_bins) == (len(ROWS), 80)
    assert rows.column("id") == [row["id"] for row in ROWS]
    assert rows.column("speaker") == [row.get("speaker") for row in ROWS]
    for index, row in enumerate(ROWS):
        written, read = features.log_mel(noise(row["seconds"], index), 80), rows.log_mel(index)
        assert read.floor == written.floor
        assert np.abs(read.mel - written.mel).max() < 3e-4
        assert (read.edge is None) == (written.edge is None)


def test_choose_leaves_out_what_the_model_cannot_take_and_counts_it(rows: FeatureRows) -> None:
    made = scratch().tokenizer
    choice = batches.usable_rows(rows, made, 4, 48, 2)
    assert [one.index for one in choice.rows] == [0, 1, 3]
    assert [one.num_frames for one in choice.rows] == [50, 100, 200]
    assert choice.left_out == {"longer_than_window": 2, "label_too_long": 1}
    assert [list(one.text_ids) for one in choice.rows] == tokenization.text_ids(
        made, ["ett", "", "tre fyra"]
    )


def test_choose_takes_a_label_that_just_fills_the_positions(rows: FeatureRows) -> None:
    made = scratch().tokenizer
    length = len(tokenization.text_ids(made, ["tre fyra"])[0])
    assert 3 in [one.index for one in batches.usable_rows(rows, made, 4, 4 + length, 2).rows]
    assert 3 not in [one.index for one in batches.usable_rows(rows, made, 4, 3 + length, 2).rows]


def test_collate_gives_the_batch_worked_out_by_hand() -> None:
    batch = batches.collate([clip(0.5), clip(1.0)], [(7, 8), (9,)], [[1, 2, 3]] * 2, 5, 200)
    assert batch["decoder_input_ids"].tolist() == [[1, 2, 3, 7, 8], [1, 2, 3, 9, 5]]
    assert batch["labels"].tolist() == [
        [IGNORED, IGNORED, 7, 8, 5],
        [IGNORED, IGNORED, 9, 5, IGNORED],
    ]
    assert batch["input_features"].shape == (2, 80, 200)


def test_each_row_may_have_a_prompt_of_its_own() -> None:
    batch = batches.collate([clip(0.5)] * 2, [(7, 8), (9,)], [[1, 2], [1, 2, 3]], 5, 200)
    assert batch["decoder_input_ids"].tolist() == [[1, 2, 7, 8], [1, 2, 3, 9]]
    assert batch["labels"].tolist() == [[IGNORED, 7, 8, 5], [IGNORED, IGNORED, 9, 5]]


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.integers(10, 99), max_size=7), min_size=1, max_size=4),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
)
def test_each_label_is_what_follows_its_input(texts: list[list[int]], prompt: list[int]) -> None:
    sound = clip(0.1)
    batch = batches.collate([sound] * len(texts), texts, [prompt] * len(texts), 5, 20)
    for text, inputs, labels in zip(
        texts, batch["decoder_input_ids"].tolist(), batch["labels"].tolist(), strict=True
    ):
        learnt = [label for label in labels if label != IGNORED]
        assert learnt == [*text, 5]
        assert labels.index(learnt[0]) == len(prompt) - 1
        assert inputs[: len(prompt) + len(text)] == [*prompt, *text]


def test_padding_takes_each_clips_own_floor() -> None:
    clips = [clip(0.5, seed=1), clip(1.0, seed=2)]
    padded = input_features(clips, 200)
    for one, row in zip(clips, padded, strict=True):
        assert torch.equal(row[:, : one.mel.shape[1]], torch.from_numpy(one.mel))
        assert (row[:, one.mel.shape[1] :] == np.float32(one.floor)).all()
    assert padded.dtype == torch.float32
    assert clips[0].floor != clips[1].floor != 0.0
