"""Whose results the Errors page shows: those of a named run that can be opened, with the interval
that was reported, and never as results of files that they are not of.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from asr import paths
from asr.dvc_hashes import of_file as md5_of
from asr.evaluation import slices
from asr.evaluation.slices import ModelResults
from asr.evaluation.table import COUNTS
from asr.runs import queue, reports, revision_facts, revisions, run_index, states
from asr.runs.revisions import COMMIT, EXPERIMENT, HERE, PUBLISHED, RESULT, Revision
from asr.runs.run_rows import RunRow
from asr.storage import files
from dashboard import widgets, workspace
from dashboard.errors import offers
from dashboard.workspace import is_being_made
from support.pipeline import Workspace, copied
from support.runs import write_lock
from support.store import check, line, write_evaluation

LINES = [
    line(
        f"u{number:02d}", "en två tre fyra", "en två" if number % 3 else "en två tre", speaker=name
    )
    for number, name in enumerate(f"s{number % 12}" for number in range(24))
]


def page() -> None:
    from dashboard.errors import page as errors

    errors.page()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results in a workspace, and pages that start no process."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr(run_index, "request_refresh", lambda *_: None)
    write_evaluation(tmp_path, LINES)
    files.write_json(tmp_path / paths.RUN, {"fingerprint": "f" * 32, "params": {}})
    files.write_json(tmp_path / paths.SUMMARY, {})
    return tmp_path


def drawn(**told: Any) -> AppTest:
    at = AppTest.from_function(page, default_timeout=120)
    at.query_params.update(told)
    at.run()
    check(at)
    return at


def run(name: str, *results: Revision, wer: float | None = 0.5, **rest: Any) -> RunRow:
    """A tested run of the index, whose results lie at these revisions."""
    given: dict[str, Any] = {
        "key": f"key of {name}",
        "run_id": None,
        "fingerprint": name.encode().hex() * 4,
        "name": name,
        "state": states.State(states.FINISHED),
        "start": 1_700_000_000.0,
        "end": None,
        "params": {},
        "tags": {},
        "metrics": {},
        "revisions": results,
        "results": results,
        "scores": {} if wer is None else {"wer": wer},
    }
    return RunRow(**{**given, **rest})


def knows(monkeypatch: pytest.MonkeyPatch, *rows: RunRow) -> None:
    monkeypatch.setattr(offers, "all_rows", lambda _: list(rows))
    offers.of_runs.clear()


def fetched(root: Path, name: str, digit: str, kind: str = EXPERIMENT) -> Revision:
    """A revision whose utterances were fetched before."""
    revision = Revision(name, digit * 40, kind)
    write_evaluation(root / "other", LINES)
    target = revisions.folder_of(digit * 40, paths.UTTERANCES)
    target.mkdir(parents=True)
    (root / "other" / paths.UTTERANCES).rename(target / Path(paths.UTTERANCES).name)
    return revision


def text(at: AppTest) -> str:
    told = "\n".join(str(one.value) for one in [*at.caption, *at.info, *at.warning])
    return told.replace("\\", "")


def wer_remark(at: AppTest, name: str = "your files now") -> str:
    (metric,) = (one for one in at.metric if one.label == f"WER of {name}")
    return f"{metric.value}, {metric.delta}".replace("\\", "")


# One interval, one value


def report(rows: int = 24, **changed: Any) -> dict[str, Any]:
    """The report of LINES, with an interval that nobody computes."""
    told = {
        "wer": 0.41666,
        "wer_low": 0.0765609,
        "wer_high": 0.1444691,
        "ci_unit": "speaker",
        "substitutions": 0,
        "deletions": 40,
        "insertions": 0,
        "rows": rows,
        "words": 96,
    }
    return {"test_hash": "none", "models": {}, **told, **changed}


REPORTED = "95 %: 7.7–14.4, over 12 speakers"


def test_where_nothing_is_filtered_the_interval_is_the_reported_one_rounded_once(
    root: Path,
) -> None:
    files.write_json(root / paths.METRICS, report())
    at = drawn()
    assert wer_remark(at) == f"41.7 %, {REPORTED}"
    at.text_input(key="errors_search").set_value("två").run()
    assert wer_remark(at) == f"41.7 %, {REPORTED}", "a search that all rows match"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"rows": 23}, {}),  # a report of other rows
        ({"deletions": 41}, {}),  # of another model
        ({"wer_low": None}, {}),  # damaged
        ({}, {"errors_text": "raw_"}),  # it has no interval of the text as written
        ({}, {"errors_slices": "speaker", "slice_speaker": "s1"}),  # filtered
    ],
)
def test_elsewhere_the_interval_is_computed_by_the_function_of_the_report(
    root: Path, changed: dict[str, Any], told: dict[str, Any]
) -> None:
    files.write_json(root / paths.METRICS, report(**changed))
    at = drawn(**told)
    assert REPORTED not in wer_remark(at)
    assert "over" in wer_remark(at)


def with_form(share: float) -> dict[str, Any]:
    """Scores of a model of whose errors this share is a matter of form."""
    kinds = {"numeral_errors": 30, "spacing_errors": 0}
    loops = {"rows": 0, "share": 0.0}
    return {"form": {"share": share, **kinds}, "loops": loops, "wer_without_form": 0.104}


@pytest.mark.parametrize(("share", "count"), [(0.75, 1), (0.05, 0)])
def test_what_may_mislead_is_told_of_the_whole_test(root: Path, share: float, count: int) -> None:
    files.write_json(root / paths.METRICS, report(models={"finetuned": with_form(share)}))
    at = drawn()
    found = [one for one in at.expander if one.label == "What may mislead"]
    assert len(found) == count
    if found:
        (told,) = found[0].markdown
        assert told.value.replace("\\", "") == (
            "- finetuned: 75 % of its word errors are only a matter of how words are written "
            "(numerals 30, spacing 0); without them its WER is 0.1040."
        )
    filtered = drawn(errors_slices="speaker", slice_speaker="s1")
    assert all(one.label != "What may mislead" for one in filtered.expander)


@pytest.mark.parametrize("damage", [{}, {"form": None}, {"form": {"share": "x"}}, {"form": {}}])
def test_a_report_without_these_or_damaged_says_nothing(root: Path, damage: Any) -> None:
    files.write_json(root / paths.METRICS, report(models={"finetuned": damage}))
    assert all(one.label != "What may mislead" for one in drawn().expander)


def test_what_evaluate_reports_of_each_model_is_what_the_page_computes(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a real pipeline; the control is another seed."""
    monkeypatch.setenv("DVC_ROOT", str(workspace.root))
    metrics = files.read_json(workspace.root / paths.METRICS)
    table = reports.read_utterances(workspace.root / paths.UTTERANCES)
    resamples, seed = revision_facts.bootstrap_params(HERE)
    for model, told in metrics["models"].items():
        rows = slices.of_model(ModelResults(table, "", model)).rows
        share, interval = slices.score(rows, slices.COUNTED, resamples, seed)
        assert share == pytest.approx(told["wer"])
        assert (interval.low, interval.high) == (told["wer_low"], told["wer_high"])
        assert {name: int(rows[name].sum()) for name in COUNTS[1:]}.items() <= told.items()
    _, other = slices.score(rows, slices.COUNTED, resamples, seed + 1)
    assert len(metrics["models"]) == 2
    assert (other.low, other.high) != (interval.low, interval.high) or told["wer"] in (0, 1)


