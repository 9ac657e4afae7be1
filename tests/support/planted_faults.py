"""Faults of a training, planted by patching functions from outside, and the checks that see them.

`planted` fails if a patched function was never called, as after a move or a renaming: then nothing
was planted, and nothing was caught.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from transformers import PreTrainedModel, WhisperModel

from asr import features, stopping, wer
from asr.errors import ModelError, UserError
from asr.features import FeatureRows
from asr.model import greedy, loader, regularization, tokenization
from asr.training import batches, examples, loop, optimization, validation
from asr.training.batches import Collator
from asr.training.examples import TrainingRow
from asr.training.loop import Training

NOISY = {"model.dropout": 0.2, "model.attention_dropout": 0.1, "model.activation_dropout": 0.1}
IN_PARTS = {"train.gradient_accumulation_steps": 2}
# Windows of several rows, with times and without, and of silence.
TIMED = {
    "train.timestamp_share": 0.6,
    "train.pack_to_window": True,
    "train.no_speech_share": 0.1,
    "model.scratch.window_seconds": 8,
    "model.scratch.max_target_positions": 64,
}


class CountingPatch:
    """Replaces functions as pytest's `monkeypatch` does, and counts the calls of each."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self._patch = patch
        self.calls: Counter[str] = Counter()

    def setattr(self, owner: Any, name: str, function: Callable[..., Any]) -> None:
        key = f"{owner.__name__}.{name}"
        self.calls[key] = 0

        @functools.wraps(function)
        def counted(*args: Any, **options: Any) -> Any:
            self.calls[key] += 1
            return function(*args, **options)

        self._patch.setattr(owner, name, counted)


Plant = Callable[[CountingPatch], None]


@contextmanager
def planted(plant: Plant) -> Iterator[None]:
    """Plant a fault while the block runs, which must call every function that was replaced."""
    with pytest.MonkeyPatch.context() as patch:
        counting = CountingPatch(patch)
        plant(counting)
        yield
    assert counting.calls, "nothing was replaced"
    uncalled = [name for name, count in counting.calls.items() if not count]
    assert not uncalled, f"replaced, but never called: {', '.join(uncalled)}"


def frozen_optimizer(patch: CountingPatch) -> None:
    patch.setattr(AcceleratedOptimizer, "step", lambda *_, **__: None)


def other_optimizer(patch: CountingPatch) -> None:
    make = optimization.make_optimizer
    patch.setattr(
        optimization, "make_optimizer", lambda whisper, *rest: make(copy.deepcopy(whisper), *rest)
    )


def half_an_optimizer(patch: CountingPatch) -> None:
    make = optimization.make_optimizer
    patch.setattr(
        optimization, "make_optimizer", lambda whisper, *rest: make(whisper.model.decoder, *rest)
    )


def shifted_labels(patch: CountingPatch) -> None:
    collate = batches.collate

    def shifted(*given: Any) -> Any:
        batch = collate(*given)
        return {**batch, "labels": batch["labels"].roll(1, dims=1)}

    patch.setattr(batches, "collate", shifted)


def labels_without_end(patch: CountingPatch) -> None:
    collate = batches.collate
    patch.setattr(
        batches,
        "collate",
        lambda clips, texts, prompt, end, frames: collate(clips, texts, prompt, end + 1, frames),
    )


def texts_of_other_rows(patch: CountingPatch) -> None:
    choose = batches.usable_rows

    def mixed(*given: Any) -> Any:
        found = choose(*given)
        turned = [*found.rows[1:], found.rows[0]]
        pairs = zip(found.rows, turned, strict=True)
        return batches.UsableRows(
            [TrainingRow(a.index, a.num_frames, b.text_ids) for a, b in pairs], found.left_out
        )

    patch.setattr(batches, "usable_rows", mixed)


def zero_padding(patch: CountingPatch) -> None:
    pad = features.pad

    def zeros(clip: Any, num_frames: int) -> np.ndarray:
        padded = pad(clip, num_frames)
        padded[:, clip.mel.shape[1] :] = 0.0
        return padded

    patch.setattr(features, "pad", zeros)


