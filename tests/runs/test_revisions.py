"""Revisions: names as git and DVC have them, files as they were, and nothing half-fetched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from asr.errors import DataError, ParamsError
from asr.runs import revisions
from asr.runs.revisions import Revision
from support.imports import imported

HOSTILE = "$(touch${IFS}ran);'\"<b>&`x`"
PIPELINE = """
stages:
  make:
    cmd: python make.py
    deps: [make.py]
    params: [length]
    outs: [out/kept.txt, folder]
    metrics: [{score.json: {cache: false}}]
"""
MAKE = """
import json, pathlib
size = int(pathlib.Path("params.yaml").read_text().split(":")[1])
for name in ("out", "folder/deep"):
    pathlib.Path(name).mkdir(parents=True, exist_ok=True)
pathlib.Path("out/kept.txt").write_text("k" * size)
for number in range(3):
    pathlib.Path(f"folder/deep/{number}.txt").write_text(str(size + number))
pathlib.Path("score.json").write_text(json.dumps({"size": size}))
"""


def ask(folder: Path, *command: str) -> str:
    bin = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": bin, "DVC_NO_ANALYTICS": "true", "DVC_ROOT": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two commits of results, an experiment, a branch and two tags.

    The param is not called `size`: DVC's run cache overlooks keys of that name.
    """
    folder = tmp_path_factory.mktemp("repository")
    for name, content in {
        "dvc.yaml": PIPELINE,
        "make.py": MAKE,
        "params.yaml": "length: 3\n",
        ".gitignore": "/.cache\n",
    }.items():
        (folder / name).write_text(content)
    for command in (
        "git init -q -b main",
        "git config user.email a@b",
        "git config user.name a",
        "dvc init -q",
        "dvc repro -q",
    ):
        ask(folder, *command.split())
    for command in ("git add -A", "git commit -q -m first", "git tag -a old -m annotated"):
        ask(folder, *command.split())
    (folder / "params.yaml").write_text("length: 5\n")
    for command in ("dvc repro -q", "git add -A", "git commit -q -m second", "git tag new"):
        ask(folder, *command.split())
    ask(folder, "git", "branch", HOSTILE, "HEAD~1")
    ask(folder, "dvc", "exp", "run", "-q", "-n", "tidy-newt", "-S", "length=7")
    ask(folder, "git", "checkout", "-q", "--", ".")
    ask(folder, "dvc", "checkout", "-q")
    return folder


