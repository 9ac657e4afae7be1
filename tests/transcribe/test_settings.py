"""A model decodes as it was evaluated, and else as it does best on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.engines import openvino_engine
from asr.engines.engine import BF16, FP32, OPENVINO, TORCH
from asr.storage import files
from asr.transcribe import settings
from asr.transcribe.settings import Settings, choose
from support.model import lock_model
from support.samples import say_evaluated

TESTED = Settings(OPENVINO, FP32, "greedy")


@pytest.fixture(autouse=True)
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with bfloat16, and without a GPU."""
    monkeypatch.setattr(openvino_engine, "has_bf16", lambda: True)
    monkeypatch.setattr(settings, "GPU", Path("/nowhere"))


BEST = Settings(OPENVINO, BF16, "robust")


@pytest.mark.parametrize("name", ["workspace", "models/finetuned", "models/kept/mine"])
def test_a_model_decodes_as_it_was_evaluated(tmp_path: Path, name: str) -> None:
    for folder in ("models/finetuned", "models/kept/mine", "models/kept/other"):
        (tmp_path / folder).mkdir(parents=True)
    say_evaluated(tmp_path)
    say_evaluated(tmp_path, "mine")
    assert choose(name) == TESTED
    assert choose("models/kept/other") == BEST  # another model, which nobody evaluated


@pytest.mark.parametrize("asked", ["engine", "precision", "decoding"])
def test_what_is_asked_for_overrules_what_was_evaluated(tmp_path: Path, asked: str) -> None:
    say_evaluated(tmp_path)
    given = {"engine": TORCH, "precision": BF16, "decoding": "robust"}[asked]
    found = choose("workspace", **{asked: given})
    assert found == Settings(**{**vars(TESTED), asked: given})


@pytest.mark.parametrize("asked", ["engine", "precision", "decoding", "nothing"])
def test_a_wer_is_told_for_the_settings_alone_that_it_was_measured_with(
    tmp_path: Path, asked: str
) -> None:
    (tmp_path / "models/kept/mine").mkdir(parents=True)
    say_evaluated(tmp_path)
    say_evaluated(tmp_path, "mine")
    other = {"engine": TORCH, "precision": BF16, "decoding": "robust"}
    given = {asked: other[asked]} if asked in other else {}
    for name in ("workspace", "models/kept/mine"):
        wanted = None if given else 0.109
        assert settings.tested_wer(name, choose(name, **given)) == wanted
    assert settings.tested_wer("models/kept/other", choose("models/kept/other")) is None


def of_another_model(root: Path) -> None:
    (root / "models/finetuned").mkdir(parents=True)
    lock_model(root, "7d93b370aaaa")  # trained, and not evaluated since


def of_an_older_version(root: Path) -> None:
    files.write_json(root / "reports/evaluate/metrics.json", {"wer": 0.1})


def of_a_later_version(root: Path) -> None:
    scores = {"engine": "abacus", "precision": "fp32", "decoding": "greedy"}
    files.write_json(root / "reports/evaluate/metrics.json", scores)


def damaged(root: Path) -> None:
    files.write_text(root / "reports/evaluate/metrics.json", "{")


def no_object(root: Path) -> None:
    files.write_text(root / "reports/evaluate/metrics.json", json.dumps([1]))


def absent(root: Path) -> None:
    (root / "reports/evaluate/metrics.json").unlink()


@pytest.mark.parametrize(
    "scores",
    [of_another_model, of_an_older_version, of_a_later_version, damaged, no_object, absent],
)
def test_scores_that_are_not_the_models_settle_nothing(
    tmp_path: Path, scores: Callable[[Path], None]
) -> None:
    say_evaluated(tmp_path)
    scores(tmp_path)
    assert choose("workspace") == BEST


def test_a_processor_without_bfloat16_gets_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "has_bf16", lambda: False)
    assert choose("workspace") == Settings(OPENVINO, FP32, "robust")


@pytest.mark.parametrize("evaluated", [True, False])
def test_where_there_is_no_openvino_torch_serves_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluated: bool
) -> None:
    if evaluated:
        say_evaluated(tmp_path)
    assert "no OpenVINO" not in choose("workspace").text  # the control
    monkeypatch.setattr(settings, "_has_openvino", lambda: False)
    found = choose("workspace")
    assert found == Settings(TORCH, FP32, "greedy" if evaluated else "robust")
    assert found.text.endswith("; there is no OpenVINO for this machine")
