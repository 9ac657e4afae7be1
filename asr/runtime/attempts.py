"""Records of stages that DVC executes, in .cache/attempts: which stage, since when, how it ended.

A record is a file of JSON lines that its process keeps locked as long as it lives, so a kill is
seen at once, without a clock. Stages of the workspace, of temporary folders and of the queue write
to the same folder. No failure to record makes a stage fail: then there is no record. Costs 1 ms,
and importing psutil.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from asr import paths
from asr.runtime.locks import is_locked
from asr.runtime.processes import is_alive

MAX_KEPT = 300  # records; the oldest are deleted
MAX_LINE = 500  # characters of an error that are kept
MAX_COMMAND = 4000  # characters of a command; a longer one is not kept, for half of it misleads


@dataclass(frozen=True)
class Attempt:
    """One execution of a stage.

    Attributes:
        id: the name of its file; in alphabetical order the oldest come first.
        experiment: its name in DVC; empty for `dvc repro`.
        folder: where it works.
        dvc: id of the process of DVC that started it, and when that began.
        begin, end: in seconds since 1970; `end` is None until it has ended by itself.
        command: what DVC was called with; empty where the queue started it.
        fingerprint: of the training that it trains or tests; None before that has begun.
        code: the exit code; None if there is no end.
        line: the last line of an error, without "error 3:"; else empty.
        orphaned: whether DVC was killed before or soon after it ended, so that nothing follows.
        lives: whether its process lives.
    """

    id: str
    stage: str
    experiment: str
    folder: str
    dvc: tuple[int, float]
    begin: float
    command: str = ""
    fingerprint: str | None = None
    end: float | None = None
    code: int | None = None
    line: str = ""
    orphaned: bool = False
    lives: bool = False

    @property
    def invocation(self) -> tuple[Any, ...]:
        """What is the same for all stages of one `dvc repro` or `dvc exp run`."""
        return (*self.dvc, self.experiment, self.folder)

    def dvc_lives(self) -> bool:
        """Whether the process of DVC lives that started this stage, and may start another."""
        return is_alive(self.dvc[0], self.begin)


class Record:
    """The record that this process writes of itself.

    Args:
        descriptor: of the file at `path`.
        dvc: the process of DVC that started this one.
    """

    def __init__(self, path: Path, descriptor: int, dvc: psutil.Process):
        self.path = path
        self.descriptor = descriptor
        self.dvc = dvc

    def write(self, **facts: Any) -> None:
        """Append a line; if it cannot be written whole, drop the record."""
        line = f"{json.dumps(facts)}\n".encode()
        with suppress(OSError):
            if os.write(self.descriptor, line) == len(line):
                return
        self.drop()

    def drop(self) -> None:
        with suppress(OSError):
            self.path.unlink()


_own: Record | None = None  # of this process


def folder() -> Path:
    return paths.cache("attempts")


def begin() -> None:
    """Record that this process executes a stage of DVC, if it does; of several the main one.

    Once is enough.
    """
    global _own
    stage = os.environ.get("DVC_STAGE", "").rpartition(":")[2]
    if not stage or _own or os.environ.get("RANK", "0") != "0":
        return
    with suppress(OSError, psutil.Error):
        dvc = _dvc()
        command = _command(dvc.cmdline())
        _delete_oldest()
        record = _create(dvc)
        record.write(
            stage=stage,
            experiment=os.environ.get("DVC_EXP_NAME", ""),
            folder=os.getcwd(),
            dvc=[dvc.pid, round(dvc.create_time())],
            begin=time.time(),
            command=command,
        )
        _own = record
        sys.excepthook = _crashed


def note(fingerprint: str) -> bool:
    """Record which training this process trains or tests; false if there is no record."""
    if _own:
        _own.write(fingerprint=fingerprint)
    return _own is not None


def end(code: int, line: str = "") -> None:
    """Record how the stage ended."""
    if _own:
        known = {"code": code, "line": " ".join(line.split())[:MAX_LINE]}
        dvc_lives = is_alive(_own.dvc.pid, _own.dvc.create_time())
        _own.write(end=time.time(), **known, orphaned=not dvc_lives)


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An `excepthook` that records how a stage ended that failed in its imports."""
    end(1, f"{kind.__name__}: {error}")
    sys.__excepthook__(kind, error, trace)


def withdraw() -> None:
    """Delete the record of this process; others that it becomes write their own."""
    if _own:
        _own.drop()


def _dvc() -> psutil.Process:
    """The process of DVC that started this one, perhaps through a shell or torchrun."""
    parents = psutil.Process().parents()
    for parent in parents:
        with suppress(psutil.Error):
            if any(Path(word).name == "dvc" for word in parent.cmdline()[:4]):
                return parent
    return parents[0]


def _command(words: list[str]) -> str:
    """What DVC was called with, as one types it; empty for a call that is none of a user's."""
    place = next((place for place, word in enumerate(words[:4]) if Path(word).name == "dvc"), None)
    typed = words[place + 1 :] if place is not None else []
    if typed[:1] != ["repro"] and typed[:2] != ["exp", "run"]:
        return ""
    line = shlex.join(["dvc", *typed]).encode(errors="replace").decode()
    return line if len(line) <= MAX_COMMAND else ""


def _create(dvc: psutil.Process) -> Record:
    """A new empty record, locked until this process ends."""
    folder().mkdir(parents=True, exist_ok=True)
    path = folder() / f"{time.time_ns():020d}-{os.getpid()}.jsonl"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return Record(path, descriptor, dvc)


def _delete_oldest() -> None:
    for path in sorted(folder().glob("*.jsonl"))[: -MAX_KEPT + 1]:
        if not is_locked(path):
            path.unlink(missing_ok=True)


class Reader:
    """Reads all records; those that have ended are read once."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[int, Attempt]] = {}  # size and attempt by path

    def attempts(self) -> list[Attempt]:
        """All attempts, the oldest first; 5 us each."""
        now = dict(self._attempts())
        self._read = now
        return [attempt for _, attempt in now.values()]

    def _attempts(self) -> Iterator[tuple[str, tuple[int, Attempt]]]:
        try:
            entries = sorted(os.scandir(folder()), key=lambda entry: entry.name)
        except OSError:
            return
        for entry in entries:
            with suppress(OSError):
                before = self._read.get(entry.path)
                size = entry.stat().st_size
                if before and before[0] == size and not before[1].lives:
                    yield entry.path, before
                elif attempt := read(Path(entry.path)):
                    yield entry.path, (size, attempt)


def read(path: Path) -> Attempt | None:
    """One record; None if it has no beginning yet, or is damaged."""
    lives = is_locked(path)  # first: what has ended after that is read with its end
    facts: dict[str, Any] = {}
    try:
        for line in path.read_bytes().split(b"\n")[:-1]:
            facts |= json.loads(line)
        facts["dvc"] = int(facts["dvc"][0]), float(facts["dvc"][1])
        attempt = Attempt(id=path.stem, **facts)
    except (ValueError, TypeError, LookupError):
        return None
    return Attempt(**{**vars(attempt), "lives": lives and attempt.end is None})
