"""A converted model is the model, is made once for each state of its files, and needs no torch."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from asr import paths
from asr.decoding import loading, vocabulary
from asr.engines.engine import FP32, OPENVINO, TORCH
from asr.model import loader, tokenization
from asr.model.loader import Start
from support.imports import imported
from support.model import clip, scratch


def saved(folder: Path, seed: int = 1) -> Start:
    start = scratch(seed, init_std=0.5)
    loader.save(start.model, start.tokenizer, folder)
    return start


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a small model, in a workspace of its own."""
    saved(tmp_path / "model")
    return tmp_path / "model"


def converted() -> set[str]:
    return {path.name for path in paths.cache("engines").glob("[0-9a-f]*/")}


def test_a_converted_model_says_what_the_model_says(model: Path) -> None:
    clips, seconds = [clip(1.0), clip(2.4, 1)], [1.0, 2.4]
    texts = []
    for engine in (OPENVINO, TORCH, OPENVINO):
        recognizer = loading.of_folder(model, engine, FP32, "greedy")
        prompts = [recognizer.vocabulary.prompt(None, None, timestamps=False)] * 2
        found = recognizer.hypotheses(clips, seconds, prompts, 40)
        texts.append([(one.ids, recognizer.text(one.ids)) for one in found])
    assert texts[0] == texts[1] == texts[2]
    assert any(ids for ids, _ in texts[0])


def test_the_vocabulary_survives_being_kept_and_prompts_as_the_model_is_prompted(
    model: Path,
) -> None:
    start = loader.load_saved(model)
    known = vocabulary.of_model(start)
    assert vocabulary.from_json(known.as_json()) == known
    assert loading.of_folder(model, OPENVINO, FP32, "greedy").vocabulary == known
    own = tokenization.prompt(start.model.generation_config)
    assert known.prompt(None, None, known.predicts_timestamps) == own


def test_a_model_is_converted_once_and_again_when_its_weights_change(model: Path) -> None:
    loading.of_folder(model, OPENVINO, FP32, "greedy")
    first = converted()
    loading.of_folder(model, OPENVINO, FP32, "robust")
    assert converted() == first
    assert len(first) == 1
    saved(model, seed=2)
    loading.of_folder(model, OPENVINO, FP32, "greedy")
    assert len(converted() - first) == 1


@pytest.mark.parametrize(
    "name", ["encoder.xml", "encoder.bin", "decoder.bin", "vocabulary.json", "tokenizer.json"]
)
def test_a_converted_model_that_is_damaged_is_converted_again(model: Path, name: str) -> None:
    said = loading.of_folder(model, OPENVINO, FP32, "greedy").text(range(40))
    (folder,) = paths.cache("engines").glob("[0-9a-f]*/")
    damaged = folder / name
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    assert loading.of_folder(model, OPENVINO, FP32, "greedy").text(range(40)) == said
    assert len(converted()) == 1


def test_what_nobody_used_for_a_month_goes(model: Path) -> None:
    loading.of_folder(model, OPENVINO, FP32, "greedy")
    (old,) = paths.cache("engines").glob("[0-9a-f]*/")
    long_ago = time.time() - loading.UNUSED_SECONDS - 60
    os.utime(old, (long_ago, long_ago))
    saved(model, seed=2)
    loading.of_folder(model, OPENVINO, FP32, "greedy")
    assert old.name not in converted()
    assert len(converted()) == 1


def test_a_converted_model_is_loaded_without_torch(model: Path) -> None:
    loading.of_folder(model, OPENVINO, FP32, "robust")
    np.save(model.parent / "clip.npy", clip(1.0).mel)
    code = f"""
from pathlib import Path
from asr import paths
paths.root = lambda: Path({str(paths.root())!r})
from asr.decoding import loading
loading.of_folder(Path({str(model)!r}), "openvino", "fp32", "robust")
"""
    assert imported(code, "torch", "transformers", "mlflow", "dvc") == []
