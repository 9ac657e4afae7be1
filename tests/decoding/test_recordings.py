"""Whole recordings from their features: as plain `generate()` on both engines, in any batches, long
ones cut, silent and looping ones told.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pytest

from asr import features, stopping, windows
from asr.decoding import loading, recordings, vocabulary
from asr.decoding.recognizer import GREEDY, METHODS, ROBUST
from asr.decoding.recordings import Heard
from asr.engines.engine import ENGINES, FP32
from asr.features import LogMel, input_features
from asr.model import loader, timestamps, tokenization
from asr.model.loader import Start
from support.model import clip, hush_timestamps, noise, scratch

WINDOW = 200  # frames
SECONDS = (0.4, 0.9, 1.3, 2.0)


def model(seed: int, timed: bool = False) -> Start:
    """Random weights that say a lot, at another length for each clip."""
    start = scratch(seed, init_std=0.5)
    if timed:
        timestamps.set_return_timestamps(start.model.generation_config, True)
        draw = np.random.default_rng(seed)
        held = draw.choice(290, 200, replace=False).tolist()
        start.model.generation_config.suppress_tokens = held
        return start
    return hush_timestamps(start)


def saying_e() -> Start:
    """A model that says one letter without end."""
    start = scratch(1, max_target_positions=200)
    only = start.tokenizer.convert_tokens_to_ids("e")
    size = start.model.config.vocab_size
    start.model.generation_config.suppress_tokens = [one for one in range(size) if one != only]
    return start


def decoded(
    start: Start, clips: list[LogMel], engine: str, method: str, size: int = 4, **how: Any
) -> list[Heard]:
    recognizer = loading.of_start(start, engine, FP32, method)
    durations = [(one.mel.shape[1] - features.TAIL) / 100 for one in clips]
    limit = how.pop("max_new_tokens", 444)
    language = how.pop("language", None)
    return recordings.decode(recognizer, durations, clips.__getitem__, language, size, limit, **how)


def texts(*given: Any, **how: Any) -> list[str]:
    return [one.text for one in decoded(*given, **how)]


def generated(start: Start, clips: list[LogMel]) -> list[str]:
    """What plain `generate()` says, up to our limit of tokens."""
    prompt = tokenization.prompt(start.model.generation_config)
    timed = tokenization.predicts_timestamps(start.model.generation_config)
    with loader.quiet():
        found = start.model.generate(
            input_features(clips, WINDOW),
            return_timestamps=timed,
            force_unique_generate_call=True,
        ).tolist()
    known = vocabulary.of_model(start)
    said = []
    for row, one in zip(found, clips, strict=True):
        ids = row[len(prompt) :] if row[: len(prompt)] == prompt else row
        seconds = (one.mel.shape[1] - features.TAIL) / 100
        ids = ids[: stopping.max_tokens(seconds)]
        said.append(vocabulary.text_of(start.tokenizer.backend_tokenizer, known, ids))
    return said


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(3))
def test_greedy_says_what_plain_generate_says(seed: int, engine: str, timed: bool) -> None:
    start, clips = model(seed, timed), [clip(seconds, seed) for seconds in SECONDS]
    theirs = generated(start, clips)
    assert texts(start, clips, engine, GREEDY) == theirs
    assert len(set(theirs)) > 1
    assert all(theirs)


@pytest.mark.parametrize("engine", ENGINES)
def test_greedy_decodes_silence_and_loops_as_generate_does_and_counts_the_loop(
    engine: str,
) -> None:
    start = saying_e()
    silence = features.log_mel(np.zeros(16_000, np.float32), 80)
    found = decoded(start, [silence, clip(0.4)], engine, GREEDY)
    assert [one.text for one in found] == generated(start, [silence, clip(0.4)])
    assert [len(one.text) for one in found] == [50, 26]
    assert [(one.fell_back, one.silent, one.looped) for one in found] == [
        (False, False, True),
        (False, False, False),
    ]


@pytest.mark.parametrize("engine", ENGINES)
def test_robust_stops_what_loops_and_leaves_digital_silence_empty(engine: str) -> None:
    silence = features.log_mel(np.zeros(16_000, np.float32), 80)
    loop, quiet = decoded(saying_e(), [clip(2.0), silence], engine, ROBUST)
    assert (loop.text, loop.silent, loop.looped) == ("e", False, True)
    assert (quiet.text, quiet.silent, quiet.looped) == ("", True, False)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("engine", ENGINES)
def test_texts_come_in_the_order_of_the_recordings_whatever_the_batch(
    engine: str, method: str
) -> None:
    start = model(3)
    clips = [clip(seconds, number) for number, seconds in enumerate([0.4, 2.0, 0.9, 3.7, 1.3])]
    whole = decoded(start, clips, engine, method)
    assert len({one.text for one in whole}) == len(clips)
    for size in (1, 2):
        assert decoded(start, clips, engine, method, size) == whole


@pytest.mark.parametrize("engine", ENGINES)
def test_a_row_that_loops_is_drawn_anew_and_counted(engine: str) -> None:
    """A model that finds all letters nearly alike says the likeliest of them over and over."""
    start = scratch(1, max_target_positions=200, init_std=0.02)
    letters = start.tokenizer.convert_tokens_to_ids([*"abcdefghijklmnop"])
    size = start.model.config.vocab_size
    start.model.generation_config.suppress_tokens = [
        token for token in range(size) if token not in letters
    ]
    (plain,) = decoded(start, [clip(2.0)], engine, GREEDY)
    (robust,) = decoded(start, [clip(2.0)], engine, ROBUST)
    assert (plain.fell_back, plain.looped) == (False, True)
    assert (robust.fell_back, robust.looped) == (True, False)
    assert len(set(plain.text)) < len(set(robust.text))


def test_the_text_of_a_long_recording_is_that_of_its_segments_joined() -> None:
    start, whole = model(3), features.log_mel(noise(5.3, 4), 80)
    parts = [one.features for one in windows.cut(whole, WINDOW)]
    assert len(parts) >= 3
    assert texts(start, [whole], "openvino", GREEDY, 2) == [
        " ".join(texts(start, parts, "openvino", GREEDY))
    ]


def test_a_row_is_prompted_in_its_language() -> None:
    start = model(3)
    swedish = texts(start, [clip(2.0)], "openvino", GREEDY)
    assert texts(start, [clip(2.0)], "openvino", GREEDY, language="sv") == swedish
    assert texts(start, [clip(2.0)], "openvino", GREEDY, language="de") != swedish


def test_progress_sees_every_recording_once_and_the_longest_first() -> None:
    seen: list[Any] = []
    order = count()
    decoded(
        model(1),
        [clip(0.2 + 0.1 * number) for number in range(5)],
        "openvino",
        GREEDY,
        2,
        max_new_tokens=1,
        progress=lambda groups, total: seen.append((next(order), list(groups), total)) or groups,
    )
    assert seen == [(0, [[4, 3], [2, 1], [0]], 3)]
