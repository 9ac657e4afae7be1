"""All checks of one training: takes from it what each of them looks at.

Those before the first step cost a few passes of one batch; those after the last cost one more
decoding of the validation rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from asr.checks.check import Check
from asr.checks.data import batch_is_sound, order_is_whole
from asr.checks.decoding import (
    MAX_SHOWN,
    loss_and_wer_agree,
    metric_is_sound,
    saved_model_is_the_best,
)
from asr.checks.loss import (
    loss_fell,
    loss_is_of_all_labels,
    noise_is_where_it_belongs,
    start_knows_its_tokens,
)
from asr.checks.weights import rate_followed, updates_were_made, weights_moved
from asr.model import loader, lora, regularization, tokenization
from asr.training import batches, epochs, memory, optimization
from asr.training.examples import TrainingExample
from asr.whisper import FRAMES_PER_SECOND

if TYPE_CHECKING:
    from asr.training.loop import Training

Batch = dict[str, torch.Tensor]


def checks_before(training: Training) -> list[Check]:
    """Checks of what a training is fed, and of its loss and metric; nothing is updated."""
    config = training.unwrapped.config
    noise_is_asked = any(getattr(config, name) for name in regularization.DROPOUTS)
    return [
        batch_is_sound(training.collator, training.train, batches_to_check(training)),
        order_of(training),
        metric_of(training),
        noise_is_where_it_belongs(loss_with_noise(training), noise_is_asked),
        loss_is_of_all_labels(*step_losses(training), *evaluation_losses(training)),
    ]


def checks_after(
    training: Training, start: str, weights_check: Check, loss_after: float
) -> list[Check]:
    """Checks of a training that has ended.

    Args:
        start: the name of the start model.
        weights_check: the result of `weights_of`.
        loss_after: on the fixed batch.
    """
    state = training.state
    loss_before = state.fixed_loss or 0.0
    tokenizer, prompt = training.collator.tokenizer, training.collator.prompt

    def worst() -> list[tuple[str, str]]:
        return training.validation.worst(training.hypotheses(), MAX_SHOWN)

    return [
        start_knows_its_tokens(start, loss_before, training.unwrapped.config.vocab_size),
        weights_check,
        loss_fell(loss_before, loss_after),
        rate_of(training),
        updates_of(training),
        loss_and_wer_agree(state.rows, worst, " ".join(tokenizer.convert_ids_to_tokens(prompt))),
    ]


# What it is fed


def batches_to_check(training: Training) -> Iterator[tuple[Batch, list[TrainingExample]]]:
    """The first batch of two steps, and one window of each kind, with their examples.

    Kinds are: by number of rows, with times and without, silence.
    """
    first_part = training.my_micro_batches()[0]
    for step in (0, 1):
        yield training.micro_batches(step)[0], training.step_examples(step)[first_part]
    by_kind = {(len(window.rows), window.prompt): window for window in training.examples}
    kinds = list(by_kind.values())
    yield training.collator.batch(training.train, kinds), kinds


def order_of(training: Training) -> Check:
    """Whether each row comes as often as it counts in the first two epochs."""
    num_windows = len(training.examples)
    parts_per_epoch = -(-num_windows // training.params.per_device_train_batch_size)
    parts = chain.from_iterable(map(training.step_examples, count()))
    first, second = (
        [window for part in islice(parts, parts_per_epoch) for window in part] for _ in range(2)
    )
    repeats = epochs.repeats(training.train)
    usable = [row.index for row in training.usable_rows.rows]
    return order_is_whole(
        (first, second),
        expected=[row for row in usable for _ in range(repeats[row])],
        num_windows=num_windows,
        durations=training.train.column("duration"),
        window_seconds=training.collator.frames / FRAMES_PER_SECOND,
    )


def metric_of(training: Training) -> Check:
    """Whether the WER of the validation rows can be trusted."""
    validation = training.validation
    texts = [validation.rows.text(row) for row in validation.row_numbers]
    return metric_is_sound(
        validation.references,
        texts,
        lengths=[len(ids) for ids in tokenization.text_ids(training.collator.tokenizer, texts)],
        durations=validation.durations,
        num_rows=min(training.params.eval_rows, len(validation.rows)),
    )


# Its loss


def loss_with_noise(training: Training) -> Callable[[bool, int, int], float]:
    """The loss of the first batch, with the noise of a moment: `loss(in_training, step, part)`."""
    return partial(summed_loss, training, training.micro_batches(0)[0])


def summed_loss(training: Training, batch: Batch, in_training: bool, step: int, part: int) -> float:
    """The summed loss of a batch, with the noise that a part of a step has."""
    if in_training:
        training.model.train()
    else:
        training.model.eval()
    regularization.seed(training.params.seed, step, part)
    with torch.no_grad():
        return float(training.loss(batch))


def first_batches(training: Training) -> list[Batch]:
    """The micro-batches of the first step, those of all processes."""
    moment = (training.params.seed, 0)
    return [
        training.collator.batch(training.train, part, moment) for part in training.step_examples(0)
    ]


def step_losses(training: Training) -> tuple[float, float]:
    """This process's share of the loss per label in the first step, computed in two ways.

    The first is what its gradients are of, the second is summed over its labels.
    """
    step_loss = float(training.gradients(training.micro_batches(0)))
    training.optimizer.zero_grad(set_to_none=True)
    all_batches = first_batches(training)
    num_processes = training.accelerator.num_processes
    mine = range(training.accelerator.process_index, len(all_batches), num_processes)
    summed = 0.0
    for number in mine:
        parts = memory.split_batch(all_batches[number], training.micro_batch_rows())
        first_part = number << training.state.halvings
        for index, part in enumerate(parts):
            summed += summed_loss(training, part, True, 0, first_part + index)
    return step_loss, summed / sum(map(batches.num_labels, all_batches))


def evaluation_losses(training: Training) -> tuple[float, float]:
    """The loss per label of one batch in evaluation mode, by our sum and by transformers."""
    mine = first_batches(training)[training.accelerator.process_index]
    batch = next(memory.split_batch(mine, training.micro_batch_rows()))
    training.model.eval()
    with torch.no_grad():
        ours = float(training.loss(batch)) / batches.num_labels(batch)
        on_device = {key: value.to(training.accelerator.device) for key, value in batch.items()}
        theirs = float(training.model(**on_device).loss)
    return ours, theirs


# Its updates


def weights_of(
    training: Training,
    before: dict[str, torch.Tensor],
    freeze_encoder: int | str,
    rank: int | None,
) -> tuple[Check, dict[str, Any]]:
    """Whether the weights moved, and facts for summary.json.

    Args:
        before: the weights before training.
        freeze_encoder: as in params.
        rank: of LoRA's adapters; None without them.
    """
    whisper = training.unwrapped
    frozen = regularization.frozen(whisper, freeze_encoder, rank) | {loader.POSITIONS}
    return weights_moved(before, whisper.state_dict(), frozen)


def rate_of(training: Training) -> Check:
    """Whether the learning rate kept to the schedule that params name."""
    state, params, peak = training.state, training.params, training.learning_rate

    def scheduled(updates: int) -> float:
        return optimization.scheduled_rate(
            params.lr_scheduler_type, peak, updates, params.warmup_steps, params.max_steps
        )

    return rate_followed(state.rows, scheduled, peak, state.first_rate, state.highest_rate)


def updates_of(training: Training) -> Check:
    """Whether AdamW made an update in each step."""
    moments = training.optimizer.state.values()
    updates = max((int(values["step"]) for values in moments), default=0)
    may_skip = training.params.precision == "fp16"
    return updates_were_made(updates, training.state.step, may_skip)


# What was saved


def saved_model_of(training: Training, folder: Path, steps: list[int]) -> Check:
    """Whether the model in `folder` is the one that training found best.

    Args:
        steps: whose weights, or the mean of whose weights, are the best.
    """
    saved = loader.load_saved(folder)
    saved.model.to(training.accelerator.device)
    best = lora.plain_weights(training.unwrapped, training.best_weights(steps))
    measured = training.state.best_wer or 0.0
    return saved_model_is_the_best(saved, best, steps, measured, training.validation)
