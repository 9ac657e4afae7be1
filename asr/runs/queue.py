"""DVC's queue of experiments, read from its notes and git's reflogs; DVC is not imported.

DVC keeps what waits and what failed as entries of two stashes, and of what was started a note of
its process. Costs 0.2 ms where nothing changed.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from asr.runtime.processes import is_alive
from asr.storage import files

EXPERIMENTS = ".dvc/tmp/exps"
CELERY = f"{EXPERIMENTS}/celery"
RUN_TASK = "dvc.repo.experiments.queue.tasks.run_exp"
LOCK = ".dvc/tmp/rwlock"  # of the workspace
WAITING_LOG = "logs/refs/exps/celery/stash"
FAILED_LOG = "logs/refs/exps/celery/failed"
ENTRY = re.compile(
    r"[0-9a-f]{40} (?P<sha>[0-9a-f]{40}) .* (?P<time>\d+) [+-]\d{4}\t"
    r"commit: dvc-exp:[0-9a-f]+:[0-9a-f]+:(?P<name>[^:]*)"
)
MAX_LOG = 1 << 20  # bytes; more is no queue


@dataclass(frozen=True)
class Task:
    """An experiment of the queue.

    Attributes:
        sha: of the commit that holds its params.
        since: when it was queued, was started, or failed, in seconds since 1970.
        line: of one that failed, the last line that DVC printed; else empty.
        pid: of DVC's process that executes or executed it; 0 if there was none yet.
    """

    name: str
    sha: str
    since: float
    line: str = ""
    pid: int = 0


@dataclass(frozen=True)
class Queue:
    """The experiments of the queue that have no results."""

    waiting: tuple[Task, ...] = ()
    started: tuple[Task, ...] = ()
    failed: tuple[Task, ...] = ()


def read(root: Path) -> Queue:
    """The queue of the repository at `root`; empty where there is none."""
    git = root / ".git"
    waiting, failed = _entries(git / WAITING_LOG), _entries(git / FAILED_LOG)
    taken = list(_taken(root))  # after the entries, which go when a worker has taken the task
    tasks = list(_tasks(root))
    pids = {task.sha: task.pid for task, _ in tasks}
    unnoted = [task for task in taken if task.sha not in pids]
    begun = pids.keys() | {task.sha for task in unnoted}
    return Queue(
        tuple(task for task in waiting if task.sha not in begun),
        (*(task for task, lives in tasks if lives), *unnoted),
        tuple(
            replace(task, line=_last_line(root, task.sha), pid=pids.get(task.sha, 0))
            for task in failed
        ),
    )


def is_working(root: Path) -> bool:
    """Whether DVC works in the repository: it holds a lock, or the queue has a worker."""
    locks = (root / LOCK, root / EXPERIMENTS / "rwlock")
    return any(map(is_locked, locks)) or _has_worker(root)


def is_locked(lock: Path) -> bool:
    """Whether a process of DVC that lives has an entry in a file of its locks."""
    return any(is_alive(pid, since) for pid, since in holders(lock))


def _has_worker(root: Path) -> bool:
    notes = (root / CELERY).glob("dvc-exp-worker-*.json")
    return any(_lives(note) for note in notes)


def _entries(log: Path) -> list[Task]:
    """The entries of a stash, the oldest first."""
    with suppress(OSError):
        stat = log.stat()
        if stat.st_size <= MAX_LOG:
            return list(_parsed(log, stat.st_mtime_ns, stat.st_size))
    return []


@lru_cache(maxsize=8)
def _parsed(log: Path, *_: int) -> tuple[Task, ...]:
    lines = log.read_text("utf-8", "replace").split("\n")
    found = [match for line in lines if (match := ENTRY.match(line))]
    return tuple(Task(one["name"], one["sha"], float(one["time"])) for one in found)


def _taken(root: Path) -> Iterator[Task]:
    """What a living worker has taken and not yet ended; a note of it comes a second later."""
    messages = list((root / CELERY / "broker/processed").glob("*.celery.msg"))
    if not messages or not _has_worker(root):
        return
    for path in messages:
        with suppress(OSError):
            message = _message(path, path.stat().st_mtime_ns)
            if message and not (root / CELERY / "result" / message[0]).exists():
                yield message[1]


@lru_cache(maxsize=1000)
def _message(path: Path, when: int) -> tuple[str, Task] | None:
    """The name of a task's result, and its experiment; None if the task is no experiment."""
    values = _json(path)
    try:
        if values["headers"]["task"] != RUN_TASK:
            return None
        (entry, *_), *_ = json.loads(base64.b64decode(values["body"]))
        task = Task(str(entry["name"] or entry["stash_rev"][:7]), entry["stash_rev"], when / 1e9)
        return f"celery-task-meta-{values['headers']['id']}", task
    except (ValueError, TypeError, LookupError):
        return None


def _tasks(root: Path) -> Iterator[tuple[Task, bool]]:
    """Each experiment that a worker has started, and whether its process lives."""
    for note in (root / EXPERIMENTS / "run").glob("*/*.run"):
        process = note.with_suffix(".json")
        with suppress(OSError):
            task = _task(note, note.stat().st_mtime_ns)
            if task and process.exists():
                pid = _json(process).get("pid")
                yield replace(task, pid=pid if isinstance(pid, int) else 0), _lives(process)
            elif task:
                yield task, _has_worker(root)


@lru_cache(maxsize=1000)
def _task(note: Path, when: int) -> Task | None:
    values = _json(note)
    if values.get("location") != "dvc-task":
        return None
    return Task(str(values.get("name") or note.stem[:7]), note.stem, when / 1e9)


def _lives(note: Path) -> bool:
    """Whether the process of a note lives."""
    with suppress(OSError):
        since = note.stat().st_mtime
        values = _json(note)
        pid = values.get("pid")
        return values.get("returncode") is None and isinstance(pid, int) and is_alive(pid, since)
    return False


def _last_line(root: Path, sha: str) -> str:
    """The last line that an experiment of the queue printed."""
    with suppress(OSError):
        log = root / EXPERIMENTS / "run" / sha / f"{sha}.out"
        return _end_of(log, log.stat().st_mtime_ns)
    return ""


@lru_cache(maxsize=1000)
def _end_of(log: Path, _: int) -> str:
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - 4096, 0))
        lines = file.read().decode("utf-8", "replace").split("\n")
    return next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "")


def holders(lock: Path) -> Iterator[tuple[int, float]]:
    """Process and time of each entry of a file of DVC's locks; a killed one leaves its entries."""
    with suppress(OSError, TypeError, AttributeError):
        since = lock.stat().st_mtime
        values = _json(lock)
        entries = [*values.get("write", {}).values()]
        entries += [entry for readers in values.get("read", {}).values() for entry in readers]
        for entry in entries:
            if isinstance(entry, dict) and isinstance(entry.get("pid"), int):
                yield entry["pid"], since


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if there is none or it cannot be read."""
    try:
        value = files.read_json(path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