def times_too_late(patch: CountingPatch) -> None:
    label = examples.timed_label
    patch.setattr(
        examples, "timed_label", lambda frames, texts, first: label(frames, texts, first + 1)
    )


def joined_in_reverse(patch: CountingPatch) -> None:
    join = examples.join
    patch.setattr(examples, "join", lambda clips: join(clips[::-1]))


def loud_silence_later(patch: CountingPatch) -> None:
    """In all but the first two steps, so that their batches do not tell."""
    log_mel = Collator.log_mel

    def loud(self: Collator, rows: FeatureRows, window: Any, seed: tuple[int, ...]) -> Any:
        clip = log_mel(self, rows, window, seed)
        is_early = seed[1:] in ((0,), (1,))
        return clip if window.rows or is_early else replace(clip, mel=clip.mel + 3)

    patch.setattr(Collator, "log_mel", loud)


def no_warmup(patch: CountingPatch) -> None:
    get = loop.get_scheduler
    patch.setattr(
        loop, "get_scheduler", lambda kind, optimizer, _, steps: get(kind, optimizer, 0, steps)
    )


def endless_warmup(patch: CountingPatch) -> None:
    get = loop.get_scheduler
    patch.setattr(
        loop,
        "get_scheduler",
        lambda kind, optimizer, warmup, steps: get(kind, optimizer, warmup * 1000, steps * 1000),
    )


def half_the_rate(patch: CountingPatch) -> None:
    make = optimization.make_optimizer
    patch.setattr(
        optimization, "make_optimizer", lambda whisper, rate, decay: make(whisper, rate / 2, decay)
    )


def rate_never_falls(patch: CountingPatch) -> None:
    get = loop.get_scheduler
    patch.setattr(loop, "get_scheduler", lambda _, *rest: get("constant_with_warmup", *rest))


def every_other_update(patch: CountingPatch) -> None:
    step, seen = torch.optim.AdamW.step, itertools.count()
    patch.setattr(
        torch.optim.AdamW,
        "step",
        lambda *given, **named: step(*given, **named) if next(seen) % 2 else None,
    )


def moments_forgotten(patch: CountingPatch) -> None:
    """What a resume does that loads weights alone."""
    train_step = Training.train_step

    def forgetful(self: Training, parts: Any) -> None:
        if self.state.step == self.params.max_steps // 2:
            self.optimizer.state.clear()
        train_step(self, parts)

    patch.setattr(Training, "train_step", forgetful)


def same_batch_again(patch: CountingPatch) -> None:
    batches_of = Training.micro_batches
    patch.setattr(Training, "micro_batches", lambda self, _: batches_of(self, 0))


