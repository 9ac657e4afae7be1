"""Scores belong to a model only where dvc.lock ties them to it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from asr import dvc_hashes, paths
from asr.errors import DataError
from asr.runs import dvc_cache, keep, results, revisions
from asr.runs.tested import (
    TEST_IT,
    read_lock,
    why_stale,
    why_unknown,
    why_untested,
    why_untested_at,
)
from support.pipeline import Workspace
from support.runs import utterances, write_lock, write_reports


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A training and its test, without a lock."""
    write_reports(tmp_path, "f" * 32, utterances([1, 0], [None, None]))
    (tmp_path / paths.MODEL).mkdir(parents=True)
    return tmp_path


def test_scores_of_the_model_that_was_tested_are_its_own(root: Path) -> None:
    assert why_untested(root) == "", "without a lock"
    write_lock(root, trained="1", tested="1")
    assert why_untested(root) == ""


@pytest.mark.parametrize(
    ("hashes", "reason"),
    [
        ({"tested": "2"}, "not tested yet"),
        ({"RUN": "2"}, "reports/train/run.json is not the one that dvc.lock knows"),
        ({"METRICS": "2"}, "reports/evaluate/metrics.json is not the one that dvc.lock knows"),
        (
            {"UTTERANCES": "2"},
            "reports/evaluate/utterances.parquet is not the one that dvc.lock knows",
        ),
    ],
)
def test_scores_of_another_model_are_shown_and_kept_nowhere(
    root: Path, hashes: dict[str, str], reason: str
) -> None:
    write_lock(root, **{"trained": "1", "tested": "1", **hashes})
    assert why_untested(root) == reason
    for refused in (lambda: keep.keep(root, "mine"), lambda: results.summary(root)):
        with pytest.raises(DataError) as caught:
            refused()
        assert str(caught.value) == f"{reason}; {TEST_IT}"
    assert not (root / paths.KEPT_MODELS).exists()


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        ((paths.RUN, paths.UTTERANCES), ""),  # a fresh clone: DVC alone holds them
        ((paths.RUN, paths.SUMMARY), "not tested yet"),  # a training that goes on, or was killed
        ((paths.METRICS,), "not tested yet"),  # a test that goes on, or was killed
    ],
)
def test_what_git_holds_must_be_there_and_what_dvc_holds_need_not(
    root: Path, gone: tuple[str, ...], reason: str
) -> None:
    write_lock(root, trained="1", tested="1")
    for path in gone:
        (root / path).unlink()
    assert why_untested(root) == reason


def test_a_report_that_was_changed_by_hand_is_noticed_each_time(root: Path) -> None:
    write_lock(root, trained="1", tested="1")
    whole = (root / paths.METRICS).read_bytes()
    for content in (whole.replace(b"0.1", b"0.0", 1), whole, b"", whole):
        (root / paths.METRICS).write_bytes(content)
        assert (why_untested(root) == "") is (content == whole)


def test_a_lock_without_a_test_or_that_is_damaged_says_so(root: Path) -> None:
    write_lock(root, trained="1", tested="1")
    lock = yaml.safe_load((root / "dvc.lock").read_text())
    del lock["stages"]["evaluate"]
    for content, reason in (
        (yaml.safe_dump(lock), "not tested yet"),
        ("stages: [evaluate]", "dvc.lock cannot be read"),
        ("", "dvc.lock cannot be read"),
        ("<<<<<<< HEAD", "dvc.lock cannot be read"),
    ):
        (root / "dvc.lock").write_text(content)
        assert why_untested(root) == reason


def test_a_real_lock_ties_them_and_any_input_made_anew_unties_them(workspace: Workspace) -> None:
    """Also a folder inside an out: data/features/test, by DVC's listing of data/features."""
    path = workspace.root / "dvc.lock"
    text = path.read_text()
    assert why_untested(workspace.root) == ""
    lock = yaml.safe_load(text)
    made = [
        dep
        for dep in lock["stages"]["evaluate"]["deps"]
        if dep["path"].startswith(("data/", "models/", "reports/"))
    ]
    named = {dep["path"] for dep in made}
    assert {"data/features/test", "data/features/holdout", paths.MODEL, paths.RUN} <= named
    try:
        for dep in made:
            before, dep["md5"] = dep["md5"], "0" * 32
            path.write_text(yaml.safe_dump(lock))
            on_data = dep["path"].startswith("data/")
            expected = "not tested on the present test data yet" if on_data else "not tested yet"
            assert why_untested(workspace.root) == expected, dep["path"]
            dep["md5"] = before
    finally:
        path.write_text(text)