# Whose results they are


def test_results_in_the_workspace_have_the_name_of_their_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    knows(monkeypatch, run("other"), run("mine", utterances_hash=md5_of(root / paths.UTTERANCES)))
    write_lock(root, trained="1", tested="1")
    at = drawn()
    assert at.selectbox(key="results").options == ["mine · 50.0 % WER · 14 Nov 2023"]
    assert "not of your present files" not in text(at)
    assert wer_remark(at, "mine")


def retrain(root: Path) -> None:
    write_lock(root, trained="2", tested="1")


def kill(root: Path) -> None:
    """A training that was killed: what it would replace is gone."""
    write_lock(root, trained="1", tested="1")
    (root / paths.RUN).unlink()
    (root / paths.SUMMARY).unlink()


def edit(root: Path) -> None:
    write_lock(root, trained="1", tested="1", METRICS="2")


@pytest.mark.parametrize("change", [retrain, kill, edit])
def test_results_that_are_not_of_the_present_files_say_so_and_whose_they_are(
    root: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    knows(monkeypatch, run("mine", utterances_hash=md5_of(root / paths.UTTERANCES)))
    change(root)
    at = drawn()
    assert "These are results of mine, not of your present files: " in text(at)
    assert at.code[0].value == "dvc repro evaluate"
    knows(monkeypatch)
    assert "These are results of an earlier run, not of your present files" in text(drawn())


def test_while_dvc_works_its_command_is_not_advised(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for stale results nor for none; the control is DVC at rest."""
    retrain(root)
    for works in (True, False):
        monkeypatch.setattr(workspace, "is_being_made", lambda works=works: works)
        at = drawn()
        assert ("Being made now." in text(at)) == works
        assert [one.value for one in at.code] == ([] if works else ["dvc repro evaluate"])
    (root / paths.UTTERANCES).unlink()
    for works in (True, False):
        monkeypatch.setattr(workspace, "is_being_made", lambda works=works: works)
        at = drawn()
        assert ("Being made now." in text(at)) == works
        assert [one.value for one in at.code] == ([] if works else ["dvc repro"])


@pytest.mark.parametrize(
    ("lock", "pid", "works"),
    [
        (queue.LOCK, os.getpid(), True),
        (queue.LOCK, 2**22 + 1, False),  # of a process that is dead
        (f"{queue.EXPERIMENTS}/rwlock", os.getpid(), False),  # in the queue
        ("elsewhere", os.getpid(), False),
    ],
    ids=["at work", "dead", "queue", "elsewhere"],  # without pids, as processes collect them alike
)
def test_only_what_dvc_does_in_the_workspace_makes_its_files(
    root: Path, lock: str, pid: int, works: bool
) -> None:
    files.write_json(root / lock, {"write": {str(root / paths.UTTERANCES): {"pid": pid}}})
    assert workspace.is_being_made() == works


def test_a_real_dvc_is_seen_at_work_and_its_end(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = copied(workspace.root.parent, tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(ours.root))
    assert not is_being_made()
    command = "dvc repro --force --single-item stats".split()
    seen = set()
    with subprocess.Popen(
        command, cwd=ours.root, env=ours.environment, stdout=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            seen.add(is_being_made())
            time.sleep(0.05)
    assert True in seen
    assert not is_being_made()


# What is offered


def test_what_can_be_opened_is_offered_with_name_wer_and_date_and_the_rest_in_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = fetched(root, "good", "a")
    commits = [Revision(f"{number}" * 8, f"{number}" * 40, COMMIT) for number in range(3)]
    knows(
        monkeypatch,
        run("gone", commits[0]),
        run("good", commits[1], here, wer=0.123),
        run("untested", commits[2], wer=None),
        run("fetched by none"),
    )
    at = drawn()
    assert at.selectbox(key="results").options == [
        "your files now",
        "good · 12.3 % WER · 14 Nov 2023",
    ]
    assert "The results of the run gone are not on this computer. `dvc fetch` brings" in text(at)
    at.selectbox(key="results").set_value("key of good").run()
    assert wer_remark(at, "good")


def test_a_store_of_which_nothing_can_be_opened_offers_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh clone: sixteen commits, and no utterances."""
    (root / paths.UTTERANCES).unlink()
    knows(monkeypatch, *(run(f"run-{n}", Revision(f"{n}", f"{n:040x}", COMMIT)) for n in range(16)))
    at = drawn()
    assert not at.selectbox
    assert "No results are on this computer yet" in text(at)
    assert "16 more runs are not on this computer" in text(at)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("content", [None, b"", b"no index"])
def test_an_index_that_is_not_there_or_damaged_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(run_index, "request_refresh", lambda *_: asked.append(True))
    if content is not None:
        files.write_bytes(run_index.path(), content)
    at = drawn()
    assert asked
    assert wer_remark(at), "and what lies in the workspace is shown meanwhile"


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("Asia/Tokyo", "15 Nov 2023"),
        ("America/Los_Angeles", "14 Nov 2023"),
        (None, "14 Nov 2023"),
        ("No/Such", "14 Nov 2023"),
        ("../../etc/passwd", "14 Nov 2023"),
        ("x" * 5000, "14 Nov 2023"),
    ],
)
def test_a_date_is_that_of_the_reader(
    monkeypatch: pytest.MonkeyPatch, zone: str | None, day: str
) -> None:
    monkeypatch.setattr(widgets.st, "context", SimpleNamespace(timezone=zone))
    assert widgets.day(1_700_000_000) == day


