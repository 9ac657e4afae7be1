"""The index of all trainings that the pages read: .cache/runs.sqlite.

`asr.runs.refresh` fills the index in a process of its own; reading imports neither MLflow nor DVC.
A training is found in MLflow (tag `fingerprint`), and in reports/train/run.json of each revision
that holds its model. There may be many such revisions, and there may be no run in MLflow, because
an experiment that DVC restores from its cache starts none. Reading 5,000 runs costs 0.4 s, once for
each change of the index.
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
from asr.runs import revisions, states, tested
from asr.runs.revisions import Revision
from asr.runs.states import State
from asr.runtime.locks import is_locked
from asr.storage import files, hashing
from asr.tracking import client, follower, journal

SCHEMA = 1
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE runs (
    id TEXT PRIMARY KEY, fingerprint TEXT, parent TEXT, status TEXT, start REAL, "end" REAL,
    digest TEXT, curves TEXT, whole TEXT
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
# Files of the workspace that the index is made from.
WORKSPACE_REPORTS = (paths.RUN, paths.METRICS, paths.SUMMARY, paths.TRAIN_TIMING, paths.STEPS)
FRESH_SECONDS = 3.0
SERVER_SECONDS = 30.0  # after which a server is read again: it does not tell us of changes
MAX_FINGERPRINT = 64  # characters; ours have 32, and names of files must not be longer than 255
TEST = "test/"  # prefix of the metrics of a test
FINISHED, RUNNING, KILLED = "FINISHED", "RUNNING", "KILLED"  # of MLflow
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

Facts = dict[str, Any]  # of a revision: params, scores, parameters, seconds
RevisionFacts = tuple[Revision, Facts]

# Digest and run by id, of what was read last.
parsed_runs: dict[str, tuple[str, dict[str, Any]]] = {}
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
        running: number of trainings that are running.
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
    """A training and its test scores.

    A training that was tested on other data, or in another way, has a row for each test.

    Attributes:
        run_id: id of MLflow's run; None if there is no such run.
        fingerprint: None for an experiment that waits, prepares, or was refused before it had one.
        start, end: in seconds since 1970.
        untested: why there are no scores; empty if there are.
        best_wer, best_step: validation WER of the weights kept, or the lowest so far, and its step;
            the step is None where only the last value is known.
        parameters: number of the model's parameters.
        seconds: how long the training took.
        failed_checks: name and text of each check of the training that failed.
        results: those of its revisions whose reports hold these scores, and their utterances.
        utterances_hash: MD5 of the table of utterances that the scores are from.
    """

    key: str
    run_id: str | None
    fingerprint: str | None
    name: str
    state: State
    start: float | None
    end: float | None
    params: dict[str, Any]
    tags: dict[str, str]
    metrics: dict[str, float]
    revisions: tuple[Revision, ...] = ()
    scores: dict[str, Any] = field(default_factory=dict)
    untested: str = ""
    best_wer: float | None = None
    best_step: int | None = None
    parameters: int | None = None
    seconds: float | None = None
    failed_checks: dict[str, str] = field(default_factory=dict)
    results: tuple[Revision, ...] = ()
    utterances_hash: str | None = None

    @property
    def test_hash(self) -> str | None:
        return self.scores.get("test_hash")


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
    """The state of the index; costs less than a millisecond."""
    with opened() as index:
        if index is None:
            return IndexState()
        meta = dict(index.execute("SELECT key, value FROM meta"))
        if meta.get("schema") != str(SCHEMA):
            raise ValueError("another schema")
        unfinished = index.execute(
            "SELECT fingerprint FROM runs WHERE status = 'RUNNING' AND parent IS NULL"
        ).fetchall()
        live = "".join("1" if is_training(fingerprint) else "0" for (fingerprint,) in unfinished)
        phase, done, total = json.loads(meta.get("progress") or '["", 0, 0]')
        fault = meta.get("fault") or ""
        generation = f"{meta.get('generation')} {live}"
        return IndexState(
            made="updated" in meta,
            updated=float(meta.get("updated") or 0),
            phase=str(phase),
            done=int(done),
            total=int(total),
            fault=fault,
            generation=generation,
            mark=f"{generation} {meta.get('curves')} {fault}",
            running=live.count("1"),
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


def rows() -> list[RunRow]:
    """All trainings: those with an MLflow run, newest first, then those of revisions alone.

    The latter have the order of `list_revisions`.
    """
    with opened() as index:
        if index is None:
            return []
        facts = _read_facts(index)
        trainings = []
        tests: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for run in _read_runs(index):
            if run["parent"]:
                tests[run["parent"]].append(run)
            else:
                trainings.append(run)
        all_rows: list[RunRow] = []
        for run in trainings:
            all_rows += rows_of(run, tests[run["id"]], facts.get(run["fingerprint"], []))
        with_run = {run["fingerprint"] for run in trainings}
        for fingerprint in facts:
            if fingerprint not in with_run:
                all_rows += _rows_without_run(fingerprint, facts[fingerprint])
        return all_rows


def _read_runs(index: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    """The index's runs, newest first; only those that changed are parsed."""
    order = index.execute("SELECT id, digest FROM runs ORDER BY start DESC, id").fetchall()
    before = dict(parsed_runs)
    changed = [id for id, digest in order if before.get(id, ("",))[0] != digest]
    if len(changed) > len(order) // 2:
        read = index.execute("SELECT id, digest, whole FROM runs").fetchall()
    else:
        query = "SELECT id, digest, whole FROM runs WHERE id = ?"
        read = [index.execute(query, [id]).fetchone() for id in changed]
    fresh = {id: (digest, json.loads(whole)) for id, digest, whole in read}
    now = {id: fresh.get(id) or before[id] for id, _ in order}
    parsed_runs.clear()
    parsed_runs.update(now)
    yield from (run for _, run in now.values())


