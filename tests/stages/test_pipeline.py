"""The whole graph as people run it: real DVC in a fresh repository with an empty HOME, no network,
a real MLflow store.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from asr.doctor import is_alive
from asr.params import reader
from asr.storage import files, hashing
from stages import train
from support.pipeline import Workspace
from support.repository import TINY, write_params
from support.runs import new_store


def test_a_second_repro_does_nothing_and_says_so(workspace: Workspace) -> None:
    said = workspace.run("dvc", "repro")
    assert "Data and pipelines are up to date." in said
    assert "Running stage" not in said


def test_no_foreign_socket_is_opened(workspace: Workspace) -> None:
    assert not workspace.log.exists(), workspace.log.read_text()
    workspace.run(
        sys.executable,
        "-c",
        "import socket; s = socket.socket(); s.settimeout(0.1); s.connect(('192.0.2.1', 9))",
        check=False,
    )
    assert "192.0.2.1" in workspace.log.read_text(), "the watch itself must see one"
    workspace.log.unlink()


def test_git_sees_metrics_and_plots_and_nothing_heavy(workspace: Workspace) -> None:
    tracked = workspace.run("git", "ls-files").split()
    assert {
        "dvc.lock",
        "reports/evaluate/metrics.json",
        "reports/train/steps.csv",
        "reports/stats/windows.csv",
    } <= set(tracked)
    assert not [
        name for name in tracked if name.startswith(("data/", "models/", ".cache", "mlflow"))
    ]
    assert not [
        name
        for name in tracked
        if name.endswith(".gitignore") and name not in (".gitignore", ".dvc/.gitignore")
    ]
    assert workspace.run("git", "status", "--short") == ""


def test_outputs_name_no_place_time_or_host(workspace: Workspace) -> None:
    paths = [
        path
        for folder in ("data", "models", "reports")
        for path in (workspace.root / folder).rglob("*")
        if path.is_file()
    ]
    assert len(paths) > 20
    for path in paths:
        if path.name != "timing.json":
            content = path.read_bytes()
            assert str(workspace.root).encode() not in content, path
            assert str(workspace.home).encode() not in content, path


def test_the_same_params_give_the_same_bytes(workspace: Workspace, empty_store: Path) -> None:
    """Everything is made anew elsewhere, without caches; only speeds may differ."""

    def digests(root: Path) -> dict[str, str]:
        paths = [
            path
            for folder in ("data", "models", "reports")
            for path in (root / folder).rglob("*")
            if path.is_file()
        ]
        kept = [path for path in paths if path.name not in ("timing.json", "metrics.json")]
        return {str(path.relative_to(root)): hashing.sha256(path) for path in kept}

    other = workspace.root.parent / "elsewhere"
    workspace.run("git", "clone", "-q", str(workspace.root), str(other))
    new_store(other, empty_store)
    place = {
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
        "PYTHONHASHSEED": "7",
        "HOME": str(other),
        "WORKERS": "1",
        "DVC_NO_ANALYTICS": "1",
    }
    subprocess.run(
        ["dvc", "repro", "-q", "--force"],
        cwd=other,
        env={**workspace.environment, **place},
        check=True,
        capture_output=True,
    )
    ours, theirs = digests(workspace.root), digests(other)
    assert {name for name in ours if ours[name] != theirs.get(name)} == set()


@pytest.mark.timeout(1200)
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
    _check_mlflow(workspace, num_trainings=6)
    assert "train.max_steps" in run("dvc", "params", "diff")
    assert "reports/evaluate/metrics.json" in run("dvc", "metrics", "diff")
    plots = run("dvc", "plots", "show", "-o", str(workspace.root.parent / "plots"))
    assert "failed" not in plots


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


def _check_mlflow(workspace: Workspace, num_trainings: int) -> None:
    """Every training has one run with its WER per step, and one child with the test's."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{workspace.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("earshot")
    runs = client.search_runs([experiment.experiment_id])
    parents = {run.info.run_id: run for run in runs if "fingerprint" in run.data.tags}
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(parents) == num_trainings
    assert sorted(run.data.tags["mlflow.parentRunId"] for run in children) == sorted(parents)
    for run_id, run in parents.items():
        history = client.get_metric_history(run_id, "validation/wer")
        assert [point.step for point in history] == sorted({point.step for point in history})
        assert len(history) >= 2
        assert run.info.status == "FINISHED"
        assert "test/wer" in run.data.metrics
        assert run.data.params["train.max_steps"] in ("6", "7", "8", "10")


def test_a_bad_param_stops_before_any_work(workspace: Workspace) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stages.chunk", "data/raw", "nowhere", "nowhere-reports"],
        cwd=workspace.root,
        env={**workspace.environment, "DVC_ROOT": str(workspace.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    broken = workspace.root.parent / "broken"
    broken.mkdir()
    write_params(broken / "params.yaml", {"train.warmup_steps": 9999, "chunk.rows_per_chunk": 0})
    for stage, count in (("download", 2), ("chunk", 3), ("train", 4)):
        places = ["nowhere"] * count
        done = subprocess.run(
            [sys.executable, "-m", f"stages.{stage}", *places],
            cwd=broken,
            env={**workspace.environment, "PYTHONPATH": str(workspace.root)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "train.warmup_steps: got 9999" in done.stderr
        assert "chunk.rows_per_chunk: got 0" in done.stderr
        assert "Traceback" not in done.stderr
        assert sorted(path.name for path in broken.iterdir()) == ["params.yaml"]
