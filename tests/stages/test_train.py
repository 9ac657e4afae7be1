"""Training: exact after any stop, blind to the test split, and honest about what it did."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asr.errors import DataError, Diverged, ModelError, Stopped
from asr.features import FeatureRows
from asr.model import regularization, tokenization
from asr.preflight import refusals
from asr.runs import states
from asr.runs.states import State
from asr.storage import files
from asr.tracking import journal
from asr.training import validation
from asr.training.loop import Training
from stages import train
from support import training
from support.children import WITHOUT_MLFLOW, Nursery
from support.fixtures import one_process
from support.repository import REPOSITORY, TINY, write_params

pytestmark = pytest.mark.usefixtures("in_process")
Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]
NOISY = {
    "model.dropout": 0.1,
    "model.attention_dropout": 0.1,
    "model.activation_dropout": 0.1,
    "model.apply_spec_augment": True,
    "train.gradient_accumulation_steps": 2,
    "train.max_steps": 9,
    "train.eval_steps": 6,
    "train.eval_rows": 3,
}
SHORT = {"train.max_steps": 4, "train.eval_rows": 2}
# A plan is run in the child before `main`: it patches the stage from outside, as a kill at that
# moment would hit it.
KILL_AFTER_STEP = """
step = train.Training.train_step
def killed(self, parts):
    step(self, parts)
    if self.state.step == {step}:
        os.kill(os.getpid(), signal.{signal})
train.Training.train_step = killed
"""
KILL_IN_EVALUATION = """
heard = train.Training.hypotheses
def killed(self):
    if self.state.step == {step}:
        os.kill(os.getpid(), signal.{signal})
    return heard(self)
