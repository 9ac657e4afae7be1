"""Checks of the loss: that it is of all labels, noisy only in training, and fell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from asr.checks.check import Check
from asr.model import loader

MAX_DRAWS = 64  # of noise, until two differ: a layer is dropped rarely
FEW_DRAWS = 3  # enough where no noise is expected
LOSS_ERROR = 0.01  # relative, of a loss that is computed in two ways, in bf16


def loss_is_of_all_labels(step: float, labels: float, ours: float, theirs: float) -> Check:
    """A step's loss is the mean over its labels; an evaluation's is what transformers computes.

    Args:
        step: the loss that the first step's gradients are of.
        labels: the mean over the labels of its batches, computed apart.
        ours: the loss per label of a batch in evaluation mode, as training sums it.
        theirs: the same as transformers computes it.
    """
    wrong = []
    if not _close(step, labels):
        wrong.append(f"a step takes {step:.4f}, and its labels have {labels:.4f}")
    if not _close(ours, theirs):
        wrong.append(f"evaluation sums {ours:.4f} a label, transformers {theirs:.4f}")
    sound = f"{labels:.4f} a label in the first step, {theirs:.4f} without noise"
    return Check("loss", not wrong, "; ".join(wrong) or sound)


def _close(value: float, reference: float) -> bool:
    return abs(value - reference) <= LOSS_ERROR * reference


def start_knows_its_tokens(start: str, loss: float, vocab_size: int) -> Check:
    """A model that was trained before predicts the labels better than chance.

    If it does not, its tokens are not those of the tokenizer.

    Args:
        start: the name of the start model.
        loss: per label, before training.
    """
    if start == loader.SCRATCH:
        return Check("start", True, "built from scratch")
    chance = math.log(vocab_size)
    return Check("start", loss < chance, f"loss of the start {loss:.2f}, by chance {chance:.2f}")


def noise_is_where_it_belongs(loss: Callable[[bool, int, int], float], asked: bool) -> Check:
    """Dropout and masks act in training if params ask for them, and never in evaluation.

    In training they differ from step to step, and from part to part of a step.

    Args:
        loss: `loss(in_training, step, part)` is that of one batch, in training or evaluation mode,
            with the noise of a part of a step.
        asked: whether params ask for noise.
    """
    steps = [(number, 0) for number in range(MAX_DRAWS)]
    parts = [(0, number) for number in range(MAX_DRAWS)]

    def varies(in_training: bool, moments: list[tuple[int, int]]) -> bool:
        return _differ(loss(in_training, *moment) for moment in moments)

    wrong = []
    if asked and not all(varies(True, moments) for moments in (steps, parts)):
        wrong.append("dropout is asked for and does nothing, or the same again and again")
    if not asked and varies(True, steps[:FEW_DRAWS]):
        wrong.append("training is noisy, though params ask for no dropout")
    if varies(False, steps[:FEW_DRAWS]):
        wrong.append("evaluation is noisy: the model is in training mode")
    sound = "acts in training only" if asked else "none asked for, none found"
    return Check("dropout", not wrong, "; ".join(wrong) or sound)


def _differ(values: Iterator[float]) -> bool:
    """Whether a value differs from the first; takes no more of them than that needs."""
    first = next(values)
    return any(value != first for value in values)


def loss_fell(before: float, after: float) -> Check:
    """The loss on one batch of training rows, in evaluation mode, fell."""
    detail = f"loss on one fixed batch: {before:.4f} -> {after:.4f}"
    return Check("fixed_batch", after < before, detail)
