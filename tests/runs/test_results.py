"""The table after `make repro`, and the table of kept models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asr.errors import DataError
from asr.runs import results
from asr.storage import files

AFTER = {
    "wer": 0.12345,
    "wer_low": 0.1,
    "wer_high": 0.15,
    "ci_unit": "utterance",
    "rows": 1240,
    "cer": 0.04321,
}
BEFORE = {"wer": 0.98765, "wer_low": 0.9, "wer_high": 1.01}


def reports(root: Path, models: dict[str, Any]) -> Path:
    """A repository with these reports."""
    folder = root / "reports"
    files.write_json(folder / "evaluate/metrics.json", {**AFTER, "models": models})
    files.write_json(
        folder / "stats/stats.json",
        {
            "durations": {
                "holdout": {"count": 0},
                "train": {"count": 9, "hours": 2.5},
                "test": {"count": 1, "hours": 0.25},
            }
        },
    )
    files.write_json(folder / "train/timing.json", {"seconds": 61.4})
    files.write_json(folder / "evaluate/timing.json", {"seconds": 3.6})
    return root


def kept(folder: Path, name: str, **changes: Any) -> None:
    metrics = {**AFTER, "models": {"finetuned": AFTER, "start": BEFORE}}
    one = {
        "corpus": "synthetic-sv",
        "start": {"name": "scratch"},
        "window_seconds": 5,
        "best_step": 750,
        "max_steps": 1000,
        "metrics": metrics,
    }
    files.write_json(folder / f"{name}.json", {**one, **changes})


def test_summary_tells_before_after_hours_and_seconds(tmp_path: Path) -> None:
    lines = results.summary(reports(tmp_path, {"finetuned": AFTER, "start": BEFORE})).splitlines()
    assert lines[:4] == [
        "WER of the start     0.9877 (0.9000 to 1.0100)",
        (
            "WER after training   0.1235 (0.1000 to 0.1500)   95 % interval by utterance, "
            "1,240 test utterances"
        ),
        "audio                2.50 h train, 0.25 h test",
        "time                 train 61 s, evaluate 4 s; in all 65 s",
    ]
    assert lines[4] == "next:"
    assert "make keep NAME=base" in lines[-1]


def test_summary_without_a_start_leaves_its_line_out(tmp_path: Path) -> None:
    assert results.summary(reports(tmp_path, {"finetuned": AFTER})).startswith(
        "WER after training   0.1235"
    )


def test_summary_of_nothing_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        results.summary(tmp_path)
    assert (
        str(caught.value) == f"{tmp_path}/reports/evaluate/metrics.json: not there; run dvc repro"
    )
    assert caught.value.exit_code == 3


def test_kept_models_stand_in_the_table_by_name(tmp_path: Path) -> None:
    kept(tmp_path, "b", start={"name": "whisper-tiny"})
    kept(tmp_path, "a")
    head, rule, *rows = results.kept_table(tmp_path).splitlines()
    assert head.count("|") == rule.count("|") == 9
    assert rows == [
        (
            "| a | synthetic-sv | scratch | 5 s | 750 of 1,000 | 0.9877 | 0.1235 (0.1000 to "
            "0.1500) | 0.0432 |"
        ),
        (
            "| b | synthetic-sv | whisper-tiny | 5 s | 750 of 1,000 | 0.9877 | 0.1235 "
            "(0.1000 to 0.1500) | 0.0432 |"
        ),
    ]


def test_a_kept_model_that_was_not_compared_with_its_start_has_an_empty_cell(
    tmp_path: Path,
) -> None:
    kept(tmp_path, "a", metrics={**AFTER, "models": {"finetuned": AFTER}})
    assert "| 750 of 1,000 |  | 0.1235" in results.kept_table(tmp_path)