def test_each_revision_is_decided_by_its_own_lock(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit whose lock is of a training that was tested, and one of which only half was."""
    monkeypatch.setenv("DVC_ROOT", str(workspace.root))
    tied = revisions.find("main")
    assert why_untested_at(tied) == why_untested_at(revisions.HERE) == ""
    path = workspace.root / "dvc.lock"
    text = path.read_text()
    lock = yaml.safe_load(text)
    (model,) = (out for out in lock["stages"]["train"]["outs"] if out["path"] == paths.MODEL)
    model["md5"] = f"{'0' * 32}.dir"
    path.write_text(yaml.safe_dump(lock))
    workspace.commit("trained anew, not tested")
    try:
        assert why_untested_at(revisions.find("main")) == "not tested yet"
        assert why_untested_at(tied) == "", "a commit never changes"
    finally:
        workspace.run("git", "reset", "-q", "--hard", "HEAD~1")


@pytest.mark.parametrize("stage", ["stats", "chunk", "featurize", "train"])
def test_statistics_are_of_the_data_that_dvc_lock_says_they_were_made_from(
    workspace: Workspace, stage: str
) -> None:
    path = workspace.root / "dvc.lock"
    text = path.read_text()
    assert why_stale(workspace.root, stage) == ""
    lock = yaml.safe_load(text)
    (dep,) = [dep for dep in lock["stages"][stage]["deps"] if dep["path"].startswith("data/")][:1]
    dep["md5"] = f"{'0' * 32}.dir"
    try:
        path.write_text(yaml.safe_dump(lock))
        assert (
            why_stale(workspace.root, stage) == f"{dep['path']} was made anew after {stage} read it"
        )
        del lock["stages"][stage]
        path.write_text(yaml.safe_dump(lock))
        assert why_stale(workspace.root, stage) == f"{stage} has not run yet"
    finally:
        path.write_text(text)


@pytest.mark.parametrize("file", ["data/raw/manifest.json", paths.STATS])
def test_data_and_statistics_that_dvc_lock_does_not_know_are_noticed(
    workspace: Workspace, file: str
) -> None:
    path = workspace.root / file
    whole = path.read_bytes()
    try:
        path.unlink()  # it may be a link into DVC's cache
        path.write_bytes(whole.replace(b"{", b"{ ", 1))
        assert why_stale(workspace.root, "stats") == f"{file} is not the one that dvc.lock knows"
    finally:
        path.write_bytes(whole)
    assert why_stale(workspace.root, "stats") == ""


def test_a_model_is_never_said_to_be_of_a_corpus_that_came_after_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `dvc repro download` for another corpus its scores are still its own."""
    monkeypatch.setenv("DVC_ROOT", str(workspace.root))
    path = workspace.root / "dvc.lock"
    text = path.read_text()
    assert "audio  " in results.summary(workspace.root)
    lock = yaml.safe_load(text)
    (raw,) = (out for out in lock["stages"]["download"]["outs"] if out["path"] == paths.RAW)
    raw["md5"] = f"{'0' * 32}.dir"
    path.write_text(yaml.safe_dump(lock))
    try:
        assert why_untested(workspace.root) == ""
        assert "audio  " not in results.summary(workspace.root)
        with pytest.raises(DataError, match="corpus is not here: data/raw was made anew after"):
            keep.keep(workspace.root, "mine")
    finally:
        path.write_text(text)


def test_a_folder_has_the_hash_that_dvc_gives_it(workspace: Workspace) -> None:
    lock = read_lock(workspace.root, workspace.root / "dvc.lock")
    assert dvc_hashes.of_folder(workspace.root / paths.MODEL) == lock.written[paths.MODEL]


LOST = {  # the input that was made anew since a stage read it, and whose time is not the model's
    ("chunk", "data/raw"): {"download", "stats"},
    ("featurize", "data/chunks"): {"download", "stats", "chunk"},
    ("train", "data/features/train"): {"download", "stats", "chunk", "featurize"},
    ("evaluate", "data/features/test"): {"download", "stats", "chunk", "featurize"},
    ("stats", "data/raw"): {"stats"},
}


@pytest.mark.parametrize(("stage", "path"), LOST)
def test_minutes_of_a_stage_that_ran_again_are_not_the_older_models(
    workspace: Workspace, stage: str, path: str
) -> None:
    lock_path = workspace.root / "dvc.lock"
    text = lock_path.read_text()
    assert [*results.timings(workspace.root)] == [*results.STAGES]
    lock = yaml.safe_load(text)
    (dep,) = [dep for dep in lock["stages"][stage]["deps"] if dep["path"] == path]
    dep["md5"] = f"{'0' * 32}.dir"
    lock_path.write_text(yaml.safe_dump(lock))
    try:
        lost = LOST[stage, path]
        assert {*results.timings(workspace.root)} == {*results.STAGES} - lost
        assert not [one for one in lost if f" {one} " in results.times(workspace.root)]
    finally:
        lock_path.write_text(text)


def test_minutes_that_dvc_lock_does_not_know_are_no_ones(workspace: Workspace) -> None:
    """A stage was killed after it wrote them."""
    path = workspace.root / "reports/chunk/timing.json"
    whole = path.read_bytes()
    path.unlink()  # it may be a link into DVC's cache
    path.write_text('{"seconds": 9999}')
    try:
        assert {*results.STAGES} - {*results.timings(workspace.root)} == {"chunk"}
        assert "9999" not in results.times(workspace.root)
    finally:
        path.unlink()
        path.write_bytes(whole)


def test_a_folder_whose_files_are_not_listed_counts_as_unknown_and_not_as_unchanged(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `dvc pull` of the model alone: its scores are its own, its data may be others."""
    root = workspace.root
    monkeypatch.setenv("DVC_ROOT", str(root))
    assert why_unknown(root) == "", "the control"
    lock = read_lock(root, root / "dvc.lock")
    listing = dvc_cache.file_of(root, lock.written[paths.FEATURES])
    assert listing
    aside = listing.rename(root / "listing")
    try:
        assert why_untested(root) == ""
        reason = why_unknown(root)
        assert reason.startswith("whether data/features/train is as train read it is not known")
        said = results.summary(root)
        assert f"not known            {reason}" in said
        assert "audio  " not in said
        assert {*results.timings(root)} == {"train", "evaluate"}
        with pytest.raises(DataError, match="is not known, for DVC's cache lacks the list"):
            keep.keep(root, "mine")
    finally:
        aside.rename(listing)
    assert why_unknown(root) == ""
