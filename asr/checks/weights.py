"""Checks of what an optimizer did: weights moved, the learning rate followed its schedule, every
step was an update.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from asr.checks.check import Check
from asr.model import loader, regularization
from asr.training import optimization

if TYPE_CHECKING:
    from asr.training.loop import Training

SCALED_SHARE = 0.5  # of fp16's steps must be updates


def weights_moved(
    before: dict[str, torch.Tensor], training: Training, freeze_encoder: int | str, rank: int | None
) -> tuple[Check, dict[str, Any]]:
    """Every tensor that params do not freeze moved; also how far they went, as a share of where
    they were.
    """
    after = training.bare.state_dict()
    still = regularization.frozen(training.bare, freeze_encoder, rank) | {
        loader.POSITIONS,
        "proj_out.weight",
    }
    names = [name for name in before if name not in still]
    squares = [
        (float((after[name] - before[name]).square().sum()), float(before[name].square().sum()))
        for name in names
    ]
    stayed = [name for name, (moved, _) in zip(names, squares, strict=True) if not moved > 0.0]
    freed = [
        name
        for name in sorted(still & set(before))
        if name != "proj_out.weight" and not torch.equal(after[name], before[name])
    ]
    share = math.sqrt(
        sum(moved for moved, _ in squares) / max(sum(size for _, size in squares), 1e-30)
    )
    wrong = [f"{stayed[0]} stayed where it was, as did {len(stayed) - 1} others"] if stayed else []
    wrong += [f"{freed[0]} moved, though it is frozen"] if freed else []
    facts = {"weights_moved": share, "tensors": len(names), "tensors_unmoved": len(stayed)}
    return Check(
        "weights",
        not wrong,
        "; ".join(wrong) or f"all {len(names)} tensors moved, by {share:.1%} in all",
    ), facts


def rate_followed(training: Training) -> Check:
    """The learning rate, as the optimiser had it at each step, climbed where it should, came to its
    peak, and kept to its schedule.
    """
    given, state, peak = training.given, training.state, training.learning_rate
    wrong = []
    if not 0.99 * peak <= state.highest_rate <= 1.01 * peak:
        wrong.append(f"the highest was {state.highest_rate:.3g}")
    if given.warmup_steps and state.first_rate is not None and not state.first_rate < 0.99 * peak:
        wrong.append("there was no warm-up")
    for row in [row for row in state.rows if "learning_rate" in row]:
        wanted = optimization.scheduled_rate(
            given.lr_scheduler_type, peak, row["step"] - 1, given.warmup_steps, given.max_steps
        )
        if abs(row["learning_rate"] - wanted) > 0.01 * peak:
            wrong.append(
                f"at step {row['step']} it was {row['learning_rate']:.3g}, and should have been {wanted:.3g}"
            )
    return Check("learning_rate", not wrong, "; ".join([f"peak {peak:.3g}", *wrong[:3]]))


def updates_were_made(training: Training) -> Check:
    """AdamW counted as many updates as there were steps; with fp16 some are left out on purpose,
    where gradients overflow.
    """
    done, steps = (
        max((int(one["step"]) for one in training.optimizer.state.values()), default=0),
        training.state.step,
    )
    passed = done == steps or (
        training.given.precision == "fp16" and SCALED_SHARE * steps <= done < steps
    )
    return Check("updates", passed, f"{done:,} updates in {steps:,} steps")
