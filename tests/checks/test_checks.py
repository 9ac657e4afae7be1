"""Planted faults, one at a time, from outside: each is caught by a named check or refused; healthy
trainings are left in peace.

A fault is planted by patching functions. A test fails if one of these was never called, as after a
move or a renaming: then nothing was planted, and nothing was caught.
"""

from __future__ import annotations

import copy
import functools
import itertools
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from transformers import PreTrainedModel, WhisperModel

from asr import features, wer
from asr.errors import DataError, ModelError, UserError
from asr.features import FeatureRows
from asr.model import greedy, loader, regularization, tokenization
from asr.params import reader, schema
from asr.storage import files
from asr.training import batches, loop, optimization, validation
from asr.training.examples import TrainingRow
from asr.training.loop import Training
from stages import evaluate, train
from support.repository import TINY, write_params

pytestmark = pytest.mark.usefixtures("in_process")

LEARNS = {
    **TINY,
    "train.max_steps": 30,
    "train.eval_steps": 15,
    "train.learning_rate": 3e-3,
    "model.scratch.d_model": 48,
}
NOISY = {"model.dropout": 0.2, "model.attention_dropout": 0.1, "model.activation_dropout": 0.1}


class CountingPatch:
    """Replaces functions as pytest's `monkeypatch` does, and counts the calls of each."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.patch = patch
        self.calls: Counter[str] = Counter()

    def setattr(self, owner: Any, name: str, function: Callable[..., Any]) -> None:
        key = f"{owner.__name__}.{name}"
        self.calls[key] = 0

        @functools.wraps(function)
        def counted(*args: Any, **options: Any) -> Any:
            self.calls[key] += 1
            return function(*args, **options)

        self.patch.setattr(owner, name, counted)


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


def test_a_fault_that_is_never_called_is_not_planted() -> None:
    def nothing(_: CountingPatch) -> None:
        pass

    def two_faults(patch: CountingPatch) -> None:
        patch.setattr(wer, "normalize", str.upper)
        patch.setattr(greedy, "max_tokens", lambda _: 2)

    with planted(two_faults):
        assert (wer.normalize("a"), greedy.max_tokens(1.0)) == ("A", 2)
    uncalled = r"never called: asr\.model\.greedy\.max_tokens"
    with pytest.raises(AssertionError, match=uncalled), planted(two_faults):
        wer.normalize("a")
    with pytest.raises(AssertionError, match="nothing was replaced"), planted(nothing):
        pass


def given(folder: Path, **changes: Any) -> schema.Params:
    return reader.load(write_params(folder / "changed.yaml", {**LEARNS, **changes}))


def trained(data: Path, root: Path, chosen: schema.Params) -> dict[str, Any]:
    """The checks of a whole training, by name."""
    split = data / "data/features"
    train.run(
        split / "train",
        split / "validation",
        root / "models/finetuned",
        root / "reports/train",
        chosen,
    )
    return dict(files.read_json(root / "reports/train/checks.json"))


def failed(checks: dict[str, Any]) -> set[str]:
    return {name for name, one in checks.items() if not one["passed"]}


HEALTHY: list[dict[str, Any]] = [
    {},
    {"train.seed": 2},
    {"train.seed": 3, "model.apply_spec_augment": True},
    NOISY,
    {"model.encoder_layerdrop": 0.1, "model.decoder_layerdrop": 0.1},
    {"model.freeze_encoder": "all"},
    {"model.freeze_encoder": 1, "train.weight_decay": 0.1},
    {"train.lr_scheduler_type": "linear", "train.gradient_accumulation_steps": 2},
    {"train.lr_scheduler_type": "constant_with_warmup", "train.warmup_steps": 0},
    {
        "train.average_weights": "last",
        "train.average_count": 2,
        "train.label_smoothing_factor": 0.1,
    },
    {"train.precision": "bf16", "train.early_stopping_patience": 1, "train.eval_steps": 10},
    {
        "train.lr_scheduler_type": "polynomial",
        "train.learning_rate": 3e-6,
        "model.scratch.d_model": 48,
    },
    {
        "train.lr_scheduler_type": "polynomial",
        "model.window_seconds": 4,
        "train.per_device_train_batch_size": 8,
    },
]


@pytest.mark.parametrize("changes", HEALTHY, ids=lambda one: ",".join(one) or "default")
def test_no_check_fires_on_a_healthy_training(
    changes: dict[str, Any], tmp_path: Path, tiny_data: Path
) -> None:
    found = trained(tiny_data, tmp_path, given(tmp_path, **changes))
    assert len(found) >= 10
    assert failed(found) == set(), {name: found[name]["detail"] for name in failed(found)}


def _frozen_optimiser(patch: CountingPatch) -> None:
    patch.setattr(AcceleratedOptimizer, "step", lambda *_, **__: None)


def _other_optimiser(patch: CountingPatch) -> None:
    make = optimization.make_optimizer
    patch.setattr(
        optimization, "make_optimizer", lambda whisper, *rest: make(copy.deepcopy(whisper), *rest)
    )


def _half_an_optimiser(patch: CountingPatch) -> None:
    make = optimization.make_optimizer
    patch.setattr(
        optimization, "make_optimizer", lambda whisper, *rest: make(whisper.model.decoder, *rest)
    )


def _shifted_labels(patch: CountingPatch) -> None:
    collate = batches.collate

    def shifted(*given: Any) -> Any:
        batch = collate(*given)
        return {**batch, "labels": batch["labels"].roll(1, dims=1)}

    patch.setattr(batches, "collate", shifted)


def _labels_without_end(patch: CountingPatch) -> None:
    collate = batches.collate
    patch.setattr(
        batches,
        "collate",
        lambda clips, texts, prompt, end, frames: collate(clips, texts, prompt, end + 1, frames),
    )


def _texts_of_other_rows(patch: CountingPatch) -> None:
    choose = batches.usable_rows

    def mixed(*given: Any) -> Any:
        found = choose(*given)
        turned = [*found.rows[1:], found.rows[0]]
        pairs = zip(found.rows, turned, strict=True)
        return batches.UsableRows(
            [TrainingRow(a.index, a.num_frames, b.text_ids) for a, b in pairs], found.left_out
        )

    patch.setattr(batches, "usable_rows", mixed)


def _zero_padding(patch: CountingPatch) -> None:
    pad = features.pad

    def zeros(clip: Any, num_frames: int) -> np.ndarray:
        padded = pad(clip, num_frames)
        padded[:, clip.mel.shape[1] :] = 0.0
        return padded

    patch.setattr(features, "pad", zeros)


def _no_warmup(patch: CountingPatch) -> None:
    get = loop.get_scheduler
    patch.setattr(
        loop, "get_scheduler", lambda kind, optimizer, _, steps: get(kind, optimizer, 0, steps)
    )


def _endless_warmup(patch: CountingPatch) -> None:
    get = loop.get_scheduler
    patch.setattr(
        loop,
        "get_scheduler",
        lambda kind, optimizer, warmup, steps: get(kind, optimizer, warmup * 1000, steps * 1000),
    )


def _half_the_rate(patch: CountingPatch) -> None:
    make = optimization.make_optimizer
    patch.setattr(
        optimization, "make_optimizer", lambda whisper, rate, decay: make(whisper, rate / 2, decay)
    )


def _rate_never_falls(patch: CountingPatch) -> None:
    get = loop.get_scheduler
    patch.setattr(loop, "get_scheduler", lambda _, *rest: get("constant_with_warmup", *rest))


def _every_other_update(patch: CountingPatch) -> None:
    step, seen = torch.optim.AdamW.step, itertools.count()
    patch.setattr(
        torch.optim.AdamW,
        "step",
        lambda *given, **named: step(*given, **named) if next(seen) % 2 else None,
    )


def _moments_forgotten(patch: CountingPatch) -> None:
    """What a resume does that loads weights alone."""
    train_step = Training.train_step

    def forgetful(self: Training, parts: Any) -> None:
        if self.state.step == 15:
            self.optimizer.state.clear()
        train_step(self, parts)

    patch.setattr(Training, "train_step", forgetful)


def _same_batch_again(patch: CountingPatch) -> None:
    batches_of = Training.micro_batches
    patch.setattr(Training, "micro_batches", lambda self, _: batches_of(self, 0))


def _never_shuffled(patch: CountingPatch) -> None:
    def in_order(lengths: Any, size: int, _: int, index: int) -> list[int]:
        count = -(-len(lengths) // size)
        return list(range(len(lengths)))[index % count * size :][:size]

    patch.setattr(batches, "batch_rows", in_order)


def _decoding_cut_short(patch: CountingPatch) -> None:
    patch.setattr(greedy, "max_tokens", lambda _: 2)


def _nothing_heard(patch: CountingPatch) -> None:
    decode = greedy.decode_batch
    patch.setattr(greedy, "decode_batch", lambda *given: [[] for _ in decode(*given)])


def _first_part_only(patch: CountingPatch) -> None:
    patch.setattr(Training, "my_micro_batches", lambda _: range(1))


def _loss_of_the_first_part(patch: CountingPatch) -> None:
    backward = Training._backward

    def forgetful(self: Training, parts: Any) -> Any:
        loss, seen = self.loss, itertools.count()
        self.loss = lambda batch: loss(batch) * (0.0 if next(seen) else 1.0)
        try:
            return backward(self, parts)
        finally:
            del self.loss

    patch.setattr(Training, "_backward", forgetful)


def _loss_too_large(patch: CountingPatch) -> None:
    loss = Training.loss
    patch.setattr(Training, "loss", lambda self, batch: loss(self, batch) * 2)


def _next_token_given(patch: CountingPatch) -> None:
    collate = batches.collate

    def leaking(*given: Any) -> Any:
        batch = collate(*given)
        return {
            **batch,
            "decoder_input_ids": batch["labels"].where(
                batch["labels"] >= 0, batch["decoder_input_ids"]
            ),
        }

    patch.setattr(batches, "collate", leaking)


def _features_halved(patch: CountingPatch) -> None:
    unpack = features.unpack
    patch.setattr(features, "unpack", lambda *given: unpack(*given) / 2)


def _judged_by_training_rows(patch: CountingPatch) -> None:
    make = loop.Validation
    patch.setattr(
        loop,
        "Validation",
        lambda rows, *rest: make(
            FeatureRows(Path(rows.dataset.cache_files[0]["filename"]).parents[1] / "train"), *rest
        ),
    )


def _judged_by_one_row(patch: CountingPatch) -> None:
    subset = validation.subset
    patch.setattr(validation, "subset", lambda *given: subset(*given)[:1])


def _masks_in_evaluation(patch: CountingPatch) -> None:
    mask = WhisperModel._mask_input_features

    def always(self: WhisperModel, *given: Any, **named: Any) -> Any:
        was, self.training = self.training, True
        try:
            return mask(self, *given, **named)
        finally:
            self.training = was

    patch.setattr(WhisperModel, "_mask_input_features", always)


def _same_noise_at_each_step(patch: CountingPatch) -> None:
    seed = regularization.seed
    patch.setattr(regularization, "seed", lambda number, _, part: seed(number, 0, part))


def _dropout_forgotten(patch: CountingPatch) -> None:
    patch.setattr(regularization, "apply", lambda _: None)


def _evaluation_in_training_mode(patch: CountingPatch) -> None:
    patch.setattr(PreTrainedModel, "eval", lambda self: self)


def _teacher_forced(patch: CountingPatch) -> None:
    """A metric on the tokens that the model would say if it were told all before them."""

    def forced(self: Training) -> list[str]:
        return [self.validation.rows.text(row) for row in self.validation.row_numbers]

    patch.setattr(Training, "hypotheses", forced)


def _best_never_reloaded(patch: CountingPatch) -> None:
    validate = Training.validate

    def first_is_best(self: Training) -> None:
        validate(self)
        self.state.best_step = (
            min(row["step"] for row in self.state.evaluations()) if self.state.evaluations() else 0
        )

    patch.setattr(Training, "validate", first_is_best)
    patch.setattr(Training, "load_weights", lambda *_: None)


def _saved_with_other_tokens(patch: CountingPatch) -> None:
    save = loader.save
    other = tokenization.from_texts(["ein zwei drei vier", "zwei vier drei"], 300)
    patch.setattr(loader, "save", lambda whisper, _, folder: save(whisper, other, folder))


def _rows_forgotten(patch: CountingPatch) -> None:
    rows = batches.batch_rows
    patch.setattr(
        batches, "batch_rows", lambda lengths, size, seed, _: rows(lengths, size, seed, 0)
    )


def _deaf_metric(patch: CountingPatch) -> None:
    patch.setattr(wer, "normalize", lambda _: "")


def _mean_over_utterances(patch: CountingPatch) -> None:
    patch.setattr(wer, "error_rates", lambda *_: {"wer": 0.25, "cer": 0.25})


def _loss_climbs(patch: CountingPatch) -> None:
    loss = Training.loss
    patch.setattr(
        Training,
        "loss",
        lambda self, batch: loss(self, batch) * (-1.0 if self.model.training else 1.0),
    )


def _decoding_breaks(patch: CountingPatch) -> None:
    """The model hears half of it at first; then the loss goes on falling, and it hears nothing
    more.
    """
    heard = Training.hypotheses

    def broken(self: Training) -> list[str]:
        texts = [self.validation.rows.text(row) for row in self.validation.row_numbers]
        return (
            texts[: len(texts) // 2] + heard(self)[len(texts) // 2 :]
            if self.state.step <= 15
            else heard(self)
        )

    patch.setattr(Training, "hypotheses", broken)


PLANTED: list[tuple[Plant, str, dict[str, Any]]] = [
    (_frozen_optimiser, "weights", {}),
    (_other_optimiser, "weights", {}),
    (_half_an_optimiser, "weights", {}),
    (_shifted_labels, "batch", {}),
    (_labels_without_end, "batch", {}),
    (_texts_of_other_rows, "batch", {}),
    (_zero_padding, "batch", {}),
    (_no_warmup, "learning_rate", {}),
    (_endless_warmup, "learning_rate", {}),
    (_half_the_rate, "learning_rate", {}),
    (_rate_never_falls, "learning_rate", {}),
    (_every_other_update, "updates", {}),
    (_moments_forgotten, "updates", {}),
    (_same_batch_again, "batch", {}),
    (_never_shuffled, "order", {}),
    (_decoding_cut_short, "metric", {}),
    (_nothing_heard, "saved_model", {}),
    (_first_part_only, "loss", {"train.gradient_accumulation_steps": 2}),
    (_loss_of_the_first_part, "loss", {"train.gradient_accumulation_steps": 2}),
    (_loss_too_large, "loss", {}),
    (_next_token_given, "batch", {}),
    (_features_halved, "batch", {}),
    (_judged_by_training_rows, "splits", {}),
    (_judged_by_one_row, "metric", {}),
    (_masks_in_evaluation, "dropout", {"model.apply_spec_augment": True}),
    (_same_noise_at_each_step, "dropout", NOISY),
    (_dropout_forgotten, "dropout", NOISY),
    (_evaluation_in_training_mode, "dropout", NOISY),
    (_teacher_forced, "saved_model", {}),
    (_best_never_reloaded, "saved_model", {}),
    (_saved_with_other_tokens, "saved_model", {}),
    (_rows_forgotten, "order", {}),
    (_deaf_metric, "metric", {}),
    (_mean_over_utterances, "metric", {}),
    (_loss_climbs, "fixed_batch", {}),
    (_decoding_breaks, "decoding", {}),
]


@pytest.mark.filterwarnings(
    "ignore:Detected call of:UserWarning"
)  # PyTorch itself notices the first of them
@pytest.mark.parametrize(
    ("plant", "name", "changes"), PLANTED, ids=lambda one: getattr(one, "__name__", "")
)
def test_a_planted_fault_is_caught_by_its_check(
    plant: Plant,
    name: str,
    changes: Any,
    tmp_path: Path,
    tiny_data: Path,
    record_property: Callable[[str, Any], None],
) -> None:
    with planted(plant):
        found = trained(tiny_data, tmp_path, given(tmp_path, **changes))
    record_property("caught by", ", ".join(sorted(failed(found))) or "nothing")
    assert name in failed(found), {check: one["detail"] for check, one in found.items()}


def _wrong_language(patch: CountingPatch) -> None:
    set_prompt = loader.set_prompt
    patch.setattr(loader, "set_prompt", lambda whisper, _, task: set_prompt(whisper, "de", task))


def _wrong_prompt(patch: CountingPatch) -> None:
    prompt = tokenization.prompt
    patch.setattr(tokenization, "prompt", lambda generation: prompt(generation)[:-1])


def _tokenizer_of_another_model(patch: CountingPatch) -> None:
    build = loader.build
    other = tokenization.from_texts(["ein zwei drei"], 290)
    patch.setattr(
        loader, "build", lambda shape, _, mel_bins, seed: build(shape, other, mel_bins, seed)
    )


REFUSED: list[tuple[Plant, type[UserError], str]] = [
    (_wrong_language, ModelError, "params say sv"),
    (_wrong_prompt, ModelError, "labels start with"),
    (_tokenizer_of_another_model, ModelError, "belong to different models"),
]


@pytest.mark.parametrize(
    ("plant", "fault", "said"), REFUSED, ids=lambda one: getattr(one, "__name__", "")
)
def test_some_faults_are_refused_before_the_first_step(
    plant: Plant,
    fault: type[UserError],
    said: str,
    tmp_path: Path,
    tiny_data: Path,
    record_property: Callable[[str, Any], None],
) -> None:
    with planted(plant), pytest.raises(fault, match=said) as caught:
        trained(tiny_data, tmp_path, given(tmp_path))
    record_property("refused", str(caught.value))
    assert not (tmp_path / "models").exists()


def spoiled(tiny_data: Path, root: Path) -> Path:
    shutil.copytree(tiny_data / "data/features", root / "data/features")
    return root


def test_a_stale_shard_is_refused(tmp_path: Path, tiny_data: Path) -> None:
    data = spoiled(tiny_data, tmp_path / "spoiled")
    first, second = sorted((data / "data/features/train").glob("*.arrow"))[:2]
    shutil.copy(first, second)
    with pytest.raises(DataError, match=f"{second.name} is not the file its manifest names"):
        trained(data, tmp_path, given(tmp_path))


def test_validation_rows_in_training_are_refused(tmp_path: Path, tiny_data: Path) -> None:
    data = spoiled(tiny_data, tmp_path / "spoiled")
    shutil.rmtree(data / "data/features/train")
    shutil.copytree(data / "data/features/validation", data / "data/features/train")
    with pytest.raises(
        DataError,
        match=r"rows are in training and in validation, .*; leave them out of one of the two",
    ):
        trained(data, tmp_path, given(tmp_path))


def test_features_of_another_height_are_refused(tmp_path: Path, tiny_data: Path) -> None:
    trained(tiny_data, tmp_path, given(tmp_path, **{"train.max_steps": 4}))
    (tmp_path / "models/finetuned").rename(tmp_path / "other")
    config = files.read_json(tmp_path / "other/config.json")
    files.write_json(tmp_path / "other/config.json", {**config, "num_mel_bins": 128})
    with pytest.raises(ModelError):
        trained(tiny_data, tmp_path, given(tmp_path, **{"model.name": str(tmp_path / "other")}))


@pytest.mark.parametrize("taught", [True, False])
def test_test_rows_that_were_taught_are_counted(
    taught: bool, tmp_path: Path, tiny_data: Path
) -> None:
    data = spoiled(tiny_data, tmp_path / "spoiled")
    if taught:
        shutil.rmtree(data / "data/features/train")
        shutil.copytree(data / "data/features/test", data / "data/features/train")
    chosen = given(tmp_path)
    trained(data, tmp_path, chosen)
    evaluate.run(
        data / "data/features/test",
        tmp_path / "models/finetuned",
        tmp_path / "reports/train",
        tmp_path / "reports/evaluate",
        chosen,
    )
    found = files.read_json(tmp_path / "reports/evaluate/metrics.json")
    assert found["rows_taught"] == (found["rows"] if taught else 0)
    assert (
        "what they measure is memory" in (tmp_path / "reports/evaluate/report.md").read_text()
    ) == taught


def test_a_pretrained_model_with_tokens_shuffled_is_noticed(
    tmp_path: Path, tiny_data: Path
) -> None:
    """Of the same size, so that nothing but its guesses can tell: a start that is worse than
    chance.
    """
    trained(
        tiny_data, tmp_path, given(tmp_path, **{"train.max_steps": 200, "train.eval_steps": 200})
    )
    start = loader.load_saved(tmp_path / "models/finetuned")
    weights = start.model.get_input_embeddings().weight.data
    kept = weights[:257].flip(0).clone()
    other = tmp_path / "models/other"
    shutil.copytree(tmp_path / "models/finetuned", other)
    found = trained(
        tiny_data, tmp_path, given(tmp_path, **{"model.name": str(other), "train.max_steps": 4})
    )
    assert found["start"]["passed"], found["start"]
    weights[:257] = kept * 10
    shutil.rmtree(other)
    loader.save(start.model, start.tokenizer, other)
    found = trained(
        tiny_data, tmp_path, given(tmp_path, **{"model.name": str(other), "train.max_steps": 4})
    )
    assert not found["start"]["passed"], found["start"]
    assert greedy.generation_prompt(start.model)
