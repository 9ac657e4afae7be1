"""Every training there is, as the pages read it: an index of our own in .cache/runs.sqlite, joined
with DVC's revisions.

`asr.runs.refresh` fills the index in a process of its own; reading imports neither MLflow nor DVC.
A training stands in MLflow (tag `fingerprint`) and in reports/train/run.json of each revision that
holds its model, which may be many, or none: an experiment that DVC takes from its cache starts no
run. 5,000 runs are read in 0.4 s, once for each change of the index.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr import metrics, paths
from asr.errors import DataError
from asr.runs import revisions
from asr.runs.revisions import Revision
from asr.runtime.locks import is_locked
from asr.storage import files, hashing
from asr.tracking import client, follower, journal

SCHEMA = 1
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE runs (
    id TEXT PRIMARY KEY, fingerprint TEXT, parent TEXT, status TEXT, start REAL, "end" REAL, digest TEXT, curves TEXT, whole TEXT
);
CREATE INDEX runs_in_order ON runs (start DESC, id, digest);
CREATE INDEX runs_by_status ON runs (status);
CREATE TABLE curves (id TEXT PRIMARY KEY, points TEXT);
CREATE TABLE facts (sha TEXT PRIMARY KEY, fingerprint TEXT, known TEXT, tried REAL);
CREATE TABLE revisions (place INTEGER PRIMARY KEY, name TEXT, sha TEXT, kind TEXT);
"""
CURVES = (
    metrics.VALIDATION_WER,
    metrics.VALIDATION_LOSS,
    metrics.TRAIN_LOSS,
    metrics.LEARNING_RATE,
)
WORKSPACE = (paths.RUN, paths.METRICS, paths.SUMMARY, paths.TRAIN_TIMING, paths.STEPS)
FRESH_SECONDS = 3.0
SERVER_SECONDS = 30.0  # a server cannot be seen to change, only asked again
# What reading a damaged file can raise, here and in the pages' JSON.
PARSE_ERRORS = (
    sqlite3.Error,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
    OverflowError,
)
FINISHED, RUNNING, KILLED = "FINISHED", "RUNNING", "KILLED"


@dataclass(frozen=True)
class IndexState:
    """How the index stands; `generation` changes with the rows, `mark` with the curves and faults
    too.
    """

    made: bool = False
    updated: float = 0.0
    phase: str = ""
    done: int = 0
    total: int = 0
    fault: str = ""
    generation: str = ""
    mark: str = ""
    running: int = 0


@dataclass(frozen=True)
class RunRow:
    """A training and its test scores. One that was tested on other data, or in another way, has a
    row for each.
    """

    key: str
    run_id: str | None
    fingerprint: str | None
    name: str
    status: str
    start: float | None
    end: float | None
    params: dict[str, Any]
    tags: dict[str, str]
    metrics: dict[str, float]
    revisions: tuple[Revision, ...] = ()
    scores: dict[str, Any] = field(default_factory=dict)
    parameters: int | None = None
    seconds: float | None = None

    @property
    def test_hash(self) -> str | None:
        return self.scores.get("test_hash")


def path() -> Path:
    return paths.cache("runs.sqlite")


@contextmanager
def opened() -> Iterator[sqlite3.Connection | None]:
    """The index for reading, if there is one.

    Raises:
        BadData: it is damaged; it is made anew when next asked for.
    """
    if not path().is_file():
        yield None
        return
    try:
        with closing(sqlite3.connect(f"{path().as_uri()}?mode=ro", uri=True, timeout=10)) as index:
            index.execute("BEGIN")  # what is read hangs together
            yield index
    except PARSE_ERRORS:
        with suppress(OSError):
            paths.cache("runs.rebuild").touch()
        raise DataError("the index of runs is damaged; it is being made anew") from None


def state() -> IndexState:
    """Read in under a millisecond."""
    with opened() as index:
        if index is None:
            return IndexState()
        meta = dict(index.execute("SELECT key, value FROM meta"))
        if meta.get("schema") != str(SCHEMA):
            raise ValueError("another schema")
        waiting = index.execute(
            "SELECT fingerprint FROM runs WHERE status = 'RUNNING' AND parent IS NULL"
        ).fetchall()
        live = "".join("1" if is_training(fingerprint) else "0" for (fingerprint,) in waiting)
        phase, done, total = json.loads(meta.get("progress") or '["", 0, 0]')
        fault = meta.get("fault") or ""
        return IndexState(
            made="updated" in meta,
            updated=float(meta.get("updated") or 0),
            phase=str(phase),
            done=int(done),
            total=int(total),
            fault=fault,
            generation=f"{meta.get('generation')} {live}",
            mark=f"{meta.get('generation')} {live} {meta.get('curves')} {fault}",
            running=live.count("1"),
        )


