"""The doctor names what real commands left behind when they were killed, changes nothing unasked,
and mends what it named.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import psutil
import pytest

from asr import doctor
from asr.runtime.processes import is_alive
from asr.tracking import client, journal
from asr.tracking.uploader import RunUploader
from support.data import sha256s
from support.killed import Waiting, make, run


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("committed") / "repository")


@pytest.fixture
def root(committed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository elsewhere, at work in which the doctor is asked."""
    made = tmp_path / "repository"
    shutil.copytree(committed, made, symlinks=True)
    monkeypatch.setenv("DVC_ROOT", str(made))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    return made


def ask(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[int, str]:
    """The command's exit code and what it said."""
    monkeypatch.setattr(sys, "argv", ["doctor", *words])
    with pytest.raises(SystemExit) as left:
        doctor.main()
    return int(left.value.code or 0), capsys.readouterr().out


COMMANDS = {
    "repro": (["dvc", "repro", "--force"], ["locks of dead processes"]),
    "exp": (
        ["dvc", "exp", "run", "--force", "-n", "mine"],
        ["locks of dead processes", "the experiment mine was killed in the workspace"],
    ),
    "temp": (
        ["dvc", "exp", "run", "--temp", "-S", "n=2", "-n", "mine"],
        ["the experiment mine was killed in its temporary folder"],
    ),
    "queue": (
        ["dvc", "queue", "start", "-j", "1"],
        ["the queued experiment mine was killed with its worker"],
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_is_explained_and_mended(
    root: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command, expected = COMMANDS[name]
    if name == "queue":
        run(root, "dvc", "exp", "run", "--queue", "-S", "n=2", "-n", "mine")
    wanted = sha256s(root / "out")
    waiting = Waiting(root, *command)
    before = sha256s(root)
    code, said = ask(capsys, monkeypatch, "--mend")
    assert code == 0
    assert "at work, and left alone: process" in said, "what lives is none of the doctor's"
    waiting.kill()
    assert before == sha256s(root), "living, it was left alone"
    code, said = ask(capsys, monkeypatch)
    assert code == 1
    assert all(one in said for one in expected), said
    assert before == sha256s(root), "nothing is changed unasked"
    code, said = ask(capsys, monkeypatch, "--mend")
    assert code == 0, said
    assert ask(capsys, monkeypatch) == (0, "nothing is left behind\n")
    if name in ("temp", "queue"):
        assert "Running" not in run(root, "dvc", "exp", "show", "--csv")
        assert not list((root / ".dvc/tmp/exps").rglob("tmp*"))
    else:
        run(root, "dvc", "repro", "--force")
    assert sha256s(root / "out") == wanted
    assert ask(capsys, monkeypatch)[0] == 0


def test_a_lock_of_git_goes_when_its_owner_is_dead(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "params.yaml").write_text("n: 3\n")
    waiting = Waiting(root, "git", "commit", "-a", GIT_EDITOR="touch $FLAG; sleep 600 #")
    assert ask(capsys, monkeypatch, "--mend")[0] == 0
    assert (root / ".git/index.lock").exists()
    waiting.kill()
    code, said = ask(capsys, monkeypatch, "--mend")
    assert (code, "index.lock in .git: git was killed" in said) == (0, True)
    run(root, "git", "commit", "-qam", "now it works")


def test_locks_that_are_cut_short_stop_dvc_until_mended(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / ".dvc/tmp/rwlock").write_text('{"read": {"')
    with pytest.raises(AssertionError, match="corrupted"):
        run(root, "dvc", "repro", "--force")
    assert "cut short" in ask(capsys, monkeypatch, "--mend")[1]
    run(root, "dvc", "repro", "--force")


def test_an_experiment_killed_while_it_is_set_up_is_for_a_person(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / ".dvc/tmp/repro.dat").touch()
    before = sha256s(root)
    code, said = ask(capsys, monkeypatch, "--mend")
    assert code == 1
    assert "git stash pop" in said
    assert "mended" not in said
    assert before == sha256s(root)


def test_drafts_of_the_dead_go_and_those_of_the_living_stay(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = 2**22 - 1
    lost = [
        "data/.raw.a1b2c3d4.part/chunk.arrow",
        f"reports/train/.steps.csv.{dead}.part",
        f".cache/sessions/{dead}/sound.f32",
    ]
    lost += [".dvc/cache/files/md5/ab/.ALMwlm8mUEGSi9S1dxxVEA.tmp"]
    kept = [
        f"reports/.a.json.{os.getpid()}.part",
        f".cache/sessions/{os.getpid()}/.x.part",
        "data/archive.part",
        "data/.keep",
    ]
    for name in (*lost, *kept):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    code, said = ask(capsys, monkeypatch, "--mend")
    assert (code, said.count("mended")) == (0, len(lost)), said
    assert not [name for name in lost if (root / name).exists()]
    assert all((root / name).exists() for name in kept)


def test_a_run_that_no_training_writes_is_closed(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = journal.path_of("f")
    journal.append(log, "begin", fingerprint="f", name="mine", params={}, tags={})
    RunUploader(log, client.connect()).catch_up()
    before = sha256s(root)
    code, said = ask(capsys, monkeypatch)
    assert (code, "MLflow's run mine stands RUNNING" in said) == (1, True)
    assert before == sha256s(root)
    assert ask(capsys, monkeypatch, "--mend")[0] == 0
    assert ask(capsys, monkeypatch) == (0, "nothing is left behind\n")
    (pages,) = client.read_runs(client.connect())
    assert [run["status"] for run in pages] == ["KILLED"]


def test_a_clone_in_which_dvc_would_lose_experiments_is_named(
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(root, "git", "commit", "-q", "--allow-empty", "-m", "next")
    run(tmp_path, "git", "clone", "-q", "--depth", "1", f"file://{root}", "shallow")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "shallow"))
    code, said = ask(capsys, monkeypatch, "--mend")
    assert (code, said.count("by hand")) == (1, 1)
    assert "this clone is shallow" in said
    assert "by hand: git fetch --unshallow" in said
    run(tmp_path / "shallow", "git", "fetch", "-q", "--unshallow")
    assert ask(capsys, monkeypatch) == (0, "nothing is left behind\n")


DEFAULT_REMOTE = "[core]\n    remote = data\n"
ALONE = "experiments a, b: dvc exp push would leave the data here"
# Where a remote for data is named, whether the experiments are pushed, and what is said.
SHARED = {
    "nobody shares": ("", False, []),
    "pushed without data": ("", True, ["experiments a, b went to team without data"]),
    "older than the remote": ("config", False, [ALONE]),
    "older, and pushed": ("config", True, ["experiments a, b went to team without data"]),
    "in this clone": ("config.local", True, []),
}


@pytest.mark.parametrize("kind", SHARED)
def test_experiments_that_go_without_their_data_are_named(
    root: Path,
    tmp_path: Path,
    kind: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, is_pushed, expected = SHARED[kind]
    run(tmp_path, "git", "init", "-q", "--bare", "team.git")
    run(root, "git", "remote", "add", "team", str(tmp_path / "team.git"))
    head = run(root, "git", "rev-parse", "HEAD").strip()
    for name in "ab":
        run(root, "git", "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{name}", head)
    if is_pushed:
        run(root, "git", "push", "-q", "team", "refs/exps/*:refs/exps/*")
    if file:
        (root / ".dvc" / file).write_text(DEFAULT_REMOTE)
    code, said = ask(capsys, monkeypatch)
    assert (code, said.count("by hand")) == (bool(expected), len(expected))
    assert all(one in said for one in expected), said


def test_a_number_that_another_process_has_by_now_is_a_dead_one() -> None:
    born = psutil.Process().create_time()
    assert is_alive(os.getpid(), born + 5)
    assert not is_alive(os.getpid(), born - 3600)
    assert not is_alive(2**22 - 1, born)


def test_locks_of_the_living_stay_beside_those_of_the_dead(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    living, dead = ({"pid": number, "cmd": "dvc repro"} for number in (os.getpid(), 2**22 - 1))
    path = root / ".dvc/tmp/rwlock"
    path.write_text(
        json.dumps({"write": {"a": dead, "b": living}, "read": {"c": [dead, living], "d": [dead]}})
    )
    assert ask(capsys, monkeypatch, "--mend")[0] == 0
    assert json.loads(path.read_text()) == {"write": {"b": living}, "read": {"c": [living]}}
