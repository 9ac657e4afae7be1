"""The loss and its noise: sound values pass, and the smallest violation is caught."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.checks.check import Check
from asr.checks.loss import (
    LOSS_ERROR,
    MAX_DRAWS,
    loss_fell,
    loss_is_of_all_labels,
    noise_is_where_it_belongs,
    start_knows_its_tokens,
)
from asr.model import loader

# The loss


@settings(deadline=None)
@given(st.floats(0.01, 20), st.floats(0.01, 20), st.floats(-0.99, 0.99))
def test_losses_computed_in_two_ways_are_equal_but_for_rounding(
    labels: float, theirs: float, share: float
) -> None:
    check = loss_is_of_all_labels(
        labels * (1 + share * LOSS_ERROR), labels, theirs * (1 - share * LOSS_ERROR), theirs
    )
    sound = f"{labels:.4f} a label in the first step, {theirs:.4f} without noise"
    assert check == Check("loss", True, sound)


@pytest.mark.parametrize("share", [1.1, -1.1])
def test_a_loss_that_is_off_by_more_is_caught(share: float) -> None:
    off = 2 * (1 + share * LOSS_ERROR)
    step = loss_is_of_all_labels(off, 2.0, 3.0, 3.0)
    assert step == Check("loss", False, f"a step takes {off:.4f}, and its labels have 2.0000")
    evaluation = loss_is_of_all_labels(3.0, 3.0, off, 2.0)
    assert evaluation == Check(
        "loss", False, f"evaluation sums {off:.4f} a label, transformers 2.0000"
    )
    assert not loss_is_of_all_labels(math.nan, 2.0, 3.0, 3.0).passed


def test_a_start_is_better_than_chance() -> None:
    chance = math.log(300)
    assert start_knows_its_tokens("mine", math.nextafter(chance, 0), 300).passed
    check = start_knows_its_tokens("mine", chance, 300)
    assert check == Check("start", False, "loss of the start 5.70, by chance 5.70")
    scratch = start_knows_its_tokens(loader.SCRATCH, 2 * chance, 300)
    assert scratch == Check("start", True, "built from scratch")


def test_the_loss_of_the_fixed_batch_falls() -> None:
    assert loss_fell(2.0, math.nextafter(2.0, 0)).passed
    check = loss_fell(2.0, 2.0)
    assert check == Check("fixed_batch", False, "loss on one fixed batch: 2.0000 -> 2.0000")
    assert not loss_fell(2.0, math.nan).passed


Noise = Callable[[bool, int, int], float]


@pytest.mark.parametrize(
    ("loss", "asked", "detail"),
    [
        (
            lambda in_training, step, part: in_training * (step + part),
            True,
            "acts in training only",
        ),
        (
            lambda in_training, *moment: float(
                in_training and moment[0] + moment[1] == MAX_DRAWS - 1
            ),
            True,
            "acts in training only",
        ),  # a layer is dropped rarely
        (lambda *_: 2.0, False, "none asked for, none found"),
    ],
)
def test_noise_that_acts_where_it_is_asked_for_is_sound(
    loss: Noise, asked: bool, detail: str
) -> None:
    assert noise_is_where_it_belongs(loss, asked) == Check("dropout", True, detail)


SAME = "dropout is asked for and does nothing, or the same again and again"


@pytest.mark.parametrize(
    ("loss", "asked", "detail"),
    [
        (lambda *_: 2.0, True, SAME),
        (lambda in_training, step, _: in_training * step, True, SAME),
        (lambda in_training, _, part: in_training * part, True, SAME),
        (
            lambda in_training, step, _: in_training * step,
            False,
            "training is noisy, though params ask for no dropout",
        ),
        (
            lambda _, step, part: step + part,
            True,
            "evaluation is noisy: the model is in training mode",
        ),
        (
            lambda in_training, step, _: 0 if in_training else step,
            False,
            "evaluation is noisy: the model is in training mode",
        ),
    ],
    ids=["none", "parts alike", "steps alike", "unasked", "everywhere", "in evaluation"],
)
def test_noise_that_is_missing_or_elsewhere_is_caught(
    loss: Noise, asked: bool, detail: str
) -> None:
    assert noise_is_where_it_belongs(loss, asked) == Check("dropout", False, detail)
