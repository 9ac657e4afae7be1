"""Scores belong to a model only where dvc.lock ties them to it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from asr import paths
from asr.errors import DataError
from asr.runs import keep, results
from asr.runs.tested import why_untested
from asr.storage import files
from support.pipeline import Workspace
from support.runs import write_lock


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files.write_json(tmp_path / paths.RUN, {"fingerprint": "f"})
    files.write_json(tmp_path / paths.METRICS, {"wer": 0.1})
    (tmp_path / paths.MODEL).mkdir(parents=True)
    return tmp_path


def test_scores_of_the_model_that_was_tested_are_its_own(root: Path) -> None:
    assert why_untested(root) is None, "without a lock"
    write_lock(root, trained="1", tested="1")
    assert why_untested(root) is None


@pytest.mark.parametrize(
    ("hashes", "reason"),
    [
        ({"tested": "2"}, "models/finetuned was made anew after the last test"),
        ({"RUN": "2"}, "reports/train/run.json is not the one that dvc.lock knows"),
        ({"METRICS": "2"}, "reports/evaluate/metrics.json is not the one that dvc.lock knows"),
    ],
)
def test_scores_of_another_model_are_shown_and_kept_nowhere(
    root: Path, hashes: dict[str, str], reason: str
) -> None:
    write_lock(root, **{"trained": "1", "tested": "1", **hashes})
    assert why_untested(root) == reason
    for refused in (lambda: keep.keep(root, "mine"), lambda: results.summary(root)):
        with pytest.raises(DataError, match=f"^{reason}, so the scores here are another model's"):
            refused()
    assert not (root / paths.KEPT_MODELS).exists()


def test_a_lock_without_a_test_or_that_is_damaged_says_so(root: Path) -> None:
    write_lock(root, trained="1", tested="1")
    lock = yaml.safe_load((root / "dvc.lock").read_text())
    del lock["stages"]["evaluate"]
    for content, reason in (
        (yaml.safe_dump(lock), "no model was tested yet"),
        ("stages: [evaluate]", "dvc.lock cannot be read"),
        ("", "dvc.lock cannot be read"),
    ):
        (root / "dvc.lock").write_text(content)
        assert why_untested(root) == reason


def test_a_real_lock_ties_them_and_any_input_made_anew_unties_them(workspace: Workspace) -> None:
    """Also a folder inside an out: data/features/test, by DVC's listing of data/features."""
    path = workspace.root / "dvc.lock"
    text = path.read_text()
    assert why_untested(workspace.root) is None
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
            assert (
                why_untested(workspace.root) == f"{dep['path']} was made anew after the last test"
            )
            dep["md5"] = before
    finally:
        path.write_text(text)
