"""The Runs page on real stores: what it shows, what it says when there is nothing or damage, and
that names stay names.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

from asr import paths
from asr.runs import refresh, run_index, run_rows, states
from asr.runs.revisions import Revision
from asr.runs.run_index import IndexState
from asr.runs.run_rows import RunRow
from asr.runs.states import State
from asr.storage import hashing
from asr.tracking import client
from dashboard.runs import page as runs_page
from dashboard.runs import run_table, styles
from support.imports import imported
from support.repository import REPOSITORY, SHIPPED
from support.runs import (
    damaged,
    evaluation,
    go_on,
    mirror,
    new_store,
    training,
    utterances,
    write_reports,
)
from support.waiting import wait_for

DONE = State(states.FINISHED)
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "**bold** [link](javascript:alert(1)) $x^2$ :red[x] :material/home:",
    "'; rm -rf / #",
    "{{7*7}} ${7*7}",
    "\u202eright to left",
    "a\nb\tc",
    "x" * 5000,
]


def app() -> None:
    from dashboard.runs import page as runs

    runs.page()


@pytest.fixture
def root(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store, the shipped params, and pages that start no process."""
    new_store(tmp_path, empty_store)
    (tmp_path / "params.yaml").write_bytes(SHIPPED.read_bytes())
    monkeypatch.setattr(run_index, "request_refresh", lambda *_: None)
    return tmp_path


def drawn(address: dict[str, Any] | None = None) -> AppTest:
    """The page at this address, in a fresh browser."""
    page = AppTest.from_function(app, default_timeout=120)
    page.query_params.update(address or {})
    page.run()
    assert not page.exception
    return page


def table(page: AppTest) -> Any:
    return page.dataframe[0].value


def text(page: AppTest) -> str:
    return "\n".join(
        str(one.value)
        for one in [*page.markdown, *page.caption, *page.info, *page.warning, *page.subheader]
    )


def two_trainings(root: Path) -> tuple[run_rows.RunRow, run_rows.RunRow]:
    """One with reports in the workspace, one with utterances fetched from a revision before."""
    ours, theirs = training("ours", **{"train.seed": 2}), training("theirs")
    evaluation(theirs, 0.5)
    mirror(theirs, ours)
    speakers: list[str | None] = [f"s{number % 12}" for number in range(240)]
    write_reports(root, ours.stem, utterances([1] * 240, speakers))
    refresh.refresh(talk=False)
    rows = {row.name: row for row in run_rows.rows()}
    return rows["ours"], rows["theirs"]


TESTS = {
    "numbers": {"test_hash": "1" * 64, "rows": 240, "hours": 0.1},
    "digits": {"test_hash": "2" * 64, "rows": 90, "hours": 0.05},
}


def row(
    name: str, wer: float | None = None, test: str = "numbers", state: State = DONE, **more: Any
) -> RunRow:
    """A training that was tested, or, without a WER, was not."""
    fingerprint = hashing.hash_of([name, more.pop("twin", "")])[:32]
    scores = more.pop("scores", {} if wer is None else {**TESTS[test], "wer": wer})
    known = {
        "key": fingerprint,
        "run_id": fingerprint,
        "fingerprint": fingerprint,
        "start": 1_785_000_000.0,
        "end": None,
        "params": {"download.source": test, "train.max_steps": 3600, **more.pop("params", {})},
        "tags": {},
        "metrics": {},
        "untested": "" if scores else "not tested yet",
    }
    return RunRow(name=name, state=state, scores=scores, **{**known, **more})


REQUEST_REFRESH = run_index.request_refresh  # which most tests do without