train.Training.hypotheses = killed
"""


def command(data: Path, plan: str) -> list[str]:
    """Code and arguments of the real stage, as `python -c` takes them."""
    code = (
        "import os, signal, sys\nfrom asr.errors import exit_with\nfrom stages import "
        f"train\n{plan}\nexit_with(train.main)"
    )
    features = data / "data/features"
    return [
        code,
        f"{features}/train",
        f"{features}/validation",
        "models/finetuned",
        "reports/train",
    ]


def run_forked(nursery: Nursery, root: Path, data: Path, plan: str = "") -> Done:
    """The real stage in a forked process, without MLflow."""
    return nursery.run(
        *command(data, WITHOUT_MLFLOW + plan),
        root=root,
        DVC_ROOT=str(root),
        PYTHONPATH=str(REPOSITORY),
    )


def run_apart(_: Nursery, root: Path, data: Path, plan: str = "") -> Done:
    """The real stage in an interpreter of its own, as DVC starts it, with MLflow."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "DVC_ROOT": str(root)}
    words = [sys.executable, "-c", *command(data, plan)]
    return subprocess.run(
        words, cwd=root, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> dict[str, str]:
    """Hashes of a training that nothing stopped."""
    root = tmp_path_factory.mktemp("never_stopped")
    with pytest.MonkeyPatch.context() as patch, one_process(patch):
        patch.setenv("DVC_ROOT", str(root))
        return training.run(tiny_data, root, **NOISY)


@pytest.mark.parametrize(
    ("run", "plan", "code", "step"),
    [
        (run_apart, KILL_AFTER_STEP.format(step=5, signal="SIGTERM"), 143, 5),
        (run_forked, KILL_IN_EVALUATION.format(step=6, signal="SIGKILL"), -signal.SIGKILL, 3),
        (run_forked, KILL_IN_EVALUATION.format(step=6, signal="SIGINT"), 130, 6),
    ],
    ids=["terminated", "killed-in-evaluation", "interrupted-in-evaluation"],
)
def test_a_stopped_training_ends_with_the_bits_of_one_never_stopped(
    tmp_path: Path,
    nursery: Nursery,
    tiny_data: Path,
    never_stopped: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    run: Run,
    plan: str,
    code: int,
    step: int,
) -> None:
    """A signal that can be caught costs no step: the next training goes on from `step`."""
    write_params(tmp_path / "params.yaml", {**TINY, **NOISY})
    stopped = run(nursery, tmp_path, tiny_data, plan)
    assert stopped.returncode == code, stopped.stdout + stopped.stderr
    assert "step 6: validation" not in stopped.stdout, "an evaluation is not waited for"
    assert not (tmp_path / "models").exists()
    ended = State("killed", 6, 9, "train") if code < 0 else State("stopped", step, 9, "train")
    assert told(tmp_path)[0] == ended
    assert training.run(tiny_data, tmp_path, **NOISY) == never_stopped
    assert told(tmp_path) == (State("finished", 9, 9), 2)
    assert f"resumed at step {step} of 9" in capsys.readouterr().out


def told(root: Path) -> tuple[State, int]:
    """The state that the journal tells of, and how often the training was begun."""
    (log,) = (root / ".cache/journal").glob("*.jsonl")
    course = journal.course(log)
    assert course is not None
    return states.of_journal(course), course.pieces


def test_the_minutes_of_a_resumed_training_are_all_its_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "pieces.jsonl"
    for begin, length in ((100.0, 34.0), (900.0, 57.25)):
        known = {"fingerprint": "f", "name": "n", "params": {}, "tags": {}}
        journal.append(log, "begin", **known, time=begin)
        journal.append(log, "metrics", step=1, values={}, time=begin + length)
    journal.append(log, "end", status="FINISHED", time=957.25)
    monkeypatch.setattr(train, "run", lambda *_: log)
    monkeypatch.setattr(train.reader, "load", lambda: None)
    monkeypatch.setattr(sys, "argv", ["train", "a", "b", "c", str(tmp_path / "reports")])
    train.main()
    timing = files.read_json(tmp_path / "reports/timing.json")
    assert timing == {"seconds": 34.0 + 57.25}


ERRORS: dict[str, tuple[Exception, State]] = {
    "no memory": (ModelError("no\n memory"), State("failed", stage="train", line="no memory")),
    "no rows": (DataError("no rows"), State("failed", stage="train", line="no rows")),
    "a bug": (KeyError(), State("failed", stage="train", line="KeyError")),
    "stopped": (Stopped(15, "stopped"), State("killed", stage="train")),  # `leave` tells the rest
}


@pytest.mark.parametrize("kind", ERRORS)
def test_the_journal_says_why_a_training_failed(kind: str, tmp_path: Path) -> None:
    error, state = ERRORS[kind]
    log = tmp_path / "failed.jsonl"
    with suppress(type(error)), train.journaled(log, train.Provenance("f" * 32, {}, {})):
        raise error
    course = journal.course(log)
    assert course is not None
    assert states.of_journal(course) == state


STOP_IN_CHECKS = """
best = train.Training.load_best
def stopped(self):
    os.kill(os.getpid(), signal.SIGTERM)
    return best(self)
train.Training.load_best = stopped
"""


def test_a_training_stopped_in_its_checks_says_so_and_only_repeats_them(
    tmp_path: Path, nursery: Nursery, tiny_data: Path, never_stopped: dict[str, str]
) -> None:
    write_params(tmp_path / "params.yaml", {**TINY, **NOISY})
    stopped = run_forked(nursery, tmp_path, tiny_data, STOP_IN_CHECKS)
    assert (stopped.returncode, told(tmp_path)[0]) == (143, State("stopped", 9, 9, "train"))
    assert "error 143: stopped by a signal at step 9 of 9" in stopped.stderr
    assert training.run(tiny_data, tmp_path, **NOISY) == never_stopped


def test_another_seed_gives_other_bits(
    tmp_path: Path, tiny_data: Path, never_stopped: dict[str, str]
) -> None:
    """The control of the test above: its comparison can fail. The rows are the same."""
    found = training.run(tiny_data, tmp_path, **{**NOISY, "train.seed": 2})
    assert found.keys() == never_stopped.keys()
    same = {name for name, digest in never_stopped.items() if found[name] == digest}
    assert same == {"train/taught.npy"}


class Killed(BaseException):
    """Ends a training as SIGKILL would: nothing more is written."""


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path,
    tiny_data: Path,
    never_stopped: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = Training.train_step

    def killed(self: Training, parts: Any) -> None:
        step(self, parts)
        if self.state.step == 8:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "train_step", killed)
        with pytest.raises(Killed):
            training.run(tiny_data, tmp_path, **NOISY)
    newest = max(tmp_path.glob(".cache/checkpoints/*/step-*")) / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert training.run(tiny_data, tmp_path, **NOISY) == never_stopped
    assert "the damaged checkpoint costs 3 steps" in capsys.readouterr().out


def test_training_never_opens_a_test_file(
    tmp_path: Path, nursery: Nursery, tiny_data: Path
) -> None:
    """With the test split taken away, training does not notice; its opens are watched besides."""
    data = tmp_path / "blind"
    shutil.copytree(tiny_data / "data/features", data / "data/features")
    shutil.rmtree(data / "data/features/test")
    write_params(tmp_path / "params.yaml", {**TINY, **SHORT})
    watch = """
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
main = train.main
def watched():
    main()
    of_train = sum("features/train" in one for one in opened)
    of_test = sum("features/test" in one for one in opened)
    print("OPENED", of_train, of_test)
train.main = watched
"""
    done = run_forked(nursery, tmp_path, data, watch)
    assert done.returncode == 0, done.stdout + done.stderr
    count = next(line.split() for line in done.stdout.splitlines() if line.startswith("OPENED"))
    assert int(count[1]) > 0
    assert int(count[2]) == 0


