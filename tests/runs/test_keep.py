"""Keeping a model: a copy that no stage deletes, and what it is, without paths, dates or speeds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from asr import dvc_hashes
from asr.errors import DataError, ParamsError, exit_with
from asr.runs import keep
from asr.storage import files

SCORES = {
    "wer": 0.25,
    "wer_low": 0.2,
    "wer_high": 0.3,
    "cer": 0.1,
    "ci_unit": "speaker",
    "rows": 240,
    "rtfx": 123.4,
}


def workspace(
    root: Path,
    weights: bytes = b"weights",
    rtfx: float = 123.4,
    failed: dict[str, Any] | None = None,
) -> Path:
    """A repository after `dvc repro`, without the sound."""
    files.write_bytes(root / "models/finetuned/model.safetensors", weights)
    files.write_json(root / "data/raw/manifest.json", {"name": "synthetic-sv", "rows": 3})
    params = {
        "download.path": "/home/someone/corpus",
        "model.name": "/home/someone/model",
        "train.max_steps": 1000,
        "train.seed": 1,
    }
    run: dict[str, Any] = {
        "fingerprint": "f" * 32,
        "best_step": 750,
        "params": params,
        "start": {"name": "scratch", "revision": None, "sha256": "0"},
    }
    files.write_json(root / "reports/train/run.json", run)
    summary = {"window_seconds": 5, "best_validation_wer": 0.2}
    files.write_json(root / "reports/train/summary.json", summary)
    checks = {"loss": {"passed": True, "detail": "fine"}, **(failed or {})}
    files.write_json(root / "reports/train/checks.json", checks)
    files.write_bytes(root / "reports/evaluate/utterances.parquet", b"what was heard")
    scores = {**SCORES, "rtfx": rtfx}
    models = {"finetuned": scores, "start": {**scores, "wer": 0.9}}
    files.write_json(
        root / "reports/evaluate/metrics.json", {**scores, "test_hash": "t", "models": models}
    )
    return root


def test_checks_that_failed_are_said_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = {"weights": {"passed": False, "detail": "fc1 stayed where it was"}}
    keep.keep(workspace(tmp_path, failed=failed), "lazy")
    kept = files.read_json(tmp_path / "reports/kept/lazy.json")
    assert kept["failed_checks"] == {"weights": "fc1 stayed where it was"}
    line = "CHECK FAILED in its training: weights: fc1 stayed where it was"
    assert line in capsys.readouterr().out


def test_the_model_is_copied_and_its_provenance_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep.keep(workspace(tmp_path), "base-sv")
    assert (tmp_path / "models/kept/base-sv/model.safetensors").read_bytes() == b"weights"
    kept = files.read_json(tmp_path / "reports/kept/base-sv.json")
    assert (
        kept["corpus"],
        kept["start"]["name"],
        kept["best_step"],
        kept["max_steps"],
        kept["window_seconds"],
    ) == (
        "synthetic-sv",
        "scratch",
        750,
        1000,
        5,
    )
    assert (kept["metrics"]["wer"], kept["metrics"]["models"]["start"]["wer"]) == (0.25, 0.9)
    assert kept["best_validation_wer"] == 0.2
    table = tmp_path / "reports/kept/base-sv/utterances.parquet"
    assert table.read_bytes() == b"what was heard"
    assert kept["utterances"] == dvc_hashes.of_file(table)
    assert (
        capsys.readouterr().out
        == "kept as models/kept/base-sv; go on from it with -S model.name=models/kept/base-sv\n"
    )


def test_provenance_holds_no_paths_and_no_speeds(tmp_path: Path) -> None:
    keep.keep(workspace(tmp_path), "a")
    text = (tmp_path / "reports/kept/a.json").read_text(encoding="utf-8")
    assert "someone" not in text
    assert "rtfx" not in text


def test_the_same_model_gives_the_same_file_on_a_slower_day(tmp_path: Path) -> None:
    keep.keep(workspace(tmp_path), "a")
    keep.keep(workspace(tmp_path, rtfx=7.0), "b")
    assert (tmp_path / "reports/kept/a.json").read_bytes() == (
        tmp_path / "reports/kept/b.json"
    ).read_bytes()


def test_a_name_used_again_holds_the_new_model_only(tmp_path: Path) -> None:
    files.write_bytes(workspace(tmp_path) / "models/finetuned/old.json", b"")
    keep.keep(tmp_path, "a")
    (tmp_path / "models/finetuned/old.json").unlink()
    keep.keep(workspace(tmp_path, weights=b"new"), "a")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "models/kept/a").iterdir()] == [
        ("model.safetensors", b"new")
    ]


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "../out", "-x", "a b", "a\n", "å"])
def test_a_name_that_is_no_plain_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ParamsError) as caught:
        keep.keep(workspace(tmp_path), name)
    assert (
        str(caught.value)
        == f"NAME: got {name!r}, want letters, digits, dots and dashes: make keep NAME=base-sv"
    )
    assert caught.value.exit_code == 2
    assert not (tmp_path / "models/kept").exists()


@pytest.mark.parametrize("absent", ["models/finetuned", "reports/evaluate"])
def test_without_an_evaluated_model_nothing_is_kept(tmp_path: Path, absent: str) -> None:
    (workspace(tmp_path) / absent).rename(tmp_path / "elsewhere")
    with pytest.raises(
        DataError, match=r"^there is no evaluated model here; run dvc repro$"
    ) as caught:
        keep.keep(tmp_path, "a")
    assert caught.value.exit_code == 3
    assert not (tmp_path / "models/kept").exists()


@pytest.mark.parametrize(
    "absent",
    [
        "reports/train/run.json",
        "reports/train/summary.json",
        "reports/evaluate/utterances.parquet",
        "data/raw/manifest.json",
    ],
)
def test_a_missing_report_is_told_in_one_line_and_nothing_is_kept(
    tmp_path: Path, absent: str
) -> None:
    (workspace(tmp_path) / absent).unlink()
    with pytest.raises(DataError, match=Path(absent).name):
        keep.keep(tmp_path, "a")
    assert not (tmp_path / "models/kept/a").exists()


def test_the_command_wants_one_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["asr.runs.keep"])
    with pytest.raises(SystemExit) as caught:
        exit_with(keep.main)
    assert caught.value.code == 2
    assert (
        capsys.readouterr().err
        == "error 2: NAME: got '', want letters, digits, dots and dashes: make keep NAME=base-sv\n"
    )