@pytest.fixture
def repository(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "repository"
    shutil.copytree(made, folder, symlinks=True)
    monkeypatch.setenv("DVC_ROOT", str(folder))
    return folder


def named(repository: Path, name: str, baseline: str = "HEAD") -> Revision:
    """Another experiment on a commit, with the results of tidy-newt."""
    sha = revisions.find("tidy-newt").sha
    base = ask(repository, "git", "rev-parse", baseline)
    ask(repository, "git", "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", str(sha))
    return Revision(name, sha, "experiment")


@pytest.mark.parametrize("name", ["main", "old", "HEAD", "a short sha"])
def test_an_experiment_that_git_takes_for_another_is_called_by_its_sha(
    repository: Path, name: str
) -> None:
    name = ask(repository, "git", "rev-parse", "--short", "HEAD") if " " in name else name
    assert revisions.command_name(revisions.find("tidy-newt")) == "tidy-newt", "the control"
    experiment = named(repository, name)
    assert revisions.command_name(experiment) == experiment.sha
    if name == "main":
        for call, length in ((name, 5), (revisions.command_name(experiment), 7)):
            ask(repository, "dvc", "exp", "apply", "-q", call)
            assert (repository / "params.yaml").read_text() == f"length: {length}\n"
            ask(repository, "git", "reset", "-q", "--hard")


def test_of_two_experiments_of_one_name_each_is_called_by_its_sha(repository: Path) -> None:
    first = revisions.find("tidy-newt")
    commit = ask(repository, "git", "commit-tree", f"{first.sha}^{{tree}}", "-m", "other")
    base = ask(repository, "git", "rev-parse", "HEAD~1")
    ref = f"refs/exps/{base[:2]}/{base[2:]}/tidy-newt"
    ask(repository, "git", "update-ref", ref, commit)
    second = Revision("tidy-newt", commit, "experiment")
    assert [*map(revisions.command_name, (first, second))] == [first.sha, commit]


def test_a_branch_is_called_by_its_name_and_a_tag_only_where_no_branch_has_it(
    repository: Path,
) -> None:
    branch, tag = revisions.find("main"), revisions.find("old")
    assert [*map(revisions.command_name, (branch, tag))] == ["main", "old"]
    ask(repository, "git", "branch", "old", "HEAD")
    assert revisions.command_name(tag) == tag.sha
    assert revisions.command_name(Revision("old", branch.sha, "branch")) == "old"


def test_known_are_workspace_experiments_branches_tags_and_commits_in_this_order(
    repository: Path,
) -> None:
    second, first = ask(repository, "git", "log", "--format=%H").split()
    found = revisions.list_revisions()
    assert found[0] == revisions.HERE
    assert [(one.kind, one.name) for one in found[1:2]] == [("experiment", "tidy-newt")]
    assert {(one.kind, one.name, one.sha) for one in found[2:4]} == {
        ("branch", "main", second),
        ("branch", HOSTILE, first),
    }
    assert {(one.kind, one.name, one.sha) for one in found[4:6]} == {
        ("tag", "old", first),
        ("tag", "new", second),
    }
    assert found[6:] == [
        Revision(second[:8], second, "commit"),
        Revision(first[:8], first, "commit"),
    ]


@pytest.mark.parametrize(
    ("name", "size"),
    [("tidy-newt", 7), ("main", 5), (HOSTILE, 3), ("old", 3), ("new", 5), ("workspace", 5)],
)
def test_files_and_folders_are_fetched_as_they_were(repository: Path, name: str, size: int) -> None:
    one = revisions.find(name)
    assert revisions.fetch(one, "out/kept.txt").read_text() == "k" * size
    assert revisions.fetch(one, "score.json").read_text() == f'{{"size": {size}}}'
    folder = revisions.fetch(one, "folder")
    assert {
        file.relative_to(folder).as_posix(): file.read_text() for file in folder.rglob("*.txt")
    } == {f"deep/{number}.txt": str(size + number) for number in range(3)}
    assert not (repository / "ran").exists()


@pytest.mark.usefixtures("repository")
def test_a_file_of_a_folder_does_not_stand_for_the_folder() -> None:
    one = revisions.find("old")
    assert revisions.fetch(one, "folder/deep/1.txt").read_text() == "4"
    assert len(list(revisions.fetch(one, "folder").rglob("*.txt"))) == 3


def test_what_was_fetched_needs_neither_git_nor_dvc_again(repository: Path) -> None:
    one = revisions.find("tidy-newt")
    before = revisions.fetch(one, "out/kept.txt")
    for name in (".git", ".dvc"):
        shutil.rmtree(repository / name)
    assert revisions.fetch(one, "out/kept.txt") == before
    assert before.read_text() == "k" * 7


def test_what_is_not_to_be_had_is_a_fault_and_leaves_nothing(repository: Path) -> None:
    one = revisions.find("tidy-newt")
    shutil.rmtree(repository / ".dvc/cache")
    for path in ("out/kept.txt", "folder", "never.txt"):
        with pytest.raises(DataError, match="is not to be had"):
            revisions.fetch(one, path)
    assert [
        file.name for file in (repository / ".cache/revisions").rglob("*") if file.is_file()
    ] == ["lock"]
    with pytest.raises(DataError, match="not in the workspace"):
        revisions.fetch(revisions.HERE, "never.txt")


@pytest.mark.parametrize("content", ["[", "stages: 3", "\0", ""])
def test_a_damaged_dvc_is_a_fault(repository: Path, content: str) -> None:
    (repository / "dvc.yaml").write_text(content)
    ask(repository, "git", "commit", "-q", "-a", "-m", "damaged")
    with pytest.raises(DataError):
        revisions.fetch(revisions.find("main"), "out/kept.txt")


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../b", ""])
def test_no_path_leaves_the_repository(path: str) -> None:
    for one in (revisions.HERE, revisions.find("old")):
        with pytest.raises(ParamsError):
            revisions.fetch(one, path)


def test_find_takes_names_and_shas_and_refuses_the_rest(repository: Path) -> None:
    sha = ask(repository, "git", "rev-parse", "HEAD~1")
    assert revisions.find(sha).sha == revisions.find(sha[:7]).sha == sha
    for name in (
        "",
        "nobody",
        "--exec=touch ran",
        "HEAD",
        "main:params.yaml",
        "0" * 40,
        "deadbeef",
        "a\nb",
        "\0",
    ):
        with pytest.raises(ParamsError):
            revisions.find(name)
    assert not (repository / "ran").exists()


def test_a_commit_that_no_list_shows_is_found_by_its_sha(repository: Path) -> None:
    (repository / "note.txt").write_text("no results here")
    for command in ("git checkout -q -b aside", "git add note.txt", "git commit -q -m note"):
        ask(repository, *command.split())
    sha = ask(repository, "git", "rev-parse", "HEAD")
    ask(repository, "git", "checkout", "-q", "main")
    ask(repository, "git", "branch", "-q", "-D", "aside")
    assert sha not in [one.sha for one in revisions.list_revisions()]
    assert revisions.find(sha[:10]) == Revision(sha[:8], sha, "commit")


def test_a_folder_without_git_has_its_workspace_alone(tmp_path: Path) -> None:
    assert revisions.list_revisions() == [revisions.HERE]
    (tmp_path / ".git").write_text("gitdir: nowhere")
    assert revisions.list_revisions() == [revisions.HERE]


@pytest.mark.usefixtures("repository")
def test_eight_threads_fetch_one_folder_whole() -> None:
    one = revisions.find("old")
    seen: list[list[str]] = []
    threads = [
        threading.Thread(
            target=lambda: seen.append(
                sorted(file.name for file in revisions.fetch(one, "folder").rglob("*.txt"))
            )
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [["0.txt", "1.txt", "2.txt"]] * 8


@pytest.mark.usefixtures("repository")
def test_listing_imports_no_dvc() -> None:
    code = "from asr.runs import revisions; assert revisions.list_revisions()"
    assert imported(code, "dvc") == []
