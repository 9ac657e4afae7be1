"""Checks of the optimizer's work: the weights, the learning rate, the number of updates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from asr.checks.check import Check

SCALED_SHARE = 0.5  # of the steps must be updates in fp16, which skips those that overflow
OUTPUT_WEIGHT = "proj_out.weight"  # shares its values with the token embedding
PEAK_ERROR = 0.01  # of the learning rate's peak
MAX_WRONG = 3  # faults named in the detail


def weights_moved(
    before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], frozen: set[str]
) -> tuple[Check, dict[str, Any]]:
    """Every tensor moved, except those that are frozen.

    Args:
        before: the weights before training, by name.
        after: the same tensors after it.
        frozen: names of those that should stay as they are.
    Returns:
        The check, and facts for summary.json: how far the weights moved as a share of their norm,
        and the number of tensors, all and unmoved.
    """
    names = [name for name in before if name not in frozen | {OUTPUT_WEIGHT}]
    moved_squares = [float((after[name] - before[name]).square().sum()) for name in names]
    squares = [float(before[name].square().sum()) for name in names]
    share = math.sqrt(sum(moved_squares) / max(sum(squares), 1e-30))

    # `not >` also catches a tensor that became NaN
    unmoved = [name for name, moved in zip(names, moved_squares, strict=True) if not moved > 0.0]
    thawed = [
        name
        for name in sorted(frozen & set(before))
        if name != OUTPUT_WEIGHT and not torch.equal(after[name], before[name])
    ]
    wrong = []
    if unmoved:
        wrong.append(f"{unmoved[0]} stayed where it was, as did {len(unmoved) - 1} others")
    if thawed:
        wrong.append(f"{thawed[0]} moved, though it is frozen")
    facts = {"weights_moved": share, "tensors": len(names), "tensors_unmoved": len(unmoved)}
    sound = f"all {len(names)} tensors moved, by {share:.1%} in all"
    return Check("weights", not wrong, "; ".join(wrong) or sound), facts


def rate_followed(
    rows: Sequence[dict[str, Any]],
    scheduled: Callable[[int], float],
    peak: float,
    first: float | None,
    highest: float,
) -> Check:
    """The optimizer's learning rate warmed up, reached its peak, and kept to its schedule.

    Args:
        rows: of steps.csv.
        scheduled: the rate of the next update after so many.
        peak: the learning rate that the schedule should reach.
        first: the rate of the first update; None if there was none.
        highest: the highest rate of all updates.
    """
    near_peak = (1 - PEAK_ERROR) * peak
    wrong = []
    if not near_peak <= highest <= (1 + PEAK_ERROR) * peak:
        wrong.append(f"the highest was {highest:.3g}")
    warms_up = scheduled(0) < near_peak
    if warms_up and first is not None and not first < near_peak:
        wrong.append("there was no warm-up")
    wrong += _off_schedule(rows, scheduled, PEAK_ERROR * peak)
    return Check("learning_rate", not wrong, "; ".join([f"peak {peak:.3g}", *wrong[:MAX_WRONG]]))


def _off_schedule(
    rows: Sequence[dict[str, Any]], scheduled: Callable[[int], float], most: float
) -> list[str]:
    """The rows whose learning rate differs from the schedule's by more than `most`, in words."""
    wrong = []
    for row in rows:
        if "learning_rate" not in row:
            continue
        rate, expected = row["learning_rate"], scheduled(row["step"] - 1)
        if abs(rate - expected) > most:
            wrong.append(
                f"at step {row['step']} it was {rate:.3g}, and should have been {expected:.3g}"
            )
    return wrong


def updates_were_made(updates: int, steps: int, may_skip: bool) -> Check:
    """AdamW counted as many updates as there were steps.

    Args:
        may_skip: whether steps are skipped on purpose, as in fp16 where gradients overflow.
    """
    passed = updates == steps or (may_skip and SCALED_SHARE * steps <= updates < steps)
    return Check("updates", passed, f"{updates:,} updates in {steps:,} steps")
