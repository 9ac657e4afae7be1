"""All trainings, each a row of what the index and this machine tell of it.

A training is found in MLflow (tag `fingerprint`), and in reports/train/run.json of each revision
that holds its model. There may be many such revisions, and there may be no run in MLflow, because
an experiment that DVC restores from its cache starts none. Reading 5,000 runs costs 0.4 s, once for
each change of the index.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from asr import dvc_hashes, paths
from asr.runs import journals, revision_groups, revisions, run_index, states, tested
from asr.runs.revision_groups import Facts, RevisionFacts
from asr.runs.revisions import EXPERIMENT, Revision
from asr.runs.states import Present, State
from asr.runtime.attempts import Attempt
from asr.tracking import follower, journal
from asr.tracking.journal import Course

TEST = "test/"  # prefix of the metrics of a test
FINISHED, RUNNING, KILLED = "FINISHED", "RUNNING", "KILLED"  # of MLflow

# Digest and run by id, of what was read last.
parsed_runs: dict[str, tuple[str, dict[str, Any]]] = {}


@dataclass(frozen=True)
class RunRow:
    """A training and its test scores.

    A training that was tested on other data, or in another way, has a row for each test.

    Attributes:
        run_id: id of MLflow's run; None if there is no such run.
        fingerprint: None for an experiment that waits, prepares, or was refused before it had one.
        start, end: in seconds since 1970.
        untested: why there are no scores; empty if there are.
        best_wer, best_step: validation WER of the weights kept, or of the best step so far, and
            that step.
        parameters: number of the model's parameters.
        left_out: share of the training rows that the training did not use.
        seconds: how long the training took.
        results: those of its revisions whose reports hold these scores, and their utterances.
        utterances_hash: MD5 of the table of utterances that the scores are from.
        failed_checks: name and text of each check of the training that failed.
        command: what DVC was called with, where that is all that is known of the params.
        former_keys: those that it had before it had a fingerprint.
        elder: fingerprint of the first training that this machine began under the same name, if
            that is another one; it may be deleted by now.
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
    left_out: float | None = None
    seconds: float | None = None
    results: tuple[Revision, ...] = ()
    utterances_hash: str | None = None
    failed_checks: dict[str, str] = field(default_factory=dict)
    command: str = ""
    former_keys: tuple[str, ...] = ()
    elder: str | None = None

    @property
    def test_hash(self) -> str | None:
        return self.scores.get("test_hash")


def rows() -> list[RunRow]:
    """All trainings, and experiments that wait, prepare, or were refused.

    The newest come first; then those of revisions alone, in the order of `revisions.with_reports`.
    """
    with run_index.opened() as index:
        if index is None:
            return []
        facts, published = _read_facts(index)
        known = Known(states.present(), _read_courses(index), facts)
        best = _read_best(index)
        trainings = []
        tests: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for run in _read_runs(index):
            if run["parent"]:
                tests[run["parent"]].append(run)
            else:
                trainings.append(run)
        tracked = {run["fingerprint"] for run in trainings}
        recent = [run for run in _read_untracked(index, known) if run["fingerprint"] not in tracked]
        all_rows = [row for run in recent for row in rows_of(run, [], known)]
        all_rows += _rows_without_training(known.present)
        seen: set[str] = set()
        for run in trainings:
            is_twin = run["fingerprint"] in seen
            seen.add(run["fingerprint"])
            all_rows += rows_of(run, tests[run["id"]], known, is_twin)
        all_rows = _newest_first(all_rows)
        with_run = tracked | {run["fingerprint"] for run in recent}
        for fingerprint in known.facts:
            if fingerprint not in with_run:
                all_rows += _rows_without_run(fingerprint, known)
        for group in published:
            all_rows += _published_rows(group)
        eldest = _eldest(known.courses)
        return [_with_elder(_with_best(row, best), eldest) for row in all_rows]


def _read_best(index: sqlite3.Connection) -> dict[str, tuple[float, int]]:
    """The validation WER at the best step of each curve that was read, and that step, by id."""
    query = "SELECT id, best_wer, best_step FROM curves WHERE best_wer IS NOT NULL"
    return {id: (wer, step) for id, wer, step in index.execute(query)}


