"""The whole graph as people run it: real DVC in a fresh repository with an empty HOME, no network,
a real MLflow store.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from asr.storage import hashing
from support.pipeline import Workspace, check_mlflow
from support.repository import write_params
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


def test_experiments_end_in_the_table_and_in_mlflow(learnt: Workspace) -> None:
    rows = learnt.experiments()
    named = {row["Experiment"]: row for row in rows if row["Experiment"]}
    assert set(named) == {"brief", "learnt"}
    assert all(row["wer"] not in ("", "!") for row in rows), rows
    check_mlflow(learnt, {"10", *(row["train.max_steps"] for row in named.values())})
    assert "train.max_steps" in learnt.run("dvc", "params", "diff")
    assert "reports/evaluate/metrics.json" in learnt.run("dvc", "metrics", "diff")
    plots = learnt.run("dvc", "plots", "show", "-o", str(learnt.root.parent / "plots"))
    assert "failed" not in plots


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