@pytest.fixture
def index(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:  # noqa: ARG001
    """Puts rows into the index that the page reads, newest first, with a curve each."""

    def put(*rows: RunRow, step: int = 40) -> None:
        mark = hashing.hash_of([repr(one) for one in rows])
        state = IndexState(made=True, generation=mark, mark=f"{mark} {step}")
        curve = {"train/loss": [(1, 3.0), (step, 2.0)]}
        monkeypatch.setattr(run_rows, "rows", lambda: list(rows))
        monkeypatch.setattr(run_index, "state", lambda: state)
        monkeypatch.setattr(run_index, "is_stale", lambda _: False)
        monkeypatch.setattr(run_rows, "curves", lambda one: curve if one.fingerprint else None)

    return put


def spoken(page: AppTest) -> str:
    """The page's text without the signs that keep names from being Markdown."""
    return text(page).replace("\\", "")


def cells(page: AppTest, column: str) -> dict[str, Any]:
    return dict(zip(table(page)["Run"], table(page)[column], strict=True))


def chart(page: AppTest, number: int) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(page.get("vega_lite_chart")[number].proto.spec)
    return spec


@pytest.mark.usefixtures("root")
def test_a_finished_run_is_shown_with_its_numbers_and_its_command() -> None:
    path = training("first", **{"train.seed": 7})
    evaluation(path, 0.25)
    mirror(path)
    refresh.refresh(talk=False)
    page = drawn()
    shown = table(page).iloc[0]
    assert (shown["Run"], shown["Status"], shown["WER %"], shown["95 % interval"]) == (
        "first",
        "✓ finished",
        25.0,
        "23.0–27.0",
    )
    assert "Best: first, 25.0 % WER" in text(page)
    assert "dvc exp run -S train.max_steps=40 -S train.seed=7" in page.code[0].value
    assert len(page.get("vega_lite_chart")) >= 4


@pytest.mark.usefixtures("root")
def test_before_any_training_the_page_says_what_to_do() -> None:
    refresh.refresh(talk=False)
    page = drawn()
    assert "No training yet" in text(page)
    assert page.code[0].value == "make repro"


@pytest.mark.usefixtures("root")
def test_the_first_build_shows_that_it_goes_on() -> None:
    assert len(drawn().get("progress")) == 1


def test_a_page_alone_builds_the_index_and_draws_itself_again(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_store(tmp_path, empty_store)
    (tmp_path / "params.yaml").write_bytes(SHIPPED.read_bytes())
    mirror(training("alone"))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    page = drawn()
    wait_for(lambda: run_index.state().made and not run_index.state().phase)
    page.run()
    assert list(table(page)["Run"]) == ["alone"]
    for process in run_index.refreshers:
        process.terminate()
        process.wait(10)


@pytest.mark.usefixtures("root")
def test_running_killed_and_deleted_runs_are_shown_as_such() -> None:
    running, killed, gone = (
        training("running", 20, None),
        training("killed", 20, None),
        training("gone"),
    )
    mirror(running, killed, gone)
    lock = paths.cache("checkpoints", running.stem, "lock")
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refresh.refresh(talk=False)
        page = drawn()
        assert dict(zip(table(page)["Run"], table(page)["Status"], strict=True)) == {
            "running": "● training 20 of 40 · 50 %",
            "killed": "■ killed at step 20",
            "gone": "✓ finished",
        }
        assert "1 training" in text(page)
    go_on(running, range(21, 41))
    mirror(running)
    client.connect().delete_run(
        next(str(row.run_id) for row in run_rows.rows() if row.name == "gone")
    )
    refresh.refresh(talk=False)
    page.run()
    assert dict(zip(table(page)["Run"], table(page)["Status"], strict=True)) == {
        "running": "✓ finished",
        "killed": "■ killed at step 20",
    }


@pytest.mark.usefixtures("root")
def test_filter_and_status_narrow_the_table() -> None:
    mirror(training("alpha", **{"train.seed": 3}), training("beta", ended="FAILED"))
    refresh.refresh(talk=False)
    page = drawn()
    page.text_input(key="filter").set_value("train.seed=3").run()
    assert list(table(page)["Run"]) == ["alpha"]
    page.text_input(key="filter").set_value("nothing like it").run()
    assert "No run meets the filter" in text(page)
    page.text_input(key="filter").set_value("").run()
    page.button_group(key="state").set_value([states.FAILED]).run()
    assert list(table(page)["Run"]) == ["beta"]


@pytest.mark.usefixtures("root")
def test_params_that_differ_are_offered_first_and_the_others_on_request() -> None:
    mirror(training("a"), training("b", **{"train.seed": 2}))
    refresh.refresh(talk=False)
    page = drawn()
    assert "train.seed" in table(page).columns
    assert "model.name" not in page.multiselect[0].options
    page.toggle(key="narrow").set_value(False).run()
    page.multiselect[0].set_value(["model.name"]).run()
    assert list(table(page).columns) == ["Line", "Run", "Status", "model.name"]
    assert not page.exception


def test_a_pinned_baseline_brings_deltas_and_a_paired_verdict(root: Path) -> None:
    ours, theirs = two_trainings(root)
    sha = hashing.hash_of("theirs")[:40]
    fetched = paths.cache(
        "revisions", sha, hashing.hash_of("reports/evaluate/utterances.parquet")[:16]
    )
    fetched.mkdir(parents=True)
    pa.parquet.write_table(
        utterances([2] * 240, [f"s{number % 12}" for number in range(240)]),
        fetched / "utterances.parquet",
    )
    known = {
        "params": {},
        "scores": {"wer": 0.4, "test_hash": "t1"},
        "parameters": 5,
        "seconds": 9.0,
    }
    with closing(refresh.opened(False)) as index:
        index.execute("INSERT INTO revisions VALUES (99, 'tidy-newt', ?, 'experiment')", [sha])
        index.execute(
            "INSERT INTO facts VALUES (?, ?, ?, 0)",
            [sha, theirs.fingerprint, json.dumps(known)],
        )
        index.execute("UPDATE meta SET value = 'changed' WHERE key = 'generation'")
        index.commit()
    page = drawn({"baseline": theirs.fingerprint})
    assert "Against the baseline" in text(page)
    shown = table(page).set_index("Run")["Δ WER points"]
    assert shown["ours"] == pytest.approx(-20)
    assert shown.isna()["theirs"]
    verdict = page.table[0].value.iloc[0]
    assert (verdict.name.replace("\\", ""), verdict["Verdict"], verdict["Drawn by"]) == (
        "ours",
        "▼ better",
        "speaker",
    )
    assert verdict["Δ WER points"] == "-20.00"
    low, high = map(float, verdict["95 % interval"].split(" … "))
    assert low <= -20 <= high < 0
    assert "dvc exp apply tidy-newt" in drawn({"runs": theirs.fingerprint}).code[0].value
    page = drawn({"baseline": ours.fingerprint, "runs": theirs.fingerprint})
    assert page.table[0].value.iloc[0]["Verdict"] == "▲ worse"


def test_a_test_on_other_recordings_is_not_compared(root: Path) -> None:
    ours, theirs = two_trainings(root)
    page = drawn({"baseline": ours.fingerprint, "runs": theirs.fingerprint})
    assert "no test scores to compare" in page.table[0].value.iloc[0]["Verdict"]
    assert table(page)["Δ WER points"].isna().all()


@pytest.mark.usefixtures("root")
def test_a_selection_stays_with_its_runs_when_new_ones_come() -> None:
    mirror(training("one"), training("two"))
    refresh.refresh(talk=False)
    chosen = next(row for row in run_rows.rows() if row.name == "one")
    page = drawn({"runs": chosen.fingerprint})
    assert page.query_params["runs"] == chosen.fingerprint
    mirror(training("three"))
    refresh.refresh(talk=False)
    page.run()
    assert len(table(page)) == 3
    assert page.query_params["runs"] == chosen.fingerprint
    page.text_input(key="filter").set_value("three").run()
    page.text_input(key="filter").set_value("").run()
    assert page.query_params["runs"] == chosen.fingerprint


@pytest.mark.usefixtures("root")
def test_hostile_names_are_shown_as_they_are() -> None:
    store = client.connect()
    experiment = store.create_experiment(client.EXPERIMENT)
    for name in HOSTILE:
        run = store.create_run(
            experiment, tags={"fingerprint": "f" * 32, "mlflow.runName": name}, run_name=name
        )
        store.log_param(run.info.run_id, "train.seed", name[:400])
        store.log_metric(run.info.run_id, "test/wer", 0.5)
        store.log_metric(run.info.run_id, "validation/wer", float("nan"))
        store.set_terminated(run.info.run_id)
    refresh.refresh(talk=False)
    page = drawn({"baseline": run_rows.rows()[0].fingerprint})
    assert {*table(page)["Run"]} >= {name for name in HOSTILE if len(name) < 200}
    for one in [*page.markdown, *page.caption, *page.subheader, *page.warning, *page.info]:
        assert "<script" not in one.value
        assert "](javascript" not in one.value
    for one in page.get("html"):
        assert "<script" not in one.proto.body
        assert "<img" not in one.proto.body


def test_a_damaged_store_leaves_what_was_read_and_says_so(root: Path) -> None:
    mirror(training("kept"))
    refresh.refresh(talk=False)
    (root / "mlflow.db").write_bytes(b"no database" * 1000)
    refresh.refresh(talk=False)
    page = drawn()
    assert "cannot be read" in text(page)
    assert list(table(page)["Run"]) == ["kept"]


@pytest.mark.usefixtures("root")
def test_no_damaged_index_gives_a_traceback() -> None:
    mirror(*[training(f"run {number}") for number in range(5)])
    refresh.refresh(talk=False)
    with closing(refresh.opened(False)) as index:
        index.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole, told, page = run_index.path().read_bytes(), 0, drawn()
    for seed in range(40):
        for ending in ("-wal", "-shm"):
            run_index.path().with_name(f"runs.sqlite{ending}").unlink(missing_ok=True)
        run_index.path().write_bytes(damaged(whole, seed))
        paths.cache("runs.rebuild").unlink(missing_ok=True)
        run_rows.parsed_runs.clear()
        run_table.table.clear()
        page.run()
        assert not page.exception
        told += "index of runs is damaged" in text(page)
    assert told > 8  # the damage is felt


def missing(page: AppTest) -> set[str]:
    """What the index does not know of the training in the workspace; the page shows the rest."""
    if not run_rows.rows():
        assert "No training yet" in text(page)
        return {"row"}
    (row,) = run_rows.rows()
    assert list(table(page)["Run"]) == ["workspace"]
    known = {
        "wer": row.scores.get("wer"),
        "parameters": row.parameters,
        "seconds": row.seconds,
    }
    return {name for name, value in known.items() if value is None}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"fingerprint": 5, "params": 7}',
        b"\xff\xfe",
        b'{"fingerprint": "f", "params": {"a": [[]]}}',
    ],
)
def test_a_damaged_report_takes_what_it_tells_and_nothing_else(root: Path, content: bytes) -> None:
    write_reports(root, "f" * 32, utterances([1, 0], [None, None]))
    page = drawn()
    is_object = content.startswith(b'{"')  # and so names a training, though none that is known
    lost = {
        "train/run.json": set() if is_object else {"row"},
        "evaluate/metrics.json": {"wer"},
        "train/summary.json": {"parameters"},
        "train/timing.json": {"seconds"},
        "train/steps.csv": set(),
    }
    for name, wanted in lost.items():
        before = (root / "reports" / name).read_bytes()
        (root / "reports" / name).write_bytes(content)
        refresh.refresh(talk=False)
        page.run()
        assert not page.exception
        assert missing(page) == wanted
        (root / "reports" / name).write_bytes(before)


