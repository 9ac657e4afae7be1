"""Planted faults, one at a time, each caught by its check or refused; healthy trainings pass.

Most are planted in a training that is prepared as the stage prepares it, and looked at before its
first step or after a few. Six trainings go through the whole stage. With EVERY_FAULT=1, as
`make harness NAME=faults` has it, all of them do.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from asr import stopping, wer
from asr.checks.check import Check
from asr.checks.data import splits_are_apart
from asr.checks.loss import start_knows_its_tokens
from asr.checks.training import checks_after, checks_before, saved_model_of, weights_of
from asr.errors import DataError, ModelError, UserError
from asr.model import loader
from asr.model.loader import Start
from asr.storage import files
from asr.training.loop import Training
from stages import evaluate, train
from support.fixtures import one_process
from support.planted_faults import (
    AFTER,
    BEFORE,
    NOISY,
    REFUSED,
    TIMED,
    CountingPatch,
    Fault,
    Plant,
    best_never_reloaded,
    decoding_breaks,
    planted,
)
from support.repository import TINY
from support.training import given, training

pytestmark = [
    pytest.mark.usefixtures("in_process"),
    # PyTorch itself notices an optimizer that makes no step
    pytest.mark.filterwarnings("ignore:Detected call of:UserWarning"),
]
EVERY = bool(os.environ.get("EVERY_FAULT"))  # as the harness `faults` wants it
FEW_STEPS = {
    "train.max_steps": 8,
    "train.eval_steps": 4,
    "train.eval_rows": 3,
    "train.logging_steps": 1,
    "train.save_steps": 8,
    "train.learning_rate": 3e-3,
}
WHOLE = {
    **TINY,
    "train.max_steps": 30,
    "train.eval_steps": 15,
    "train.learning_rate": 3e-3,
    "model.scratch.d_model": 48,
}
HEALTHY: list[dict[str, Any]] = [
    {},
    NOISY,
    {"model.freeze_encoder": 1, "train.weight_decay": 0.1, "train.precision": "bf16"},
    {"train.seed": 2},
    {"train.seed": 3, "model.apply_spec_augment": True},
    {"model.encoder_layerdrop": 0.1, "model.decoder_layerdrop": 0.1},
    {"model.freeze_encoder": "all"},
    {"train.lr_scheduler_type": "linear", "train.gradient_accumulation_steps": 2},
    {"train.lr_scheduler_type": "constant_with_warmup", "train.warmup_steps": 0},
    {
        "train.average_weights": "last",
        "train.average_count": 2,
        "train.label_smoothing_factor": 0.1,
    },
    {"train.precision": "bf16", "train.early_stopping_patience": 1},
    TIMED,
    {"train.lr_scheduler_type": "polynomial", "train.learning_rate": 3e-6},
    {
        "train.lr_scheduler_type": "polynomial",
        "model.window_seconds": 4,
        "train.per_device_train_batch_size": 8,
    },
]

# Every check is the one that catches some fault: `start` that of the last test of this file.
CAUGHT = {"start"}.union(*(fault.checks for fault in BEFORE + AFTER))


def test_a_fault_that_is_never_called_is_not_planted() -> None:
    def nothing(_: CountingPatch) -> None:
        pass

    def two_faults(patch: CountingPatch) -> None:
        patch.setattr(wer, "normalize", str.upper)
        patch.setattr(stopping, "max_tokens", lambda _: 2)

    with planted(two_faults):
        assert (wer.normalize("a"), stopping.max_tokens(1.0)) == ("A", 2)
    uncalled = r"never called: asr\.stopping\.max_tokens"
    with pytest.raises(AssertionError, match=uncalled), planted(two_faults):
        wer.normalize("a")
    with pytest.raises(AssertionError, match="nothing was replaced"), planted(nothing):
        pass


# Trainings that are prepared


def before_its_first_step(one: Training) -> list[Check]:
    sounds = [train.digests(rows) for rows in (one.train, one.validation.rows)]
    return [*checks_before(one), splits_are_apart(*sounds)]


def after_its_last_step(one: Training, changes: dict[str, Any], folder: Path) -> list[Check]:
    """Train to the end and check, as the stage does."""
    before = {name: value.clone() for name, value in one.unwrapped.state_dict().items()}
    one.run()
    steps = one.load_best()
    frozen = changes.get("model.freeze_encoder", 0)
    weights_check, _ = weights_of(one, before, frozen, rank=None)
    loss_after = one.mean_loss(one.train, one.fixed_batch())
    train.write_model(one, folder)
    return [
        *checks_after(one, loader.SCRATCH, weights_check, loss_after),
        saved_model_of(one, folder, steps),
    ]


def failed(checks: Iterable[Check]) -> dict[str, str]:
    """What the checks that failed say, by name."""
    return {one.name: one.detail for one in checks if not one.passed}


@pytest.mark.parametrize("changes", HEALTHY, ids=lambda one: ",".join(one) or "default")
def test_no_check_fires_on_a_healthy_training(
    changes: dict[str, Any], tmp_path: Path, tiny_data: Path
) -> None:
    one = training(tiny_data, tmp_path, **{**FEW_STEPS, **changes})
    checks = before_its_first_step(one)
    checks += after_its_last_step(one, changes, tmp_path / "model")
    assert failed(checks) == {}
    assert {one.name for one in checks} == CAUGHT


@pytest.mark.parametrize("fault", BEFORE, ids=str)
def test_a_fault_is_caught_before_the_first_step(
    fault: Fault, tmp_path: Path, tiny_data: Path, record_property: Callable[[str, Any], None]
) -> None:
    with planted(fault.plant):
        one = training(tiny_data, tmp_path, **{**FEW_STEPS, **fault.changes})
        found = failed(before_its_first_step(one))
    record_property("caught by", ", ".join(sorted(found)) or "nothing")
    assert found.keys() == fault.checks


@pytest.mark.parametrize("fault", AFTER, ids=str)
def test_a_fault_is_caught_after_a_few_steps(
    fault: Fault, tmp_path: Path, tiny_data: Path, record_property: Callable[[str, Any], None]
) -> None:
    with planted(fault.plant):
        one = training(tiny_data, tmp_path, **{**FEW_STEPS, **fault.changes})
        found = failed(after_its_last_step(one, fault.changes, tmp_path / "model"))
    record_property("caught by", ", ".join(sorted(found)) or "nothing")
    assert found.keys() == fault.checks


@pytest.mark.parametrize(
    ("plant", "error", "text"), REFUSED, ids=lambda one: getattr(one, "__name__", "")
)
def test_some_faults_are_refused_before_the_first_step(
    plant: Plant,
    error: type[UserError],
    text: str,
    tmp_path: Path,
    tiny_data: Path,
    record_property: Callable[[str, Any], None],
) -> None:
    with planted(plant), pytest.raises(error, match=text) as refusal:
        trained(tiny_data, tmp_path)
    record_property("refused", str(refusal.value))
    assert not (tmp_path / "models").exists()


# Trainings from beginning to end


def trained(data: Path, root: Path, **changes: Any) -> dict[str, Any]:
    """The checks of a whole training, by name."""
    features = data / "data/features"
    train.run(
        features / "train",
        features / "validation",
        root / "models/finetuned",
        root / "reports/train",
        given(root, **{**WHOLE, **changes}),
    )
    return dict(files.read_json(root / "reports/train/checks.json"))


def details_of_failed(checks: dict[str, Any]) -> dict[str, str]:
    return {name: one["detail"] for name, one in checks.items() if not one["passed"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """The folder of a healthy training that went through the whole stage."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch, one_process(patch):
        patch.setenv("DVC_ROOT", str(root))
        trained(tiny_data, root)
    return root


