"""Checks of the optimizer's work: the weights, the learning rate, the number of updates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from asr.checks.check import Check
from asr.model import loader, regularization
from asr.training import optimization

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

    from asr.params import schema
    from asr.training.state import TrainingState

SCALED_SHARE = 0.5  # of the steps must be updates in fp16, which skips those that overflow
OUTPUT_WEIGHT = "proj_out.weight"  # shares its values with the token embedding
PEAK_ERROR = 0.01  # of the learning rate's peak
MAX_WRONG = 3  # faults named in the detail


def weights_moved(
    before: dict[str, torch.Tensor],
    whisper: WhisperForConditionalGeneration,
    freeze_encoder: int | str,
    rank: int | None,
) -> tuple[Check, dict[str, Any]]:
    """Every tensor moved, except those that params freeze.

    Args:
        before: the weights before training, by name.
        freeze_encoder: as in params.
        rank: of LoRA's adapters; None without them.
    Returns:
        The check, and facts for summary.json: how far the weights moved as a share of their norm,
        and the number of tensors, all and unmoved.
    """
    after = whisper.state_dict()
    frozen = regularization.frozen(whisper, freeze_encoder, rank) | {loader.POSITIONS}
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


def rate_followed(state: TrainingState, params: schema.Train, peak: float) -> Check:
    """The optimizer's learning rate warmed up, reached its peak, and kept to its schedule.

    Args:
        peak: the learning rate that the schedule should reach.
    """
    wrong = []
    if not (1 - PEAK_ERROR) * peak <= state.highest_rate <= (1 + PEAK_ERROR) * peak:
        wrong.append(f"the highest was {state.highest_rate:.3g}")
    first = state.first_rate if params.warmup_steps else None
    if first is not None and not first < (1 - PEAK_ERROR) * peak:
        wrong.append("there was no warm-up")
    wrong += _off_schedule(state.rows, params, peak)
    return Check("learning_rate", not wrong, "; ".join([f"peak {peak:.3g}", *wrong[:MAX_WRONG]]))


def _off_schedule(rows: list[dict[str, Any]], params: schema.Train, peak: float) -> list[str]:
    """The rows of steps.csv whose learning rate is not the schedule's, in words."""
    wrong = []
    for row in rows:
        if "learning_rate" not in row:
            continue
        rate, updates = row["learning_rate"], row["step"] - 1
        expected = optimization.scheduled_rate(
            params.lr_scheduler_type, peak, updates, params.warmup_steps, params.max_steps
        )
        if abs(rate - expected) > PEAK_ERROR * peak:
            wrong.append(
                f"at step {row['step']} it was {rate:.3g}, and should have been {expected:.3g}"
            )
    return wrong


def updates_were_made(optimizer: torch.optim.Optimizer, steps: int, precision: str) -> Check:
    """AdamW counted as many updates as there were steps.

    In fp16 the steps whose gradients overflow are skipped on purpose.
    """
    updates = max((int(moments["step"]) for moments in optimizer.state.values()), default=0)
    may_skip = precision == "fp16"
    passed = updates == steps or (may_skip and SCALED_SHARE * steps <= updates < steps)
    return Check("updates", passed, f"{updates:,} updates in {steps:,} steps")