def test_damaged_params_are_named(root: Path) -> None:
    mirror(training())
    refresh.refresh(talk=False)
    (root / "params.yaml").write_text("train: [")
    assert "params" in text(drawn())


@pytest.mark.usefixtures("root")
def test_the_page_imports_no_heavy_library() -> None:
    mirror(training())
    refresh.refresh(talk=False)
    code = """
from streamlit.testing.v1 import AppTest
from asr.runs import run_index, run_rows
run_index.request_refresh = lambda *_: None
script = "from dashboard.runs.page import page; page()"
page = AppTest.from_string(script, default_timeout=120).run()
assert not page.exception and len(page.dataframe)
"""
    assert imported(code, "mlflow", "dvc", "torch", "transformers", "evaluate") == []


Index = Callable[..., None]


def test_a_run_that_was_not_tested_has_no_score_and_is_never_the_best(index: Index) -> None:
    """Nor is one without a number for a score, or in the chart of costs."""
    damaged = row("damaged", params={"train.seed": 3}, scores={**TESTS["numbers"], "wer": "0.01"})
    index(row("fresh", best_wer=1.0, seconds=60.0), damaged, row("true", 0.1088, seconds=60.0))
    page = drawn()
    assert "Best: true, 10.9 % WER" in spoken(page)
    assert cells(page, "95 % interval")["fresh"] == "not tested yet"
    assert table(page)["WER %"].notna().tolist() == [False, False, True]
    costs = page.get("arrow_vega_lite_chart") or page.get("vega_lite_chart")
    assert len(costs) == 2  # the curve of loss, and WER against minutes
    page = drawn({"order": "wer"})
    assert list(table(page)["Run"]) == ["true", "fresh", "damaged"]
    assert "fresh" not in page.selectbox(key="baseline").options


