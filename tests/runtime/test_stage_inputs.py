"""A stage whose params, code or data change while it runs must not be recorded by DVC."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from asr.errors import ParamsError
from asr.runtime.stage_inputs import unchanged_inputs
from support.repository import PYTHONPATH, REPOSITORY

PARAMS = "train: {rate: 0.1, steps: 5, layers: [1, 2]}\nmodel: {name: a}\nother: 1\n"
DVC_YAML = """
stages:
  train:
    cmd: {python} work.py
    deps: [work.py, code, data/rows]
    params: [train, model.name]
    outs: [result]
"""
Edit = Callable[[], object]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage with params, code and data, as if DVC ran it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "train")
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "dvc.yaml").write_text(DVC_YAML.format(python=sys.executable))
    (tmp_path / "code/room").mkdir(parents=True)
    (tmp_path / "data/rows").mkdir(parents=True)
    (tmp_path / "work.py").write_text("pass\n")
    (tmp_path / "code/room/loop.py").write_text("pass\n")
    (tmp_path / "data/rows/0.arrow").write_bytes(b"rows")


def params(text: str) -> Edit:
    return lambda: Path("params.yaml").write_text(text)


OWN = {
    "a value": (params(PARAMS.replace("0.1", "0.3")), "train.rate was 0.1, is 0.3"),
    "a value of another type": (params(PARAMS.replace("5", "5.0")), "train.steps was 5, is 5.0"),
    "a list": (params(PARAMS.replace("[1, 2]", "[2]")), "train.layers was [1, 2], is [2]"),
    "a single key": (params(PARAMS.replace("name: a", "name: b")), "model.name was 'a', is 'b'"),
    "a key that is gone": (params(PARAMS.replace("rate: 0.1, ", "")), "train.rate was 0.1"),
    "a new key": (params(PARAMS.replace("rate", "more: 1, rate")), "train.more was not there"),
    "broken YAML": (params("train: [\n"), "no longer be read"),
    "no params at all": (params(""), "no longer be read"),
    "no file": (lambda: Path("params.yaml").unlink(), "no longer be read"),
    "code": (lambda: Path("code/room/loop.py").write_text("edited\n"), "code/room/loop.py"),
    "the stage itself": (lambda: Path("work.py").write_text("edited\n"), "work.py"),
    "a new module": (lambda: Path("code/new.py").write_text("\n"), "code/new.py"),
    "a module that is gone": (lambda: Path("code/room/loop.py").unlink(), "code/room/loop.py"),
    "data": (lambda: Path("data/rows/0.arrow").write_bytes(b"others"), "data/rows/0.arrow"),
    "more data": (lambda: Path("data/rows/1.arrow").write_bytes(b""), "data/rows/1.arrow"),
}
HARMLESS = {
    "nothing": lambda: None,
    "a key that the stage does not read": params(PARAMS.replace("other: 1", "other: 2")),
    "a comment": params(f"# a remark\n{PARAMS}"),
    "another order": params("other: 1\nmodel: {name: a}\n" + PARAMS.partition("\n")[0] + "\n"),
    "an edit that is undone": lambda: (params("train: {}")(), params(PARAMS)()),
    "code that is saved unchanged": lambda: os.utime("code/room/loop.py", (1, 1)),
    "compiled code": lambda: Path("code/room/loop.pyc").write_bytes(b""),
    "the file of an editor": lambda: Path("code/room/.loop.py.swp").write_bytes(b""),
    "another file": lambda: Path("notes.txt").write_text("mine"),
}


@pytest.mark.parametrize("name", OWN)
def test_an_own_input_that_changed_fails_the_stage_and_is_named(name: str) -> None:
    edit, named = OWN[name]
    with pytest.raises(ParamsError) as failed, unchanged_inputs():
        edit()
    assert str(failed.value).startswith("changed while train ran: ")
    assert named in str(failed.value)
    assert "Put it back and run again" in str(failed.value)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_no_input_is_fine(name: str) -> None:
    with unchanged_inputs():
        HARMLESS[name]()


@pytest.mark.parametrize("name", OWN)
def test_without_dvc_nothing_is_compared(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE")
    with unchanged_inputs():
        OWN[name][0]()


def _touch_modules(count: int) -> None:
    for number in range(count):
        Path(f"code/{number:02}.py").touch()


def test_many_changes_are_told_in_one_line() -> None:
    with pytest.raises(ParamsError, match=r"and 35 more\. ") as failed, unchanged_inputs():
        _touch_modules(40)
    assert len(str(failed.value)) < 600


def _edit_and_fail() -> None:
    OWN["a value"][0]()
    raise ZeroDivisionError


def test_the_error_of_the_stage_comes_before_ours() -> None:
    with pytest.raises(ZeroDivisionError), unchanged_inputs():
        _edit_and_fail()


def test_params_that_cannot_be_read_at_the_beginning_are_left_to_the_stage() -> None:
    Path("params.yaml").write_text("train: [\n")
    with unchanged_inputs():
        params(PARAMS)()


def test_every_stage_of_ours_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As control: a param of the stage's own in the shipped files is seen to change."""
    from asr.runtime import stage_inputs

    monkeypatch.chdir(REPOSITORY)
    stages = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"]
    for stage, definition in stages.items():
        inputs = stage_inputs._inputs(stage)
        assert set(definition["params"]) <= {
            prefix
            for key in inputs.params
            for prefix in (key, key.rpartition(".")[0], key.partition(".")[0])
        }
        assert f"stages/{stage}.py" in inputs.files


def test_dvc_records_nothing_and_runs_the_new_value() -> None:
    edit = "path.write_text(path.read_text().replace('0.1', '0.3'))"
    Path("work.py").write_text(
        f"""
from pathlib import Path
from asr.errors import exit_with
from asr.runtime.stage_inputs import unchanged_inputs
def main():
    path = Path("params.yaml")
    with unchanged_inputs():
        Path("result").write_text(path.read_text())
        if Path("edit").exists():
            {edit}
exit_with(main)
"""
    )
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("DVC_")},
        "PYTHONPATH": PYTHONPATH,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def dvc(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["dvc", *arguments], env=environment, capture_output=True, text=True, check=False
        )

    subprocess.run(["git", "init", "--quiet"], check=True)
    assert dvc("init", "--quiet").returncode == 0
    Path("edit").touch()
    edited = dvc("repro")
    assert edited.returncode != 0
    assert "train.rate was 0.1, is 0.3" in edited.stderr
    assert not Path("dvc.lock").exists()
    Path("edit").unlink()
    again = dvc("repro")
    assert again.returncode == 0, again.stderr
    assert "0.3" in Path("result").read_text()
    lock = YAML(typ="safe").load(Path("dvc.lock"))["stages"]["train"]
    assert lock["params"]["params.yaml"]["train"]["rate"] == 0.3