def test_a_healthy_training_passes_every_check(finished: Path) -> None:
    checks = files.read_json(finished / "reports/train/checks.json")
    assert details_of_failed(checks) == {}
    assert checks.keys() == CAUGHT


@pytest.mark.parametrize(
    "changes", HEALTHY[1:] if EVERY else HEALTHY[1:3], ids=lambda one: ",".join(one)
)
def test_no_check_fires_on_a_whole_healthy_training(
    changes: dict[str, Any], tmp_path: Path, tiny_data: Path
) -> None:
    assert details_of_failed(trained(tiny_data, tmp_path, **changes)) == {}


@pytest.mark.parametrize(
    "fault",
    [
        fault
        for fault in BEFORE + AFTER
        if EVERY or fault.plant in (best_never_reloaded, decoding_breaks)
    ],
    ids=str,
)
def test_a_fault_is_caught_by_a_whole_training(
    fault: Fault, tmp_path: Path, tiny_data: Path, record_property: Callable[[str, Any], None]
) -> None:
    with planted(fault.plant):
        found = details_of_failed(trained(tiny_data, tmp_path, **fault.changes))
    record_property("caught by", ", ".join(sorted(found)) or "nothing")
    assert found.keys() >= fault.checks


# Faults of the data, and of a start model


def copy_of(tiny_data: Path, root: Path) -> Path:
    shutil.copytree(tiny_data / "data/features", root / "data/features")
    return root


