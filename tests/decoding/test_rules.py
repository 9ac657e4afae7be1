"""The rules in numpy forbid exactly what the rules in torch forbid, and what the config names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding import rules, vocabulary
from asr.model import timestamps
from support.model import scratch

START = scratch()
KNOWN = vocabulary.of_model(START)
FIRST = KNOWN.first_timestamp
TIMES = st.integers(FIRST, FIRST + 60)
WORDS = st.integers(0, KNOWN.end - 1)


@st.composite
def rows_so_far(draw: st.DrawFn) -> list[int]:
    """Tokens that the rules allow one after the other: none, or times in pairs around words."""
    ids: list[int] = []
    for opens, closes in draw(st.lists(st.tuples(TIMES, TIMES), max_size=3)):
        low = max(ids, default=FIRST)
        begin, end = sorted((max(opens, low), max(closes, low)))
        ids += [begin, *draw(st.lists(WORDS, min_size=1, max_size=3)), end + 1]
    return ids[: draw(st.integers(0, len(ids)))]


@settings(max_examples=60, deadline=None)
@given(st.lists(rows_so_far(), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_times_may_come_where_they_may_in_torch(rows: list[list[int]], seed: int) -> None:
    scores = np.random.default_rng(seed).normal(0, 4, (len(rows), KNOWN.size)).astype(np.float32)
    theirs = torch.from_numpy(scores.copy())
    timestamps.set_return_timestamps(START.model.generation_config, True)
    timestamps.apply_timestamp_rules(theirs, rows, START.model.generation_config)
    ours = scores.copy()
    rules.apply(ours, rows, replace(KNOWN, suppressed=(), suppressed_first=()), timestamps=True)
    assert np.array_equal(np.isneginf(ours), np.isneginf(theirs.numpy()))
    assert np.array_equal(ours[~np.isneginf(ours)], scores[~np.isneginf(ours)])


@pytest.mark.parametrize("asked_for_times", [False, True])
def test_what_is_never_said_is_never_allowed(asked_for_times: bool) -> None:
    known = replace(KNOWN, suppressed=(7, 9), suppressed_first=(11,))
    scores = np.zeros((2, known.size), np.float32)
    scores[:, : known.end] = 9  # text is far likelier than all times
    rules.apply(scores, [[], [FIRST, 5]], known, asked_for_times)
    assert np.isneginf(scores[:, [7, 9]]).all()
    assert np.isneginf(scores[0, 11])
    assert not np.isneginf(scores[1, 11])
    assert np.isneginf(scores[:, known.no_timestamps]).all() == asked_for_times