STATES = [
    (State(states.WAITING), "○ waiting"),
    (State(states.PREPARING, stage="chunk"), "● preparing in chunk"),
    (State(states.TRAINING), "● training"),
    (State(states.TRAINING, 300, 800), "● training 300 of 800 · 38 %"),
    (State(states.TRAINING, 3600, 3600), "● training 3,600 of 3,600 · 100 %"),
    (State(states.CHECKING, 800, 800), "● checking"),
    (State(states.EVALUATING, 800, 800), "● evaluating"),
    (DONE, "✓ finished"),
    (State(states.STOPPED, 1300, 3600, "train"), "■ stopped at step 1,300"),
    (State(states.FAILED, 800, 800, "evaluate", "no memory"), "✕ failed in evaluate"),
    (State(states.REFUSED, stage="stats", line="too many"), "✕ refused"),
    (State(states.KILLED, 300, 800, "train"), "■ killed at step 300"),
    (State(states.KILLED, stage="evaluate"), "■ killed in evaluate"),
    (State(states.KILLED, 800, 800, "evaluate"), "■ killed in evaluate"),
    (State(states.STOPPED, 800, 800, "evaluate"), "■ stopped in evaluate"),
]


def test_every_state_is_told_in_words_and_counted_in_the_headline(index: Index) -> None:
    rows = [row(f"run {number}", state=state) for number, (state, _) in enumerate(STATES)]
    index(*rows)
    page = drawn()
    assert list(table(page)["Status"]) == [words for _, words in STATES]
    assert cells(page, "Why")["run 9"] == "no memory"
    assert (
        "15 trainings · 1 waiting · 1 preparing · 3 training · 1 checking · 1 evaluating · "
        "2 stopped · 1 failed · 1 refused · 3 killed" in text(page)
    )
    assert list(table(drawn({"state": "killed"}))["Run"]) == ["run 11", "run 12", "run 13"]


