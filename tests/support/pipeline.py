"""A repository as people have it: a fresh clone with real git and DVC, an empty HOME, and a log of
foreign sockets.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.runtime.locks import locked
from support.repository import TINY, copy_repository, write_params

# Loaded by every Python of a run: notes each address that is not this machine's; with DIE_ONCE, the
# process that is about to put a file in place whose path ends with DIE_BEFORE is killed, or its
# parent is. Without DIE_BEFORE that is a training before its second checkpoint.
WATCH = """
import os, sys
def note(event, args):
    host = None
    if event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
    elif event == "socket.getaddrinfo":
        host = args[0]
    if host not in (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", b"localhost"):
        with open(os.environ["SOCKET_LOG"], "a") as log:
            log.write(f"{event} {host} {sys.argv}\\n")
sys.addaudithook(note)
def die(event, args):
    last = os.environ.get("DIE_BEFORE", "step-00000006")
    now = event == "os.rename" and str(args[1]).endswith(last)
    if now and not os.path.exists(os.environ["DIE_ONCE"]):
        with open(os.environ["DIE_ONCE"], "w") as file:
            file.write(str(os.getpid()))
        os.kill(os.getppid() if "DIE_PARENT" in os.environ else os.getpid(), 9)
if "DIE_ONCE" in os.environ:
    sys.addaudithook(die)
"""


class Workspace:
    """A clone with its own HOME, and a log of foreign sockets."""

    def __init__(self, root: Path):
        self.root, self.home, self.log = root / "clone", root / "home", root / "sockets.log"
        self.home.mkdir()
        (root / "watch").mkdir()
        (root / "watch/sitecustomize.py").write_text(WATCH)
        foreign = (
            "DVC_",
            "GIT_",
            "MLFLOW_",
            "HF_",
            "XDG_",
            "PYTHONDONTWRITEBYTECODE",
        )  # each stage would compile its modules again
        kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        self.environment = {
            **kept,
            "HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(root / "watch"),
            "SOCKET_LOG": str(self.log),
        }

    def run(self, *command: str, check: bool = True, **more: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.root,
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout + done.stderr

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", message)

    def experiments(self) -> list[dict[str, str]]:
        table = subprocess.run(
            ["dvc", "exp", "show", "--csv"],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return list(csv.DictReader(io.StringIO(table)))


def check_mlflow(workspace: Workspace, steps: set[str], num_trainings: int | None = None) -> None:
    """Each training has one run with its WER per step, and one child with the test's.

    Args:
        steps: `train.max_steps` of the trainings.
        num_trainings: how many they are, if not one for each number of steps.
    """
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{workspace.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("earshot")
    runs = client.search_runs([experiment.experiment_id])
    parents = {run.info.run_id: run for run in runs if "fingerprint" in run.data.tags}
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert {run.data.params["train.max_steps"] for run in parents.values()} == steps
    assert len(parents) == (num_trainings or len(steps))
    assert sorted(run.data.tags["mlflow.parentRunId"] for run in children) == sorted(parents)
    for run_id, run in parents.items():
        history = client.get_metric_history(run_id, "validation/wer")
        assert [point.step for point in history] == sorted({point.step for point in history})
        assert len(history) >= 2
        assert run.info.status == "FINISHED"
        assert "test/wer" in run.data.metrics


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that one process of a test run fills, and that the others wait for.

    Args:
        make: fills an empty folder.
    """
    top = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        top = top.parent
    with locked(top / f"{name}.lock"):
        if not (top / name).exists():
            draft = factory.mktemp(f"{name}-draft")
            make(draft)
            draft.rename(top / name)
    return top / name


def make_workspace(root: Path) -> None:
    """A finished tiny run, committed."""
    made = Workspace(root)
    made.root.mkdir()
    copy_repository(made.root)
    write_params(made.root / "params.yaml", TINY)
    for command in ("init -q -b main", "config user.email test@localhost", "config user.name test"):
        made.run("git", *command.split())
    made.commit("start")
    made.run("dvc", "repro")
    made.commit("default run")


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A finished tiny run, committed; each process has a copy."""
    made = made_once(tmp_path_factory, "pipeline", make_workspace)
    return copied(made, tmp_path_factory.mktemp("pipeline"))


def copied(made: Path, root: Path) -> Workspace:
    """The clone of `made` in another folder, to be changed."""
    shutil.copytree(made / "clone", root / "clone", symlinks=True)
    return Workspace(root)