def never_shuffled(patch: CountingPatch) -> None:
    def in_order(lengths: Any, size: int, _: int, index: int) -> list[int]:
        count = -(-len(lengths) // size)
        return list(range(len(lengths)))[index % count * size :][:size]

    patch.setattr(batches, "batch_rows", in_order)


def decoding_cut_short(patch: CountingPatch) -> None:
    patch.setattr(stopping, "max_tokens", lambda _: 2)


def nothing_heard(patch: CountingPatch) -> None:
    decode = greedy.decode_batch
    patch.setattr(greedy, "decode_batch", lambda *given: [[] for _ in decode(*given)])


def first_part_only(patch: CountingPatch) -> None:
    patch.setattr(Training, "my_micro_batches", lambda _: range(1))


def loss_of_the_first_part(patch: CountingPatch) -> None:
    gradients = Training.gradients

    def forgetful(self: Training, parts: Any) -> Any:
        loss, seen = self.loss, itertools.count()
        self.loss = lambda batch: loss(batch) * (0.0 if next(seen) else 1.0)
        try:
            return gradients(self, parts)
        finally:
            del self.loss

    patch.setattr(Training, "gradients", forgetful)


def loss_too_large(patch: CountingPatch) -> None:
    loss = Training.loss
    patch.setattr(Training, "loss", lambda self, batch: loss(self, batch) * 2)


def next_token_given(patch: CountingPatch) -> None:
    collate = batches.collate

    def leaking(*given: Any) -> Any:
        batch = collate(*given)
        labels = batch["labels"]
        return {**batch, "decoder_input_ids": labels.where(labels >= 0, batch["decoder_input_ids"])}

    patch.setattr(batches, "collate", leaking)


def features_halved(patch: CountingPatch) -> None:
    unpack = features.unpack
    patch.setattr(features, "unpack", lambda *given: unpack(*given) / 2)


def judged_by_training_rows(patch: CountingPatch) -> None:
    make = loop.Validation

    def other_split(rows: FeatureRows, *rest: Any) -> Any:
        folder = Path(rows.dataset.cache_files[0]["filename"]).parents[1]
        return make(FeatureRows(folder / "train"), *rest)

    patch.setattr(loop, "Validation", other_split)


def judged_by_one_row(patch: CountingPatch) -> None:
    subset = validation.subset
    patch.setattr(validation, "subset", lambda *given: subset(*given)[:1])


def masks_in_evaluation(patch: CountingPatch) -> None:
    mask = WhisperModel._mask_input_features

    def always(self: WhisperModel, *given: Any, **named: Any) -> Any:
        was, self.training = self.training, True
        try:
            return mask(self, *given, **named)
        finally:
            self.training = was

    patch.setattr(WhisperModel, "_mask_input_features", always)


def same_noise_at_each_step(patch: CountingPatch) -> None:
    seed = regularization.seed
    patch.setattr(regularization, "seed", lambda number, _, part: seed(number, 0, part))


def dropout_forgotten(patch: CountingPatch) -> None:
    patch.setattr(regularization, "apply", lambda _: None)


def evaluation_in_training_mode(patch: CountingPatch) -> None:
    patch.setattr(PreTrainedModel, "eval", lambda self: self)


def teacher_forced(patch: CountingPatch) -> None:
    """A metric on the tokens that the model would say if it were told all before them."""

    def forced(self: Training) -> list[str]:
        return [self.validation.rows.text(row) for row in self.validation.row_numbers]

    patch.setattr(Training, "hypotheses", forced)


def best_never_reloaded(patch: CountingPatch) -> None:
    validate = Training.validate

    def first_is_best(self: Training) -> None:
        validate(self)
        steps = [row["step"] for row in self.state.evaluations()]
        self.state.best_step = min(steps, default=0)

    patch.setattr(Training, "validate", first_is_best)
    patch.setattr(Training, "load_weights", lambda *_: None)


def saved_with_other_tokens(patch: CountingPatch) -> None:
    save = loader.save
    other = tokenization.from_texts(["ein zwei drei vier", "zwei vier drei"], 300)
    patch.setattr(loader, "save", lambda whisper, _, folder: save(whisper, other, folder))


def rows_forgotten(patch: CountingPatch) -> None:
    rows = batches.batch_rows
    patch.setattr(
        batches, "batch_rows", lambda lengths, size, seed, _: rows(lengths, size, seed, 0)
    )


def deaf_metric(patch: CountingPatch) -> None:
    patch.setattr(wer, "normalize", lambda _: "")


def mean_over_utterances(patch: CountingPatch) -> None:
    patch.setattr(wer, "error_rates", lambda *_: {"wer": 0.25, "cer": 0.25})


def loss_climbs(patch: CountingPatch) -> None:
    loss = Training.loss
    patch.setattr(
        Training,
        "loss",
        lambda self, batch: loss(self, batch) * (-1.0 if self.model.training else 1.0),
    )


def decoding_breaks(patch: CountingPatch) -> None:
    """Till the last evaluation half of the texts are right; then only the loss goes on falling."""
    heard = Training.hypotheses

    def broken(self: Training) -> list[str]:
        texts = [self.validation.rows.text(row) for row in self.validation.row_numbers]
        hypotheses, half = heard(self), len(texts) // 2
        if self.state.step < self.params.max_steps:
            hypotheses[:half] = texts[:half]
        return hypotheses

    patch.setattr(Training, "hypotheses", broken)


def wrong_language(patch: CountingPatch) -> None:
    set_prompt = loader.set_prompt
    patch.setattr(loader, "set_prompt", lambda whisper, _, task: set_prompt(whisper, "de", task))


def wrong_prompt(patch: CountingPatch) -> None:
    prompt = tokenization.prompt
    patch.setattr(tokenization, "prompt", lambda generation: prompt(generation)[:-1])


def tokenizer_of_another_model(patch: CountingPatch) -> None:
    build = loader.build
    other = tokenization.from_texts(["ein zwei drei"], 290)
    patch.setattr(
        loader, "build", lambda shape, _, mel_bins, seed: build(shape, other, mel_bins, seed)
    )


@dataclass(frozen=True)
class Fault:
    """A fault that checks catch.

    plant: patches the functions.
    checks: names of the checks that fail, and no others.
    changes: of params, where the fault shows.
    """

    plant: Plant
    checks: set[str]
    changes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.plant.__name__


# Faults that show before the first step, in what a training is fed and in its loss.
BEFORE = [
    Fault(shifted_labels, {"batch"}),
    Fault(labels_without_end, {"batch"}),
    Fault(texts_of_other_rows, {"batch"}),
    Fault(zero_padding, {"batch"}),
    Fault(same_batch_again, {"batch"}),
    Fault(next_token_given, {"batch"}),
    Fault(features_halved, {"batch"}),
    Fault(times_too_late, {"batch"}, TIMED),
    Fault(joined_in_reverse, {"batch"}, TIMED),
    Fault(loud_silence_later, {"batch"}, TIMED),
    Fault(never_shuffled, {"order"}),
    Fault(rows_forgotten, {"order"}),
    Fault(decoding_cut_short, {"metric"}),
    Fault(judged_by_one_row, {"metric"}),
    Fault(deaf_metric, {"metric"}),
    Fault(mean_over_utterances, {"metric"}),
    Fault(judged_by_training_rows, {"splits"}),
    Fault(first_part_only, {"loss"}, IN_PARTS),
    Fault(loss_of_the_first_part, {"loss"}, IN_PARTS),
    Fault(loss_too_large, {"loss"}),
    Fault(masks_in_evaluation, {"dropout"}, {"model.apply_spec_augment": True}),
    Fault(same_noise_at_each_step, {"dropout"}, NOISY),
    Fault(dropout_forgotten, {"dropout"}, NOISY),
    Fault(evaluation_in_training_mode, {"dropout", "loss"}, NOISY),
]
# Faults that show after some steps.
AFTER = [
    Fault(frozen_optimizer, {"weights", "updates", "fixed_batch"}),
    Fault(other_optimizer, {"weights", "updates", "fixed_batch"}),
    Fault(half_an_optimizer, {"weights"}),
    Fault(no_warmup, {"learning_rate"}),
    Fault(endless_warmup, {"learning_rate"}),
    Fault(half_the_rate, {"learning_rate"}),
    Fault(rate_never_falls, {"learning_rate"}),
    Fault(every_other_update, {"updates"}),
    Fault(moments_forgotten, {"updates"}),
    Fault(loss_climbs, {"fixed_batch"}),
    Fault(decoding_breaks, {"decoding", "saved_model"}),
    Fault(nothing_heard, {"saved_model"}),
    Fault(teacher_forced, {"saved_model"}),
    Fault(best_never_reloaded, {"saved_model"}),
    Fault(saved_with_other_tokens, {"saved_model"}),
]
# Faults that are refused before a training is made, with words of the error.
REFUSED: list[tuple[Plant, type[UserError], str]] = [
    (wrong_language, ModelError, "params say sv"),
    (wrong_prompt, ModelError, "labels start with"),
    (tokenizer_of_another_model, ModelError, "belong to different models"),
]
