"""Clones in which DVC would lose an experiment are named before the work, and the work is refused.

Real git and DVC, in clones of a small repository whose one stage asks as ours do.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from asr.errors import ParamsError
from asr.runtime import clone
from support.killed import environment, make, run
from support.refusals import refused
from support.repository import REPOSITORY

STAGE = """
from pathlib import Path
from asr.errors import exit_with
from asr.runtime.stage import run_stage
def main():
    Path("out").write_text(Path("params.yaml").read_text())
{run}(main)
"""
GUARDED, UNGUARDED = (STAGE.format(run=run) for run in ("run_stage", "exit_with"))
TEMP = ("dvc", "exp", "run", "--temp", "-n", "mine", "-S", "n=5")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three commits, of which the newest holds the guarded stage."""
    root = make(tmp_path_factory.mktemp("origin") / "repository")
    run(root, "git", "config", "uploadpack.allowFilter", "true")
    for number, stage in enumerate((UNGUARDED, GUARDED)):
        (root / "wait.py").write_text(stage)
        run(root, "git", "commit", "-qam", str(number))
    return root


def in_path(root: Path, *command: str) -> tuple[int, str]:
    """Exit code and output of a command whose stages find this repository's code."""
    done = subprocess.run(
        command,
        cwd=root,
        env={**environment(root.parent), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def cloned(origin: Path, target: Path, *options: str) -> Path:
    run(target.parent, "git", "clone", "-q", *options, f"file://{origin}", str(target))
    run(target, "git", "config", "user.email", "test@localhost")
    run(target, "git", "config", "user.name", "test")
    return target


def script(origin: Path, target: Path, lines: str) -> Path:
    """The folder that a few lines of shell make."""
    lines = lines.format(url=f"file://{origin}", origin=origin, target=target)
    run(target.parent, "sh", "-ec", lines)
    return target


# What makes a clone, and the beginning of what mends it; None where it lacks nothing.
IDENTITY = "git config user.email a@localhost; git config user.name a"
UNPACKED = "mkdir {target}; git -C {origin} archive HEAD | tar x -C {target}; cd {target}"
CLONES = {
    "whole": ("git clone -q {url} {target}", None),
    "of depth 1": ("git clone -q --depth 1 {url} {target}", "git fetch --unshallow"),
    "of depth 2": ("git clone -q --depth 2 {url} {target}", "git fetch --unshallow"),
    "of depth 1, with a commit on top": (
        f"git clone -q --depth 1 {{url}} {{target}}; cd {{target}}; {IDENTITY}; "
        "git commit -q --allow-empty -m top",
        "git fetch --unshallow",
    ),
    "of a build server": (
        "git init -q {target}; cd {target}; git remote add origin {url}; "
        "git fetch -q --depth 1 origin main; git checkout -q --detach FETCH_HEAD",
        "git fetch --unshallow",
    ),
    "detached": ("git clone -q {url} {target}; git -C {target} checkout -q --detach", None),
    "partial": ("git clone -q --filter=blob:none {url} {target}", "git fetch --refetch"),
    "partial, without trees": ("git clone -q --filter=tree:0 {url} {target}", "git fetch --ref"),
    "single branch": ("git clone -q --single-branch {url} {target}", None),
    "a worktree": ("git -C {origin} worktree add -q --detach {target}", None),
    "a submodule": (
        "git init -q {target}-above; cd {target}-above; "
        "git -c protocol.file.allow=always submodule -q add {url} below; "
        "ln -s {target}-above/below {target}",
        None,
    ),
    "from a ZIP": (UNPACKED, "git clone it; or here: git init"),
    "without a commit": (f"{UNPACKED}; git init -q", "git add -A, git commit"),
    "in another repository": (
        f"git init -q {{target}}-above; cd {{target}}-above; {IDENTITY}; "
        "git commit -q --allow-empty -m top; mkdir below; "
        "git -C {origin} archive HEAD | tar x -C below; ln -s {target}-above/below {target}",
        "git add -A, git commit",
    ),
}


@pytest.mark.parametrize("kind", CLONES)
def test_what_a_clone_lacks_is_said_with_what_mends_it(
    origin: Path, tmp_path: Path, kind: str
) -> None:
    lines, remedy = CLONES[kind]
    lacks = clone.lacks(script(origin, tmp_path / "clone", lines))
    assert [lack.remedy.startswith(str(remedy)) for lack in lacks] == [True] * (remedy is not None)
    assert all(lack.place.exists() for lack in lacks)


# What `make` says with a DVC that says its name and fails.
MADE = {
    "whole": ("repro", "dvc at work"),
    "of depth 1": (
        "repro",
        f"note: {clone.SHALLOW}; what mends it: {clone.UNSHALLOW}\ndvc at work",
    ),
    "without a commit": (
        "repro",
        "(Empty git repo); what mends it: git add -A, git commit -m start",
    ),
    "from a ZIP": ("setup", "want a git repository, for DVC needs one: git clone it; or here"),
}


@pytest.mark.parametrize("kind", MADE)
def test_make_says_it_before_the_work(origin: Path, tmp_path: Path, kind: str) -> None:
    root = script(origin, tmp_path / "clone", CLONES[kind][0])
    target, expected = MADE[kind]
    (root / "Makefile").write_text((REPOSITORY / "Makefile").read_text())
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    (tmp_path / "bin/dvc").write_text("#!/bin/sh\necho dvc at work\nexit 1\n")
    (tmp_path / "bin/dvc").chmod(0o755)
    code, said = in_path(root, "make", target, f"VENV={tmp_path}")
    assert (code, expected in said, "dvc at work" in said) == (2, True, target == "repro")


@pytest.mark.parametrize("kind", ["of a build server", "partial"])
def test_the_command_named_mends_it(origin: Path, tmp_path: Path, kind: str) -> None:
    root = script(origin, tmp_path / "clone", CLONES[kind][0])
    (lack,) = clone.lacks(root)
    run(root, *lack.remedy.split())
    assert clone.lacks(root) == []


def test_in_a_shallow_clone_an_experiment_that_would_be_lost_is_refused(
    origin: Path, tmp_path: Path
) -> None:
    root = cloned(origin, tmp_path / "clone", "--depth", "1")
    code, said = in_path(root, *TEMP)
    assert code != 0
    assert f"error 2: {clone.SHALLOW}; git fetch --unshallow" in said
    code, said = in_path(root, "dvc", "exp", "run", "-n", "here", "-S", "n=6")
    assert (code, "Ran experiment(s): here" in said) == (0, True), "kept, and so not refused"
    run(root, "git", "fetch", "-q", "--unshallow")
    assert in_path(root, *TEMP)[0] == 0
    assert "mine" in run(root, "dvc", "exp", "list")


def test_without_the_refusal_dvc_says_success_and_keeps_nothing(
    origin: Path, tmp_path: Path
) -> None:
    """The control. Where a version of DVC keeps it, the refusal is no longer needed."""
    root = cloned(origin, tmp_path / "clone", "--depth", "1")
    (root / "wait.py").write_text(UNGUARDED)
    code, said = in_path(root, *TEMP)
    assert (code, "Running stage" in said) == (0, True)
    assert "mine" not in run(root, "dvc", "exp", "list")


@pytest.mark.parametrize(("kind", "is_kept"), [("a worktree", True), ("partial", False)])
def test_what_is_said_of_other_clones_is_what_dvc_does(
    origin: Path, tmp_path: Path, kind: str, is_kept: bool
) -> None:
    root = script(origin, tmp_path / "clone", f"{CLONES[kind][0]}; cd {{target}}; {IDENTITY}")
    code, said = in_path(root, *TEMP)
    assert (code == 0) == ("Ran experiment(s): mine" in said) == is_kept
    assert is_kept or "unexpected error" in said


@pytest.mark.parametrize(
    ("name", "folder", "depth", "is_refused"),
    [
        ("mine", "tmp1", 1, True),
        ("mine", ".", 1, False),  # dvc exp run, in the workspace
        ("", "tmp1", 1, False),  # a stage by hand
        ("mine", "tmp1", 9, False),
    ],
)
def test_only_an_experiment_beside_a_shallow_clone_is_refused(
    origin: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    folder: str,
    depth: int,
    is_refused: bool,
) -> None:
    root = cloned(origin, tmp_path / "clone", "--depth", str(depth))
    (root / folder).mkdir(exist_ok=True)
    monkeypatch.chdir(root / folder)
    monkeypatch.setenv("DVC_ROOT", str(root))
    if name:
        monkeypatch.setenv("DVC_EXP_NAME", name)
    with refused(ParamsError, "git fetch --unshallow") if is_refused else nullcontext():
        clone.refuse_if_lost()
