"""When decoding stops: at a limit by duration, or at a loop of tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr import stopping
from asr.stopping import LONGEST_PHRASE, LOOP_CHECK, LOOP_TIMES, LOOP_TOKENS

ZERO = 1000  # the token of 0.00 s
START = [900, 901, 902, 903, 904]


def numbered(count: int) -> list[int]:
    return list(range(count))


# Tokens, and what is left of them when they are stopped.
LOOPS = {
    "one token over and over": ([*START, *[7] * 35], [*START, 7, 7, 7, 7]),
    "a phrase": ([*START, *[1, 2, 3] * 11, 1, 2], None),
    "a long phrase": (numbered(LONGEST_PHRASE) * LOOP_TIMES, numbered(LONGEST_PHRASE)),
    "with times that differ": (
        [token for time in range(20) for token in (ZERO + time, 1, 2, ZERO + time)],
        None,
    ),
}
NO_LOOPS = {
    "nothing": [],
    "too few tokens": [7] * (LOOP_TOKENS - 1),
    "too few times": numbered(LONGEST_PHRASE) * (LOOP_TIMES - 1),
    "a phrase too long": numbered(LONGEST_PHRASE + 1) * LOOP_TIMES,
    "times alone": [ZERO + time for time in range(64)],
    "a loop that was left": [*[7] * 24, *numbered(40)],
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_is_stopped_and_its_phrase_stays(name: str) -> None:
    ids, left = LOOPS[name]
    stopped = stopping.without_loop(ids, ZERO)
    assert stopped == ids[: len(stopped)]
    assert len(stopped) < len(ids)
    if left is not None:
        assert stopped == left


@pytest.mark.parametrize("name", NO_LOOPS)
def test_what_does_not_loop_is_left_as_it_is(name: str) -> None:
    assert stopping.without_loop(NO_LOOPS[name], ZERO) == NO_LOOPS[name]


@given(st.lists(st.integers(0, 1), max_size=120))
def test_looking_at_a_finished_row_finds_what_looking_at_each_step_finds(ids: list[int]) -> None:
    grown: list[int] = []
    for token in ids:
        grown.append(token)
        if place := stopping.loop_start(grown, ZERO):
            grown = grown[:place]
            break
    assert stopping.without_loop(ids, ZERO) == grown


def test_a_row_is_looked_at_every_few_tokens() -> None:
    looked = [length for length in range(200) if stopping.loop_start([7] * length, ZERO)]
    assert looked == list(range(LOOP_TOKENS, 200, LOOP_CHECK))


def test_the_limit_grows_with_the_sound() -> None:
    assert [stopping.max_tokens(seconds) for seconds in (0.0, 0.5, 30.0)] == [10, 30, 1210]
