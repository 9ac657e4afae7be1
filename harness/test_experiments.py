"""DVC experiments of all kinds, each killed once on its way, end as those never stopped."""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

import pytest
import yaml

from asr.doctor import is_alive
from asr.params import reader
from asr.storage import files, hashing
from stages import train
from support.pipeline import Workspace, check_mlflow
from support.repository import TINY, write_params


def test_experiments_of_all_kinds_end_in_the_table_and_in_mlflow(workspace: Workspace) -> None:
    run = workspace.run
    run("dvc", "exp", "run", "-S", "train.max_steps=6", "-n", "here-1")
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
    assert "resumed at step" in workspace.run("dvc", *words)


def _stopped_in_a_queue(workspace: Workspace, *words: str) -> None:
    """The same in a queue, the second time with another experiment beside it."""
    workspace.run("dvc", "exp", "run", "--queue", *words)
    _empty_the_queue(workspace, DIE_ONCE=str(workspace.root.parent / "died-queued"))
    workspace.run("dvc", "queue", "remove", "--failed")
    workspace.run("dvc", "exp", "run", "--queue", *words)
    workspace.run("dvc", "exp", "run", "--queue", "-S", "train.learning_rate=3e-4")
    _empty_the_queue(workspace)
    assert "resumed at step" in workspace.run("dvc", "queue", "logs", words[-1])


def _empty_the_queue(workspace: Workspace, **more: str) -> None:
    workspace.run("dvc", "queue", "start", "-j", "1", **more)
    while "Running" in (status := workspace.run("dvc", "queue", "status")) or "Queued" in status:
        time.sleep(1)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("here-2", {"max_steps": 7}),
        ("apart", {"max_steps": 8}),
        ("queued", {"max_steps": 7, "learning_rate": 1e-4}),
    ],
)
def test_what_was_stopped_under_dvc_ends_with_the_bits_of_one_never_stopped(
    workspace: Workspace, tmp_path: Path, name: str, changed: dict[str, float]
) -> None:
    """In the workspace, in a temporary folder and in the queue, which takes the workspace's 7
    steps; compared with the stage alone.
    """
    given = reader.load(
        write_params(
            tmp_path / "params.yaml",
            {**TINY, **{f"train.{key}": value for key, value in changed.items()}},
        )
    )
    split, reports = workspace.root / "data/features", tmp_path / "reports"
    train.run(split / "train", split / "validation", tmp_path / "model", reports, given)
    folder = (
        f".cache/checkpoints/{files.read_json(reports / 'run.json')['fingerprint']}"
        f"/step-{given.train.max_steps:08d}"
    )
    for file in ("model.safetensors", "optimizer.safetensors", "state.json"):
        assert hashing.sha256(tmp_path / folder / file) == hashing.sha256(
            workspace.root / folder / file
        ), file
    revision = workspace.run(
        "git", "for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{name}"
    ).strip()
    assert (
        workspace.run("git", "show", f"{revision}:reports/train/steps.csv")
        == (reports / "steps.csv").read_text()
    )
    lock = yaml.safe_load(workspace.run("git", "show", f"{revision}:dvc.lock"))["stages"]["train"][
        "outs"
    ]
    listed = next(out["md5"] for out in lock if out["path"] == "models/finetuned")
    made = {
        one["relpath"]: one["md5"]
        for one in files.read_json(
            workspace.root / f".dvc/cache/files/md5/{listed[:2]}/{listed[2:]}"
        )
    }
    assert (
        made["model.safetensors"]
        == hashlib.md5((tmp_path / "model/model.safetensors").read_bytes()).hexdigest()
    )
