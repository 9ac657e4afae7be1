"""Beam search: as greedy with one hypothesis, and better than it where the best word comes late."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from asr.decoding import beam, loading, search
from asr.decoding.vocabulary import Vocabulary
from asr.engines.engine import FP32, OPENVINO
from support.model import noise, scratch

END, START, NO_TIMESTAMPS, FIRST_TIME = 4, 5, 6, 7
PROMPT = [START, NO_TIMESTAMPS]
SMALL = Vocabulary(
    start=START,
    end=END,
    languages={},
    tasks={},
    no_timestamps=NO_TIMESTAMPS,
    size=12,
    no_speech=None,
    previous=None,
    suppressed=(START, NO_TIMESTAMPS),
    suppressed_first=(),
    language=None,
    task=None,
    predicts_timestamps=False,
    max_initial_timestamp=2,
    max_positions=40,
    window_seconds=1,
    num_mel_bins=80,
    alignment_heads=(),
)
Scores = Callable[[tuple[int, ...]], np.ndarray]  # of the token after a text


class Written:
    """An engine whose scores are a function of the window and the tokens so far."""

    def __init__(self, windows: Sequence[Scores]):
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def decoder(self, rows: Sequence[int]) -> Written._Decoder:
        return self._Decoder([(self.windows[row], ()) for row in rows])

    def attention(self, *_: Any) -> np.ndarray:
        raise AssertionError

    class _Decoder:
        def __init__(self, rows: list[tuple[Scores, tuple[int, ...]]]):
            self.rows = rows

        def step(self, tokens: np.ndarray) -> np.ndarray:
            self.rows = [
                (scores, (*before, *map(int, new)))
                for (scores, before), new in zip(self.rows, tokens, strict=True)
            ]
            return np.array([scores(before) for scores, before in self.rows], np.float32)

        def select(self, rows: Sequence[int]) -> None:
            self.rows = [self.rows[row] for row in rows]


def random_scores(seed: int) -> Scores:
    """Scores that differ with every text; the end grows likelier."""

    def scores(before: tuple[int, ...]) -> np.ndarray:
        values = np.random.default_rng([seed, *before]).normal(0, 2, SMALL.size)
        values[END] += len(before) - 5
        return values

    return scores


def a_late_treasure(before: tuple[int, ...]) -> np.ndarray:
    """The likelier first token, 0, leads to doubt; the other, 1, to certainty."""
    shares = np.full(SMALL.size, 1e-9)
    text = before[len(PROMPT) :]
    if not text:
        shares[[0, 1]] = 0.6, 0.4
    elif text == (0,):
        shares[:4] = 0.25
    else:
        shares[END if len(text) > 2 else 2] = 1.0
    return np.log(shares)


def found(windows: Sequence[Scores], size: int, limit: int = 6, **given: Any):
    count = len(windows)
    prompts, limits = [given.pop("prompt", PROMPT)] * count, [limit] * count
    return beam.decode(Written(windows), range(count), prompts, limits, SMALL, size, **given)


def greedy(windows: Sequence[Scores], limit: int = 6, prompt: list[int] = PROMPT):
    count = len(windows)
    return search.decode(Written(windows), range(count), [prompt] * count, [limit] * count, SMALL)


WITH_TIMES = [START]


@pytest.mark.parametrize("prompt", [PROMPT, WITH_TIMES])
@pytest.mark.parametrize("limit", [1, 6, 30])
def test_one_hypothesis_is_the_greedy_search(prompt, limit):
    windows = [random_scores(seed) for seed in range(8)]
    one = found(windows, 1, limit, prompt=prompt)
    other = greedy(windows, limit, prompt)
    assert [each.ids for each in one] == [each.ids for each in other]
    for here, there in zip(one, other, strict=True):
        assert here.mean_log_probability == pytest.approx(there.mean_log_probability, abs=1e-5)


def test_a_beam_finds_what_a_greedy_search_walks_past():
    assert greedy([a_late_treasure])[0].ids[0] == 0  # the control
    assert found([a_late_treasure], 2)[0].ids == (1, 2, 2)


def all_texts(longest: int):
    for count in range(longest + 1):
        yield from itertools.product(range(4), repeat=count)


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_as_wide_as_all_texts_finds_the_likeliest(seed):
    scores, limit = random_scores(seed), 3

    def mean(text: tuple[int, ...]) -> float:
        total = 0.0
        tokens = text if len(text) == limit else (*text, END)
        for place, token in enumerate(tokens):
            values = scores((*PROMPT, *text[:place]))[None].astype(np.float32)
            values[:, [START, NO_TIMESTAMPS]] = -np.inf
            total += float(search.log_softmax(values)[0, token])
        return total / (len(text) + 1)

    # Texts of times too: at this width none is left out, so compare the values.
    best = max(map(mean, all_texts(limit)))
    (hypothesis,) = found([scores], 2_000, limit)
    assert hypothesis.mean_log_probability >= best - 1e-5
    if max(hypothesis.ids, default=0) < END:
        assert hypothesis.mean_log_probability == pytest.approx(mean(hypothesis.ids), abs=1e-5)
        assert hypothesis.mean_log_probability == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_window_is_decoded_the_same_beside_others(size):
    windows = [random_scores(seed) for seed in range(5)]
    together = found(windows, size, 20)
    assert together == [found([window], size, 20)[0] for window in windows]
    assert len({hypothesis.ids for hypothesis in together}) > 1  # the control


@pytest.mark.parametrize("size", [2, 5])
def test_times_come_in_pairs_that_never_go_back_in_a_beam_too(size):
    for hypothesis in found([random_scores(seed) for seed in range(8)], size, 12, prompt=[START]):
        times = [token for token in hypothesis.ids if token >= FIRST_TIME]
        assert hypothesis.ids[0] >= FIRST_TIME
        assert times == sorted(times)


def test_a_beam_that_goes_round_in_circles_is_stopped():
    def circle(before: tuple[int, ...]) -> np.ndarray:
        values = np.full(SMALL.size, -9.0)
        values[len(before) % 2] = 5.0
        return values

    (stopped,) = found([circle], 3, 38)
    assert stopped.looped
    assert len(stopped.ids) < 8
    (control,) = found([circle], 3, 38, stop_loops=False)
    assert not control.looped
    assert len(control.ids) == 38


def test_a_beam_runs_on_a_real_engine():
    ready = loading.of_start(scratch(), OPENVINO, FP32, "greedy")
    features = noise(3.2).astype(np.float32)[: 2 * 80 * 200].reshape(2, 80, 200) * 10
    prompt = ready.vocabulary.prompt(None, None, False)
    asked = (ready.engine.encode(features), [0, 1], [prompt] * 2, [20] * 2, ready.vocabulary)
    assert [one.ids for one in beam.decode(*asked, 1)] == [one.ids for one in search.decode(*asked)]
    wide = beam.decode(*asked, 4)
    assert all(one.ids for one in wide)
