"""The frame of a stage: what it records of itself, also of a kill, and that it fails no stage."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asr.errors import DataError, ParamsError, Stopped
from asr.runtime import attempts
from asr.runtime.attempts import Attempt
from asr.runtime.stage import run_stage
from support.attempts import living, write
from support.processes import fork
from support.repository import PYTHONPATH
from support.waiting import wait_for


def raise_one(error: BaseException) -> None:
    raise error


def executed(main: Callable[[], None], **environment: str) -> tuple[int, list[Attempt]]:
    """Exit code of a stage in a process of its own, and what is recorded then."""
    pid = fork(lambda: _live(main, environment))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code, attempts.Reader().attempts()


def _live(main: Callable[[], None], environment: dict[str, str]) -> int:
    os.environ.update({"DVC_STAGE": "chunk", **environment})
    try:
        run_stage(main)
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def only(found: list[Attempt]) -> Attempt:
    (attempt,) = found
    return attempt


ENDS = {
    "well": (lambda: None, 0, ""),
    "refused": (lambda: raise_one(ParamsError("a: got 1,\nwant 2")), 2, "a: got 1, want 2"),
    "without data": (lambda: raise_one(DataError("no rows")), 3, "no rows"),
    "stopped": (lambda: raise_one(Stopped(15, "at step 3")), 143, "at step 3"),
    "full disk": (
        lambda: raise_one(OSError(errno.ENOSPC, "no space", "out")),
        7,
        "out: no space; make room or make it writable, then run again",
    ),
    "a bug": (lambda: raise_one(ValueError("x")), 1, "ValueError: x"),
    "Ctrl-C": (
        lambda: raise_one(KeyboardInterrupt()),
        130,
        "stopped; run the same command again to go on",
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_each_end_of_a_stage_is_recorded_with_its_code_and_line(
    end: str, capfd: pytest.CaptureFixture[str]
) -> None:
    main, code, line = ENDS[end]
    exit_code, found = executed(main, DVC_EXP_NAME="mine")
    attempt = only(found)
    assert (exit_code, attempt.code, attempt.line) == (code, code, line)
    assert (attempt.stage, attempt.experiment, attempt.lives) == ("chunk", "mine", False)
    assert attempt.end is not None
    assert attempt.begin <= attempt.end
    assert attempt.folder == os.getcwd()
    capfd.readouterr()


def test_a_kill_is_seen_at_once_and_until_then_the_stage_lives(tmp_path: Path) -> None:
    pid = fork(lambda: _live(lambda: _wait(tmp_path / "there"), {}))
    wait_for((tmp_path / "there").exists)
    reader = attempts.Reader()
    assert only(reader.attempts()).lives
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    attempt = only(reader.attempts())
    assert (attempt.lives, attempt.code, attempt.fingerprint) == (False, None, "f" * 32)


def _wait(flag: Path) -> None:
    attempts.note("f" * 32)
    flag.touch()
    time.sleep(600)


@pytest.mark.parametrize("end", [None, ParamsError("a: got 1")])
@pytest.mark.parametrize("dies", [True, False])
def test_a_stage_that_outlives_dvc_records_that_nothing_follows(
    dies: bool, end: ParamsError | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """DVC is killed while the stage works, which then ends as it would have."""

    def work() -> None:
        (tmp_path / "there").touch()
        wait_for((tmp_path / "go on").exists)
        if end:
            raise end

    dvc = fork(lambda: os.waitpid(fork(lambda: _live(work, {})), 0)[1])
    wait_for((tmp_path / "there").exists)
    if dies:
        os.kill(dvc, signal.SIGKILL)
        os.waitpid(dvc, 0)
    (tmp_path / "go on").touch()
    reader = attempts.Reader()
    wait_for(lambda: not only(reader.attempts()).lives)
    if not dies:
        os.waitpid(dvc, 0)
    attempt = only(reader.attempts())
    assert (attempt.orphaned, attempt.code) == (dies, end.exit_code if end else 0)
    capfd.readouterr()


CALLS = {
    "python .venv/bin/dvc exp run -n a -S 'x=[1, 2]'": "dvc exp run -n a -S 'x=[1, 2]'",
    "python -m dvc repro": "dvc repro",
    "dvc repro stats": "dvc repro stats",
    "python -m dvc exp exec-run --infofile x": "",  # the queue's own
    "python -m dvc exp queue-worker w": "",
    f"dvc exp run -S x={'1' * 5000}": "",  # half of it would mislead
    "make": "",
}


@pytest.mark.parametrize("words", CALLS)
def test_what_dvc_was_called_with_is_recorded_as_one_types_it(words: str) -> None:
    assert attempts._command(shlex.split(words)) == CALLS[words]


@pytest.mark.parametrize(
    "environment", [{"DVC_STAGE": ""}, {"RANK": "1"}, {"RANK": "3", "DVC_EXP_NAME": "x"}]
)
def test_only_the_main_process_of_a_stage_of_dvc_is_recorded(environment: dict[str, str]) -> None:
    assert executed(lambda: None, **environment) == (0, [])
    assert len(executed(lambda: None, RANK="0")[1]) == 1


def full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "no space")


def half_a_line(*_: Any) -> int:
    return 3


FAULTS = {
    "no folder": ("mkdir", full_disk),
    "no file": ("open", full_disk),
    "no line": ("write", full_disk),
    "half a line": ("write", half_a_line),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_recorded_whole_fails_no_stage_and_leaves_nothing(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, broken = FAULTS[fault]
    target = Path if name == "mkdir" else attempts.os
    monkeypatch.setattr(target, name, broken)
    assert executed(lambda: None) == (0, [])


def test_an_end_that_finds_no_room_takes_the_record_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its end a stage that went well would be called killed."""

    def main() -> None:
        monkeypatch.setattr(attempts.os, "write", half_a_line)

    assert executed(main) == (0, [])


