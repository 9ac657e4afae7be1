"""Weights, learning rates, updates: sound ones pass, and the smallest violation is caught."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.checks.check import Check, table
from asr.checks.weights import PEAK_ERROR, rate_followed, updates_were_made, weights_moved
from asr.training.optimization import scheduled_rate

Batch = dict[str, torch.Tensor]


# Weights


def tensors(**values: float) -> Batch:
    return {name: torch.full((3, 4), value) for name, value in values.items()}


BEFORE = tensors(one=1.0, two=2.0, frozen=5.0)


def test_weights_move_but_for_those_that_are_frozen() -> None:
    check, facts = weights_moved(BEFORE, tensors(one=1.5, two=2.0001, frozen=5.0), {"frozen"})
    assert check == Check("weights", True, "all 2 tensors moved, by 22.4% in all")
    assert facts == {
        "weights_moved": pytest.approx(math.sqrt(0.25 / 5), rel=1e-3),
        "tensors": 2,
        "tensors_unmoved": 0,
    }


def test_a_single_value_that_moves_is_enough() -> None:
    after = tensors(one=1.0, two=3.0, frozen=5.0)
    after["one"][0, 0] += 1e-6
    assert weights_moved(BEFORE, after, {"frozen"})[0].passed


def test_a_tensor_that_stays_or_is_no_number_is_caught() -> None:
    said = "one stayed where it was, as did 0 others"
    for value in (1.0, math.nan):
        check, facts = weights_moved(BEFORE, tensors(one=value, two=3, frozen=5), {"frozen"})
        assert check == Check("weights", False, said)
        assert facts["tensors_unmoved"] == 1


def test_a_frozen_tensor_that_moves_in_its_last_bit_is_caught() -> None:
    after = tensors(one=2.0, two=3.0, frozen=5.0)
    after["frozen"][2, 3] = torch.nextafter(torch.tensor(5.0), torch.tensor(0.0))
    check, _ = weights_moved(BEFORE, after, {"frozen"})
    assert check == Check("weights", False, "frozen moved, though it is frozen")


def test_the_output_layer_is_not_counted_beside_the_embedding_that_it_is() -> None:
    before = BEFORE | tensors(**{"proj_out.weight": 1.0})
    after = tensors(one=2.0, two=3.0, frozen=5.0, **{"proj_out.weight": 1.0})
    check, facts = weights_moved(before, after, {"frozen"})
    assert (check.passed, facts["tensors"]) == (True, 2)


# The learning rate


KINDS = ["linear", "cosine", "constant_with_warmup", "polynomial"]


def schedule(kind: str, warmup: int, peak: float) -> Callable[[int], float]:
    return lambda updates: scheduled_rate(kind, peak, updates, warmup, max_steps=20)


def rate_check(rates: list[float], scheduled: Callable[[int], float], peak: float) -> Check:
    """The check of a training whose updates had these rates."""
    rows = [{"step": step, "learning_rate": rate} for step, rate in enumerate(rates, start=1)]
    rows.insert(0, {"step": 0})
    return rate_followed(rows, scheduled, peak, rates[0], max(rates))


@settings(deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 19), st.floats(1e-6, 1e-2))
def test_rates_of_the_schedule_pass_whatever_it_is(kind: str, warmup: int, peak: float) -> None:
    scheduled = schedule(kind, warmup, peak)
    check = rate_check([scheduled(updates) for updates in range(20)], scheduled, peak)
    assert check == Check("learning_rate", True, f"peak {peak:.3g}")


@settings(deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 19), st.sampled_from([-1, 1]))
def test_one_rate_that_is_off_is_caught(kind: str, step: int, sign: int) -> None:
    scheduled = schedule(kind, 5, 1e-3)
    rates = [scheduled(updates) for updates in range(20)]
    expected = rates[step]
    rates[step] += sign * 1.1 * PEAK_ERROR * 1e-3
    check = rate_check(rates, scheduled, 1e-3)
    off = f"at step {step + 1} it was {rates[step]:.3g}, and should have been {expected:.3g}"
    assert not check.passed
    assert off in check.detail


def test_a_rate_that_never_comes_to_its_peak_or_passes_it_is_caught() -> None:
    """Rows of steps.csv need not show it, for not every step has one."""
    scheduled = schedule("linear", 5, 1e-3)
    for highest in (0.98e-3, 1.02e-3):
        check = rate_followed([], scheduled, 1e-3, 0.0, highest)
        assert check == Check("learning_rate", False, f"peak 0.001; the highest was {highest:.3g}")


def test_a_rate_that_starts_at_its_peak_had_no_warmup() -> None:
    check = rate_followed([], schedule("linear", 5, 1e-3), 1e-3, 1e-3, 1e-3)
    assert check == Check("learning_rate", False, "peak 0.001; there was no warm-up")
    assert rate_followed([], schedule("linear", 0, 1e-3), 1e-3, 1e-3, 1e-3).passed


# Updates


@settings(deadline=None)
@given(st.integers(1, 1000))
def test_there_are_as_many_updates_as_steps(steps: int) -> None:
    detail = f"{steps:,} updates in {steps:,} steps"
    assert updates_were_made(steps, steps, may_skip=False) == Check("updates", True, detail)
    for updates in (steps - 1, steps + 1):
        assert not updates_were_made(updates, steps, may_skip=False).passed


def test_half_precision_may_skip_half_of_the_steps() -> None:
    found = [updates_were_made(updates, 10, may_skip=True).passed for updates in range(12)]
    assert found == [5 <= updates <= 10 for updates in range(12)]


# The table of all results


def test_the_table_holds_what_was_seen_by_name() -> None:
    checks = [Check("a", True, "well"), Check("b", False, "ill")]
    assert table(checks) == {
        "a": {"passed": True, "detail": "well"},
        "b": {"passed": False, "detail": "ill"},
    }
