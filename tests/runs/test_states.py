"""The states of trainings: each from the facts that tell it, in their order, and never `killed`
while anything lives.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr import paths
from asr.runs import queue, refresh, refresher, revisions, run_index, run_rows, states
from asr.runs.run_rows import RunRow
from asr.runs.states import State
from asr.runtime.attempts import Attempt
from asr.storage import files
from asr.tracking import client, follower, journal
from asr.tracking.journal import Course
from support import attempts, journals, killed
from support.attempts import NO_PROCESS, living, this_process, write
from support.repository import REPOSITORY
from support.runs import evaluation, go_on, mirror, new_store, training
from support.waiting import wait_for

DATA = ("download", "stats", "chunk", "featurize")
F = "f" * 32


# From facts to states.


def stage(name: str, code: int | None = 0, lives: bool = False, **facts: Any) -> Attempt:
    """A stage that ended with this code, was killed (None), or lives."""
    known = {"experiment": "", "folder": "/work", "dvc": (1, 1.0), "begin": 10.0, **facts}
    return Attempt(id=name, stage=name, code=None if lives else code, lives=lives, **known)


def course(**known: Any) -> Course:
    return Course(**{"name": "n", "begin": 10.0, "begun": 11.0, "steps": 40, "step": 20, **known})


BEGUN = {"fingerprint": F}
TABLE: dict[str, tuple[list[Attempt], Course | None, bool, State | None]] = {
    "data is made": ([stage("chunk", lives=True)], None, True, State("preparing", stage="chunk")),
    "between two stages": ([stage("chunk")], None, True, State("preparing", stage="chunk")),
    "only data was made": ([stage("stats")], None, False, None),
    "not begun": ([stage("train", lives=True)], None, True, State("preparing", stage="train")),
    "before its journal is read": (
        [stage("train", lives=True, **BEGUN)],
        None,
        True,
        State("training"),
    ),
    "trains": (
        [stage("chunk"), stage("train", lives=True, **BEGUN)],
        course(),
        True,
        State("training", 20, 40),
    ),
    "resumed, while the journal tells of the stop": (
        [stage("train", lives=True, begin=50.0, **BEGUN)],
        course(end=20.0, status="KILLED"),
        True,
        State("training"),
    ),
    "last validation": (
        [stage("train", lives=True, **BEGUN)],
        course(step=40, steps_done=True),
        True,
        State("checking", 40, 40),
    ),
    "the tracker sends the rest": (
        [stage("train", lives=True, **BEGUN)],
        course(step=40, end=20.0, status="FINISHED"),
        True,
        State("checking", 40, 40),
    ),
    "DVC saves the model": (
        [stage("train", **BEGUN)],
        course(step=40, end=20.0, status="FINISHED"),
        True,
        State("checking", 40, 40),
    ),
    "only train was asked for": (
        [stage("train", **BEGUN)],
        course(step=40, end=20.0, status="FINISHED"),
        False,
        State("finished", 40, 40),
    ),
    "tested": (
        [stage("train", **BEGUN), stage("evaluate", lives=True)],
        course(step=40),
        True,
        State("evaluating", 40, 40),
    ),
    "all is done": (
        [stage("train", **BEGUN), stage("evaluate", **BEGUN)],
        course(step=40),
        False,
        State("finished", 40, 40),
    ),
    "statistics come last": (
        [stage("train", **BEGUN), stage("evaluate", **BEGUN), stage("stats", lives=True)],
        course(step=40),
        True,
        State("finished", 40, 40),
    ),
    "killed in data": ([stage("chunk", None)], None, False, State("killed", stage="chunk")),
    "DVC was killed while data was made": (
        [stage("download"), stage("chunk", orphaned=True)],
        None,
        False,
        State("killed", stage="chunk"),
    ),
    "DVC was killed, and the stage then failed": (
        [stage("chunk", 1, line="x", orphaned=True)],
        None,
        False,
        State("failed", stage="chunk", line="x"),
    ),
    "DVC was killed, and the stage goes on": (
        [stage("chunk", lives=True)],
        None,
        False,
        State("preparing", stage="chunk"),
    ),
    "DVC was killed in statistics after the test": (
        [stage("evaluate", **BEGUN), stage("stats", orphaned=True)],
        None,
        False,
        State("finished"),
    ),
    "killed in training": (
        [stage("train", None, **BEGUN)],
        course(),
        False,
        State("killed", 20, 40, "train"),
    ),
    "killed in evaluation": (
        [stage("train", **BEGUN), stage("evaluate", None, **BEGUN)],
        course(step=40),
        False,
        State("killed", stage="evaluate"),
    ),
    "stopped": (
        [stage("train", 143, line="stopped", **BEGUN)],
        course(end=20.0, status="KILLED"),
        False,
        State("stopped", 20, 40, "train"),
    ),
    "stopped by Ctrl-C in data": (
        [stage("chunk", 130)],
        None,
        False,
        State("stopped", stage="chunk"),
    ),
    "refused by params": (
        [stage("train", 2, line="a: got 1")],
        None,
        False,
        State("refused", stage="train", line="a: got 1"),
    ),
    "refused by data": (
        [stage("download", 3, line="no rows")],
        None,
        False,
        State("refused", stage="download", line="no rows"),
    ),
    "no network": (
        [stage("download", 4, line="no hub")],
        None,
        False,
        State("failed", stage="download", line="no hub"),
    ),
    "a bug": (
        [stage("stats", 1, line="ValueError: x")],
        None,
        False,
        State("failed", stage="stats", line="ValueError: x"),
    ),
    "diverged": (
        [stage("train", 6, line="loss nan", **BEGUN)],
        course(end=20.0, status="FAILED"),
        False,
        State("failed", 20, 40, "train", "loss nan"),
    ),
    "its params were changed while it ran": (
        [stage("train", 2, line="changed while train ran", **BEGUN)],
        course(step=40, end=20.0, status="FINISHED"),
        False,
        State("failed", 40, 40, "train", "changed while train ran"),
    ),
    "evaluation failed": (
        [stage("train", **BEGUN), stage("evaluate", 3, line="no test", **BEGUN)],
        course(step=40),
        False,
        State("failed", stage="evaluate", line="no test"),
    ),
    "evaluation alone failed": (
        [stage("evaluate", 3, line="no test")],
        None,
        False,
        State("failed", stage="evaluate", line="no test"),
    ),
    "statistics failed after the test": (
        [stage("evaluate", **BEGUN), stage("stats", 1, line="x")],
        None,
        False,
        State("failed", stage="stats", line="x"),
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_stages_and_journal_tell_the_state(case: str) -> None:
    stages, known, dvc_lives, state = TABLE[case]
    assert states.of_stages(stages, known, dvc_lives) == state


JOURNALS = {
    "no end": ({}, State("killed", 20, 40, "train")),
    "stopped": ({"end": 1.0, "status": "KILLED"}, State("stopped", 20, 40, "train")),
    "failed": (
        {"end": 1.0, "status": "FAILED", "line": "no memory"},
        State("failed", 20, 40, "train", "no memory"),
    ),
    "trained": ({"end": 1.0, "status": "FINISHED"}, State("finished", 20, 40)),
    "tested": ({"end": 1.0, "status": "FINISHED", "test": "done"}, State("finished", 20, 40)),
    "test killed": (
        {"end": 1.0, "status": "FINISHED", "test": "begun"},
        State("killed", stage="evaluate"),
    ),
    "test failed": (
        {"end": 1.0, "status": "FINISHED", "test": "failed", "line": "x"},
        State("failed", stage="evaluate", line="x"),
    ),
}


@pytest.mark.parametrize("case", JOURNALS)
def test_a_journal_alone_tells_how_a_training_ended(case: str) -> None:
    known, state = JOURNALS[case]
    assert states.of_journal(course(**known)) == state


TRACKED = {
    "RUNNING": State("training", None, 40),
    "FINISHED": State("finished", None, 40),
    "FAILED: failed: no memory": State("failed", None, 40, "train", "no memory"),
    "KILLED": State("killed", None, 40, "train"),
    "KILLED: stopped at step 20 of 40": State("stopped", 20, 40, "train"),
    "KILLED: stopped at step x": State("stopped", None, 40, "train"),
    "KILLED: stopped": State("stopped", None, 40, "train"),
    "FINISHED: tested": State("finished", None, 40),
    "FINISHED: evaluating": State("evaluating", None, 40),
    "FINISHED: evaluation killed": State("killed", stage="evaluate"),
    "FINISHED: evaluation failed: x": State("failed", stage="evaluate", line="x"),
    "SCHEDULED": State("waiting", None, 40),
}


@pytest.mark.parametrize("told", TRACKED)
def test_of_another_machine_mlflow_tells_the_state(told: str) -> None:
    status, _, tag = told.partition(": ")
    assert states.of_tracked(status, {"state": tag}, 40) == TRACKED[told]


# The order of states, in lives that are killed, fail or are refused anywhere.


@dataclass(frozen=True)
class Life:
    """What one `dvc repro` does: whole stages, then one that ends in another way."""

    whole: int
    end: str


LIVES = st.builds(
    Life,
    st.integers(0, len(states.STAGES)),
    st.sampled_from(["killed", "failed", "refused", "stopped"]),
)
CODES = {"killed": None, "failed": 1, "refused": 3, "stopped": 143}
ORDER = (states.PREPARING, states.TRAINING, states.CHECKING, states.EVALUATING)


def moments(life: Life) -> Iterator[tuple[list[Attempt], Course | None, bool]]:
    """The facts at each moment of a life, and whether anything lives."""
    done: list[Attempt] = []
    known: Course | None = None
    for number, name in enumerate(states.STAGES[: life.whole + 1]):
        fingerprint = F if name in ("train", "evaluate") else None
        yield [*done, stage(name, lives=True)], known, True
        if name == "train":
            for step in (None, 0, 20, 40):
                known = course(step=step, steps_done=step == 40)
                yield [*done, stage(name, lives=True, fingerprint=F)], known, True
        if number == life.whole:
            yield [*done, stage(name, CODES[life.end], fingerprint=fingerprint)], known, False
            return
        if name == "train":
            known = course(step=40, end=30.0, status="FINISHED")
            yield [*done, stage(name, lives=True, fingerprint=F)], known, True
        done = [*done, stage(name, fingerprint=fingerprint)]
        yield done, known, True
    yield done, known, False


def faults(life: Life, told: Callable[..., State | None]) -> list[str]:
    """What the states of a life say that is false."""
    found, last = [], 0
    for stages, known, lives in moments(life):
        state = told(stages, known, lives)
        tested = any(one.stage == "evaluate" and one.code == 0 for one in stages)
        if state is None:
            continue
        if lives and not state.goes_on and not tested:
            found.append(f"{state.kind} while it lives")
        if not lives and state.goes_on:
            found.append(f"{state.kind} when nothing lives")
        if state.goes_on and ORDER.index(state.kind) < last:
            found.append(f"{state.kind} after {ORDER[last]}")
        last = ORDER.index(state.kind) if state.goes_on else last
    return found


@settings(max_examples=60)
@given(LIVES)
def test_states_come_in_their_order_and_end_only_with_the_last_process(life: Life) -> None:
    assert faults(life, states.of_stages) == []


def by_lock_and_status(stages: list[Attempt], known: Course | None, _: bool) -> State | None:
    """The rule that there was: MLflow's status, which comes late, and the lock of a training."""
    if known is None:
        return None
    is_locked = any(one.stage == "train" and one.lives for one in stages) and known.end is None
    return State("training") if is_locked else states.of_journal(known)