MAX_FINGERPRINT = 64  # characters of a fingerprint; ours have 32, and a file's name has an end


def is_training(fingerprint: str | None) -> bool:
    """Whether a run that MLflow holds for running still trains; of one on another machine we only
    know what MLflow says.
    """
    if not fingerprint or not fingerprint.isalnum() or len(fingerprint) > MAX_FINGERPRINT:
        return client.store_file() is None
    if client.store_file() is None and not journal.path_of(fingerprint).is_file():
        return True
    return follower.training_runs(fingerprint)


def rows() -> list[RunRow]:
    """Every training, newest first; those that only a revision knows come by their place in
    `revisions.known`.
    """
    with opened() as index:
        if index is None:
            return []
        known = _known(index)
        tests: dict[str, list[dict[str, Any]]] = defaultdict(list)
        runs = []
        for run in _read(index):
            if run["parent"]:
                tests[run["parent"]].append(run)
            else:
                runs.append(run)
        found = [
            row
            for run in runs
            for row in _rows_of(run, tests[run["id"]], known.get(run["fingerprint"], []))
        ]
        told = {run["fingerprint"] for run in runs}
        return found + [
            row
            for fingerprint in known
            if fingerprint not in told
            for row in _rows_without_run(fingerprint, known[fingerprint])
        ]


_parsed: dict[
    str, tuple[str, dict[str, Any]]
] = {}  # runs by id, as long as their digest is the same