def test_the_oldest_records_go_but_none_of_the_living(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "MAX_KEPT", 3)
    old, *others = [write("stats", {"code": 0}) for _ in range(5)]
    with living(old):
        found = executed(lambda: None)[1]
    names = {attempt.id for attempt in found}
    assert {old.stem, others[-1].stem} < names
    assert others[0].stem not in names
    assert len(names) == 4


def test_a_stage_that_becomes_another_program_leaves_the_record_to_that() -> None:
    assert executed(attempts.withdraw) == (0, [])


@pytest.mark.parametrize(
    "content", ["", "{", "[]\n", '{"stage": "chunk"}\n', '{"stage": 1, "dvc": "x"}\n', "null\n"]
)
def test_a_damaged_record_tells_nothing_and_hides_no_other(content: str) -> None:
    write("stats", {"code": 0}).write_text(content)
    whole = write("chunk", {"code": 0})
    assert [attempt.id for attempt in attempts.Reader().attempts()] == [whole.stem]


def test_what_has_ended_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    write("stats", {"code": 0})
    running = write("chunk")
    reader = attempts.Reader()
    with living(running):
        first = reader.attempts()
        read: list[Path] = []
        monkeypatch.setattr(attempts, "read", lambda path: read.append(path))
        reader.attempts()
    assert [attempt.lives for attempt in first] == [False, True]
    assert read == [running]


def started(*words: str, first: str = "") -> tuple[str, list[Attempt]]:
    """The modules that a process imports, in their order, and what is recorded then.

    Args:
        first: a folder where modules are looked for before others.
    """
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words],
        env={**os.environ, "DVC_STAGE": "chunk", "PYTHONPATH": f"{first}:{PYTHONPATH}"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr, attempts.Reader().attempts()


def test_a_stage_is_recorded_before_its_own_imports() -> None:
    imported, found = started("-m", "stages.chunk", "--help")
    assert imported.index("asr.runtime.attempts") < imported.index("pyarrow")
    assert (only(found).stage, only(found).code) == ("chunk", 0)


def test_a_stage_that_fails_in_its_imports_is_recorded_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ImportError('no such library')")
    said, found = started("-m", "stages.chunk", "--help", first=str(tmp_path))
    assert "Traceback" in said
    assert (only(found).code, only(found).line) == (1, "ImportError: no such library")


def test_what_a_stage_starts_is_no_stage() -> None:
    started("-c", "import stages.chunk", "--multiprocessing-fork")
    assert attempts.Reader().attempts() == []


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DVC_STAGE", "DVC_EXP_NAME", "RANK"):
        monkeypatch.delenv(name, raising=False)
