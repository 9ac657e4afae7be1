"""Times as tokens: in labels, by Whisper's rules while decoding as transformers has them, and back
to segments.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from asr import windows
from asr.decoding.segments import split_at_timestamps
from asr.features import input_features
from asr.model import greedy, loader, timestamps, tokenization
from asr.model.loader import Start
from asr.training.examples import timed_label
from support.model import clip, scratch

END, ZERO, VOCABULARY = (
    20,
    30,
    130,
)  # words below, other special tokens between, times from 0.00 s to 1.98 s
WORDS = st.lists(st.integers(0, END - 1), min_size=1, max_size=4)
PARTS = st.lists(st.tuples(st.integers(3, 400), st.one_of(WORDS, st.just([]))), max_size=6)
SECONDS = (0.4, 0.9, 1.3, 2.0)


def config(latest: int | None = timestamps.MAX_INITIAL_TIMESTAMP_INDEX) -> GenerationConfig:
    return GenerationConfig(
        eos_token_id=END, no_timestamps_token_id=ZERO - 1, max_initial_timestamp_index=latest
    )


@given(PARTS)
def test_times_are_those_of_the_rows_and_never_go_back(parts: list[tuple[int, list[int]]]) -> None:
    frames, texts = [frames for frames, _ in parts], [text for _, text in parts]
    ids = timed_label(frames, texts, ZERO)
    edges = np.cumsum([0, *frames]) / 100
    wanted = [
        (first, last, text)
        for (first, last), text in zip(pairwise(edges), texts, strict=True)
        if text
    ]
    found = split_at_timestamps(ids, ZERO, 1e9)
    assert [text for _, _, text in found] == [text for _, _, text in wanted]
    for (start, end, _), (first, last, _) in zip(found, wanted, strict=True):
        assert start == pytest.approx(first, abs=0.0101)
        assert end == pytest.approx(last, abs=0.0101)
        assert start < end
    moments = [one for one in ids if one >= ZERO]
    assert moments == sorted(moments)
    assert ids[0] >= ZERO


def test_label_and_segments_worked_out_by_hand() -> None:
    assert timed_label([240, 272], [[1, 2], [3]], ZERO) == [
        ZERO,
        1,
        2,
        ZERO + 120,
        ZERO + 120,
        3,
        ZERO + 256,
    ]
    assert timed_label([], [], ZERO) == timed_label([50], [[]], ZERO) == [ZERO]
    assert split_at_timestamps([ZERO, 1, 2, ZERO + 120, ZERO + 125, 3], ZERO, 3.0) == [
        (0.0, 2.4, [1, 2]),
        (2.5, 3.0, [3]),
    ]
    assert split_at_timestamps([ZERO, 1, ZERO + 120], ZERO, 2.0) == [(0.0, 2.0, [1])], (
        "no time is after the end of the sound"
    )
    assert split_at_timestamps([ZERO], ZERO, 2.0) == split_at_timestamps([], ZERO, 2.0) == []


@st.composite
def histories(draw: st.DrawFn) -> list[int]:
    """What a model may have said so far."""
    ids: list[int] = []
    moment = ZERO
    for words in draw(st.lists(WORDS, max_size=3)):
        moment = draw(st.integers(moment, moment + 20))
        last = draw(st.integers(moment + 1, moment + 10))
        ids += [moment, *words, last]
        moment = last
    return ids[: draw(st.integers(0, len(ids)))] + (
        [moment] if ids and draw(st.booleans()) and len(ids) > 2 and ids[-2] < ZERO else []
    )


@settings(max_examples=150)
@given(
    st.lists(histories(), min_size=1, max_size=4),
    st.integers(0, 2**31),
    st.sampled_from([None, 10, 50]),
    st.floats(-4, 4),
)
def test_rules_are_those_of_transformers(
    said: list[list[int]], seed: int, latest: int | None, lean: float
) -> None:
    length = max(map(len, said))
    same = [row for row in said if len(row) == length]  # theirs takes rows of one length
    scores = torch.from_numpy(
        np.random.default_rng(seed).normal(0, 3, (len(same), VOCABULARY)).astype(np.float32)
    )
    scores[:, ZERO:] += lean
    theirs = WhisperTimeStampLogitsProcessor(config(latest), begin_index=1)(
        torch.tensor([[7, *row] for row in same]), scores
    )
    ours = scores.clone()
    timestamps.apply_timestamp_rules(ours, same, config(latest))
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, scores)


def stamped(seed: int) -> Start:
    """Random weights that are asked for times, with an end that comes at another length for each
    clip.
    """
    start = scratch(seed, init_std=0.5)
    timestamps.set_return_timestamps(start.model.generation_config, True)
    draw = np.random.default_rng(seed)
    start.model.generation_config.suppress_tokens = draw.choice(290, 200, replace=False).tolist()
    return start


def sounds() -> torch.Tensor:
    return input_features(
        [clip(seconds, 5 + number) for number, seconds in enumerate(SECONDS)], 200
    )


def heard(start: Start, inputs: torch.Tensor) -> list[list[int]]:
    return greedy.decode_batch(
        start.model, inputs, tokenization.prompt(start.model.generation_config), [444] * len(inputs)
    )


@pytest.mark.parametrize("seed", range(4))
def test_greedy_with_times_gives_the_tokens_that_plain_generate_gives(seed: int) -> None:
    start = stamped(seed)
    end = start.model.generation_config.eos_token_id
    ours, prompt = heard(start, sounds()), tokenization.prompt(start.model.generation_config)
    with loader.quiet():
        found = start.model.generate(
            sounds(), return_timestamps=True, force_unique_generate_call=True
        ).tolist()
    theirs = [row[len(prompt) :] for row in found]
    assert ours == [row[: row.index(end)] if end in row else row for row in theirs]
    assert prompt == found[0][: len(prompt)] == greedy.generation_prompt(start.model)
    zero = timestamps.first_timestamp(start.model.generation_config)
    assert all(row[0] >= zero for row in ours)
    assert ours == [heard(start, sounds()[row : row + 1])[0] for row in range(len(SECONDS))]


def test_without_rules_the_same_weights_say_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the rules are what makes the two agree."""
    start = stamped(1)
    ruled = heard(start, sounds())
    monkeypatch.setattr(timestamps, "apply_timestamp_rules", lambda *_: None)
    assert heard(start, sounds()) != ruled


@pytest.mark.parametrize("seed", range(3))
def test_utterances_of_a_window_stand_where_they_were_said(seed: int) -> None:
    start, whole = stamped(seed), clip(7.3, seed)
    first = timestamps.first_timestamp(start.model.generation_config)
    segments = windows.cut(whole, 200)
    found = [
        split_at_timestamps(ids, first, segment.duration)
        for segment in segments
        for ids in heard(start, input_features([segment.features], 200))
    ]
    for segment, utterances in zip(segments, found, strict=True):
        moments = [moment for begin, end, _ in utterances for moment in (begin, end)]
        assert moments == sorted(moments)
        assert 0 <= moments[0] <= moments[-1] <= segment.duration
    assert sum(map(len, found)) > len(found) > 3


def test_a_model_keeps_its_own_limit_of_the_first_time() -> None:
    generation = config(latest=10)
    timestamps.set_return_timestamps(generation, True)
    assert (generation.return_timestamps, generation.max_initial_timestamp_index) == (True, 10)
    plain = config(latest=None)
    timestamps.set_return_timestamps(plain, False)
    assert (plain.return_timestamps, plain.max_initial_timestamp_index) == (False, None)
    assert [tokenization.predicts_timestamps(one) for one in (generation, plain)] == [True, False]
