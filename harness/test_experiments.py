"""DVC experiments of all kinds, each killed once on its way, end as those never stopped.

make harness NAME=experiments       # 2 minutes
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

import pytest
import yaml

from asr.params import reader
from asr.runtime.processes import is_alive
from asr.storage import files
from asr.training import batches
from stages import train
from support.data import sha256s
from support.pipeline import Workspace, check_mlflow
from support.repository import TINY, write_params

RESUMED = "resumed at step"


def test_experiments_of_all_kinds_end_in_the_table_and_in_mlflow(workspace: Workspace) -> None:
    run = workspace.run
    said = run("dvc", "exp", "run", "-S", "train.max_steps=6", "-n", "here-1")
    assert RESUMED not in said, "the control of those that were stopped"
    _stopped_once(workspace, "exp", "run", "-S", "train.max_steps=7", "-n", "here-2")
    _stopped_once(
        workspace, "exp", "run", "--temp", "-S", "train.max_steps=8", "-n", "apart", DIE_PARENT="1"
    )
    _stopped_in_a_queue(workspace, "-S", "train.learning_rate=1e-4", "-n", "queued")
    rows = workspace.experiments()
    named = {row["Experiment"]: row for row in rows if row["Experiment"]}
    assert {"here-1", "here-2", "apart", "queued"} <= set(named)
    assert len(named) == 5
    assert all(row["wer"] not in ("", "!") for row in rows), rows
    assert {row["train.learning_rate"] for row in named.values()} >= {"0.0001", "0.0003"}
    check_mlflow(workspace, {"6", "7", "8", "10"}, num_trainings=6)


def _stopped_once(workspace: Workspace, *words: str, **more: str) -> None:
    """The command, with its training or its DVC killed on the way, and once more; no training
    outlives its DVC.
    """
    flag = workspace.root.parent / f"died-{words[-1]}"
    workspace.run("dvc", *words, check=False, DIE_ONCE=str(flag), **more)
    end = time.monotonic() + 120
    while is_alive(int(flag.read_text()), flag.stat().st_mtime):
        assert time.monotonic() < end, "an orphan"
    if more:
        assert f"the experiment {words[-1]} was killed" in workspace.run(
            sys.executable, "-m", "asr.doctor", "--mend"
        )
    assert RESUMED in workspace.run("dvc", *words)


def _stopped_in_a_queue(workspace: Workspace, *words: str) -> None:
    """The same in a queue, the second time with another experiment beside it."""
    workspace.run("dvc", "exp", "run", "--queue", *words)
    _empty_the_queue(workspace, DIE_ONCE=str(workspace.root.parent / "died-queued"))
    workspace.run("dvc", "queue", "remove", "--failed")
    workspace.run("dvc", "exp", "run", "--queue", *words)
    workspace.run("dvc", "exp", "run", "--queue", "-S", "train.learning_rate=3e-4")
    _empty_the_queue(workspace)
    assert RESUMED in workspace.run("dvc", "queue", "logs", words[-1])


def _empty_the_queue(workspace: Workspace, **more: str) -> None:
    workspace.run("dvc", "queue", "start", "-j", "1", **more)
    while "Running" in (status := workspace.run("dvc", "queue", "status")) or "Queued" in status:
        time.sleep(1)


# What a training under DVC is compared with: the stage alone, in this process.

STOPPED = {
    "here-2": {"max_steps": 7},
    "apart": {"max_steps": 8},
    "queued": {"max_steps": 7, "learning_rate": 1e-4},  # it takes the workspace's 7 steps
}


def _trained_alone(workspace: Workspace, root: Path, name: str) -> None:
    """The training of an experiment, never stopped, by the stage alone."""
    changes = {f"train.{key}": value for key, value in STOPPED[name].items()}
    given = reader.load(write_params(root / "params.yaml", {**TINY, **changes}))
    split = workspace.root / "data/features"
    train.run(
        split / "train",
        split / "validation",
        root / "models/finetuned",
        root / "reports/train",
        given,
    )


def _of_the_experiment(workspace: Workspace, name: str, checkpoint: Path) -> dict[str, str]:
    """Hashes of what an experiment left: its checkpoint, its curve in git, its model in DVC."""
    reference = f"refs/exps/*/*/{name}"
    revision = workspace.run("git", "for-each-ref", "--format=%(objectname)", reference).strip()
    lock = yaml.safe_load(workspace.run("git", "show", f"{revision}:dvc.lock"))
    outs = lock["stages"]["train"]["outs"]
    listed = next(out["md5"] for out in outs if out["path"] == "models/finetuned")
    files_of = workspace.root / f".dvc/cache/files/md5/{listed[:2]}/{listed[2:]}"
    made = {one["relpath"]: one["md5"] for one in files.read_json(files_of)}
    return {
        **sha256s(workspace.root / checkpoint, "manifest.json"),
        "steps.csv": workspace.run("git", "show", f"{revision}:reports/train/steps.csv"),
        "model": made["model.safetensors"],
    }


def _of_the_stage(root: Path, checkpoint: Path) -> dict[str, str]:
    """The same of the stage alone."""
    model = (root / "models/finetuned/model.safetensors").read_bytes()
    return {
        **sha256s(root / checkpoint, "manifest.json"),
        "steps.csv": (root / "reports/train/steps.csv").read_text(),
        "model": hashlib.md5(model).hexdigest(),
    }


def _differences(workspace: Workspace, root: Path, name: str) -> set[str]:
    """Names of what an experiment left other than the stage alone."""
    _trained_alone(workspace, root, name)
    (last,) = (root / ".cache/checkpoints").glob(f"*/step-{STOPPED[name]['max_steps']:08d}")
    checkpoint = last.relative_to(root)
    theirs, ours = _of_the_experiment(workspace, name, checkpoint), _of_the_stage(root, checkpoint)
    assert len(ours) == 5, "weights, moments and state; the curve; the model"
    return {one for one, _ in theirs.items() ^ ours.items()}


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", STOPPED)
def test_what_was_stopped_under_dvc_ends_with_the_bits_of_one_never_stopped(
    workspace: Workspace, tmp_path: Path, name: str
) -> None:
    """In the workspace, in a temporary folder and in the queue."""
    assert _differences(workspace, tmp_path, name) == set()


@pytest.mark.usefixtures("in_process")
def test_a_training_that_forgets_its_seed_is_noticed(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: its rows come in another order."""
    rows = batches.batch_rows
    monkeypatch.setattr(
        batches,
        "batch_rows",
        lambda lengths, size, seed, index: rows(lengths, size, seed + 1, index),
    )
    found = _differences(workspace, tmp_path, "here-2")
    assert found >= {"model.safetensors", "optimizer.safetensors", "steps.csv", "model"}
