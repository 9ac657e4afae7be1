"""Checks of the loss: that it is of all labels, noisy only in training, and fell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from asr.checks.check import Check
from asr.model import loader, regularization
from asr.training import batches, memory

if TYPE_CHECKING:
    from asr.training.loop import Training

MAX_DRAWS = 64  # of noise, until two differ: a layer is dropped rarely
FEW_DRAWS = 3  # enough where no noise is expected
LOSS_ERROR = 0.01  # relative, of a loss that is computed in two ways, in bf16


def loss_is_of_all_labels(training: Training) -> Check:
    """A step's loss is the mean over its labels; an evaluation's is what transformers computes."""
    step_loss = float(training.gradients(training.micro_batches(0)))
    training.optimizer.zero_grad(set_to_none=True)
    moment = (training.params.seed, 0)
    parts = [  # of all processes
        training.collator.batch(training.train, part, moment) for part in training.step_examples(0)
    ]
    label_loss = _loss_per_label(training, parts)
    ours, theirs = _evaluation_losses(training, parts[training.accelerator.process_index])
    wrong = []
    if not _close(step_loss, label_loss):
        wrong.append(f"a step takes {step_loss:.4f}, and its labels have {label_loss:.4f}")
    if not _close(ours, theirs):
        wrong.append(f"evaluation sums {ours:.4f} a label, transformers {theirs:.4f}")
    sound = f"{label_loss:.4f} a label in the first step, {theirs:.4f} without noise"
    return Check("loss", not wrong, "; ".join(wrong) or sound)


def _close(value: float, reference: float) -> bool:
    return abs(value - reference) <= LOSS_ERROR * reference


def _loss_per_label(training: Training, parts: list[dict[str, torch.Tensor]]) -> float:
    """This process's share of the loss per label in the first step, computed from its labels.

    Args:
        parts: the micro-batches of the step, those of all processes.
    """
    world = training.accelerator.num_processes
    rank = training.accelerator.process_index
    own_parts = range(rank, training.params.gradient_accumulation_steps * world, world)
    summed = sum(_noisy_loss(training, number, parts[number]) for number in own_parts)
    return summed / sum(map(batches.num_labels, parts))


def _evaluation_losses(training: Training, part: dict[str, torch.Tensor]) -> tuple[float, float]:
    """The loss per label in evaluation mode, by our sum and by that of transformers."""
    batch = next(memory.split_batch(part, training.micro_batch_rows()))
    training.model.eval()
    with torch.no_grad():
        ours = float(training.loss(batch)) / batches.num_labels(batch)
        on_device = {key: value.to(training.accelerator.device) for key, value in batch.items()}
        theirs = float(training.model(**on_device).loss)
    return ours, theirs


def _noisy_loss(training: Training, number: int, batch: dict[str, torch.Tensor]) -> float:
    """The summed loss of micro-batch `number` of the first step, with the noise of that step."""
    training.model.train()
    total = 0.0
    for index, part in enumerate(memory.split_batch(batch, training.micro_batch_rows())):
        regularization.seed(training.params.seed, 0, (number << training.state.halvings) + index)
        with torch.no_grad():
            total += float(training.loss(part))
    return total


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


def noise_is_where_it_belongs(training: Training) -> Check:
    """Dropout and masks act in training if params ask for them, and never in evaluation.

    In training they differ from step to step, and from part to part of a step.
    """
    losses = partial(_losses_at, training, training.micro_batches(0)[0])
    train_mode = training.model.train
    eval_mode = training.model.eval
    steps = [(number, 0) for number in range(MAX_DRAWS)]
    parts = [(0, number) for number in range(MAX_DRAWS)]
    asked = any(getattr(training.unwrapped.config, name) for name in regularization.DROPOUTS)
    wrong = []
    if asked and not all(_varies(losses(train_mode, moments)) for moments in (steps, parts)):
        wrong.append("dropout is asked for and does nothing, or the same again and again")
    if not asked and _varies(losses(train_mode, steps[:FEW_DRAWS])):
        wrong.append("training is noisy, though params ask for no dropout")
    if _varies(losses(eval_mode, steps[:FEW_DRAWS])):
        wrong.append("evaluation is noisy: the model is in training mode")
    sound = "acts in training only" if asked else "none asked for, none found"
    return Check("dropout", not wrong, "; ".join(wrong) or sound)


def _losses_at(
    training: Training,
    batch: dict[str, torch.Tensor],
    set_mode: Callable[[], Any],
    moments: Iterable[tuple[int, int]],
) -> Iterator[float]:
    """The loss of one batch with the noise of each moment: step, and part of it."""
    for step, part in moments:
        set_mode()
        regularization.seed(training.params.seed, step, part)
        with torch.no_grad():
            yield float(training.loss(batch))


def _varies(values: Iterator[float]) -> bool:
    """Whether a value differs from the first; takes no more of them than that needs."""
    first = next(values)
    return any(value != first for value in values)


def loss_fell(before: float, after: float) -> Check:
    """The loss on one batch of training rows, in evaluation mode, fell."""
    detail = f"loss on one fixed batch: {before:.4f} -> {after:.4f}"
    return Check("fixed_batch", after < before, detail)
