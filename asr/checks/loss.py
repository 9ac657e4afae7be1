"""Checks of the loss: that it is of all labels, noisy only in training, and fell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from asr.checks.check import Check
from asr.model import loader, regularization
from asr.training import batches, memory

if TYPE_CHECKING:
    from asr.training.loop import Training

MOST_DRAWS, FEW_DRAWS = 64, 3  # of noise, for layers are rarely dropped; looked at until two differ
LOSS_ERROR = 0.01  # of a loss that is computed in two ways, in bf16


def loss_is_of_all_labels(training: Training) -> Check:
    """A step's loss is the mean over all its labels; and the loss of an evaluation is what
    transformers says, without noise.
    """
    given, world, rank = (
        training.given,
        training.accelerator.num_processes,
        training.accelerator.process_index,
    )
    taken = float(training.gradients(training.micro_batches(0)))
    training.optimizer.zero_grad(set_to_none=True)
    parts = [
        training.collator.batch(training.train, part, (given.seed, 0))
        for part in training.step_examples(0)
    ]
    mine = range(rank, given.gradient_accumulation_steps * world, world)
    wanted = sum(_taught_loss(training, number, parts[number]) for number in mine) / sum(
        map(batches.num_labels, parts)
    )
    found, told = _judged_losses(
        training, next(memory.parts(parts[rank], training.micro_batch_rows()))
    )
    wrong = (
        []
        if abs(taken - wanted) <= LOSS_ERROR * wanted
        else [f"a step takes {taken:.4f}, and its labels have {wanted:.4f}"]
    )
    wrong += (
        []
        if abs(found - told) <= LOSS_ERROR * told
        else [f"evaluation sums {found:.4f} a label, transformers {told:.4f}"]
    )
    return Check(
        "loss",
        not wrong,
        "; ".join(wrong) or f"{wanted:.4f} a label in the first step, {told:.4f} without noise",
    )


def _judged_losses(training: Training, batch: dict[str, torch.Tensor]) -> tuple[float, float]:
    """The loss per label in evaluation, by our sum and by that of transformers."""
    training.model.eval()
    with torch.no_grad():
        found = float(training.loss(batch)) / batches.num_labels(batch)
        told = training.model(
            **{key: value.to(training.accelerator.device) for key, value in batch.items()}
        ).loss
    return found, float(told)


def _taught_loss(training: Training, number: int, batch: dict[str, torch.Tensor]) -> float:
    """The loss of one micro-batch of the first step, with the noise that the step has."""
    training.model.train()
    total = 0.0
    for place, part in enumerate(memory.parts(batch, training.micro_batch_rows())):
        regularization.seed(training.given.seed, 0, (number << training.state.halvings) + place)
        with torch.no_grad():
            total += float(training.loss(part))
    return total


def start_knows_its_tokens(training: Training, start: str) -> Check:
    """A model that was trained before guesses the labels better than by chance, or its tokens are
    not those of the tokenizer.
    """
    loss, chance = training.state.fixed_loss or 0.0, math.log(training.bare.config.vocab_size)
    passed = start == loader.SCRATCH or loss < chance
    return Check(
        "start",
        passed,
        "built from scratch"
        if start == loader.SCRATCH
        else f"loss of the start {loss:.2f}, by chance {chance:.2f}",
    )


def noise_is_where_it_belongs(training: Training) -> Check:
    """Dropout and masks act in training if params ask for them, otherwise in each step and part;
    and never in evaluation.
    """
    batch = training.micro_batches(0)[0]

    def losses(prepare: Any, moments: Iterable[tuple[int, int]]) -> Iterator[float]:
        for moment in moments:
            prepare()
            regularization.seed(training.given.seed, *moment)
            with torch.no_grad():
                yield float(training.loss(batch))

    steps, parts = (
        [(number, 0) for number in range(MOST_DRAWS)],
        [(0, number) for number in range(MOST_DRAWS)],
    )
    asked = any(getattr(training.bare.config, name) for name in regularization.DROPOUTS)
    wrong = []
    if asked and not all(
        _varies(losses(training.model.train, moments)) for moments in (steps, parts)
    ):
        wrong.append("dropout is asked for and does nothing, or the same again and again")
    if not asked and _varies(losses(training.model.train, steps[:FEW_DRAWS])):
        wrong.append("training is noisy, though params ask for no dropout")
    if _varies(losses(training.model.eval, steps[:FEW_DRAWS])):
        wrong.append("evaluation is noisy: the model is in training mode")
    return Check(
        "dropout",
        not wrong,
        "; ".join(wrong) or ("acts in training only" if asked else "none asked for, none found"),
    )


def _varies(values: Iterator[float]) -> bool:
    first = next(values)
    return any(value != first for value in values)


def loss_fell(before: float, after: float) -> Check:
    """On one batch of training rows, in evaluation mode."""
    return Check(
        "fixed_batch", after < before, f"loss on one fixed batch: {before:.4f} -> {after:.4f}"
    )