def test_of_two_runs_that_are_as_good_the_sound_one_is_the_best(index: Index) -> None:
    index(row("sick", 0.1, failed_checks={"weights": ""}), row("well", 0.1))
    assert "Best: well, 10.0 % WER" in spoken(drawn())


@pytest.mark.parametrize(
    ("wer", "distance"),
    [
        (0.1, "with the same WER"),
        (0.10002, "less than 0.01 points worse"),
        (0.1001, "0.01 points worse"),
        (0.12, "2.0 points worse"),
    ],
)
def test_a_run_that_is_as_good_is_not_called_worse(index: Index, wer: float, distance: str) -> None:
    index(row("other", wer), row("best", 0.1, twin="older"))
    (told,) = (one for one in spoken(drawn()).splitlines() if "Next: " in one)
    assert told.endswith(f", {distance}.")


@pytest.mark.usefixtures("root")
def test_a_cache_that_cannot_be_written_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mirror(training("first"))
    refresh.refresh(talk=False)
    monkeypatch.setattr(run_index, "is_stale", lambda _: True)
    monkeypatch.setattr(run_index, "request_refresh", REQUEST_REFRESH)
    monkeypatch.setattr(Path, "touch", _refuse)
    page = drawn()
    assert not page.exception
    assert "make room or make it writable" in text(page)


def _refuse(*_: Any, **__: Any) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_a_failed_check_shows_on_the_run_in_the_headline_and_as_a_filter(index: Index) -> None:
    checks = {"weights": "fc1 stayed where it was", "loss": ""}
    index(
        row("sick", 0.1, failed_checks=checks),
        row("well", 0.2),
        row("ill", failed_checks={"a": ""}),
    )
    page = drawn()
    assert cells(page, "Status") == {
        "sick": "✕ finished, 2 checks failed",
        "well": "✓ finished",
        "ill": "✕ finished, 1 check failed",
    }
    assert cells(page, "Why")["sick"] == "weights: fc1 stayed where it was · loss"
    assert "Best: sick, 10.0 % WER**, 2 checks failed" in spoken(page)
    assert "2 with a failed check" in text(page)
    assert "fc1 stayed where it was" in spoken(page)
    page = drawn({"state": "failed check"})
    assert list(table(page)["Run"]) == ["sick", "ill"]


def test_each_test_has_its_own_best_and_charts_show_one_test_at_a_time(index: Index) -> None:
    index(
        row("digits-base", 0.004, "digits", seconds=60.0),
        row("tense", 0.968, seconds=60.0),
        row("repro", 0.109, seconds=60.0),
    )
    page = drawn()
    said = spoken(page)
    assert "Best: repro, 10.9 % WER**, on 240 recordings, 0.1 h, numbers. Next: tense, 85.9" in said
    assert "Best: digits-base, 0.4 % WER**, on 90 recordings, 0.05 h, digits." in said
    assert "Tested on 240 recordings" in said
    assert page.selectbox(key="baseline").options == ["repro", "tense"]
    assert cells(page, "Test")["digits-base"] == "90 recordings, 0.05 h, digits"
    page.selectbox(key="test").set_value("22222222").run()
    assert "Tested on 90 recordings" in spoken(page)
    assert page.selectbox(key="baseline").options == ["digits-base"]
    assert page.query_params == {"test": "22222222"}
    assert "Tested on 90 recordings" in spoken(drawn({"test": "22222222"}))


