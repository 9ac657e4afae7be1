"""Which step is the best, when a training stops early and what is averaged: by scores that one row
cannot decide.
"""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from asr.training.state import Score, TrainingState
from support.training import validation_of

WORDS = [f"word{number}" for number in range(18)]
ROWS = 20
LOOP = " ".join(["again"] * 222)  # what a model wrote for a row of 18 words
STEPS = range(10, 70, 10)
# Wrong words in each row: step 30 is the best, and of two evaluations after it none is better.
WRONG = (16, 13, 9, 11, 12, 10)


def hypothesis_of(wrong: int) -> str:
    return " ".join(["x"] * wrong + WORDS[wrong:])


def trained(
    wrong: tuple[int, ...], one_row: tuple[str, ...] = (), patience: int | None = None
) -> TrainingState:
    """The state of a training whose validation rows have so many wrong words at each step.

    Args:
        one_row: what one row more is heard as at each step; without it there is no such row.
        patience: that of early stopping.
    """
    validation = validation_of([" ".join(WORDS)] * (ROWS + bool(one_row)))
    state = TrainingState()
    for number, step in enumerate(STEPS):
        hypotheses = [hypothesis_of(wrong[number])] * ROWS + [*one_row[number : number + 1]]
        rates = validation.scores(hypotheses)
        state.step = step
        state.add_evaluation(None, rates["wer"], validation.score({**rates, "loss": None}))
        if state.patience_spent(patience):
            break
    return state


def decided(state: TrainingState) -> tuple[Any, ...]:
    return state.best_step, state.step, state.averaged("best", 2), state.averaged("last", 2)


def by_plain_wer(state: TrainingState) -> TrainingState:
    """The same evaluations, compared by plain WER."""
    other = TrainingState()
    for row in state.rows:
        other.step = row["step"]
        other.add_evaluation(None, row["validation_wer"], [row["validation_wer"]])
        if other.patience_spent(2):
            break
    return other


def test_one_looping_row_changes_neither_the_best_step_nor_the_stop_nor_the_mean() -> None:
    sound = tuple(map(hypothesis_of, WRONG))
    loops_at_the_best = (*sound[:2], LOOP, *sound[3:])
    without = trained(WRONG, patience=2)
    looping = trained(WRONG, loops_at_the_best, patience=2)
    assert decided(without) == decided(looping) == (30, 50, [30, 40], [40, 50])
    assert looping.best_wer == looping.rows[2]["validation_wer"] > 1, "the WER shown is plain"
    assert looping.best_score is not None
    assert looping.best_score[0] == (ROWS * 9 + 18) / ((ROWS + 1) * 18)

    plain = by_plain_wer(trained(WRONG, loops_at_the_best))
    assert decided(plain) == (60, 60, [40, 60], [50, 60]), "the control: by plain WER it decides"
    assert decided(by_plain_wer(trained(WRONG, sound))) == decided(without)


HYPOTHESES = st.sampled_from([LOOP, "", "x", " ".join(WORDS), f"{' '.join(WORDS)} {LOOP}"])


@settings(max_examples=25, deadline=None)
@example(list(WRONG), [LOOP, "", LOOP, "", "", LOOP])
@given(
    st.lists(st.integers(0, 18), min_size=6, max_size=6, unique=True),
    st.lists(HYPOTHESES, min_size=6, max_size=6),
)
def test_no_row_decides_between_steps_that_differ_by_more_words_than_it_has(
    wrong: list[int], one_row: list[str]
) -> None:
    """Whatever is heard of it at each step: the others differ by ROWS words or more."""
    without = trained(tuple(wrong), patience=2)
    assert decided(trained(tuple(wrong), tuple(one_row), patience=2)) == decided(without)


def after(*scores: Score) -> TrainingState:
    state = TrainingState()
    for number, score in enumerate(scores, 1):
        state.step = number
        state.add_evaluation(score[-1], 0.5, score)
    return state


def test_equal_rates_are_decided_by_the_next_number_and_the_first_step_wins_a_tie() -> None:
    assert after([0.5, 0.3, 1.0], [0.5, 0.2, 9.0]).best_step == 2
    assert after([0.5, 0.2, 1.0], [0.5, 0.2, 0.9]).best_step == 2
    assert after([0.5, 0.2, 1.0], [0.5, 0.2, 1.0]).best_step == 1
    assert after([0.4, 0.9, 9.0], [0.5, 0.2, 0.1]).best_step == 1
    ranked = after([0.5, 0.2, 1.0], [0.5, 0.3, 0.1], [0.5, 0.2, 0.9])
    assert ranked.averaged("best", 2) == [1, 3]


def test_a_loss_that_was_not_measured_is_the_worst() -> None:
    assert after([0.5, 0.2, 99.0], [0.5, 0.2, None]).best_step == 1
    assert after([0.5, 0.2, None], [0.5, 0.2, 99.0]).best_step == 2
    assert after([0.5, 0.2, None], [0.5, 0.2, None]).best_step == 1
    assert after([0.5, 0.2, None], [0.4, 0.2, None]).best_step == 2


def test_the_start_model_is_never_the_best() -> None:
    state = TrainingState()
    state.add_evaluation(0.1, 0.0, [0.0, 0.0, 0.1])
    assert (state.best_step, state.best_score, state.best_wer) == (0, None, None)
    state.step = 10
    state.add_evaluation(9.0, 1.0, [1.0, 1.0, 9.0])
    assert (state.best_step, state.best_score, state.best_wer) == (10, [1.0, 1.0, 9.0], 1.0)
    assert state.averaged("best", 5) == [10]


def test_a_state_read_from_a_checkpoint_goes_on_as_one_never_stopped() -> None:
    scores: list[Score] = [[0.5, 0.3, None], [0.4, 0.3, None], [0.4, 0.2, None], [0.6, 0.1, None]]
    whole = after(*scores)
    for stop in range(1, 4):
        resumed = TrainingState(**json.loads(json.dumps(vars(after(*scores[:stop])))))
        for number, score in enumerate(scores[stop:], stop + 1):
            resumed.step = number
            resumed.add_evaluation(None, 0.5, score)
        assert vars(resumed) == vars(whole)


def test_a_loss_that_creeps_down_under_equal_rates_does_not_spend_patience_anew() -> None:
    state = TrainingState()
    for number in range(1, 5):
        state.step = 10 * number
        state.add_evaluation(1 / number, 0.1, [0.1, 0.1, 1 / number])
        assert state.best_step == state.step
        assert state.patience_spent(3) is (number == 4)


def test_the_first_step_without_an_error_stays_the_best() -> None:
    """A lower loss makes a model that hears everything only surer, as overfitting does."""
    state = TrainingState()
    for number in range(1, 4):
        state.step = number
        state.add_evaluation(1 / number, 0.0, [0.0, 0.0, 1 / number])
    assert state.best_step == 1


def test_a_loss_that_is_no_number_is_the_worst() -> None:
    state = TrainingState()
    for number, loss in enumerate([math.nan, 0.5], 1):
        state.step = number
        state.add_evaluation(loss, 0.1, [0.1, 0.1, loss])
    assert state.best_step == 2