def _with_best(row: RunRow, best: dict[str, tuple[float, int]]) -> RunRow:
    """The row with the best step so far and its WER, where no revision tells those of the weights.

    None until the curve is read: the last value, which MLflow tells at once, need not be it.
    """
    if row.best_wer is not None:
        return row
    found = best.get(row.fingerprint or row.key) or best.get(row.run_id or "")
    return replace(row, best_wer=found[0], best_step=found[1]) if found else row


def _eldest(courses: dict[str, Course]) -> dict[str, tuple[float, str]]:
    """When the first training of each name began on this machine, and its fingerprint."""
    eldest: dict[str, tuple[float, str]] = {}
    for fingerprint, course in courses.items():
        began = course.begin, fingerprint
        eldest[course.name] = min(eldest.get(course.name, began), began)
    return eldest


def _with_elder(row: RunRow, eldest: dict[str, tuple[float, str]]) -> RunRow:
    """The row with the training that has had its name for longer, though it may be deleted."""
    elder = eldest.get(row.name)
    if not elder or elder[1] == row.fingerprint:
        return row
    is_older = elder < (row.start or math.inf, row.fingerprint or "")
    return replace(row, elder=elder[1]) if is_older else row


@dataclass(frozen=True)
class Known:
    """What is known of trainings besides MLflow's runs.

    Attributes:
        courses: what the journals of this machine tell, by fingerprint.
        facts: of the revisions that hold a training, by fingerprint.
        stages: those of its latest invocation, by fingerprint.
    """

    present: Present = field(default_factory=Present)
    courses: dict[str, Course] = field(default_factory=dict)
    facts: dict[str, list[RevisionFacts]] = field(default_factory=dict)
    stages: dict[str, list[Attempt]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", self.present.by_fingerprint())

    def course(self, fingerprint: str) -> Course | None:
        """The course of a training; what was tried lately is read now, not from the index."""
        if fingerprint in self.stages:
            return _read_journal(fingerprint)[0] or self.courses.get(fingerprint)
        return self.courses.get(fingerprint)


def _newest_first(rows: list[RunRow]) -> list[RunRow]:
    return sorted(rows, key=lambda row: -(row.start or 0))


def _read_courses(index: sqlite3.Connection) -> dict[str, Course]:
    read = index.execute("SELECT fingerprint, course FROM journals").fetchall()
    return {fingerprint: Course(**json.loads(course)) for fingerprint, course in read}


def _read_untracked(index: sqlite3.Connection, known: Known) -> Iterator[dict[str, Any]]:
    """Trainings of this machine that MLflow has never had, as runs.

    What it had and has no more was deleted there.
    """
    query = "SELECT fingerprint, run FROM journals WHERE NOT in_mlflow AND run NOT NULL"
    for fingerprint, run in index.execute(query).fetchall():
        if fingerprint in known.stages:
            yield json.loads(run)
    for fingerprint in known.stages.keys() - known.courses.keys():  # begun a moment ago
        course, run = _read_journal(fingerprint)
        if course:
            yield run


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


def _read_facts(
    index: sqlite3.Connection,
) -> tuple[dict[str, list[RevisionFacts]], list[RevisionFacts]]:
    """The facts of revisions by fingerprint, and those published without one, in their order."""
    by_key = {
        key: (fingerprint, _parsed_facts(facts))
        for key, fingerprint, facts in index.execute("SELECT sha, fingerprint, known FROM facts")
    }
    order = index.execute("SELECT name, sha, kind FROM revisions ORDER BY place")
    listed = [Revision(str(name), sha, str(kind)) for name, sha, kind in order]
    return revision_groups.by_training(
        (revision, *by_key.get(revision.key, (None, {}))) for revision in listed
    )


@lru_cache(maxsize=20_000)
def _parsed_facts(text: str) -> Facts:
    facts: Facts = json.loads(text)
    return facts


def rows_of(
    run: dict[str, Any], tests: list[dict[str, Any]], known: Known, is_twin: bool = False
) -> Iterator[RunRow]:
    """The rows of a training that has a run, in MLflow or only in its journal.

    Args:
        tests: MLflow's runs of its tests, newest first.
        is_twin: MLflow has another run of this training.
    """
    course = known.course(run["fingerprint"])
    tags = {**run["tags"], **(course.tags if course else {})}
    state = state_of(run, course, known)
    key = run["id"] if is_twin or not run["fingerprint"] else run["fingerprint"]
    latest = tests[0] if tests else {"metrics": {}, "params": {}}
    logged = {
        metric.removeprefix(TEST): value
        for metric, value in {**run["metrics"], **latest["metrics"]}.items()
        if metric.startswith(TEST)
    }
    training_metrics = {
        metric: value for metric, value in run["metrics"].items() if not metric.startswith(TEST)
    }
    revision_facts = known.facts.get(run["fingerprint"], [])
    groups = revision_groups.by_test(revision_facts, logged)
    for number, group in enumerate(groups or [[]]):
        facts = group[0][1] if group else {}
        scores = facts.get("scores") or logged
        yield RunRow(
            **revision_groups.row_facts(group, logged),
            key=key if number == 0 else f"{key}/{number}",
            run_id=run["id"],
            fingerprint=run["fingerprint"],
            name=str(run["name"]),
            state=state,
            start=run["start"],
            end=run["end"],
            params={**run["params"], **latest["params"], **facts.get("params", {})},
            tags=run["tags"],
            metrics=training_metrics,
            seconds=_seconds(run, course, facts),
            failed_checks=states.failed_checks(tags, scores, facts.get("failed_checks", {})),
            former_keys=_former_keys(run["fingerprint"], tags, group, known),
        )


def workspace_results(rows: list[RunRow]) -> tuple[RunRow | None, str]:
    """Whose utterances lie in the workspace's reports/evaluate.

    Returns:
        the run they are of, None where that is not known; and why they are not of the model in the
        workspace, empty if they are.
    """
    untested = tested.why_untested(paths.root())
    try:
        hash = dvc_hashes.of_file(paths.root() / paths.UTTERANCES)
    except OSError:
        return None, untested or "not on this computer"
    owners = [row for row in rows if row.utterances_hash == hash]
    return next(iter(owners), None), untested


def state_of(run: dict[str, Any], course: Course | None, known: Known) -> State:
    """The state of a training: what this machine knows of it, else MLflow's word."""
    fingerprint = run["fingerprint"]
    stages = known.stages.get(fingerprint)
    state = known.present.state(stages, course) if stages else None
    if state and state.goes_on:
        return state
    if course and course.end is None:
        if follower.is_training(fingerprint):
            return states.of_living_training(course)
        course = _read_journal(fingerprint)[0]  # now it has its end, if it has one
    if state:
        return state
    if course:
        return states.of_journal(course)
    status = str(run["status"])
    if status == RUNNING and not run_index.is_training(fingerprint):
        status = KILLED
    return states.of_tracked(status, run["tags"], run["params"].get("train.max_steps"))


def _read_journal(fingerprint: str) -> tuple[Course | None, dict[str, Any]]:
    """What a journal says now; the index may be a second behind."""
    path = journal.path_of(fingerprint)
    return _parsed_journal(path, *run_index.stamp(path))


@lru_cache(maxsize=10_000)
def _parsed_journal(path: Path, *_: int) -> tuple[Course | None, dict[str, Any]]:
    try:
        return journals.read(path)[:2]
    except (OSError, *run_index.PARSE_ERRORS):
        return None, {}


def _seconds(run: dict[str, Any], course: Course | None, facts: Facts) -> float | None:
    """Seconds of all pieces of a finished training; None for one that has not finished."""
    if course and course.status == FINISHED and (course.pieces > 1 or not facts.get("seconds")):
        return course.seconds
    if facts.get("seconds"):
        return float(facts["seconds"])
    if run["status"] != FINISHED or not run["end"] or not run["start"]:
        return None
    seconds: float = run["end"] - run["start"]
    return seconds


def _rows_without_training(present: Present) -> Iterator[RunRow]:
    """Experiments that wait, that prepare, or that ended before they had a training."""
    queue = present.queue
    keys = set()
    for task, state in present.queued():
        key = _experiment_key(task.name)
        params = revisions.params_at(task.sha)
        yield _bare_row(task.sha if key in keys else key, task.name, state, task.since, params)
        keys.add(key)
    shas = {task.name: task.sha for task in (*queue.started, *queue.failed)}
    for stages, state in present.unnamed():
        first, name = stages[0], stages[-1].experiment
        params = revisions.params_at(shas[name]) if name in shas else {}
        key = first.id if _invocation_key(first) in keys else _invocation_key(first)
        row = _bare_row(key, name or "repro", state, first.begin, params)
        yield replace(row, command=first.command)
        keys.add(key)


def _experiment_key(name: str) -> str:
    """The key of an experiment that waits or prepares; it has no fingerprint yet."""
    return f"experiment {name}"


def _invocation_key(first: Attempt) -> str:
    """The same by the first stage that DVC executed; of `dvc repro` the record of that stage."""
    return _experiment_key(first.experiment) if first.experiment else first.id


def _former_keys(
    fingerprint: str | None, tags: dict[str, str], group: list[RevisionFacts], known: Known
) -> tuple[str, ...]:
    """The keys of what became this training, or was restored as it."""
    names = [revision.name for revision, _ in group if revision.kind == EXPERIMENT]
    keys = [_experiment_key(name) for name in (tags.get("dvc.experiment"), *names) if name]
    invocation = known.stages.get(fingerprint or "", [])[:1]
    return tuple(dict.fromkeys([*map(_invocation_key, invocation), *keys]))


def _bare_row(key: str, name: str, state: State, start: float, params: dict[str, Any]) -> RunRow:
    return RunRow(
        key=key,
        run_id=None,
        fingerprint=None,
        name=name,
        state=state,
        start=start,
        end=None,
        params=params,
        tags={},
        metrics={},
    )


def _rows_without_run(fingerprint: str, known: Known) -> Iterator[RunRow]:
    """The rows of a training that revisions hold, and of which MLflow and no journal tells."""
    stages = known.stages.get(fingerprint)
    state = known.present.state(stages, None) if stages else None
    for number, group in enumerate(revision_groups.by_test(known.facts[fingerprint], None)):
        key = fingerprint if number == 0 else f"{fingerprint}/{number}"
        row = _row_of_revisions(key, fingerprint, group, state or State(states.FINISHED))
        yield replace(row, former_keys=_former_keys(fingerprint, {}, group, known))


def _published_rows(published: RevisionFacts) -> Iterator[RunRow]:
    """The row of what the repository publishes of a training whose fingerprint is not known."""
    revision, _ = published
    for group in revision_groups.by_test([published], None):
        yield _row_of_revisions(revision.key, None, group, State(states.FINISHED))


def _row_of_revisions(
    key: str, fingerprint: str | None, group: list[RevisionFacts], state: State
) -> RunRow:
    facts = group[0][1]
    return RunRow(
        **revision_groups.row_facts(group, {}),
        key=key,
        run_id=None,
        fingerprint=fingerprint,
        name=revision_groups.name_of(group),
        state=state,
        start=None,
        end=None,
        params=facts.get("params", {}),
        tags={},
        metrics={},
        seconds=facts.get("seconds"),
        failed_checks=states.failed_checks(
            {}, facts.get("scores", {}), facts.get("failed_checks", {})
        ),
    )


def curves(row: RunRow) -> dict[str, list[tuple[int, float]]] | None:
    """Steps and values of each metric of `CURVES`.

    None if they are not in the index yet; pass the run to `request_refresh` to have them fetched.
    """
    with run_index.opened() as index:
        if index is None:
            return None
        ids = (row.fingerprint or row.key, row.run_id)  # what this machine wrote is newer
        for id in ids:
            record = index.execute("SELECT points FROM curves WHERE id = ?", [id]).fetchone()
            if record:
                points = json.loads(record[0])
                return {
                    metric: [(int(step), float(value)) for step, value in points.get(metric, [])]
                    for metric in run_index.CURVES
                }
    return None
