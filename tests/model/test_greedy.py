"""Greedy decoding against plain `generate()`, whatever else is in the batch, and long recordings
cut at quiet points.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from asr import features
from asr.decoding.language import detect_language
from asr.errors import ModelError
from asr.features import TAIL, LogMel, input_features
from asr.model import greedy, loader, tokenization
from asr.model.greedy import CUT_SHARE, SPARE_TOKENS, TOKENS_PER_SECOND
from asr.model.loader import Start
from asr.whisper import LANGUAGE_NAMES, WHISPER_LANGUAGES
from support.model import clip, hush_timestamps, noise, scratch

WINDOW = 200  # frames
SECONDS = (0.4, 0.9, 1.3, 2.0)


def talkative(seed: int) -> Start:
    """Random weights that suppress tokens and whose end comes, at another length for each clip."""
    start = hush_timestamps(scratch(seed, init_std=0.5))
    generation, draw = start.model.generation_config, np.random.default_rng(seed)
    generation.suppress_tokens += draw.choice(290, 100, replace=False).tolist()
    generation.begin_suppress_tokens = []
    endless = ids(start)
    first = sorted({row[0] for row in endless})
    counted = sorted(
        {token for row in endless for token in row[1:] if token not in first},
        key=lambda token: end_places(endless, token),
    )
    generation.eos_token_id = generation.pad_token_id = counted[-1]
    generation.begin_suppress_tokens = [first[0], counted[-1]]
    return start


def end_places(rows: list[list[int]], token: int) -> tuple[int, int]:
    places = [row.index(token) for row in rows if token in row]
    return len(set(places)), token


def sounds(seed: int = 5) -> torch.Tensor:
    return input_features(
        [clip(seconds, seed + number) for number, seconds in enumerate(SECONDS)], WINDOW
    )


def ids(
    start: Start, inputs: torch.Tensor | None = None, limits: list[int] | None = None
) -> list[list[int]]:
    inputs = sounds() if inputs is None else inputs
    prompt = tokenization.prompt(start.model.generation_config)
    return greedy.decode_batch(start.model, inputs, prompt, limits or [444] * len(inputs))


def generated(start: Start, inputs: torch.Tensor, **how: Any) -> list[list[int]]:
    end = start.model.generation_config.eos_token_id
    with loader.quiet():
        found = start.model.generate(inputs, **how).tolist()
    return [row[: row.index(end)] if end in row else row for row in found]


@pytest.mark.parametrize("seed", range(5))
def test_greedy_gives_the_tokens_that_plain_generate_gives(seed: int) -> None:
    start = talkative(seed)
    ours = ids(start)
    assert ours == generated(start, sounds())
    assert len({len(row) for row in ours}) > 1
    assert all(ours)


def test_suppressed_tokens_never_come_and_some_not_first() -> None:
    start = talkative(0)
    generation = start.model.generation_config
    held = set(generation.suppress_tokens)
    assert not held & {token for row in ids(start) for token in row}
    first = {row[0] for row in ids(start)}
    generation.begin_suppress_tokens = sorted(first)
    assert not first & {row[0] for row in ids(start)}
    generation.begin_suppress_tokens, generation.suppress_tokens = None, None
    assert held & {token for row in ids(start) for token in row}


@pytest.mark.parametrize("seed", range(3))
def test_a_batch_gives_what_its_rows_give_one_by_one(seed: int) -> None:
    start, inputs = talkative(seed), sounds()
    assert ids(start) == [ids(start, inputs[row : row + 1])[0] for row in range(len(inputs))]


def test_a_row_that_ends_early_does_not_change_the_others() -> None:
    start = talkative(1)
    whole = ids(start)
    for limits in ([1, 444, 444, 444], [444, 444, 2, 444], [3, 444, 1, 5]):
        assert ids(start, limits=limits) == [
            row[:limit] for row, limit in zip(whole, limits, strict=True)
        ]


@settings(max_examples=10)
@given(st.permutations(range(4)))
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    start, inputs = talkative(2), sounds()
    assert ids(start, inputs[order]) == [ids(start)[row] for row in order]


def test_decoding_ends_where_the_positions_end() -> None:
    start = hush_timestamps(scratch(1))
    start.model.generation_config.suppress_tokens.append(start.model.generation_config.eos_token_id)
    prompt = tokenization.prompt(start.model.generation_config)
    assert {len(row) for row in ids(start)} == {48 - len(prompt)}


def test_transcripts_are_capped_by_duration_and_by_the_param() -> None:
    start = scratch(1, max_target_positions=200)
    only = start.tokenizer.convert_tokens_to_ids("e")
    start.model.generation_config.suppress_tokens = [
        token for token in range(start.model.config.vocab_size) if token != only
    ]
    found = [
        greedy.transcribe(
            start.model,
            start.tokenizer,
            [1.0, 0.5],
            lambda index: clip((1.0, 0.5)[index], index),
            4,
            limit,
        )
        for limit in (444, 30)
    ]
    assert found == [
        ["e" * (SPARE_TOKENS + TOKENS_PER_SECOND), "e" * (SPARE_TOKENS + TOKENS_PER_SECOND // 2)],
        ["e" * 30] * 2,
    ]


def test_transcripts_come_in_the_order_of_the_recordings_whatever_the_batch_size() -> None:
    start = talkative(3)
    durations = [0.4, 2.0, 0.9, 3.7, 1.3]
    clips = [clip(seconds, number) for number, seconds in enumerate(durations)]
    found = [
        greedy.transcribe(start.model, start.tokenizer, durations, clips.__getitem__, size, 444)
        for size in (1, 2, 5)
    ]
    alone = [
        greedy.transcribe(start.model, start.tokenizer, [seconds], lambda _, one=one: one, 1, 444)[
            0
        ]
        for seconds, one in zip(durations, clips, strict=True)
    ]
    assert found == [alone] * 3
    assert len(set(alone)) == len(alone)


def test_transcribing_leaves_the_model_in_the_mode_it_was_in() -> None:
    start = scratch()
    for training in (True, False):
        start.model.train(training)
        greedy.transcribe(start.model, start.tokenizer, [0.4], lambda _: clip(0.4), 1, 2)
        assert start.model.training is training


def test_progress_sees_every_recording_once() -> None:
    start, seen = scratch(), []
    greedy.transcribe(
        start.model,
        start.tokenizer,
        [0.2] * 5,
        lambda _: clip(0.2),
        2,
        1,
        lambda groups, count: seen.append((list(groups), count)) or groups,
    )
    assert sorted(row for group in seen[0][0] for row in group) == list(range(5))
    assert seen[0][1] == 3


@settings(max_examples=30)
@given(st.integers(1, 1500), st.sampled_from([100, 200, 500]), st.integers(0, 99))
def test_segments_fit_the_window_and_cover_everything_without_overlap(
    frames: int, window: int, seed: int
) -> None:
    whole = clip(frames / 100, seed)
    segments = greedy.cut(whole, window)
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
    (only,) = greedy.cut(whole, 200)
    assert np.array_equal(features.pad(only.features, 200), features.pad(whole, 200))
    assert (only.start, only.duration) == (0.0, pytest.approx(frames / 100))


@pytest.mark.parametrize("window", [200, 500])
@pytest.mark.parametrize("place", [0.75, 0.85, 0.93])
def test_cut_falls_into_the_silence_that_was_planted(window: int, place: float) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, window * 160 * 2).astype(np.float32)
    middle = int(place * window)
    samples[(middle - 8) * 160 : (middle + 8) * 160] *= 1e-3
    first, *_ = greedy.cut(features.log_mel(samples, 80), window)
    assert abs(100 * first.duration - middle) <= 4


def test_a_gap_too_short_for_a_pause_does_not_draw_the_cut() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 400 * 160).astype(np.float32)
    samples[150 * 160 : 152 * 160] *= 1e-3
    samples[175 * 160 : 190 * 160] *= 1e-3
    assert 175 <= 100 * greedy.cut(features.log_mel(samples, 80), 200)[0].duration <= 190


@settings(max_examples=20)
@given(st.integers(201, 900), st.integers(0, 99))
def test_segments_before_the_last_fill_most_of_the_window(frames: int, seed: int) -> None:
    *early, _ = greedy.cut(clip(frames / 100, seed), 200)
    assert early
    assert all(one.duration * 100 >= 200 * (1 - CUT_SHARE) - 1e-6 for one in early)


def test_text_of_a_long_recording_is_that_of_its_segments_joined() -> None:
    start, whole = talkative(3), features.log_mel(noise(5.3, 4), 80)
    parts = [
        greedy.transcribe(
            start.model, start.tokenizer, [one.duration], lambda _, one=one: one.features, 1, 444
        )[0]
        for one in greedy.cut(whole, WINDOW)
    ]
    assert len(parts) >= 3
    assert greedy.transcribe(start.model, start.tokenizer, [5.3], lambda _: whole, 2, 444) == [
        " ".join(filter(None, parts))
    ]


def test_silence_and_a_single_frame_can_be_cut_and_transcribed() -> None:
    start = talkative(0)
    for seconds in (0.01, 7.0):
        quiet: LogMel = features.log_mel(np.zeros(round(seconds * 16000), np.float32), 80)
        assert (
            len(
                greedy.transcribe(
                    start.model, start.tokenizer, [seconds], lambda _, one=quiet: one, 1, 444
                )
            )
            == 1
        )
    ends = [one.start + one.duration for one in greedy.cut(quiet, WINDOW)]
    assert all(before < after for before, after in pairwise(ends))


def test_what_is_heard_stands_where_it_was_said() -> None:
    start, durations = talkative(3), [5.3, 0.4, 2.0]
    clips = [clip(seconds, number) for number, seconds in enumerate(durations)]
    heard = greedy.decode_clips(start.model, start.tokenizer, clips, 3, 444)
    for one, parts in zip(clips, heard, strict=True):
        assert [(part.start, part.duration) for part in parts] == [
            (cut.start, cut.duration) for cut in greedy.cut(one, WINDOW)
        ]
    texts = [" ".join(part.text for part in parts if part.text) for parts in heard]
    assert texts == greedy.transcribe(
        start.model, start.tokenizer, durations, clips.__getitem__, 3, 444
    )
    assert len(heard[0]) >= 3
    assert len({part.text for part in heard[0]}) > 1
    assert greedy.decode_clips(start.model, start.tokenizer, [], 3, 444) == []


@pytest.mark.parametrize("size", [1, 2, 7])
def test_what_is_heard_does_not_depend_on_the_batch(size: int) -> None:
    start, clips = talkative(3), [clip(7.7, 1), clip(1.0, 2)]
    assert greedy.decode_clips(
        start.model, start.tokenizer, clips, size, 444
    ) == greedy.decode_clips(start.model, start.tokenizer, clips, 3, 444)


def test_progress_of_one_long_recording_comes_stretch_by_stretch() -> None:
    start, told = scratch(), []

    def seen(groups: Any, count: int) -> Any:
        for number, group in enumerate(groups):
            told.append((number, count, list(group)))
            yield group

    (heard,) = greedy.decode_clips(start.model, start.tokenizer, [clip(9.0)], 2, 1, seen)
    assert [index for _, _, group in told for index in group] == list(range(len(heard)))
    assert {count for _, count, _ in told} == {len(told)} == {-(-len(heard) // 2)}


@pytest.mark.parametrize("seed", range(3))
def test_the_language_is_the_one_that_transformers_detects(seed: int) -> None:
    start = scratch(seed, init_std=0.5)
    for number, seconds in enumerate((*SECONDS, 3.7)):
        one = clip(seconds, number)
        language, chance = detect_language(start.model, one)
        theirs = start.model.detect_language(input_features=input_features([one], WINDOW))
        assert start.model.generation_config.lang_to_id[f"<|{language}|>"] == int(theirs[0])
        assert 1 / len(start.model.generation_config.lang_to_id) <= chance <= 1


def test_detecting_leaves_the_prompt_and_takes_a_model_of_many_languages() -> None:
    start = scratch()
    before = start.model.generation_config.to_dict()
    detect_language(start.model, clip(1.0))
    assert start.model.generation_config.to_dict() == before
    start.model.generation_config.is_multilingual = False
    with pytest.raises(ModelError, match="one language only"):
        detect_language(start.model, clip(1.0))


def test_every_language_has_a_name() -> None:
    assert list(LANGUAGE_NAMES) == list(WHISPER_LANGUAGES)
    assert len(set(LANGUAGE_NAMES.values())) == len(WHISPER_LANGUAGES) == 100
    known = {
        "en": "English",
        "sv": "Swedish",
        "zh": "Chinese",
        "haw": "Hawaiian",
        "ht": "Haitian Creole",
        "yue": "Cantonese",
        "nn": "Nynorsk",
    }
    assert {code: LANGUAGE_NAMES[code] for code in known} == known
    assert {code: name.lower() for code, name in LANGUAGE_NAMES.items()} == {
        **LANGUAGES,
        "my": "burmese",
    }
