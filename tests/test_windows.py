"""Long recordings cut at quiet points into windows, and rows in groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr import features, windows
from asr.features import TAIL
from asr.windows import CUT_SHARE
from support.model import clip


@settings(max_examples=30)
@given(st.integers(1, 1500), st.sampled_from([100, 200, 500]), st.integers(0, 99))
def test_segments_fit_the_window_and_cover_everything_without_overlap(
    frames: int, window: int, seed: int
) -> None:
    whole = clip(frames / 100, seed)
    segments = windows.cut(whole, window)
    edges = [
        round(100 * value) for one in segments for value in (one.start, one.start + one.duration)
    ]
    assert edges[0] == 0
    assert edges[-1] == frames
    assert edges[1:-1:2] == edges[2::2]
    assert all(0 < one.duration * 100 <= window + 1e-6 for one in segments)
    joined = np.concatenate([one.features.mel[:, :-TAIL] for one in segments], axis=1)
    assert np.array_equal(joined, whole.mel[:, :-TAIL])
    assert {one.features.floor for one in segments} == {whole.floor}


@settings(max_examples=20)
@given(st.integers(1, 200), st.integers(0, 9))
def test_a_recording_that_fits_is_not_touched(frames: int, seed: int) -> None:
    whole = clip(frames / 100, seed)
    (only,) = windows.cut(whole, 200)
    assert np.array_equal(features.pad(only.features, 200), features.pad(whole, 200))
    assert (only.start, only.duration) == (0.0, pytest.approx(frames / 100))


@pytest.mark.parametrize("window", [200, 500])
@pytest.mark.parametrize("place", [0.75, 0.85, 0.93])
def test_cut_falls_into_the_silence_that_was_planted(window: int, place: float) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, window * 160 * 2).astype(np.float32)
    middle = int(place * window)
    samples[(middle - 8) * 160 : (middle + 8) * 160] *= 1e-3
    first, *_ = windows.cut(features.log_mel(samples, 80), window)
    assert abs(100 * first.duration - middle) <= 4


def test_a_gap_too_short_for_a_pause_does_not_draw_the_cut() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 400 * 160).astype(np.float32)
    samples[150 * 160 : 152 * 160] *= 1e-3
    samples[175 * 160 : 190 * 160] *= 1e-3
    assert 175 <= 100 * windows.cut(features.log_mel(samples, 80), 200)[0].duration <= 190


@settings(max_examples=20)
@given(st.integers(201, 900), st.integers(0, 99))
def test_segments_before_the_last_fill_most_of_the_window(frames: int, seed: int) -> None:
    *early, _ = windows.cut(clip(frames / 100, seed), 200)
    assert early
    assert all(one.duration * 100 >= 200 * (1 - CUT_SHARE) - 1e-6 for one in early)


@given(st.integers(0, 50), st.integers(1, 9))
def test_groups_hold_everything_in_order(count: int, size: int) -> None:
    groups = list(windows.in_groups(range(count), size))
    assert [index for group in groups for index in group] == list(range(count))
    assert all(len(group) == size for group in groups[:-1])


def test_recordings_of_like_length_come_together_longest_first() -> None:
    assert windows.longest_first([1.0, 3.0, 2.0, 3.0]) == [1, 3, 2, 0]