def test_with_one_test_there_is_no_choice_of_tests(index: Index) -> None:
    """The control of the one before; tests that differ in their hash alone are told apart."""
    index(row("a", 0.1), row("b", 0.2))
    page = drawn()
    assert [one.key for one in page.selectbox if one.key == "test"] == []
    assert "Test" not in table(page)
    other = row("c", 0.3)
    index(
        row("a", 0.1), RunRow(**{**vars(other), "scores": {**other.scores, "test_hash": "3" * 9}})
    )
    names = drawn().selectbox(key="test").options
    assert len(set(names)) == 2
    assert names[0].endswith("numbers (11111111)")


def test_a_run_keeps_its_colour_and_dash_whatever_other_runs_are_drawn(index: Index) -> None:
    rows = [row(f"run {number}", 0.1 + number / 100, seconds=60.0) for number in range(8)]
    own = {one.name: styles.of(one) for one in rows}
    for some in (rows, rows[::-1], rows[3:5]):
        index(*some)
        page = drawn({"runs": [one.key for one in some]})
        lines = chart(page, 0)["encoding"]["color"]["scale"]
        assert dict(zip(lines["domain"], lines["range"], strict=True)) == {
            one.name: own[one.name].color for one in some
        }
        dots = page.get("vega_lite_chart")[-1]
        assert {one.name: own[one.name].color for one in some}.items() <= colors_of(dots).items()
        assert cells(page, "Line") == {one.name: styles.swatch(own[one.name]) for one in some}


def colors_of(dots: Any) -> dict[str, str]:
    """The colour of each run's dot in a chart of costs."""
    content = pa.ipc.open_stream(dots.proto.data.data).read_all()
    return dict(zip(content["run"].to_pylist(), content["colour"].to_pylist(), strict=True))


def test_runs_of_one_colour_are_told_apart_by_their_dashes() -> None:
    rows = [row(f"run {number}") for number in range(300)]
    same = [one for one in rows if styles.of(one) == styles.of(rows[0])][:4]
    assert len(same) == 4
    drawn_as = styles.of_compared(same)
    assert drawn_as[0] == styles.of(rows[0])
    assert len({style.dash for style in drawn_as}) == 4
    assert {style.color for style in drawn_as} == {drawn_as[0].color}
    assert len({styles.of(one) for one in rows}) >= 32


def test_validation_wer_is_that_of_the_weights_kept_with_its_step(index: Index) -> None:
    index(
        row("base", best_wer=0.0, best_step=16, metrics={"validation/wer": 0.0108}),
        row("unknown", metrics={"validation/wer": 0.5}),
    )
    page = drawn()
    assert cells(page, "Validation WER %, best")["base"] == 0.0
    assert cells(page, "Best step")["base"] == 16
    assert table(page)["Validation WER %, best"].isna().tolist() == [False, True]
    assert "Validation WER %, last" not in table(page)
    assert list(table(drawn({"order": "validation"}))["Run"]) == ["base", "unknown"]


def test_what_a_training_left_out_stands_in_its_row(index: Index) -> None:
    index(row("all", left_out=0.0), row("window of 2 s", left_out=0.202), row("unknown"))
    page = drawn()
    assert cells(page, "Left out %")["window of 2 s"] == pytest.approx(20.2)
    assert table(page)["Left out %"].isna().tolist() == [True, False, True]
    index(row("all", left_out=0.0))
    assert "Left out %" not in table(drawn()), "nothing to tell"


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Asia/Kathmandu", "Etc/UTC", None])
def test_times_are_the_readers_own_and_said_so(zone: str | None) -> None:
    column = run_table.column_config(pd.DataFrame(), zone)[run_table.STARTED]
    assert column["type_config"]["timezone"] == zone
    assert column["label"] == ("Started, your time" if zone else "Started, UTC")


def test_while_dvc_works_nothing_is_said_to_be_missing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh.refresh(talk=False)
    monkeypatch.setattr(states, "is_dvc_working", lambda _: True)
    assert "DVC is at work" in text(drawn())
    assert "No training yet" not in text(drawn())
    assert root.is_dir()


@pytest.mark.parametrize(
    ("is_working", "phase", "seconds"),
    [(True, "", 1.0), (False, "", 3.0), (False, "runs", 1.0), (True, "curves", 1.0)],
)
def test_the_page_looks_every_second_while_dvc_works_and_every_three_else(
    is_working: bool, phase: str, seconds: float
) -> None:
    state = IndexState(made=True, phase=phase)
    assert runs_page.refresh_seconds(state, is_working) == seconds


