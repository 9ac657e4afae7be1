"""Results are kept whole or not at all, by their fingerprint, in the repository that owns them."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from asr import paths
from asr.storage import files
from asr.tracking import journal, results
from support import journals

PARAMS = {"evaluate.seed": 1}


def reports(folder: Path, fingerprint: str = "f" * 32) -> dict[str, Path]:
    """The reports of a training and its test, as `evaluate` finds them."""
    found = {path: folder / path for path in results.REPORTS}
    for path, file in found.items():
        files.write_text(file, f"{path} of {fingerprint}")
    files.write_json(found[paths.RUN], {"fingerprint": fingerprint})
    return found


def test_a_folder_that_is_thrown_away_leaves_its_results_in_its_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `dvc exp run --temp` works: elsewhere, by relative paths, with DVC_ROOT set."""
    elsewhere = tmp_path / ".dvc/tmp/exps/tmpx"
    there = reports(elsewhere)
    monkeypatch.chdir(elsewhere)
    relative = {path: file.relative_to(elsewhere) for path, file in there.items()}
    folder = results.keep(relative, "model", PARAMS)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(elsewhere)
    assert folder.is_relative_to(tmp_path / ".cache/results" / ("f" * 32))
    (kept,) = results.kept()
    assert (kept.model, kept.params) == ("model", PARAMS)
    for path in results.REPORTS:
        assert (results.folder(kept.key) / path).is_file()


def test_a_result_has_the_name_that_its_run_was_given_first(tmp_path: Path) -> None:
    fingerprint = "a" * 32
    path = journal.path_of(fingerprint)
    for name in ("tense-vega", "calm-lyre"):  # it was stopped, and resumed by another experiment
        journals.begin(path, name)
    results.keep(reports(tmp_path, fingerprint), "model", PARAMS)
    results.keep(reports(tmp_path, "b" * 32), "model", PARAMS)
    assert [kept.name for kept in results.kept()] == ["tense-vega", f"repro-{'b' * 8}"]


def test_each_model_test_and_way_to_test_is_a_result_of_its_own(tmp_path: Path) -> None:
    there = reports(tmp_path)
    results.keep(there, "model", PARAMS)
    results.keep(there, "model", PARAMS)
    assert len(results.kept()) == 1, "the control: the same again"
    results.keep(there, "another", PARAMS)
    results.keep(there, "model", {"evaluate.seed": 2})
    files.write_text(there[paths.UTTERANCES], "another test")
    results.keep(there, "model", PARAMS)
    assert len(results.kept()) == 4


def test_what_ends_half_way_leaves_nothing_and_is_kept_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = reports(tmp_path)
    copied: list[Path] = []

    def full_disk(source: Path, target: Path) -> None:
        copied.append(source)
        if len(copied) == 4:
            raise OSError(28, "No space left on device")
        target.write_bytes(source.read_bytes())

    with monkeypatch.context() as patch:
        patch.setattr(results.shutil, "copyfile", full_disk)
        with pytest.raises(OSError, match="No space"):
            results.keep(there, "model", PARAMS)
    assert results.kept() == []
    assert [path for path in results.folder().rglob("*") if path.is_file()] == []
    results.keep(there, "model", PARAMS)
    assert len(results.kept()) == 1


def test_two_at_once_keep_one(tmp_path: Path) -> None:
    there = reports(tmp_path)
    threads = [
        threading.Thread(target=results.keep, args=(there, "model", PARAMS)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results.kept()) == 1


@pytest.mark.parametrize("fingerprint", ["../../outside", "", "/etc", "a/b"])
def test_a_foreign_fingerprint_never_becomes_a_path(tmp_path: Path, fingerprint: str) -> None:
    with pytest.raises(ValueError, match="no fingerprint"):
        results.keep(reports(tmp_path, fingerprint), "model", PARAMS)
    assert results.kept() == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": 1}', '{"params": null}'])
def test_a_damaged_result_is_passed_over(tmp_path: Path, content: str) -> None:
    whole = results.keep(reports(tmp_path), "model", PARAMS)
    hurt = results.keep(reports(tmp_path), "another", PARAMS)
    (hurt / results.ABOUT).write_text(content)
    assert [kept.key for kept in results._kept(results.folder(), 0)] == [
        whole.relative_to(results.folder()).as_posix()
    ]
