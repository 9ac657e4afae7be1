"""The index of runs: what MLflow and the revisions hold, kept up to date at little cost, and no
damage that reaches a page.
"""

from __future__ import annotations

import fcntl
import sqlite3
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from asr import metrics, paths
from asr.errors import UserError
from asr.runs import refresh, refresher, revision_facts, revisions, run_index, run_rows, states
from asr.runs.run_rows import Known
from asr.runs.states import State
from asr.storage import files
from asr.tracking import client, journal
from asr.training.state import TrainingState
from support.imports import imported
from support.repository import REPOSITORY
from support.runs import (
    damaged,
    evaluation,
    go_on,
    mirror,
    new_store,
    training,
    utterances,
    write_lock,
    write_reports,
)
from support.waiting import wait_for


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> Any:
    new_store(tmp_path, empty_store)
    return client.connect()


def only() -> run_rows.RunRow:
    (row,) = run_rows.rows()
    return row


def run_id(path: Path) -> str:
    return next(str(row.run_id) for row in run_rows.rows() if row.fingerprint == path.stem)


@pytest.mark.usefixtures("store")
def test_a_finished_training_is_a_row_with_params_scores_and_curves() -> None:
    path = training("first", **{"train.max_steps": 40})
    evaluation(path, 0.25)
    mirror(path)
    refresh.refresh(talk=False)
    row = only()
    assert (row.name, row.state.kind, row.fingerprint, row.revisions) == (
        "first",
        states.FINISHED,
        path.stem,
        (),
    )
    assert (
        row.params["train.max_steps"],
        row.params["train.learning_rate"],
        row.params["evaluate.seed"],
    ) == (40, "auto", 1)
    assert {key: row.scores[key] for key in ("wer", "cer", "rtfx")} == {
        "wer": 0.25,
        "cer": 0.125,
        "rtfx": 200.0,
    }
    found = run_rows.curves(row)
    assert found is not None
    assert found["validation/wer"] == [(step, 0.9 / step) for step in (10, 20, 30, 40)]
    assert len(found["train/loss"]) == len(found["train/learning_rate"]) == 40
    assert row.metrics["validation/wer"] == 0.9 / 40


@pytest.mark.usefixtures("store")
def test_a_running_training_is_followed_to_its_end() -> None:
    path = training(steps=20, ended=None)
    mirror(path)
    lock = paths.cache("checkpoints", path.stem, "lock")
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refresh.refresh(talk=False)
        assert only().state.kind == states.TRAINING
        before = run_index.state()
        go_on(path, range(21, 31), ended=None)
        mirror(path)
        refresh.refresh(talk=False)
        assert run_rows.curves(only())["validation/wer"][-1][0] == 30  # type: ignore[index]
        assert run_index.state().mark != before.mark
    killed = run_index.state()
    assert only().state.kind == states.KILLED
    assert killed.mark != before.mark
    go_on(path, range(31, 41))
    mirror(path)
    refresh.refresh(talk=False)
    assert only().state.kind == states.FINISHED


