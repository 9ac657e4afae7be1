"""Greedy decoding in torch against plain `generate()`, whatever else is in the batch."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from asr import features, stopping, windows
from asr.decoding import language, loading
from asr.decoding.recognizer import GREEDY
from asr.engines.engine import FP32, TORCH
from asr.features import LogMel, input_features
from asr.model import greedy, loader, tokenization
from asr.model.loader import Start
from asr.stopping import SPARE_TOKENS, TOKENS_PER_SECOND
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


def saying_e() -> Start:
    """A model that says one letter without end."""
    start = scratch(1, max_target_positions=200)
    only = start.tokenizer.convert_tokens_to_ids("e")
    start.model.generation_config.suppress_tokens = [
        token for token in range(start.model.config.vocab_size) if token != only
    ]
    return start


def test_transcripts_are_capped_by_duration_and_by_the_param(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stopping, "LOOP_TOKENS", 1000)  # or the loop would be stopped before
    start = saying_e()
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


def test_a_row_that_loops_is_stopped_and_says_its_phrase_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, steps = saying_e(), []
    forward = start.model.model.decoder.forward
    monkeypatch.setattr(
        start.model.model.decoder,
        "forward",
        lambda *args, **kwargs: steps.append(1) or forward(*args, **kwargs),
    )
    assert [start.tokenizer.decode(row) for row in ids(start, limits=[190, 20, 190, 31])] == [
        "e",
        "e" * 20,
        "e",
        "e" * 31,
    ]
    assert len(steps) == stopping.LOOP_TOKENS


def test_a_row_that_loops_does_not_change_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    start = talkative(1)
    whole = ids(start)
    stopped = whole[2]
    monkeypatch.setattr(stopping, "loop_start", lambda row, _: 2 if row == stopped[:3] else 0)
    assert ids(start) == [whole[0], whole[1], stopped[:2], whole[3]]


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


def test_text_of_a_long_recording_is_that_of_its_segments_joined() -> None:
    start, whole = talkative(3), features.log_mel(noise(5.3, 4), 80)
    parts = [
        greedy.transcribe(
            start.model, start.tokenizer, [one.duration], lambda _, one=one: one.features, 1, 444
        )[0]
        for one in windows.cut(whole, WINDOW)
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
    ends = [one.start + one.duration for one in windows.cut(quiet, WINDOW)]
    assert all(before < after for before, after in pairwise(ends))


@pytest.mark.parametrize("seed", range(3))
def test_the_language_is_the_one_that_transformers_detects(seed: int) -> None:
    start = scratch(seed, init_std=0.5)
    known = loading.of_start(start, TORCH, FP32, GREEDY)
    clips = [clip(seconds, number) for number, seconds in enumerate(SECONDS)]
    codes = list(known.vocabulary.languages)
    for one, shares in zip(clips, language.probabilities(known, clips), strict=True):
        (theirs,) = start.model.detect_language(input_features=input_features([one], WINDOW))
        assert known.vocabulary.languages[codes[int(shares.argmax())]] == int(theirs)
        assert shares.sum() == pytest.approx(1, abs=1e-4)


def test_detecting_leaves_the_prompt_of_the_model() -> None:
    start = scratch()
    before = start.model.generation_config.to_dict()
    language.probabilities(loading.of_start(start, TORCH, FP32, GREEDY), [clip(1.0)])
    assert start.model.generation_config.to_dict() == before


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