def test_a_stale_shard_is_refused(tmp_path: Path, tiny_data: Path) -> None:
    data = copy_of(tiny_data, tmp_path / "spoiled")
    first, second = sorted((data / "data/features/train").glob("*.arrow"))[:2]
    shutil.copy(first, second)
    with pytest.raises(DataError, match=f"{second.name} is not the file its manifest names"):
        trained(data, tmp_path)


def test_validation_rows_in_training_are_refused(tmp_path: Path, tiny_data: Path) -> None:
    data = copy_of(tiny_data, tmp_path / "spoiled")
    shutil.rmtree(data / "data/features/train")
    shutil.copytree(data / "data/features/validation", data / "data/features/train")
    with pytest.raises(
        DataError,
        match=r"rows are in training and in validation, .*; leave them out of one of the two",
    ):
        trained(data, tmp_path)


def test_features_of_another_height_are_refused(
    finished: Path, tmp_path: Path, tiny_data: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(finished / "models/finetuned", other)
    config = files.read_json(other / "config.json")
    files.write_json(other / "config.json", {**config, "num_mel_bins": 128})
    with pytest.raises(ModelError):
        trained(tiny_data, tmp_path, **{"model.name": str(other)})


def rows_taught(data: Path, root: Path, out: Path) -> tuple[int, int, bool]:
    """Test rows that the model of a training was taught, all test rows, and whether a report warns.

    Args:
        root: of the training.
    """
    evaluate.run(
        data / "data/features/test",
        root / "models/finetuned",
        root / "reports/train",
        out / "reports/evaluate",
        given(out, **WHOLE),
    )
    found = files.read_json(out / "reports/evaluate/metrics.json")
    report = (out / "reports/evaluate/report.md").read_text()
    return found["rows_taught"], found["rows"], "what they measure is memory" in report


def test_test_rows_that_were_taught_are_counted(tmp_path: Path, tiny_data: Path) -> None:
    data = copy_of(tiny_data, tmp_path / "spoiled")
    shutil.rmtree(data / "data/features/train")
    shutil.copytree(data / "data/features/test", data / "data/features/train")
    trained(data, tmp_path, **{"train.max_steps": 4})
    taught, rows, warned = rows_taught(data, tmp_path, tmp_path)
    assert taught == rows > 0
    assert warned


def test_test_rows_that_were_not_taught_are_not_counted(
    finished: Path, tmp_path: Path, tiny_data: Path
) -> None:
    taught, rows, warned = rows_taught(tiny_data, finished, tmp_path)
    assert (taught, warned) == (0, False)
    assert rows > 0


def check_of_start(data: Path, root: Path, start: Start) -> Check:
    """The check of a training that starts from this model, before its first step."""
    loader.save(start.model, start.tokenizer, root / "start")
    one = training(data, root, **{"model.name": str(root / "start")})
    loss = one.mean_loss(one.train, one.fixed_batch())
    return start_knows_its_tokens("start", loss, one.unwrapped.config.vocab_size)


def test_a_pretrained_model_with_its_own_tokens_is_sound(
    finished: Path, tmp_path: Path, tiny_data: Path
) -> None:
    start = loader.load_saved(finished / "models/finetuned")
    assert check_of_start(tiny_data, tmp_path, start).passed


def test_a_pretrained_model_with_tokens_shuffled_is_noticed(
    finished: Path, tmp_path: Path, tiny_data: Path
) -> None:
    """Of the same size, so that nothing but its guesses tells: it is worse than chance."""
    start = loader.load_saved(finished / "models/finetuned")
    embeddings = start.model.get_input_embeddings().weight.data
    embeddings[:257] = 10 * embeddings[:257].flip(0)
    check = check_of_start(tiny_data, tmp_path, start)
    assert (check.name, check.passed) == ("start", False)