@pytest.mark.usefixtures("store")
def test_a_run_of_another_machine_is_as_the_server_says(monkeypatch: pytest.MonkeyPatch) -> None:
    path = training(ended=None)
    mirror(path)
    refresh.refresh(talk=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert only().state.kind == states.KILLED
    path.unlink()
    assert only().state.kind == states.TRAINING


@pytest.mark.parametrize("large", [False, True])
def test_what_changed_is_read_again_and_nothing_else(
    store: Any, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    old, running, going = (
        training("old"),
        training("running", ended=None),
        training("going", ended=None),
    )
    mirror(old, running, going)
    refresh.refresh(talk=False)
    if large:
        with sqlite3.connect(run_index.path()) as index:
            index.execute("INSERT OR REPLACE INTO meta VALUES ('whole_cost', '99')")
    ids = {path: run_id(path) for path in (old, running, going)}
    evaluation(old, 0.3)
    new = training("new")
    go_on(running, range(41, 51))
    mirror(old, running, new)
    store.delete_run(ids[going])
    read: list[str] = []
    curve = client.read_curve
    monkeypatch.setattr(
        client, "read_curve", lambda store, id, key: read.append(id) or curve(store, id, key)
    )
    whole: list[int] = []
    monkeypatch.setattr(
        refresher.Refresher, "_read_whole", lambda _: whole.append(1)
    ) if large else None
    refresh.refresh(talk=False)
    assert not whole
    rows = {row.name: row for row in run_rows.rows()}
    assert sorted(rows) == ["new", "old", "running"]
    assert (rows["old"].scores["wer"], rows["running"].state.kind) == (0.3, states.FINISHED)
    assert len(run_rows.curves(rows["running"])["train/loss"]) == 50  # type: ignore[index]
    assert set(read) <= {ids[running], rows["new"].run_id, ids[old]}


def test_deleted_and_renamed_runs_are_seen_in_a_whole_pass(store: Any) -> None:
    kept, gone = training("kept"), training("gone")
    mirror(kept, gone)
    refresh.refresh(talk=False)
    store.delete_run(run_id(gone))
    store.update_run(run_id(kept), name="a better name")
    refresh.refresh(talk=False)
    assert only().name == "a better name"


@pytest.mark.parametrize("apart", [0, 0.001, 1])
def test_a_deleted_training_is_still_the_first_of_its_name(
    store: Any, monkeypatch: pytest.MonkeyPatch, apart: float
) -> None:
    """Also of two that begin in one millisecond, or in the next."""
    logs = []
    for number, name in enumerate(("slow", "slow", "quick")):
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda moment=1_796_073_259.1 + number * apart: moment)
            patch.setattr(uuid, "uuid4", lambda number=number: uuid.UUID(int=number))
            logs.append(training(name))
    mirror(*logs)
    refresh.refresh(talk=False)
    first, second, quick = (path.stem for path in logs)
    elders = {row.fingerprint: row.elder for row in run_rows.rows()}
    assert elders == {first: None, second: first, quick: None}
    store.delete_run(run_id(logs[0]))
    refresh.refresh(talk=False)
    assert {row.fingerprint: row.elder for row in run_rows.rows()} == {second: first, quick: None}


@pytest.mark.usefixtures("store")
def test_an_unchanged_store_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    mirror(training())
    refresh.refresh(talk=False)
    monkeypatch.setattr(refresher.Refresher, "read_store", lambda _: pytest.fail("it was read"))
    before = run_index.state()
    refresh.refresh(talk=False)
    after = run_index.state()
    assert (after.mark, after.made) == (before.mark, True)
    assert after.updated > before.updated


@pytest.mark.usefixtures("store")
def test_the_workspace_is_joined_by_its_fingerprint(tmp_path: Path) -> None:
    path = training("joined")
    mirror(path)
    table = utterances([1, 0, 2, 0], ["a", "a", "b", None])
    write_reports(tmp_path, path.stem, table)
    refresh.refresh(talk=False)
    row = only()
    assert [one.name for one in row.revisions] == ["workspace"]
    assert (row.scores["wer"], row.test_hash, row.parameters, row.seconds) == (
        3 / 20,
        "t1",
        1277184,
        60.5,
    )
    assert row.params["train.learning_rate"] == 0.001
    write_reports(tmp_path, path.stem, table, test_hash="t2")
    refresh.refresh(talk=False)
    assert only().test_hash == "t2"


@pytest.mark.usefixtures("store")
def test_the_validation_wer_is_that_of_the_weights_kept_with_its_step(tmp_path: Path) -> None:
    """Not the last one, and not that of the start, which is measured at step 0."""
    finished, stopped = training("finished", ended=None), training("stopped", ended=None)
    for path in (finished, stopped):
        for step, value in ((0, 0.001), (50, 0.01), (60, 0.5)):
            journal.append(path, "metrics", step=step, values={"validation/wer": value})
    journal.append(finished, "end", status="FINISHED")
    mirror(finished, stopped)
    refresh.refresh(talk=False)
    rows = {row.name: row for row in run_rows.rows()}
    for name in ("finished", "stopped"):
        assert (rows[name].best_wer, rows[name].best_step) == (0.01, 50)
        assert rows[name].metrics["validation/wer"] == 0.5, "the control: MLflow's last"
    write_reports(tmp_path, finished.stem, utterances([1, 0], [None, None]))
    summary = {"parameters": 1, "best_validation_wer": 0.02, "best_step": 40}
    files.write_json(tmp_path / paths.SUMMARY, summary)
    refresh.refresh(talk=False)
    row = next(row for row in run_rows.rows() if row.name == "finished")
    assert (row.best_wer, row.best_step) == (0.02, 40), "what the training itself tells"
    with sqlite3.connect(run_index.path()) as index:
        index.execute("DELETE FROM curves")
    row = next(row for row in run_rows.rows() if row.name == "stopped")
    assert (row.best_wer, row.best_step) == (None, None), "its curve is not read yet"
    assert row.metrics["validation/wer"] == 0.5


@pytest.mark.usefixtures("store")
def test_the_best_step_so_far_is_the_one_that_the_training_would_keep() -> None:
    """One looping row makes its WER the worst of all."""
    path, state = training("running", steps=0, ended=None), TrainingState()
    for step, wer, bounded in ((0, 0.1, 0.1), (10, 0.8, 0.8), (20, 1.4, 0.5), (30, 0.6, 0.6)):
        state.step = step
        state.add_evaluation(None, wer, [bounded, bounded, None])
        values = {metrics.VALIDATION_WER: wer}
        if state.best_step:
            values[metrics.VALIDATION_BEST_STEP] = state.best_step
        journal.append(path, "metrics", step=step, values=values)
        mirror(path)
        refresh.refresh(talk=False)
        assert (only().best_wer, only().best_step or 0) == (state.best_wer, state.best_step)
    assert (state.best_wer, state.best_step) == (1.4, 20)


def test_a_best_step_whose_wer_is_not_read_yet_is_not_told() -> None:
    points = {
        metrics.VALIDATION_WER: [(10, 0.8), (20, 0.9)],
        metrics.VALIDATION_BEST_STEP: [(10, 10.0), (20, 10.0), (30, 30.0)],
    }
    assert refresher.best_so_far(points) == (0.8, 10)
    del points[metrics.VALIDATION_BEST_STEP]
    points[metrics.VALIDATION_WER] += [(30, 0.7), (40, float("nan"))]
    assert refresher.best_so_far(points) == (0.7, 30), "of before: the lowest WER"
    assert refresher.best_so_far({}) == (None, None)


@pytest.mark.parametrize(
    ("told", "share"),
    [
        ({"rows_trained": 3191, "rows_left_out": {"longer": 800, "empty": 8}}, 0.202),
        ({"rows_trained": 4, "rows_left_out": {"longer": 0}}, 0.0),
        ({"rows_trained": 0, "rows_left_out": {"longer": 0}}, 0.0),
        ({"rows_trained": 4}, None),
        ({"rows_trained": "four", "rows_left_out": {"longer": 1}}, None),
        ({"rows_trained": 4, "rows_left_out": {"longer": None}}, None),
        ({"rows_trained": 4, "rows_left_out": [1]}, None),
    ],
)
def test_what_a_training_left_out_is_told(
    told: dict[str, Any], share: float | None, tmp_path: Path
) -> None:
    write_reports(tmp_path, "f" * 32, utterances([1, 0], [None, None]))
    files.write_json(tmp_path / paths.SUMMARY, told)
    refresh.refresh(talk=False)
    assert only().left_out == (None if share is None else pytest.approx(share, abs=1e-3))


def test_a_revision_without_a_run_is_a_row_with_its_curves(tmp_path: Path) -> None:
    write_reports(tmp_path, "f" * 32, utterances([1, 0], [None, None]))
    refresh.refresh(talk=False)
    row = only()
    assert (row.key, row.run_id, row.name) == ("f" * 32, None, "workspace")
    assert row.state == State(states.FINISHED)
    assert run_rows.curves(row)["validation/wer"] == [(10, 0.09)]  # type: ignore[index]
    assert run_rows.curves(row)["train/learning_rate"] == [(10, 0.001)]  # type: ignore[index]


def test_scores_of_another_model_than_the_lock_tells_of_are_left_out(tmp_path: Path) -> None:
    write_reports(tmp_path, "f" * 32, utterances([1, 0], [None, None]))
    for tested in ("0" * 32, "1" * 32):
        write_lock(tmp_path, trained="1" * 32, tested=tested)
        refresh.refresh(talk=False)
        assert bool(only().scores) is (tested == "1" * 32)


@pytest.mark.usefixtures("store")
def test_a_training_tested_on_other_data_has_a_row_for_each() -> None:
    one, two = (revisions.Revision(name, name * 40, "experiment") for name in "ab")
    told = {"params": {}, "parameters": 1, "seconds": 2.0}
    known = [
        (one, {**told, "scores": {"test_hash": "t1", "wer": 0.1}}),
        (two, {**told, "scores": {"test_hash": "t2", "wer": 0.1}}),
    ]
    run = {
        "id": "r",
        "status": "FINISHED",
        "fingerprint": "f",
        "name": "n",
        "start": 1.0,
        "end": 2.0,
        "params": {},
        "tags": {},
    }
    rows = list(
        run_rows.rows_of({**run, "metrics": {"test/wer": 0.2}}, [], Known(facts={"f": known}))
    )
    assert [(row.key, row.test_hash, row.revisions) for row in rows] == [
        ("f", "t1", (one,)),
        ("f/1", "t2", (two,)),
    ]
    untold = (revisions.HERE, {**told, "scores": {}})
    all_known = Known(facts={"f": [untold, *known]})
    assert len(list(run_rows.rows_of({**run, "metrics": {}}, [], all_known))) == 2


def test_without_a_store_none_is_made(tmp_path: Path) -> None:
    assert not run_index.state().made
    refresh.refresh(talk=False)
    assert run_rows.rows() == []
    assert run_index.state().made
    assert not run_index.state().fault
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.usefixtures("store")
def test_a_store_that_goes_takes_its_runs_along(tmp_path: Path) -> None:
    mirror(training())
    refresh.refresh(talk=False)
    (tmp_path / "mlflow.db").unlink()
    refresh.refresh(talk=False)
    assert run_rows.rows() == []


@pytest.mark.usefixtures("store")
def test_a_second_refresher_leaves() -> None:
    with refresh.only_refresher() as first:
        assert first
        assert not refresh.refresh(talk=False)
    assert refresh.refresh(talk=False)


@pytest.mark.usefixtures("store")
def test_a_page_that_asks_gets_what_is_new_and_the_process_ends(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mirror(training("first"))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    run_index.request_refresh()
    run_index.request_refresh()
    assert len(run_index.refreshers) == 1
    wait_for(lambda: run_index.state().made and len(run_rows.rows()) == 1)
    mirror(training("second"))
    assert run_index.is_refreshing()
    wait_for(lambda: run_index.request_refresh() or len(run_rows.rows()) == 2)
    (process,) = run_index.refreshers
    process.terminate()
    process.wait(10)
    assert not run_index.is_refreshing()
    assert capfd.readouterr().out == ""


@pytest.mark.usefixtures("store")
def test_reading_imports_neither_mlflow_nor_dvc() -> None:
    mirror(training())
    refresh.refresh(talk=False)
    code = """
from asr.runs import run_index, run_rows
now = run_index.state()
(row,) = run_rows.rows()
assert run_rows.curves(row) and run_index.is_stale(now) in (True, False)
"""
    assert imported(code, "mlflow", "dvc", "torch", "transformers") == []


def read_all() -> int:
    """All that a page reads."""
    now = run_index.state()
    run_index.is_stale(now)
    rows = run_rows.rows()
    return len([run_rows.curves(row) for row in rows])


@pytest.mark.usefixtures("store")
def test_no_damaged_index_raises_anything_but_a_fault_and_it_is_made_anew() -> None:
    mirror(*[training(f"run {number}") for number in range(12)])
    refresh.refresh(talk=False)
    with sqlite3.connect(run_index.path()) as index:
        index.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole, seen = run_index.path().read_bytes(), []
    for seed in range(100):
        for ending in ("-wal", "-shm"):
            run_index.path().with_name(f"runs.sqlite{ending}").unlink(missing_ok=True)
        run_index.path().write_bytes(damaged(whole, seed))
        paths.cache("runs.rebuild").unlink(missing_ok=True)
        run_rows.parsed_runs.clear()
        try:
            read_all()
        except UserError:
            seen.append(seed)
            assert paths.cache("runs.rebuild").exists()
    assert len(seen) > 30  # the damage is felt
    refresh.refresh(talk=False)
    assert read_all() == 12


def test_no_damaged_store_raises_and_what_was_read_before_stays(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_store(tmp_path, empty_store)
    mirror(*[training(f"run {number}") for number in range(3)])
    refresh.refresh(talk=False)
    whole, faults = (tmp_path / "mlflow.db").read_bytes(), 0
    for seed in range(20):
        hurt = tmp_path / f"hurt-{seed}.db"
        hurt.write_bytes(damaged(whole, seed))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{hurt}")
        refresh.refresh(talk=False)
        now = run_index.state()
        read_all()
        if now.fault:
            faults += 1
            assert "cannot be read" in now.fault
    assert faults > 5  # the damage is felt


@pytest.mark.parametrize(
    "text", ["None", "True", "5", "5.0", "1e-05", "[5.0, 10.0]", "auto", "-3", "[]"]
)
def test_values_come_back_from_their_text(text: str) -> None:
    assert str(revision_facts.value_of(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "9" * 5000,
        "1_000",
        "nan",
        "inf",
        "[" * 900,
        "['" * 200,
        "__import__('os')",
        "[__import__('os')]",
        "\0",
        "",
    ],
)
def test_what_is_no_plain_value_stays_text(text: str) -> None:
    assert revision_facts.value_of(text) == text


def test_hostile_fingerprints_never_become_paths(store: Any, tmp_path: Path) -> None:
    experiment = store.create_experiment(client.EXPERIMENT)
    outside = tmp_path / "outside" / "lock"
    outside.parent.mkdir()
    outside.touch()
    for value in ("../../outside", "/etc", "..", "", "a\0b", "x" * 4000):
        store.create_run(experiment, tags={"fingerprint": value})
    refresh.refresh(talk=False)
    assert {row.state.kind for row in run_rows.rows()} == {states.KILLED}


@pytest.mark.usefixtures("store")
def test_the_command_tells_how_it_went(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror(training())
    monkeypatch.setattr(sys, "argv", ["refresh", "rebuild"])
    refresh.main()
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "runs: 1"
    assert told[-1] == "the index is up to date"
    monkeypatch.setattr(sys, "argv", ["refresh", "all"])
    with pytest.raises(SystemExit):
        refresh.main()
    assert "invalid choice: 'all'" in capsys.readouterr().err