def test_a_finished_training_is_taken_from_its_checkpoint_and_more_steps_say_the_way_to_go_on(
    tmp_path: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = training.run(tiny_data, tmp_path, **SHORT)
    shutil.rmtree(tmp_path / "models")
    capsys.readouterr()
    header, *lines = (tmp_path / "reports/train/steps.csv").read_text().splitlines()
    assert header == "step,train_loss,learning_rate,validation_loss,validation_wer"
    assert {line.count(",") for line in lines} == {4}
    assert training.run(tiny_data, tmp_path, **SHORT) == before
    assert "resumed at step 4 of 4" in capsys.readouterr().out
    training.run(tiny_data, tmp_path, **{**SHORT, "train.max_steps": 5})
    printed = capsys.readouterr().out
    assert "5 steps train anew" in printed
    assert "make keep NAME=mine" in printed


@pytest.mark.parametrize(
    ("name", "wer_bounded", "text"),
    [
        ("wer_bounded", 0.863, "best step 60: validation WER 0.8630; weights"),
        ("wer_bounded", 0.47, "best step 60: validation WER 0.8630, bounded 0.4700; weights"),
        (
            "cer_bounded",
            0.47,
            "best step 60: validation WER 0.8630, chosen by bounded CER 0.1200; weights",
        ),
    ],
)
def test_the_last_line_says_by_which_number_the_best_step_was_chosen_if_it_is_not_the_wer(
    name: str, wer_bounded: float, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = {
        "best_step": 60,
        "best_validation_wer": 0.863,
        "best_validation_wer_bounded": wer_bounded,
        "best_validation_cer_bounded": 0.12,
        "chosen_by": name,
        "fixed_batch_loss_before": 2.0,
        "fixed_batch_loss_after": 1.0,
        "weights_moved": 0.1,
        "rows_left_out": {},
    }
    train.print_summary(summary, [])
    assert text in capsys.readouterr().out


def test_two_trainings_on_one_folder_the_second_says_who_holds_it(
    tmp_path: Path, nursery: Nursery, tiny_data: Path
) -> None:
    write_params(tmp_path / "params.yaml", {**TINY, **SHORT})
    second = """
run = train.Training.run
def first(self):
    child = os.fork()
    if child == 0:
        try:
            exit_with(train.main)
        except SystemExit as end:
            os._exit(end.code)
        os._exit(0)
    print("SECOND", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "FIRST", os.getpid())
    run(self)
train.Training.run = first
"""
    done = run_forked(nursery, tmp_path, tiny_data, second)
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("SECOND"))
    said = next(line for line in done.stderr.splitlines() if line.startswith("error"))
    assert line.split()[1] == "5"
    assert said.startswith("error 5: the same training runs already, as process")
    assert line.split()[-1] in said.split("process ")[1]


def test_a_loss_that_is_no_number_stops_before_the_update(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Training.loss

    def poisoned(self: Training, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        in_third_step = self.model.training and self.state.step == 2
        return loss(self, batch) * (math.nan if in_third_step else 1.0)

    monkeypatch.setattr(Training, "loss", poisoned)
    with pytest.raises(Diverged, match="step 3: loss nan") as error:
        training.run(tiny_data, tmp_path, **SHORT)
    assert error.value.exit_code == 6
    assert str(error.value).count("train-") == TINY["train.per_device_train_batch_size"]
    assert not (tmp_path / "models").exists()


def test_labels_that_generation_would_not_be_prompted_for_are_refused(
    tiny_data: Path, tiny_params: Any, monkeypatch: Any
) -> None:
    start = train.start_model(tiny_params, FeatureRows(tiny_data / "data/features/train"))
    refusals.refuse_other_prompt(start, "sv", "transcribe")
    prompt = tokenization.prompt
    monkeypatch.setattr(tokenization, "prompt", lambda generation: prompt(generation)[:-1])
    with pytest.raises(
        ModelError,
        match=(
            r"labels start with <\|startoftranscript\|> <\|sv\|> <\|transcribe\|>, "
            r"generation with"
        ),
    ):
        refusals.refuse_other_prompt(start, "sv", "transcribe")


def test_every_dropout_reaches_every_layer(tiny_data: Path, tiny_params: Any) -> None:
    start = train.start_model(tiny_params, FeatureRows(tiny_data / "data/features/train"))
    config = start.model.config
    config.dropout, config.attention_dropout, config.activation_dropout = 0.1, 0.2, 0.3
    regularization.apply(start.model)
    layer = start.model.model.decoder.layers[0]
    assert (
        layer.dropout,
        layer.self_attn.dropout,
        layer.encoder_attn.dropout,
        layer.activation_dropout,
    ) == (0.1, 0.2, 0.2, 0.3)
    assert (start.model.model.encoder.dropout, start.model.model.decoder.dropout) == (0.1, 0.1)


def test_seeds_depend_on_seed_step_and_part() -> None:
    def draws(*place: int) -> tuple[float, float]:
        regularization.seed(*place)
        return float(torch.rand(1)), float(np.random.rand())

    places = [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1)]
    assert len({draws(*place) for place in places}) == len(places)
    assert draws(1, 5, 1) == draws(1, 5, 1)


def test_the_validation_subset_is_stable_when_rows_are_added() -> None:
    ids = [f"clip-{number}" for number in range(50)]
    chosen = {ids[row] for row in validation.subset(ids, 10, 1)}
    grown = ["new-1", *ids, "new-2"]
    kept = {grown[row] for row in validation.subset(grown, 10, 1)}
    assert len(chosen) == 10
    assert len(chosen & kept) >= 8