def _read_facts(index: sqlite3.Connection) -> dict[str, list[RevisionFacts]]:
    """The facts of revisions by fingerprint, in the order of `list_revisions`."""
    by_sha = {
        sha: (fingerprint, json.loads(facts))
        for sha, fingerprint, facts in index.execute("SELECT sha, fingerprint, known FROM facts")
    }
    by_fingerprint: dict[str, list[RevisionFacts]] = defaultdict(list)
    for name, sha, kind in index.execute("SELECT name, sha, kind FROM revisions ORDER BY place"):
        fingerprint, facts = by_sha.get(sha or "", (None, {}))
        if fingerprint:
            revision = Revision(str(name), sha, str(kind))
            by_fingerprint[str(fingerprint)].append((revision, facts))
    return by_fingerprint


def _group_by_test(revision_facts: list[RevisionFacts]) -> list[list[RevisionFacts]]:
    """Group the revisions of one training by the result of its test.

    Those without scores go to the first group that has some.
    """
    groups: dict[str, list[RevisionFacts]] = defaultdict(list)
    untested = []
    for revision, facts in revision_facts:
        scores = facts["scores"]
        if scores:
            result = f"{scores.get('test_hash')} {scores.get('wer')} {scores.get('cer')}"
            groups[result].append((revision, facts))
        else:
            untested.append((revision, facts))
    first, *others = [*groups.values()] or [[]]
    return [group for group in ([*first, *untested], *others) if group]


def rows_of(
    run: dict[str, Any], tests: list[dict[str, Any]], revision_facts: list[RevisionFacts]
) -> Iterator[RunRow]:
    """The rows of a training that has an MLflow run.

    Args:
        tests: MLflow's runs of its tests, newest first.
        revision_facts: the revisions that hold it, with their facts.
    """
    status = str(run["status"])
    if status == RUNNING and not is_training(run["fingerprint"]):
        status = KILLED
    latest = tests[0] if tests else {"metrics": {}, "params": {}}
    logged = {
        metric.removeprefix(TEST): value
        for metric, value in {**run["metrics"], **latest["metrics"]}.items()
        if metric.startswith(TEST)
    }
    training_metrics = {
        metric: value for metric, value in run["metrics"].items() if not metric.startswith(TEST)
    }
    for number, group in enumerate(_group_by_test(revision_facts) or [[]]):
        facts = group[0][1] if group else {}
        yield RunRow(
            **_facts_of_test(group, logged),
            key=run["id"] if number == 0 else f"{run['id']}/{number}",
            run_id=run["id"],
            fingerprint=run["fingerprint"],
            name=str(run["name"]),
            state=state_of(run, status),
            start=run["start"],
            end=run["end"],
            params={**run["params"], **latest["params"], **facts.get("params", {})},
            tags=run["tags"],
            metrics=training_metrics,
            seconds=facts.get("seconds") or _seconds(run, status),
            failed_checks=states.failed_checks(run["tags"]),
        )


