"""The index of all trainings that the pages read: .cache/runs.sqlite, its state, and its renewal.

`asr.runs.refresh` fills the index in a process of its own; reading imports neither MLflow nor DVC.
`asr.runs.run_rows` makes the rows of it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from asr import metrics, paths
from asr.errors import MAKE_ROOM, DataError, DiskError
from asr.runs import states
from asr.runtime.locks import is_locked
from asr.storage import files, hashing
from asr.tracking import client, follower, journal

SCHEMA = 2
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE runs (
    id TEXT PRIMARY KEY, fingerprint TEXT, parent TEXT, status TEXT, start REAL, "end" REAL,
    digest TEXT, curves TEXT, whole TEXT
);
CREATE INDEX runs_in_order ON runs (start DESC, id, digest);
CREATE INDEX runs_by_status ON runs (status);
CREATE TABLE curves (id TEXT PRIMARY KEY, points TEXT, best_wer REAL, best_step INTEGER);
CREATE TABLE journals (
    fingerprint TEXT PRIMARY KEY, stamp TEXT, course TEXT, run TEXT, in_mlflow INTEGER
);
CREATE TABLE facts (sha TEXT PRIMARY KEY, fingerprint TEXT, known TEXT, tried REAL);
CREATE TABLE revisions (place INTEGER PRIMARY KEY, name TEXT, sha TEXT, kind TEXT);
"""
CURVES = (
    metrics.VALIDATION_WER,
    metrics.VALIDATION_BEST_STEP,  # read after the WER of that step
    metrics.VALIDATION_LOSS,
    metrics.TRAIN_LOSS,
    metrics.LEARNING_RATE,
)
FRESH_SECONDS = 3.0
FRESH_SECONDS_AT_WORK = 1.0  # while DVC works
MAX_FINGERPRINT = 64  # characters; ours have 32, and names of files must not be longer than 255
# Errors that reading a damaged index, or the JSON in it, can raise.
PARSE_ERRORS = (
    sqlite3.Error,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
    OverflowError,
)
refreshers: list[subprocess.Popen[bytes]] = []  # that this process started


@dataclass(frozen=True)
class IndexState:
    """The state of the index.

    Attributes:
        made: whether it was brought up to date at least once.
        updated: when it was last brought up to date, in seconds since 1970.
        phase: what the refresher reads now, with `done` of `total`; empty if it reads nothing.
        fault: why MLflow's store cannot be read; empty if it can.
        generation: a text that changes with the rows.
        mark: a text that changes with the rows, the curves and the fault.
    """

    made: bool = False
    updated: float = 0.0
    phase: str = ""
    done: int = 0
    total: int = 0
    fault: str = ""
    generation: str = ""
    mark: str = ""


def path() -> Path:
    return paths.cache("runs.sqlite")


@contextmanager
def opened() -> Iterator[sqlite3.Connection | None]:
    """Open the index for reading; yield None if there is none yet.

    Raises:
        DataError: it is damaged or of another schema; the next refresh makes a new one.
    """
    if not path().is_file():
        yield None
        return
    try:
        with closing(sqlite3.connect(f"{path().as_uri()}?mode=ro", uri=True, timeout=10)) as index:
            index.execute("BEGIN")  # all reads see one state of the index
            yield index
    except PARSE_ERRORS:
        with suppress(OSError):
            paths.cache("runs.rebuild").touch()
        raise DataError("the index of runs is damaged; it is being made anew") from None


def state() -> IndexState:
    """The state of the index; costs 3 ms."""
    with opened() as index:
        if index is None:
            return IndexState()
        meta = dict(index.execute("SELECT key, value FROM meta"))
        if meta.get("schema") != str(SCHEMA):
            raise ValueError("another schema")
        unfinished = index.execute(
            "SELECT fingerprint FROM runs WHERE status = 'RUNNING' AND parent IS NULL"
        ).fetchall()
        present = states.present()
        recorded = present.by_fingerprint()
        live = "".join(
            "1" if is_training(fingerprint) else "0"
            for (fingerprint,) in unfinished
            if fingerprint not in recorded
        )
        phase, done, total = json.loads(meta.get("progress") or '["", 0, 0]')
        fault = meta.get("fault") or ""
        generation = f"{meta.get('generation')} {live} {hashing.hash_of(present.mark())[:16]}"
        return IndexState(
            made="updated" in meta,
            updated=float(meta.get("updated") or 0),
            phase=str(phase),
            done=int(done),
            total=int(total),
            fault=fault,
            generation=generation,
            mark=f"{generation} {meta.get('curves')} {fault}",
        )


def is_training(fingerprint: str | None) -> bool:
    """Whether a run that has the status RUNNING in MLflow is still training.

    A run on another machine counts as training, because only MLflow's status is known of it.
    """
    has_server = client.store_file() is None
    if not fingerprint or not fingerprint.isalnum() or len(fingerprint) > MAX_FINGERPRINT:
        return has_server  # not a fingerprint of ours, so it must not become part of a path
    if has_server and not journal.path_of(fingerprint).is_file():
        return True
    return follower.is_training(fingerprint)


def is_stale(now: IndexState) -> bool:
    """Whether it is time to look again for changes; costs 3 ms."""
    if not now.made or paths.cache("runs.rebuild").exists():
        return True
    age = time.time() - now.updated
    if age < FRESH_SECONDS_AT_WORK:
        return False
    return age >= FRESH_SECONDS or states.is_dvc_working(states.present())


def stamp(path: Path) -> list[int]:
    """Numbers that change when a file changes; an empty list if it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_mtime_ns, stat.st_size, stat.st_ino]


def request_refresh(run_ids: tuple[str, ...] = ()) -> None:
    """Bring the index up to date in the background; return at once.

    Args:
        run_ids: runs whose curves are fetched first.
    Raises:
        DiskError: .cache cannot be written.
    """
    try:
        paths.cache().mkdir(parents=True, exist_ok=True)
        if run_ids:
            files.write_json(paths.cache("runs.wanted"), list(run_ids))
        paths.cache("runs.asked").touch()
    except OSError as error:
        raise DiskError(f".cache: {error.strerror}; {MAKE_ROOM}") from None
    refreshers[:] = [process for process in refreshers if process.poll() is None]
    if is_refreshing():
        return
    environment = {
        **os.environ,
        "DVC_ROOT": str(paths.root()),
        "OMP_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "asr.runs.refresh", "follow"],
        env=environment,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    refreshers.append(process)


def is_refreshing() -> bool:
    """Whether a refresher is running, no matter which process started it."""
    if any(process.poll() is None for process in refreshers):
        return True
    return is_locked(paths.cache("runs.lock"))
