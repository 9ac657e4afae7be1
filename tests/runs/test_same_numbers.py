"""One store, read by summary, keep, MLflow and the table of runs: the same numbers, each of the
model it belongs to, whatever the workspace holds.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from asr import doctor, dvc_hashes, paths
from asr.errors import DataError
from asr.evaluation import slices
from asr.runs import (
    comparison,
    dvc_cache,
    keep,
    refresh,
    reports,
    results,
    revision_facts,
    revisions,
    run_rows,
)
from asr.runs.revisions import PUBLISHED, RESULT
from asr.runs.run_rows import RunRow
from asr.runs.tested import TEST_IT, read_lock
from asr.storage import files
from asr.tracking import client
from asr.tracking import results as kept_results
from support.experiments import LEARNT
from support.pipeline import Workspace, copied
from support.repository import write_params
from support.waiting import wait_for

SCORES = ("wer", "wer_low", "wer_high", "cer", "rows", "words")


@pytest.fixture(scope="module")
def synced(learnt: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The default run, and the experiments `brief` and `learnt`, all that MLflow should know."""
    made = copied(learnt.root.parent, tmp_path_factory.mktemp("synced"))
    made.run("python", "-m", "asr", "sync")
    return made


@pytest.fixture
def store(synced: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy; the workspace holds the model `learnt`."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "clone"))
    return copied(synced.root.parent, tmp_path)


def table() -> dict[str, RunRow]:
    """The rows by name."""
    refresh.refresh(talk=False)
    rows = run_rows.rows()
    named = {row.name: row for row in rows}
    assert len(named) == len(rows)
    return named


def logged(row: RunRow) -> dict[str, float]:
    """What MLflow holds of the test of a training."""
    (test,) = (
        run
        for page in client.read_runs(client.connect())
        for run in page
        if run["parent"] == row.run_id
    )
    return {name.removeprefix("test/"): value for name, value in test["metrics"].items()}


def test_summary_keep_mlflow_and_the_table_say_the_same_numbers(store: Workspace) -> None:
    row = table()["learnt"]
    report = files.read_json(store.root / paths.METRICS)
    keep.keep(store.root, "mine")
    kept = files.read_json(store.root / paths.KEPT_REPORTS / "mine.json")
    for said in (report, logged(row), kept["metrics"], report["models"]["finetuned"]):
        assert {name: row.scores[name] for name in SCORES} == {name: said[name] for name in SCORES}
    assert f"WER after training   {results.interval(row.scores)}" in results.summary(store.root)
    assert results.interval(row.scores) in results.kept_table(store.root / paths.KEPT_REPORTS)
    summary = files.read_json(store.root / paths.SUMMARY)
    assert (row.best_wer, row.best_step) == (summary["best_validation_wer"], summary["best_step"])
    assert (kept["best_validation_wer"], kept["best_step"]) == (row.best_wer, row.best_step)


def test_pages_draw_the_interval_of_the_report_wherever_they_read_it(store: Workspace) -> None:
    """Of each model tested, from the workspace, an experiment, a kept result, a kept model."""
    keep.keep(store.root, "mine")
    row = table()["learnt"]
    kinds = {revision.kind for revision in row.results}
    assert kinds == {revisions.WORKSPACE, revisions.EXPERIMENT, RESULT, PUBLISHED}
    scores = files.read_json(store.root / paths.METRICS)["models"]
    for revision in row.results:
        utterances = reports.read_utterances(revisions.fetch(revision, paths.UTTERANCES))
        draws = revision_facts.bootstrap_params(revision)
        models = {name: slices.ModelResults(utterances, "", name) for name in scores}
        for name, told in scores.items():
            drawn = slices.score(slices.of_model(models[name]).rows, slices.COUNTED, *draws)
            interval = drawn[1]
            assert (drawn[0], interval.low, interval.high, interval.unit) == (
                told["wer"],
                told["wer_low"],
                told["wer_high"],
                told["ci_unit"],
            )
        both = slices.compare(models["start"], models["finetuned"])
        gap = slices.difference(both.rows, slices.COUNTED, *draws)
        told = scores["start"]
        assert (gap.difference, gap.low, gap.high, gap.verdict) == (
            pytest.approx(told["difference"]),
            told["difference_low"],
            told["difference_high"],
            told["verdict"],
        )
    assert draws[0] == LEARNT["evaluate.bootstrap_resamples"]


def test_a_model_that_was_not_tested_has_nobody_elses_numbers(store: Workspace) -> None:
    """The control of the test above: a store whose lock is one run behind."""
    before = table()["learnt"]
    write_params(store.root / "params.yaml", {**LEARNT, "train.max_steps": 24})
    store.run("dvc", "repro", "train", WORKERS="1")
    fingerprint = files.read_json(store.root / paths.RUN)["fingerprint"]
    wait_for(
        lambda: store.run("python", "-m", "asr", "sync") and f"repro-{fingerprint[:8]}" in table()
    )
    rows = table()
    row = rows[f"repro-{fingerprint[:8]}"]
    assert (row.scores, row.untested, row.results) == ({}, "not tested yet", ())
    assert row.best_wer is not None
    assert (row.params["train.max_steps"], row.best_step) == (24, 24)
    assert rows["learnt"].scores == before.scores, "the training before keeps its own"
    for refused in (lambda: keep.keep(store.root, "mine"), lambda: results.summary(store.root)):
        with pytest.raises(DataError) as caught:
            refused()
        assert str(caught.value) == f"not tested yet; {TEST_IT}"
    owner, reason = run_rows.workspace_results([*rows.values()])
    assert owner is not None
    assert (owner.name, reason) == ("learnt", "not tested yet")
    store.run("dvc", "repro", "evaluate")
    tested = table()[row.name]
    assert tested.scores["wer"] == files.read_json(store.root / paths.METRICS)["wer"]
    owner, reason = run_rows.workspace_results(run_rows.rows())
    assert (owner and owner.name, reason) == (row.name, "")


def test_what_dvc_lock_does_not_know_is_never_kept(store: Workspace) -> None:
    for file in (paths.RUN, paths.METRICS, paths.UTTERANCES, f"{paths.MODEL}/config.json"):
        path = store.root / file
        content = path.read_bytes()
        path.unlink()  # a link into DVC's cache
        path.write_bytes(content + b" ")
        with pytest.raises(DataError) as caught:
            keep.keep(store.root, "mine")
        name = file.removesuffix("/config.json")
        assert str(caught.value) == f"{name} is not the one that dvc.lock knows; {TEST_IT}"
        path.write_bytes(content)
    assert not (store.root / paths.KEPT_MODELS / "mine").exists()
    assert not [*(store.root / paths.KEPT_REPORTS).glob("*")]
    keep.keep(store.root, "mine")


def test_no_experiment_takes_the_results_of_another_away(store: Workspace) -> None:
    """What no commit and no experiment holds: its scores, interval, size, utterances, verdict."""
    before = table()
    store.run("dvc", "exp", "remove", "brief")
    start = store.run("git", "rev-list", "--max-parents=0", "HEAD").strip()
    store.run("git", "update-ref", "refs/heads/main", start)
    after = table()
    assert before.keys() == after.keys()
    for name, row in after.items():
        assert row.scores == before[name].scores
        assert row.parameters == before[name].parameters
        assert (row.best_wer, row.best_step) == (before[name].best_wer, before[name].best_step)
        assert RESULT in {revision.kind for revision in row.results}
        assert comparison.errors_of(row) == comparison.errors_of(before[name])
    assert {revision.kind for revision in after["brief"].revisions} == {RESULT}
    assert comparison.paired(after["learnt"], after["brief"]).verdict in ("better", "worse")
    revision = revisions.find("brief")
    assert revisions.fetch(revision, paths.CHECKS).is_file()
    with pytest.raises(DataError, match="was not kept"):
        revisions.fetch(revision, paths.MODEL)


def clone(store: Workspace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh clone, without DVC's cache and without MLflow."""
    target = store.root.parent / "fresh"
    subprocess.run(["git", "clone", "-q", store.root, target], check=True)
    monkeypatch.setenv("DVC_ROOT", str(target))
    return target


def test_what_the_repository_publishes_is_there_in_a_fresh_clone(
    store: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = table()
    keep.keep(store.root, "mine")
    store.run("git", "add", paths.KEPT_REPORTS)
    store.run("git", "commit", "-qm", "keep", "--", paths.KEPT_REPORTS)
    default = next(row for name, row in before.items() if name not in ("brief", "learnt"))
    heard, curves = comparison.errors_of(before["learnt"]), run_rows.curves(default)
    target = clone(store, monkeypatch)
    rows = table()
    assert rows.keys() == {"published", "mine"}
    for row, known in ((rows["published"], default), (rows["mine"], before["learnt"])):
        assert [revision.kind for revision in row.revisions] == [PUBLISHED]
        assert {name: row.scores[name] for name in SCORES} == {
            name: known.scores[name] for name in SCORES
        }
        assert (row.best_wer, row.best_step) == (known.best_wer, known.best_step)
        for key in ("train.max_steps", "download.source", "evaluate.seed"):
            assert row.params[key] == known.params[key]
    assert comparison.errors_of(rows["mine"]) == heard
    assert results.summary(target).startswith("WER of the start")
    with pytest.raises(DataError):
        comparison.errors_of(rows["published"])
    assert run_rows.curves(rows["published"]) == curves


def test_what_is_published_gives_way_where_the_same_training_is_known(
    store: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the hash of run.json; a published training of the same params with another hash stays."""
    (default,) = {*table()} - {"brief", "learnt"}
    target = clone(store, monkeypatch)
    (result,) = (store.root / ".cache/results").glob(f"{default.removeprefix('repro-')}*/*")
    assert table().keys() == {"published"}
    kept = target / ".cache/results" / result.parent.name / result.name
    shutil.copytree(result, kept)
    assert [row.fingerprint for row in table().values()] == [result.parent.name]
    shutil.rmtree(kept.parent)
    for path in (paths.RUN, paths.UTTERANCES):
        (target / path).write_bytes((result / path).read_bytes())
    assert [row.fingerprint for row in table().values()] == [result.parent.name]
    assert {one.kind for row in run_rows.rows() for one in row.revisions} == {
        revisions.WORKSPACE,
        PUBLISHED,
    }


def test_a_kept_report_that_is_damaged_is_believed_nowhere(store: Workspace) -> None:
    keep.keep(store.root, "mine")
    top = store.root / paths.KEPT_REPORTS

    def no_report() -> None:
        files.write_json(top / "mine.json", {"fingerprint": "f" * 32, "metrics": []})

    for harm in (
        lambda: (top / "mine/utterances.parquet").write_bytes(b"PAR1"),
        lambda: (top / "mine/utterances.parquet").unlink(),
        no_report,
    ):
        harm()
        (kept,) = (one for one in revisions.with_reports() if one.name == "mine")
        with pytest.raises(DataError):
            revisions.fetch(kept, paths.UTTERANCES)
        scores: dict[str, Any] = revision_facts.read(kept)[1].get("scores", {})
        assert bool(scores) is (harm is not no_report)
    assert table()["learnt"].scores


def test_a_result_appears_whole_and_never_changes(store: Workspace) -> None:
    (result,) = (one for one in kept_results.kept() if one.name == "learnt")
    folder = kept_results.folder(result.key)
    before = {path: dvc_hashes.of_file(folder / path) for path in files_in(folder)}
    assert {*before} == {"about.json", *kept_results.REPORTS}
    again = {path: store.root / path for path in kept_results.REPORTS}
    again[paths.METRICS].write_text("{}")  # such as another speed
    kept_results.keep(again, result.model, result.params)
    assert before == {path: dvc_hashes.of_file(folder / path) for path in files_in(folder)}
    kept_results.keep(again, result.model, {**result.params, "evaluate.seed": 2})
    assert len([one for one in kept_results.kept() if one.name == "learnt"]) == 2
    del again[paths.RUN]
    with pytest.raises(KeyError):
        kept_results.keep(again, "another model", result.params)
    again[paths.RUN] = store.root / "gone"
    with pytest.raises(FileNotFoundError):
        kept_results.keep(again, "another model", result.params)
    assert len(kept_results.kept()) == 4, "whole or not at all"
    assert not [one for one in doctor.drafts(store.root) if "results" in one.what]


def test_results_that_only_dvcs_cache_has_are_brought(store: Workspace) -> None:
    """Those of a training before this one, that DVC restored, or that a colleague pushed."""
    before = {one.key for one in kept_results.kept()}
    assert len(before) == 3
    assert dvc_cache.bring_results(store.root) >= 3
    assert {one.key for one in kept_results.kept()} == before, "kept already"
    assert dvc_cache.bring_results(store.root) == 0, "each entry is looked at once"
    shutil.rmtree(kept_results.folder())
    learnt = files.read_json(store.root / paths.RUN)["fingerprint"]
    lock = read_lock(store.root, store.root / "dvc.lock")
    gone = dvc_cache.file_of(store.root, lock.written[paths.UTTERANCES])
    assert gone
    gone.unlink()  # as `dvc gc` does
    dvc_cache._seen.clear()
    dvc_cache.bring_results(store.root)
    assert {one.key for one in kept_results.kept()} == {
        key for key in before if not key.startswith(learnt)
    }


def files_in(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