def test_the_order_would_notice_a_rule_that_knows_one_lock() -> None:
    """The control."""
    found = {fault for end in CODES for fault in faults(Life(5, end), by_lock_and_status)}
    assert found >= {"finished while it lives"}


# Rows of the index, from what lies on the disk.


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> Any:
    new_store(tmp_path, empty_store)
    return client.connect()


def listed() -> list[RunRow]:
    refresh.refresh(talk=False)
    return run_rows.rows()


def rows() -> dict[str, RunRow]:
    return {row.name: row for row in listed()}


def begun(name: str, **facts: Any) -> tuple[Path, Path]:
    """A training at step 20 of 40, and the record of its stage."""
    log = training(name, 20, None)
    begin = facts.pop("begin", 1.0)
    return log, write("train", None, log.stem, experiment=name, begin=begin, **facts)


@contextmanager
def locked(log: Path) -> Iterator[None]:
    """The training's own lock, as its process holds it."""
    path = paths.cache("checkpoints", log.stem, "lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_a_training_that_mlflow_has_not_heard_of_is_there_with_its_step() -> None:
    _, record = begun("new")
    with living(record):
        row = rows()["new"]
    assert (row.state, row.run_id) == (State("training", 20, 40), None)
    assert row.params["train.max_steps"] == 40
    assert row.name == "new"
    found = run_rows.curves(row)
    assert found is not None
    assert len(found["train/loss"]) == 20


@pytest.mark.usefixtures("store")
def test_a_tracker_that_sends_late_makes_nothing_false() -> None:
    """MLflow stands at RUNNING while the training is checked, tested and done."""
    log, record = begun("late")
    mirror(log)
    with living(record):
        go_on(log, range(21, 41), None)
        assert rows()["late"].state == State("checking", 40, 40)
        journal.append(log, "end", status="FINISHED")
        assert rows()["late"].state.kind == states.CHECKING
    dvc = [NO_PROCESS, 7]
    record.unlink()
    write("train", {"code": 0}, log.stem, experiment="late", dvc=dvc)
    test = write("evaluate", None, log.stem, experiment="late", dvc=dvc)
    with living(test):
        assert rows()["late"].state.kind == states.EVALUATING
    assert rows()["late"].state == State("killed", stage="evaluate")
    write("evaluate", {"code": 0}, log.stem, experiment="late", dvc=dvc)
    assert rows()["late"].state.kind == states.FINISHED


@pytest.mark.usefixtures("store")
def test_a_page_tells_a_kill_without_a_new_index() -> None:
    log, record = begun("killed")
    mirror(log)
    with living(record):
        assert rows()["killed"].state.kind == states.TRAINING
        before = run_index.state()
    after = run_index.state()
    assert before.mark != after.mark
    (row,) = run_rows.rows()
    assert row.state == State("killed", 20, 40, "train")


@pytest.mark.usefixtures("store")
def test_a_training_outside_dvc_is_never_called_killed_for_the_index_is_behind() -> None:
    log = training("by hand", 20, None)
    mirror(log)
    with locked(log):
        assert rows()["by hand"].state == State("training", 20, 40)
        go_on(log, range(21, 41))
    (row,) = run_rows.rows()  # the index was not refreshed
    assert row.state == State("finished", 40, 40)


def test_a_run_that_mlflow_deleted_does_not_come_back_from_its_journal(store: Any) -> None:
    log, _ = begun("gone")
    mirror(log)
    store.delete_run(rows()["gone"].run_id)
    assert rows() == {}


def test_a_resumed_training_keeps_its_name_and_all_its_minutes() -> None:
    log = journals.new_path(paths.cache("journal"))
    params = {"train.max_steps": 40}
    for name, begin, steps in (("first", 100, (10, 20)), ("second", 500, (20, 40))):
        lines = [
            ("begin", {"fingerprint": log.stem, "name": name, "params": params, "tags": {}}),
            *(("metrics", {"step": step, "values": {"train/loss": 1.0}}) for step in steps),
        ]
        for number, (kind, values) in enumerate(lines):
            journal.append(log, kind, **values, time=begin + 30 * number)
    write("train", None, log.stem, experiment="second", begin=400.0)
    row = rows()["first"]
    assert (row.state, row.seconds) == (State("killed", 40, 40, "train"), None)
    journal.append(log, "end", status="FINISHED", time=590.0)
    write("train", {"code": 0}, log.stem, experiment="second", begin=400.0)
    row = rows()["first"]
    assert (row.state.kind, row.seconds) == (states.FINISHED, 60 + 90)
    journal.append(log, "testing", time=900.0)
    journals.evaluation(log, "inputs", 0.5, time=960.0)
    assert rows()["first"].seconds == 60 + 90


@pytest.mark.parametrize("score", [None, 0, 3])
@pytest.mark.usefixtures("store")
def test_a_failed_check_is_on_the_row_with_its_text(score: int | None) -> None:
    log = training("checked", ended=None)
    tags = {"checks": "failed: weights, loss", "check.weights": "stayed where it was"}
    journal.append(log, "end", status="FINISHED", tags=tags)
    evaluation(log, 0.25)
    mirror(log)
    scores = {} if score is None else {"rows_taught": score, "rows": 8}
    row = rows()["checked"]
    assert row.failed_checks == {"weights": "stayed where it was", "loss": ""}
    found = states.failed_checks(row.tags, scores, {"of another": "report"})
    assert "of another" not in found
    assert found.get("test_rows_unseen", "")[:6] == ("3 of 8" if score else "")
    assert states.failed_checks({"checks": "passed"}, {}, {"loss": "fell"}) == {}
    assert states.failed_checks({}, {}, {"loss": "fell"}) == {"loss": "fell"}


# What has no training yet, or never had one.


def test_what_is_refused_is_a_row_until_the_next_of_its_place_begins() -> None:
    error = {"code": 2, "line": "train.warmup_steps: got 50"}
    write("train", error, dvc=[NO_PROCESS, 2])
    write("train", error, experiment="bad", dvc=[NO_PROCESS, 3])
    write("stats", {"code": 0}, dvc=[NO_PROCESS, 4], folder="/elsewhere")
    refused = State("refused", stage="train", line="train.warmup_steps: got 50")
    assert {name: row.state for name, row in rows().items()} == {"repro": refused, "bad": refused}
    assert {row.fingerprint for row in run_rows.rows()} == {None}
    with living(write("chunk", dvc=[NO_PROCESS, 5])):
        found = {name: row.state for name, row in rows().items()}
    assert found == {"repro": State("preparing", stage="chunk"), "bad": refused}
    write("chunk", {"code": 0}, experiment="bad", dvc=[NO_PROCESS, 6])
    assert list(rows()) == ["repro"]  # killed in chunk, when its lock was gone


def test_a_run_whose_dvc_was_killed_is_a_row_until_the_next_of_its_place_begins() -> None:
    orphan = {"code": 0, "orphaned": True}
    write("download", orphan, dvc=[NO_PROCESS, 2], command="dvc repro")
    write("featurize", orphan, experiment="aside", dvc=[NO_PROCESS, 3], folder="/tmpx")
    write("stats", {"code": 0}, dvc=[NO_PROCESS, 4], folder="/elsewhere")  # that was all
    killed_in = {name: row.state for name, row in rows().items()}
    assert killed_in == {
        "repro": State("killed", stage="download"),
        "aside": State("killed", stage="featurize"),
    }
    assert rows()["repro"].command == "dvc repro"
    write("stats", {"code": 0}, dvc=[NO_PROCESS, 5])
    assert list(rows()) == ["aside"]


def test_between_two_stages_dvc_alone_keeps_a_row_alive() -> None:
    write("chunk", {"code": 0}, dvc=this_process(), begin=4e9)
    assert rows()["repro"].state == State("preparing", stage="chunk")
    assert states.is_dvc_working(states.present())


def reflog(root: Path, name: str, *entries: tuple[str, str]) -> None:
    """Entries of one of DVC's stashes: sha and name of an experiment."""
    lines = [
        f"{'0' * 40} {sha * 40} Me Too <m@localhost> 1700000000 +0100\t"
        f"commit: dvc-exp:{'a' * 40}:{'b' * 40}:{experiment}\n"
        for sha, experiment in entries
    ]
    files.write_text(root / ".git/logs/refs/exps/celery" / name, "".join(lines))


def started(root: Path, sha: str, name: str, pid: int, code: int | None) -> None:
    """The notes of an experiment that a worker of the queue has started."""
    folder = root / ".dvc/tmp/exps/run" / (sha * 40)
    files.write_json(folder / f"{sha * 40}.run", {"location": "dvc-task", "name": name})
    files.write_json(folder / f"{sha * 40}.json", {"pid": pid, "returncode": code})
    files.write_text(folder / f"{sha * 40}.out", "Reproducing\nERROR: it  failed\n\n")


def test_experiments_of_the_queue_wait_start_and_fail(tmp_path: Path) -> None:
    reflog(tmp_path, "stash", ("1", "waits"), ("2", "starts"))
    reflog(tmp_path, "failed", ("3", "fails"), ("4", "refused"))
    started(tmp_path, "2", "starts", os.getpid(), None)
    started(tmp_path, "3", "fails", 300, 255)
    started(tmp_path, "4", "refused", 400, 255)
    started(tmp_path, "5", "was killed", NO_PROCESS, None)
    write("train", {"code": 2, "line": "no"}, experiment="fails", dvc=[NO_PROCESS, 1])  # before
    write("train", {"code": 2, "line": "no"}, experiment="refused", dvc=[400, 1])
    found = listed()
    assert {(row.name, row.state) for row in found} == {
        ("waits", State("waiting")),
        ("starts", State("preparing")),
        ("fails", State("failed", line="ERROR: it failed")),
        ("fails", State("refused", stage="train", line="no")),  # the time before
        ("refused", State("refused", stage="train", line="no")),
    }
    assert len(found) == len({row.key for row in found}) == 5
    write("chunk", None, experiment="starts", dvc=this_process())
    assert rows()["starts"].state == State("killed", stage="chunk")


def test_what_waited_is_found_by_its_key_once_it_prepares_and_trains(tmp_path: Path) -> None:
    reflog(tmp_path, "stash", ("1", "mine"))
    (waits,) = listed()
    reflog(tmp_path, "stash")
    dvc = [NO_PROCESS, 3]
    data = write("chunk", experiment="mine", dvc=dvc)
    with living(data):
        assert (rows()["mine"].key, waits.key) == (waits.key, "experiment mine")
    write("chunk", {"code": 0}, experiment="mine", dvc=dvc)
    begun("mine", dvc=dvc)
    (trains,) = listed()
    assert trains.fingerprint
    assert waits.key in trains.former_keys


def test_what_dvc_repro_prepared_is_found_by_its_key_once_it_trains() -> None:
    with living(write("chunk", dvc=[NO_PROCESS, 3])):
        (prepares,) = listed()
    log = training("repro-12345678", 20, None)
    write("train", None, log.stem, dvc=[NO_PROCESS, 3])
    (trains,) = listed()
    assert (trains.fingerprint, trains.former_keys) == (log.stem, (prepares.key,))


@pytest.mark.parametrize("held", [{"dvc.experiment": "mine"}, {}])
def test_what_resumed_or_restored_a_training_is_found_by_its_key(held: dict[str, str]) -> None:
    """An experiment that goes on with another's training, and one that DVC had in its cache."""
    revision = revisions.Revision("restored", "a" * 40, "experiment")
    run = {"id": "r", "status": "FINISHED", "fingerprint": F, "name": "first", "tags": held}
    run |= {"start": 1.0, "end": 2.0, "params": {}, "metrics": {}}
    known = run_rows.Known(facts={F: [(revision, {"scores": {}})]})
    (row,) = run_rows.rows_of(run, [], known)
    mine = [f"experiment {name}" for name in held.values()]
    assert row.former_keys == (*mine, "experiment restored")


def test_what_fails_after_its_stages_ended_well_is_told_by_the_queue(tmp_path: Path) -> None:
    reflog(tmp_path, "failed", ("1", "broken"))
    started(tmp_path, "1", "broken", NO_PROCESS, 255)
    write("chunk", {"code": 0}, experiment="broken", dvc=[NO_PROCESS, 1])
    assert rows()["broken"].state == State("failed", line="ERROR: it failed")


def test_the_newest_comes_first_whether_it_trained_or_not() -> None:
    for number, (name, code) in enumerate((("first", 2), ("second", 2), ("third", 2))):
        write("train", {"code": code, "line": "no"}, experiment=name, dvc=[NO_PROCESS, number])
    mirrored = training("trained")  # in 2026, long after those records
    mirror(mirrored)
    assert [row.name for row in listed()] == ["trained", "third", "second", "first"]


def test_an_experiment_that_a_worker_has_just_taken_is_no_longer_waiting(tmp_path: Path) -> None:
    """DVC drops it from its list before it notes the process."""
    celery = tmp_path / queue.CELERY
    for number, (name, task) in enumerate((("taken", queue.RUN_TASK), ("other", "cleanup"))):
        entry = {"name": name, "stash_rev": str(number + 1) * 40}
        body = base64.b64encode(json.dumps([[entry], {}, {}]).encode()).decode()
        message = {"headers": {"task": task, "id": f"id-{number}"}, "body": body}
        files.write_json(celery / f"broker/processed/{number}.celery.msg", message)
    reflog(tmp_path, "stash", ("1", "taken"))
    assert {name: row.state.kind for name, row in rows().items()} == {"taken": "waiting"}
    files.write_json(celery / "dvc-exp-worker-1.json", {"pid": os.getpid(), "returncode": None})
    for entries in ((("1", "taken"),), ()):
        reflog(tmp_path, "stash", *entries)
        assert {name: row.state.kind for name, row in rows().items()} == {"taken": "preparing"}
    files.write_text(celery / "result/celery-task-meta-id-0", "{}")
    assert rows() == {}


@pytest.mark.parametrize("content", ["", "x\n", "a" * 3000, "\0\n\t\n", "refs/exps\n" * 99])
def test_a_queue_that_cannot_be_read_is_empty(tmp_path: Path, content: str) -> None:
    for path in ("logs/refs/exps/celery/stash", "logs/refs/exps/celery/failed"):
        files.write_text(tmp_path / ".git" / path, content)
    files.write_text(tmp_path / ".dvc/tmp/exps/run/x/x.run", content)
    files.write_text(tmp_path / ".dvc/tmp/rwlock", content)
    files.write_text(tmp_path / queue.CELERY / "broker/processed/x.celery.msg", content)
    files.write_text(tmp_path / queue.CELERY / "dvc-exp-worker-1.json", content)
    assert rows() == {}
    assert not states.is_dvc_working(states.present())


WORK: dict[str, tuple[str, Callable[[int], Any]]] = {
    "reads": (".dvc/tmp/rwlock", lambda pid: {"read": {"/a": [{"pid": pid, "cmd": "dvc repro"}]}}),
    "writes": (".dvc/tmp/rwlock", lambda pid: {"write": {"/a": {"pid": pid, "cmd": "dvc repro"}}}),
    "sets up": (".dvc/tmp/exps/rwlock", lambda pid: {"write": {"workspace": {"pid": pid}}}),
    "a worker": (
        ".dvc/tmp/exps/celery/dvc-exp-worker-1.json",
        lambda pid: {"pid": pid, "returncode": None},
    ),
}


LEFT = {"reads": True, "writes": True, "sets up": False, "nothing": False}


@pytest.mark.parametrize("work", LEFT)
def test_a_dvc_that_is_killed_while_it_hashes_what_a_stage_made_leaves_its_locks(
    tmp_path: Path, work: str
) -> None:
    here = {"folder": str(tmp_path), "dvc": [NO_PROCESS, 2]}
    write("chunk", {"code": 0}, **here)
    write("chunk", {"code": 0}, experiment="other", folder=str(tmp_path), dvc=[NO_PROCESS - 1, 2])
    if work in WORK:
        path, note = WORK[work]
        files.write_json(tmp_path / path, note(NO_PROCESS))
    killed_in = {"repro": State("killed", stage="chunk")} if LEFT[work] else {}
    assert {name: row.state for name, row in rows().items()} == killed_in
    write("stats", {"code": 1, "line": "x"}, **here)
    assert rows()["repro"].state.kind == states.FAILED


@pytest.mark.parametrize("work", WORK)
def test_dvc_works_while_a_process_lives_that_it_notes(tmp_path: Path, work: str) -> None:
    path, note = WORK[work]
    for pid, works in ((NO_PROCESS, False), (os.getpid(), True)):
        files.write_json(tmp_path / path, note(pid))
        assert states.is_dvc_working(states.present()) is works


# Real processes of DVC.


def kinds() -> dict[str, str]:
    return {row.name: row.state.kind for row in run_rows.rows()}


def test_dvc_itself_in_workspace_and_queue_is_seen_from_the_first_stage_to_its_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = textwrap.indent(killed.STAGE, "    ")
    frame = "from asr.runtime.stage import run_stage\ndef main():"
    monkeypatch.setattr(killed, "STAGE", f"{frame}\n{body}\nrun_stage(main)\n")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    root = killed.make(tmp_path / "repository")
    monkeypatch.setenv("DVC_ROOT", str(root))
    assert rows() == {}  # its stage made nothing but data, and ended well
    killed.run(root, "dvc", "exp", "run", "--queue", "-n", "queued", "-S", "n=3")
    (row,) = run_rows.rows()
    assert (row.name, row.state, row.params) == ("queued", State("waiting"), {"n": 3})
    work = killed.Waiting(root, "dvc", "repro", "-f")
    assert kinds() == {"queued": "waiting", "repro": "preparing"}
    assert states.is_dvc_working(states.present())
    work.kill()
    wait_for(lambda: kinds() == {"queued": "waiting", "repro": "killed"})
    assert not states.is_dvc_working(states.present())
    (attempt,) = next(iter(states.present().invocations.values()))
    assert (attempt.stage, attempt.code) == ("wait", 0)


# The refresher.


def test_while_dvc_works_the_index_is_refreshed_though_no_page_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = write("chunk")
    paths.cache("runs.asked").touch()
    before = run_index.IndexState(made=True, updated=time.time() - 1.5)
    with living(record):
        assert refresh._asked_since(time.time())
        assert run_index.is_stale(before)
    assert not run_index.is_stale(replace(before, updated=time.time() - 1.5))
    assert run_index.is_stale(replace(before, updated=time.time() - 3.5))
    monkeypatch.setattr(refresh, "LINGER_SECONDS", 0.1)
    assert not refresh._asked_since(time.time())


def test_a_journal_that_has_not_changed_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, going_on = training("ended"), training("going on", 20, None)
    refresh.refresh(talk=False)
    read: list[Path] = []
    whole = refresher.journals.read
    monkeypatch.setattr(refresher.journals, "read", lambda path: read.append(path) or whole(path))
    refresh.refresh(talk=False)
    assert read == []
    go_on(going_on, range(21, 22), None)
    refresh.refresh(talk=False)
    assert read == [going_on] != [ended]


def test_a_store_that_is_slow_to_read_takes_a_third_of_the_time_at_most(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    del store
    read: list[float] = []
    with closing(refresh.opened(again=False)) as index:
        reader = refresher.Refresher(index, talk=False)
        monkeypatch.setattr(reader, "read_store", lambda: read.append(0.1) or time.sleep(0.1))
        monkeypatch.setattr(refresher, "_store_stamp", lambda _: str(time.time_ns()))  # it changes
        began = time.monotonic()
        while len(read) < 4:
            reader._read_store_if_changed()
        assert sum(read) <= 0.4 * (time.monotonic() - began) + 0.1  # none after the last


# What MLflow is told.


@pytest.mark.usefixtures("store")
def test_mlflow_hears_of_a_killed_evaluation_from_the_next_sync() -> None:
    log = training("tested")
    test = write("evaluate", None, log.stem)
    journal.append(log, "testing")
    with living(test):
        follower.sync([log])
        assert _tag(log) == "evaluating"
    follower.close_killed(client.connect(), paths.cache("another"))
    assert _tag(log) == "evaluation killed"
    evaluation(log, 0.25)
    follower.sync([log])
    assert _tag(log) == "tested"


def _tag(log: Path) -> str:
    for page in client.read_runs(client.connect()):
        for run in page:
            if run["fingerprint"] == log.stem:
                return str(run["tags"]["state"])
    raise AssertionError("no such run")


ENDS: dict[str, tuple[dict[str, Any], str]] = {
    "finished": ({"status": "FINISHED"}, "trained"),
    "stopped": ({"status": "KILLED", "step": 20}, "stopped at step 20 of 40"),
    "failed": ({"status": "FAILED", "line": "no memory"}, "failed: no memory"),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_tag_says_how_a_training_ended(end: str) -> None:
    line, tag = ENDS[end]
    history = journal.RunHistory()
    log = training("told", 20, None)
    journal.append(log, "end", **line)
    for record, _ in journal.read(log):
        history.add(record)
    history.close()
    history.close_test()
    assert history.runs[0].tags["state"] == tag


def test_support_writes_what_the_stages_write() -> None:
    """The records made up here have the form of the real ones."""
    with ExitStack() as stack:
        path = write("chunk", {"code": 3, "line": "x"}, F, experiment="e")
        stack.enter_context(living(path))
        (attempt,) = attempts.attempts.Reader().attempts()
    assert (attempt.stage, attempt.code, attempt.line, attempt.fingerprint) == ("chunk", 3, "x", F)