def state_of(run: dict[str, Any], status: str) -> State:
    """The state of a run of MLflow."""
    steps = run["params"].get("train.max_steps")
    return states.of_tracked(status, None, steps if isinstance(steps, int) else None)


def _facts_of_test(group: list[RevisionFacts], logged: dict[str, float]) -> dict[str, Any]:
    """What the revisions of one row tell: the first of them whose scores are its own, first.

    Args:
        logged: the scores that MLflow holds, which stand where no revision has any.
    """
    facts = group[0][1] if group else {}
    scores = facts.get("scores") or logged
    return {
        "revisions": tuple(revision for revision, _ in group),
        "results": tuple(revision for revision, told in group if told.get("scores")),
        "scores": scores,
        "untested": "" if scores else facts.get("untested") or tested.NOT_TESTED,
        "best_wer": facts.get("best_wer"),
        "best_step": facts.get("best_step"),
        "parameters": facts.get("parameters"),
        "utterances_hash": facts.get("utterances"),
    }


def workspace_results(rows: list[RunRow]) -> tuple[RunRow | None, str]:
    """Whose utterances lie in the workspace's reports/evaluate.

    Returns:
        the run they are of, None where that is not known; and why they are not of the model in the
        workspace, empty if they are.
    """
    untested = tested.why_untested(paths.root())
    try:
        hash = tested.md5_of(paths.root() / paths.UTTERANCES)
    except OSError:
        return None, untested or tested.NOT_TESTED
    owners = [row for row in rows if row.utterances_hash == hash]
    return next(iter(owners), None), untested


def _seconds(run: dict[str, Any], status: str) -> float | None:
    """Seconds from start to end of a finished run.

    None for a run that was stopped: it did not train until it was resumed.
    """
    if status != FINISHED or not run["end"] or not run["start"]:
        return None
    seconds: float = run["end"] - run["start"]
    return seconds


def _rows_without_run(fingerprint: str, revision_facts: list[RevisionFacts]) -> Iterator[RunRow]:
    for number, group in enumerate(_group_by_test(revision_facts)):
        revision, facts = group[0]
        yield RunRow(
            **_facts_of_test(group, {}),
            key=fingerprint if number == 0 else f"{fingerprint}/{number}",
            run_id=None,
            fingerprint=fingerprint,
            name=revision.name,
            state=State(states.FINISHED),
            start=None,
            end=None,
            params=facts.get("params", {}),
            tags={},
            metrics={},
            seconds=facts.get("seconds"),
        )


def curves(row: RunRow) -> dict[str, list[tuple[int, float]]] | None:
    """Steps and values of each metric of `CURVES`.

    None if they are not in the index yet; pass the run to `request_refresh` to have them fetched.
    """
    with opened() as index:
        if index is None:
            return None
        for id in (row.run_id, row.fingerprint):
            record = index.execute("SELECT points FROM curves WHERE id = ?", [id]).fetchone()
            if record:
                points = json.loads(record[0])
                return {
                    metric: [(int(step), float(value)) for step, value in points.get(metric, [])]
                    for metric in CURVES
                }
    return None


def is_stale(now: IndexState) -> bool:
    """Whether anything may have changed since the index was brought up to date; costs 15 ms."""
    age = time.time() - now.updated
    if not now.made or paths.cache("runs.rebuild").exists():
        return True
    if age < FRESH_SECONDS:
        return False
    if (client.store_file() is None or now.fault) and age > SERVER_SECONDS:
        return True
    with opened() as index:
        if index is None:
            return True
        seen = index.execute("SELECT value FROM meta WHERE key = 'signature'").fetchone()
    return not seen or seen[0] != signature()


def signature() -> str:
    """A hash of the index's sources on this machine.

    These are MLflow's store if it is a file, the workspace's reports, and git's refs.
    """
    sources = [paths.root() / report for report in WORKSPACE_REPORTS]
    store = client.store_file()
    if store:
        sources += [store, store.with_name(f"{store.name}-wal")]
    refs = [[revision.name, revision.sha] for revision in revisions.list_revisions()]
    return hashing.hash_of([[_stamp(source) for source in sources], refs])


def _stamp(path: Path) -> list[int]:
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
    """
    paths.cache().mkdir(parents=True, exist_ok=True)
    if run_ids:
        files.write_json(paths.cache("runs.wanted"), list(run_ids))
    paths.cache("runs.asked").touch()
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
