"""An experiment is pushed with its data, or not at all: `dvc exp push` says "Pushed" either way.

Real git and DVC, in a small repository with an experiment that is older than any remote for data.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from asr.errors import DataError, ParamsError
from asr.runs import share
from support.killed import CONFIG, make, run
from support.refusals import refused

NO_DEFAULT = f"{CONFIG}['remote \"data\"']\n    url = {{url}}\n"
DEFAULT = NO_DEFAULT.replace("true\n[", "true\n    remote = data\n[")


@pytest.fixture(scope="module")
def experimented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make(tmp_path_factory.mktemp("experimented") / "repository")
    run(root, "dvc", "exp", "run", "-n", "old", "-S", "n=2")
    run(root, "git", "checkout", "-q", ".")
    return root


@pytest.fixture
def root(experimented: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository elsewhere, and beside it a bare one, which git calls `team`."""
    made = tmp_path / "repository"
    shutil.copytree(experimented, made, symlinks=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    run(tmp_path, "git", "init", "-q", "--bare", "team.git")
    run(made, "git", "remote", "add", "team", str(tmp_path / "team.git"))
    run(made, "git", "push", "-q", "team", "main")
    (tmp_path / "data").mkdir()
    return made


def name_remote(root: Path, config: str, file: str = "config") -> None:
    (root / ".dvc" / file).write_text(config.format(url=root.parent / "data"))
    run(root, "git", "commit", "-qam", "remote", "--allow-empty")


def arrived(root: Path) -> int:
    return sum(path.is_file() for path in (root.parent / "data").rglob("*"))


@pytest.mark.parametrize(
    ("config", "file"),
    [
        (CONFIG, "config"),  # no remote
        (DEFAULT, "config"),  # named after the experiment, and committed
        (NO_DEFAULT, "config"),
        (NO_DEFAULT, "config.local"),
        ("[", "config.local"),  # cut short
    ],
)
def test_an_experiment_whose_data_would_stay_is_not_pushed(
    root: Path, config: str, file: str
) -> None:
    name_remote(root, config, file)
    match = r"^share: the commit of old names no remote for data, .*dvc remote add --local"
    with refused(ParamsError, match):
        share.share(root, "team", ["old"])
    assert share.pushed(root, list(share.experiments(root).values())) == {}


def test_dvc_says_pushed_though_no_data_went(root: Path) -> None:
    """The control. Where a version of DVC refuses this, `share` is no longer needed."""
    name_remote(root, DEFAULT)
    assert "Pushed experiment old" in run(root, "dvc", "exp", "push", "team", "old")
    assert arrived(root) == 0
    commits = share.experiments(root)
    assert share.pushed(root, list(commits.values())) == {"team": {commits["old"]}}


def test_what_is_named_as_the_way_out_takes_the_data_along(root: Path) -> None:
    words = share.REMEDY.replace("NAME", "data").replace("WHERE", str(root.parent / "data"))
    run(root, *words.split())
    share.share(root, "team", ["old"])
    assert arrived(root) == 3, "a folder's list, and the two files in it"


def test_an_experiment_that_is_newer_than_the_remote_is_pushed_whole(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name_remote(root, DEFAULT)
    run(root, "dvc", "exp", "run", "-n", "new", "-S", "n=3")
    assert share.without_remote(root, share.experiments(root)) == ["old"]
    share.share(root, "team", ["new"])
    assert arrived(root) == 3
    for path in (root / ".dvc/cache/files").rglob("*"):
        path.is_dir() or path.unlink()
    shutil.rmtree(root.parent / "data")
    with refused(DataError, r"^share: not all data of new is there"):
        share.share(root, "team", ["new"])
    assert "Missing cache files" in capfd.readouterr().err


def test_of_experiments_of_one_name_the_present_commit_has_it(root: Path) -> None:
    old = share.experiments(root)["old"]
    run(root, "git", "commit", "-q", "--allow-empty", "-m", "next")
    head = run(root, "git", "rev-parse", "HEAD").strip()
    run(root, "git", "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/old", head)
    assert share.experiments(root) == {"old": head} != {"old": old}
    with refused(ParamsError, r"^share: there is no experiment odl; dvc exp list tells them"):
        share.share(root, "team", ["odl"])


def test_a_git_remote_that_does_not_answer_is_left_out(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = root.parent / "git-remote-hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 600\n")
    hangs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{root.parent}:{run(root, 'printenv', 'PATH').strip()}")
    monkeypatch.setattr(share, "MAX_WAIT_SECONDS", 0.2)
    run(root, "git", "remote", "add", "silent", "hangs::nowhere")
    run(root, "git", "remote", "add", "gone", str(root / "nowhere"))
    assert share.pushed(root, ["f" * 40]) == {}