def _read(index: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    """The index's runs, newest first; only those that changed are parsed."""
    order = index.execute("SELECT id, digest FROM runs ORDER BY start DESC, id").fetchall()
    before = dict(_parsed)
    changed = [id for id, digest in order if before.get(id, ("",))[0] != digest]
    if len(changed) > len(order) // 2:
        found = index.execute("SELECT id, digest, whole FROM runs").fetchall()
    else:
        found = [
            index.execute("SELECT id, digest, whole FROM runs WHERE id = ?", [id]).fetchone()
            for id in changed
        ]
    fresh = {id: (digest, json.loads(whole)) for id, digest, whole in found}
    now = {id: fresh.get(id) or before[id] for id, _ in order}
    _parsed.clear()
    _parsed.update(now)
    yield from (run for _, run in now.values())


Known = tuple[Revision, dict[str, Any]]


def _known(index: sqlite3.Connection) -> dict[str, list[Known]]:
    """What revisions tell, by fingerprint, in the order of `revisions.known`."""
    facts = {
        sha: (fingerprint, json.loads(told))
        for sha, fingerprint, told in index.execute("SELECT sha, fingerprint, known FROM facts")
    }
    found: dict[str, list[Known]] = defaultdict(list)
    for name, sha, kind in index.execute("SELECT name, sha, kind FROM revisions ORDER BY place"):
        fingerprint, told = facts.get(sha or "", (None, {}))
        if fingerprint:
            found[str(fingerprint)].append((Revision(str(name), sha, str(kind)), told))
    return found


def _groups(known: list[Known]) -> list[list[Known]]:
    """Revisions of one training by how its test went; those without scores stand with the first
    that has some.
    """
    groups: dict[str, list[Known]] = defaultdict(list)
    for revision, told in known:
        scores = told["scores"]
        groups[
            f"{scores.get('test_hash')} {scores.get('wer')} {scores.get('cer')}" if scores else ""
        ].append((revision, told))
    untold = groups.pop("", [])
    first, *others = [*groups.values()] or [[]]
    return [group for group in ([*first, *untold], *others) if group]


def _rows_of(
    run: dict[str, Any], tests: list[dict[str, Any]], known: list[Known]
) -> Iterator[RunRow]:
    status = (
        KILLED
        if run["status"] == RUNNING and not is_training(run["fingerprint"])
        else str(run["status"])
    )
    latest = tests[0] if tests else {"metrics": {}, "params": {}}  # newest first
    logged = {
        key.removeprefix("test/"): value
        for key, value in {**run["metrics"], **latest["metrics"]}.items()
        if key.startswith("test/")
    }
    for number, group in enumerate(_groups(known) or [[]]):
        told = group[0][1] if group else {}
        yield RunRow(
            key=run["id"] if number == 0 else f"{run['id']}/{number}",
            run_id=run["id"],
            fingerprint=run["fingerprint"],
            name=str(run["name"]),
            status=status,
            start=run["start"],
            end=run["end"],
            params={**run["params"], **latest["params"], **told.get("params", {})},
            tags=run["tags"],
            metrics={
                key: value for key, value in run["metrics"].items() if not key.startswith("test/")
            },
            revisions=tuple(revision for revision, _ in group),
            scores=told.get("scores") or logged,
            parameters=told.get("parameters"),
            seconds=told.get("seconds") or _between(run, status),
        )


def _between(run: dict[str, Any], status: str) -> float | None:
    """Seconds from start to end of a run that came to its end; a stopped one also counts the hours
    it lay.
    """
    return run["end"] - run["start"] if status == FINISHED and run["end"] and run["start"] else None


def _rows_without_run(fingerprint: str, known: list[Known]) -> Iterator[RunRow]:
    for number, group in enumerate(_groups(known)):
        revision, told = group[0]
        yield RunRow(
            key=fingerprint if number == 0 else f"{fingerprint}/{number}",
            run_id=None,
            fingerprint=fingerprint,
            name=revision.name,
            status=FINISHED,
            start=None,
            end=None,
            params=told.get("params", {}),
            tags={},
            metrics={},
            revisions=tuple(revision for revision, _ in group),
            scores=told["scores"],
            parameters=told.get("parameters"),
            seconds=told.get("seconds"),
        )


def curves(row: RunRow) -> dict[str, list[tuple[int, float]]] | None:
    """The points of each metric of `CURVES`; none while they are not fetched, which `ask` hastens."""
    with opened() as index:
        if index is None:
            return None
        for one in (row.run_id, row.fingerprint):
            found = index.execute("SELECT points FROM curves WHERE id = ?", [one]).fetchone()
            if found:
                points = json.loads(found[0])
                return {
                    key: [(int(step), float(value)) for step, value in points.get(key, [])]
                    for key in CURVES
                }
    return None


def is_stale(now: IndexState) -> bool:
    """Whether anything changed since the index was brought up to date; 15 ms."""
    age = time.time() - now.updated
    if not now.made or paths.cache("runs.rebuild").exists():
        return True
    if age < FRESH_SECONDS:
        return False
    if (client.store_file() is None or now.fault) and age > SERVER_SECONDS:
        return True
    with opened() as index:
        seen = (
            index.execute("SELECT value FROM meta WHERE key = 'signature'").fetchone()
            if index
            else None
        )
    return not seen or seen[0] != signature()


def signature() -> str:
    """What the index was made from, as far as this machine shows it: the store, the workspace's
    reports, git's refs.
    """
    store = client.store_file()
    places = [paths.root() / one for one in WORKSPACE]
    if store:
        places += [store, store.with_name(f"{store.name}-wal")]
    return hashing.hash_of(
        [
            [_stamp(place) for place in places],
            [[one.name, one.sha] for one in revisions.list_revisions()],
        ]
    )


def _stamp(place: Path) -> list[int]:
    try:
        found = place.stat()
    except OSError:
        return []
    return [found.st_mtime_ns, found.st_size, found.st_ino]


_started: list[subprocess.Popen[bytes]] = []


def request_refresh(wanted: tuple[str, ...] = ()) -> None:
    """Have the index brought up to date in the background, these runs' curves first; returns at
    once.
    """
    paths.cache().mkdir(parents=True, exist_ok=True)
    if wanted:
        files.write_json(paths.cache("runs.wanted"), list(wanted))
    paths.cache("runs.asked").touch()
    _started[:] = [one for one in _started if one.poll() is None]
    if is_refreshing():
        return
    environment = {
        **os.environ,
        "DVC_ROOT": str(paths.root()),
        "OMP_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    quiet: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    command = [sys.executable, "-m", "asr.runs.refresh", "follow"]
    _started.append(
        subprocess.Popen(
            command, env=environment, cwd=Path(__file__).parents[2], start_new_session=True, **quiet
        )
    )


def is_refreshing() -> bool:
    """Whether a refresher is at work, of whatever page."""
    if any(one.poll() is None for one in _started):
        return True
    return is_locked(paths.cache("runs.lock"))