def test_runs_of_one_name_are_told_apart(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = fetched(root, "one", "a"), fetched(root, "two", "b")
    knows(
        monkeypatch,
        run("twin", first, key="1", fingerprint="12345678ff"),
        run("twin", second, key="2", fingerprint="87654321ff"),
    )
    labels = drawn().selectbox(key="results").options
    assert [label.split(" · ")[0] for label in labels[1:]] == ["twin 1234", "twin"]


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("id", ["key of gone", "never heard of", "<script>x</script>", "x" * 5000])
def test_a_link_to_results_that_are_not_here_says_so_and_keeps_them_in_the_address(
    monkeypatch: pytest.MonkeyPatch, id: str
) -> None:
    knows(monkeypatch, run("gone", Revision("0" * 8, "0" * 40, COMMIT)))
    at = drawn(results=id)
    assert "are not on this computer. This brings them if they were pushed" in text(at)
    assert at.code[0].value == "dvc fetch"
    assert at.query_params["results"] in (id, [id])
    at.selectbox(key="results").set_value("workspace").run()
    check(at)
    assert wer_remark(at)


def test_what_is_only_in_dvcs_cache_is_offered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `dvc fetch`, by the dvc.lock of the revision; the control is one that lacks it."""
    revision = Revision("0" * 8, "a" * 40, COMMIT)
    knows(monkeypatch, run("good", revision))
    lock = revisions.folder_of("a" * 40, "dvc.lock") / "dvc.lock"
    write_lock(root, trained="1", tested="1")
    files.write_bytes(lock, (root / "dvc.lock").read_bytes())
    assert list(offers.offers(root).here) == ["workspace"]
    hash = md5_of(root / paths.UTTERANCES)
    cached = root / ".dvc/cache/files/md5" / hash[:2] / hash[2:]
    files.write_bytes(cached, (root / paths.UTTERANCES).read_bytes())
    offers.of_runs.clear()
    assert list(offers.offers(root).here) == ["workspace", "key of good"]


def test_kept_results_and_those_of_kept_models_are_opened(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results under .cache/results, and what `make keep` put under reports/kept."""
    for folder in (root / ".cache/results/f/1", root / "kept-report"):
        write_evaluation(folder, LINES)
    kept = root / paths.KEPT_REPORTS
    kept.mkdir()
    (root / "kept-report/reports/evaluate").rename(kept / "base")
    hash = md5_of(kept / "base/utterances.parquet")
    files.write_json(kept / "base.json", {"metrics": report(), "utterances": hash})
    (kept / "damaged").mkdir()
    (kept / "damaged/utterances.parquet").touch()
    (kept / "damaged.json").write_text("{")
    knows(
        monkeypatch,
        run("ours", Revision("ours", "f/1", RESULT)),
        run("base", Revision("base", f"{revisions.KEPT}12", PUBLISHED)),
        run("bare", Revision("bare", f"{revisions.KEPT}34", PUBLISHED)),
        run("damaged", Revision("damaged", f"{revisions.KEPT}56", PUBLISHED)),
    )
    assert list(offers.offers(root).here) == ["workspace", "key of ours", "key of base"]
    for name in ("ours", "base"):
        at = drawn(results=f"key of {name}")
        assert wer_remark(at, name)
        assert not at.code, "no commit holds their recordings"
    assert wer_remark(drawn(results="key of base"), "base").endswith(REPORTED)


@pytest.mark.usefixtures("root")
def test_of_results_that_no_commit_holds_no_fetch_is_promised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    knows(monkeypatch, run("lost"))
    at = drawn(results="key of lost")
    assert "The results of lost are not on this computer. No commit holds them" in text(at)
    assert not at.code
