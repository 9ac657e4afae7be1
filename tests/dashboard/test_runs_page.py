"""The Runs page on real stores: what it shows, what it says when there is nothing or damage, and
that names stay names.
"""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

from asr import paths
from asr.runs import refresh, run_index, states
from asr.storage import hashing
from asr.tracking import client
from dashboard.runs import run_table
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


def drawn(state: dict[str, Any] | None = None) -> AppTest:
    page = AppTest.from_function(app, default_timeout=120)
    for name, value in (state or {}).items():
        page.session_state[name] = value
    page.run()
    assert not page.exception
    return page


def table(page: AppTest) -> Any:
    return page.dataframe[0].value


def text(page: AppTest) -> str:
    return "\n".join(
        str(one.value) for one in [*page.caption, *page.info, *page.warning, *page.subheader]
    )


def two_trainings(root: Path) -> tuple[run_index.RunRow, run_index.RunRow]:
    """One with reports in the workspace, one with utterances fetched from a revision before."""
    ours, theirs = training("ours", **{"train.seed": 2}), training("theirs")
    evaluation(theirs, 0.5)
    mirror(theirs, ours)
    speakers: list[str | None] = [f"s{number % 12}" for number in range(240)]
    write_reports(root, ours.stem, utterances([1] * 240, speakers))
    refresh.refresh(talk=False)
    rows = {row.name: row for row in run_index.rows()}
    return rows["ours"], rows["theirs"]


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
        "23.00 – 27.00",
    )
    assert "lowest test WER 25.0 %" in text(page)
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
            "running": "● training 20 of 40",
            "killed": "■ killed",
            "gone": "✓ finished",
        }
        assert "1 running" in text(page)
    go_on(running, range(21, 41))
    mirror(running)
    client.connect().delete_run(
        next(str(row.run_id) for row in run_index.rows() if row.name == "gone")
    )
    refresh.refresh(talk=False)
    page.run()
    assert dict(zip(table(page)["Run"], table(page)["Status"], strict=True)) == {
        "running": "✓ finished",
        "killed": "■ killed",
    }


@pytest.mark.usefixtures("root")
def test_filter_and_status_narrow_the_table() -> None:
    mirror(training("alpha", **{"train.seed": 3}), training("beta", ended="FAILED"))
    refresh.refresh(talk=False)
    page = drawn()
    page.text_input(key="runs_filter").set_value("train.seed=3").run()
    assert list(table(page)["Run"]) == ["alpha"]
    page.text_input(key="runs_filter").set_value("nothing like it").run()
    assert "No run meets the filter" in text(page)
    page.text_input(key="runs_filter").set_value("").run()
    page.button_group(key="runs_status").set_value([states.FAILED]).run()
    assert list(table(page)["Run"]) == ["beta"]


@pytest.mark.usefixtures("root")
def test_params_that_differ_are_offered_first_and_the_others_on_request() -> None:
    mirror(training("a"), training("b", **{"train.seed": 2}))
    refresh.refresh(talk=False)
    page = drawn()
    assert "train.seed" in table(page).columns
    assert "model.name" not in page.multiselect[0].options
    page.toggle(key="runs_narrow").set_value(False).run()
    page.multiselect[0].set_value(["model.name"]).run()
    assert list(table(page).columns) == ["Run", "Status", "model.name"]
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
    with refresh.closing(refresh.opened(False)) as index:
        index.execute("INSERT INTO revisions VALUES (99, 'tidy-newt', ?, 'experiment')", [sha])
        index.execute(
            "INSERT INTO facts VALUES (?, ?, ?, 0)",
            [sha, theirs.fingerprint, refresh.json.dumps(known)],
        )
        index.execute("UPDATE meta SET value = 'changed' WHERE key = 'generation'")
        index.commit()
    page = drawn({"runs_pinned": theirs.key})
    assert "Against the baseline" in text(page)
    shown = table(page).set_index("Run")["Δ WER points"]
    assert shown["ours"] == pytest.approx(-20)
    assert shown.isna()["theirs"]
    verdict = page.table[0].value.iloc[0]
    assert (verdict.name.replace("\\", ""), verdict["Verdict"], verdict["Drawn by"]) == (
        "ours (workspace)",
        "▼ better",
        "speaker",
    )
    assert verdict["Δ WER points"] == "-20.00"
    low, high = map(float, verdict["95 % interval"].split(" … "))
    assert low <= -20 <= high < 0
    assert "dvc exp apply tidy-newt" in drawn({"runs_selected": [theirs.key]}).code[0].value
    page = drawn({"runs_pinned": ours.key, "runs_selected": [theirs.key]})
    assert page.table[0].value.iloc[0]["Verdict"] == "▲ worse"


def test_a_test_on_other_recordings_is_not_compared(root: Path) -> None:
    ours, theirs = two_trainings(root)
    page = drawn({"runs_pinned": ours.key, "runs_selected": [theirs.key]})
    assert "no test scores to compare" in page.table[0].value.iloc[0]["Verdict"]
    assert table(page)["Δ WER points"].isna().all()


@pytest.mark.usefixtures("root")
def test_a_selection_stays_with_its_runs_when_new_ones_come() -> None:
    mirror(training("one"), training("two"))
    refresh.refresh(talk=False)
    chosen = next(row for row in run_index.rows() if row.name == "one")
    page = drawn({"runs_selected": [chosen.key]})
    assert page.session_state["runs_selected"] == [chosen.key]
    mirror(training("three"))
    refresh.refresh(talk=False)
    page.run()
    assert len(table(page)) == 3
    assert page.session_state["runs_selected"] == [chosen.key]
    page.text_input(key="runs_filter").set_value("three").run()
    page.text_input(key="runs_filter").set_value("").run()
    assert page.session_state["runs_selected"] == [chosen.key]


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
    page = drawn({"runs_pinned": run_index.rows()[0].key})
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
    with refresh.closing(refresh.opened(False)) as index:
        index.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole, told, page = run_index.path().read_bytes(), 0, drawn()
    for seed in range(40):
        for ending in ("-wal", "-shm"):
            run_index.path().with_name(f"runs.sqlite{ending}").unlink(missing_ok=True)
        run_index.path().write_bytes(damaged(whole, seed))
        paths.cache("runs.rebuild").unlink(missing_ok=True)
        run_index.parsed_runs.clear()
        run_table.table.clear()
        page.run()
        assert not page.exception
        told += "index of runs is damaged" in text(page)
    assert told > 8  # the damage is felt


def missing(page: AppTest) -> set[str]:
    """What the index does not know of the training in the workspace; the page shows the rest."""
    if not run_index.rows():
        assert "No training yet" in text(page)
        return {"row"}
    (row,) = run_index.rows()
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
from asr.runs import run_index
run_index.request_refresh = lambda *_: None
script = "from dashboard.runs.page import page; page()"
page = AppTest.from_string(script, default_timeout=120).run()
assert not page.exception and len(page.dataframe)
"""
    assert imported(code, "mlflow", "dvc", "torch", "transformers", "evaluate") == []
