"""Training: exact after any stop, blind to the test split, and honest about what it did."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asr.errors import Diverged, ModelError
from asr.features import FeatureRows
from asr.model import regularization, tokenization
from asr.preflight import refusals
from asr.storage import hashing
from asr.training import validation
from stages import train
from support.children import WITHOUT_MLFLOW, Nursery
from support.repository import REPOSITORY, TINY, write_params

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]
NOISY = {
    **TINY,
    "model.dropout": 0.1,
    "model.attention_dropout": 0.1,
    "model.activation_dropout": 0.1,
    "model.apply_spec_augment": True,
    "train.gradient_accumulation_steps": 2,
    "train.max_steps": 14,
}
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

STOPWATCH = """
import time
kill, stop, told = os.kill, train.Training.stop, []
def noted(pid, signum):
    told.append(time.monotonic())
    kill(pid, signum)
def timed(self):
    try:
        stop(self)
    finally:
        print("SAVED AFTER", time.monotonic() - told[0])
os.kill, train.Training.stop = noted, timed
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


def run_stage(nursery: Nursery, root: Path, data: Path, plan: str = "", check: bool = True) -> Done:
    """The real stage in a forked process, without MLflow."""
    done = nursery.run(
        *command(data, WITHOUT_MLFLOW + plan),
        root=root,
        DVC_ROOT=str(root),
        PYTHONPATH=str(REPOSITORY),
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def run_apart(_: Nursery, root: Path, data: Path, plan: str = "", check: bool = True) -> Done:
    """The real stage in an interpreter of its own, as DVC starts it, with MLflow."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "DVC_ROOT": str(root)}
    words = [sys.executable, "-c", *command(data, plan)]
    done = subprocess.run(
        words, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def traces(root: Path) -> dict[str, str]:
    """Hashes of all that must not differ: model, reports, and the last checkpoint with AdamW's
    state.
    """
    (folder,) = (root / ".cache/checkpoints").iterdir()
    last = max(folder.glob("step-*"))
    paths = [
        root / "models/finetuned/model.safetensors",
        last / "model.safetensors",
        last / "optimizer.safetensors",
        last / "state.json",
    ]
    paths += [root / "reports/train" / name for name in ("steps.csv", "summary.json", "run.json")]
    return {path.relative_to(root).name + path.parent.name: hashing.sha256(path) for path in paths}


@pytest.fixture(scope="module")
def never_stopped(
    tmp_path_factory: pytest.TempPathFactory, nursery: Nursery, tiny_data: Path
) -> dict[str, str]:
    root = tmp_path_factory.mktemp("whole")
    write_params(root / "params.yaml", NOISY)
    run_stage(nursery, root, tiny_data)
    return traces(root)


@pytest.mark.parametrize(
    ("run", "plan", "code"),
    [
        (run_apart, KILL_AFTER_STEP.format(step=7, signal="SIGTERM"), 143),
        (run_stage, KILL_IN_EVALUATION.format(step=10, signal="SIGKILL"), -signal.SIGKILL),
        (run_stage, KILL_IN_EVALUATION.format(step=10, signal="SIGINT"), 130),
    ],
    ids=["terminated", "killed-in-evaluation", "interrupted-in-evaluation"],
)
def test_a_stopped_training_ends_with_the_bits_of_one_never_stopped(
    tmp_path: Path,
    nursery: Nursery,
    tiny_data: Path,
    never_stopped: dict[str, str],
    run: Run,
    plan: str,
    code: int,
) -> None:
    write_params(tmp_path / "params.yaml", NOISY)
    stopped = run(nursery, tmp_path, tiny_data, STOPWATCH + plan, check=False)
    assert stopped.returncode == code, stopped.stdout + stopped.stderr
    assert code < 0 or float(stopped.stdout.partition("SAVED AFTER")[2].split()[0]) < 10, (
        "seconds from a signal to the checkpoint"
    )
    assert not (tmp_path / "models").exists()
    resumed = run(nursery, tmp_path, tiny_data)
    assert "resumed at step" in resumed.stdout
    assert traces(tmp_path) == never_stopped


def test_another_seed_gives_other_bits(
    tmp_path: Path, nursery: Nursery, tiny_data: Path, never_stopped: dict[str, str]
) -> None:
    """The control of the test above: its comparison can fail."""
    write_params(tmp_path / "params.yaml", {**NOISY, "train.seed": 2})
    run_stage(nursery, tmp_path, tiny_data)
    assert all(traces(tmp_path)[name] != digest for name, digest in never_stopped.items())


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, nursery: Nursery, tiny_data: Path, never_stopped: dict[str, str]
) -> None:
    write_params(tmp_path / "params.yaml", NOISY)
    run_stage(
        nursery, tmp_path, tiny_data, KILL_AFTER_STEP.format(step=8, signal="SIGKILL"), check=False
    )
    newest = max((tmp_path / ".cache/checkpoints").glob("*/step-*")) / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    resumed = run_stage(nursery, tmp_path, tiny_data)
    assert "the damaged checkpoint costs 3 steps" in resumed.stdout
    assert traces(tmp_path) == never_stopped


def test_training_never_opens_a_test_file(
    tmp_path: Path, nursery: Nursery, tiny_data: Path
) -> None:
    """With the test split taken away, training does not notice; its opens are watched besides."""
    data = tmp_path / "blind"
    shutil.copytree(tiny_data / "data", data / "data")
    shutil.rmtree(data / "data/features/test")
    write_params(tmp_path / "params.yaml", TINY)
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
    done = run_stage(nursery, tmp_path, data, watch)
    count = next(line.split() for line in done.stdout.splitlines() if line.startswith("OPENED"))
    assert int(count[1]) > 0
    assert int(count[2]) == 0


def test_more_steps_of_a_finished_training_say_the_way_to_go_on(
    tmp_path: Path, nursery: Nursery, tiny_data: Path
) -> None:
    write_params(tmp_path / "params.yaml", {**TINY, "train.max_steps": 4})
    run_stage(nursery, tmp_path, tiny_data)
    write_params(tmp_path / "params.yaml", {**TINY, "train.max_steps": 6})
    done = run_stage(nursery, tmp_path, tiny_data)
    assert "6 steps train anew" in done.stdout
    assert "make keep NAME=mine" in done.stdout


def test_a_finished_training_is_taken_from_its_checkpoint(
    tmp_path: Path, nursery: Nursery, tiny_data: Path
) -> None:
    write_params(tmp_path / "params.yaml", {**TINY, "train.max_steps": 4})
    run_stage(nursery, tmp_path, tiny_data)
    before = traces(tmp_path)
    shutil.rmtree(tmp_path / "models")
    done = run_stage(nursery, tmp_path, tiny_data)
    assert "resumed at step 4 of 4" in done.stdout
    assert traces(tmp_path) == before


def test_two_trainings_on_one_folder_the_second_says_who_holds_it(
    tmp_path: Path, nursery: Nursery, tiny_data: Path
) -> None:
    write_params(tmp_path / "params.yaml", TINY)
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
    done = run_stage(nursery, tmp_path, tiny_data, second)
    line = next(line for line in done.stdout.splitlines() if line.startswith("SECOND"))
    said = next(line for line in done.stderr.splitlines() if line.startswith("error"))
    assert line.split()[1] == "5"
    assert said.startswith("error 5: the same training runs already, as process")
    assert line.split()[-1] in said.split("process ")[1]


def test_a_loss_that_is_no_number_stops_before_the_update(
    tmp_path: Path, nursery: Nursery, tiny_data: Path
) -> None:
    write_params(tmp_path / "params.yaml", TINY)
    poison = """
loss = train.Training.loss
train.Training.loss = lambda self, batch: loss(self, batch) * (
    float("nan") if self.model.training and self.state.step == 4 else 1.0
)
"""
    done = run_stage(nursery, tmp_path, tiny_data, poison, check=False)
    assert done.returncode == Diverged.exit_code
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error 6: step 5: loss nan")
    assert last.count("train-") == TINY["train.per_device_train_batch_size"]


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