def test_columns_come_to_an_open_page_until_the_reader_chooses(index: Index) -> None:
    first = row("one", state=State(states.TRAINING, 3, 40))
    index(first)
    page = drawn()
    assert "WER %" not in table(page)
    index(row("one", 0.25))
    page.run()
    assert "WER %" in table(page)
    index(row("two", 0.2, params={"train.seed": 2}), row("one", 0.25, params={"train.seed": 1}))
    page.run()
    assert "train.seed" in table(page)
    page.multiselect(key="columns").set_value(["Minutes"]).run()
    index(row("three", 0.1, best_wer=0.1), row("one", 0.25))
    page.run()
    assert list(table(page)) == ["Line", "Run", "Status", "Minutes"]


def test_a_run_has_one_name_and_a_second_of_that_name_is_told_apart(index: Index) -> None:
    here = Revision("workspace", None, "workspace")
    experiment = Revision("resumed-800", "a" * 40, "experiment")
    index(row("repro", 0.1, revisions=(here, experiment)), row("killed-800"))
    assert list(table(drawn())["Run"]) == ["repro", "killed-800"]
    index(row("repro", 0.1), row("repro", 0.2, twin="another"), row("else"))
    names = list(table(drawn())["Run"])
    assert names[0].startswith("repro ")
    assert names[1:] == ["repro", "else"], "the oldest has the name alone"


def labels(*rows: RunRow) -> list[str]:
    """The names of runs that the index lists in this order."""
    return list(run_table.labels_of(list(rows)).values())


def test_a_run_has_one_name_for_life_whatever_comes_after_it() -> None:
    """Another of its name, one that waits or was refused, one of a revision, another test of it."""
    first = row("repro", start=1.0)
    digits = f"repro {row('repro', twin='second').fingerprint[:4]}"  # type: ignore[index]
    waits = {"fingerprint": None, "start": 0.0}
    later = {
        "trained": (row("repro", twin="second", start=2.0), digits),
        "waits": (row("repro", key="sha", **waits), "repro #2"),
        "pulled": (row("repro", twin="second", start=None), digits),
        "tested again": (RunRow(**{**vars(first), "key": f"{first.key}/1"}), "repro #2"),
        "of another name": (row("repro 2", start=3.0), "repro 2"),
    }
    for other, label in later.values():
        assert labels(first) == ["repro"]
        assert labels(other, first) == [label, "repro"]
        assert labels(first, other) == ["repro", label]


def test_a_run_keeps_its_name_when_the_first_of_that_name_is_deleted() -> None:
    first = row("slow", start=1.0)
    second = row("slow", twin="second", start=2.0, elder=first.fingerprint)
    (name, _) = labels(second, first)
    assert labels(second) == [name] != ["slow"]
    third = row("slow", twin="third", start=3.0, elder=first.fingerprint)
    assert labels(third, second)[1] == name


def test_names_are_the_same_in_a_clone_which_knows_revisions_alone() -> None:
    """They are listed newest first, as the runs are here."""
    ours = [row("slow", twin=str(age), start=9.0 - age) for age in range(3)]
    clone = [RunRow(**{**vars(one), "start": None}) for one in ours]
    assert labels(*ours) == labels(*clone)
    assert labels(*ours)[2] == "slow"
    assert len({*labels(*ours)}) == 3


@pytest.mark.parametrize("command", ["dvc exp run -n bad -S train.max_steps=no", ""])
def test_of_a_run_without_params_what_is_known_is_shown(index: Index, command: str) -> None:
    bare = {"fingerprint": None, "run_id": None, "command": command}
    refused = row("bad", state=State(states.REFUSED, stage="train", line="no"), **bare)
    index(RunRow(**{**vars(refused), "params": {}}))
    page = drawn()
    assert [one.value for one in page.code] == [command] * bool(command)
    said = "What DVC was called with" if command else "Neither its params nor its command"
    assert said in text(page)


def test_axes_end_where_the_longest_training_ends(index: Index) -> None:
    short = row("short", params={"train.max_steps": 160})
    index(row("long"), short)
    assert chart(drawn(), 0)["encoding"]["x"]["scale"] == {"domain": [0, 3600], "nice": False}
    page = drawn({"runs": short.key})
    assert chart(page, 0)["encoding"]["x"]["scale"]["domain"] == [0, 160]
    going_on = row("on", state=State(states.TRAINING, 40, 800), params={"train.max_steps": "auto"})
    index(going_on)
    assert chart(drawn(), 0)["encoding"]["x"]["scale"]["domain"] == [0, 800]
    index(row("odd", params={"train.max_steps": 10**30}), step=55)
    assert chart(drawn(), 0)["encoding"]["x"]["scale"]["domain"] == [0, 55]


def test_every_choice_on_the_page_is_in_its_address(index: Index) -> None:
    seed = {"params": {"train.seed": 4}}
    rows = [row("one", 0.1), row("two", 0.2, **seed), row("three", 0.3, "digits", **seed)]
    index(*rows)
    page = drawn()
    page.text_input(key="filter").set_value("train.seed=4").run()
    page.selectbox(key="order").set_value("wer").run()
    page.selectbox(key="test").set_value("22222222").run()
    page.selectbox(key="baseline").set_value(rows[2].key).run()
    page.toggle(key="narrow").set_value(False).run()
    page.multiselect(key="columns").set_value(["WER %", "train.max_steps"]).run()
    page.button_group(key="state").set_value([states.FINISHED]).run()
    chosen = {
        "filter": "train.seed=4",
        "order": "wer",
        "test": "22222222",
        "baseline": rows[2].key,
        "narrow": "false",
        "columns": ["WER %", "train.max_steps"],
        "state": "finished",
    }
    assert page.query_params == chosen
    other = drawn({**chosen, "runs": [rows[1].key]})
    assert list(table(other)["Run"]) == ["three", "two"]
    assert list(table(other)) == [
        "Line",
        "Run",
        "WER %",
        "Δ WER points",
        "Status",
        "train.max_steps",
    ]
    assert "two" in spoken(other).split("Against the baseline")[0]
    assert other.query_params == {**chosen, "runs": rows[1].key}


def test_the_run_to_repeat_is_in_the_address_while_it_is_compared(index: Index) -> None:
    one, two, three = (row(name, params={"train.seed": len(name)}) for name in ("a", "bb", "ccc"))
    index(one, two, three)
    page = drawn({"runs": [one.key, two.key]})
    assert "train.seed" not in page.code[0].value
    page.selectbox(key="repeat").set_value(two.key).run()
    assert page.query_params["repeat"] == two.key
    assert "train.seed=2" in page.code[0].value
    page = drawn({"runs": [one.key, three.key], "repeat": two.key})
    assert page.selectbox(key="repeat").value == one.key


def test_what_the_address_names_and_the_index_does_not_is_said_and_kept(index: Index) -> None:
    """A run that is not read yet, or is gone; then it comes."""
    late = row("late", 0.1)
    address = {"runs": [late.key, "<script>"], "baseline": late.key, "test": "99999999"}
    index(row("here", 0.2))
    page = drawn(address)
    assert f"Not here: {late.key}, <script>" in spoken(page)
    assert page.query_params == address
    index(late, row("here", 0.2), row("else", 0.3, "digits"))
    page.run()
    assert page.query_params == address
    assert page.selectbox(key="baseline").value == late.key
    assert page.selectbox(key="test").value == "99999999"
    assert f"Not here: {late.key}" not in spoken(page)


def test_ticks_go_over_to_the_training_that_an_experiment_became(index: Index) -> None:
    bare = {"fingerprint": None, "run_id": None, "key": "experiment mine"}
    waits = row("mine", state=State(states.WAITING), **bare)
    other = row("other", 0.2, former_keys=("experiment other", "experiment mine"))
    index(waits, other)
    address = {"runs": [waits.key, "experiment other", "gone"], "repeat": waits.key}
    page = drawn(address)
    held = {"runs": [waits.key, other.key, "gone"], "repeat": waits.key}
    assert page.query_params == held, "one that waits has its key, whatever had it before"
    trains = row("mine", state=State(states.TRAINING, 3, 40), former_keys=(waits.key,))
    index(trains, other)
    page.run()
    assert page.query_params == {"runs": [trains.key, other.key, "gone"], "repeat": trains.key}
    assert page.selectbox(key="repeat").value == trains.key
    assert "Not here: gone" in spoken(page)


@pytest.mark.parametrize(
    "address",
    [
        {"order": "zzz", "state": "zzz", "test": "zzz", "baseline": "zzz"},
        {"columns": ["zzz", "train.max_steps", "<b>"], "narrow": "zzz"},
        {"runs": ["x" * 5000] * 500, "filter": "\ufffd" * 300},
        {"columns": "", "runs": "", "filter": "", "repeat": "zzz", "runs_table": "1"},
    ],
)
def test_no_address_breaks_the_page(index: Index, address: dict[str, Any]) -> None:
    index(row("a", 0.1), row("b", 0.2, "digits"))
    assert "Best: a" in spoken(drawn(address))


def test_what_the_repository_publishes_is_marked(index: Index) -> None:
    published = Revision("main", "b" * 40, "published")
    index(row("shipped", 0.1183, run_id=None, start=None, revisions=(published,)))
    page = drawn()
    assert cells(page, "Status") == {"shipped": "◇ published"}
    assert "Best: shipped, 11.8 % WER" in spoken(page)
