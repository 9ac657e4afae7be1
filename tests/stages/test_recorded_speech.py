"""Recorded speech through the real stages: what is saved works in plain transformers, and beyond
its window in ours.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from asr import features, windows
from asr.audio import codec
from asr.model import greedy, loader
from asr.params import reader
from asr.storage import files, shards
from asr.whisper import SAMPLE_RATE
from stages import chunk, download, evaluate, featurize, stats
from support.children import Nursery
from support.repository import REPOSITORY, TINY, write_params

DIGITS = REPOSITORY.parent / "shared" / "data" / "digits-en"
RECORDED = {
    **TINY,
    "download.source": "common_voice",
    "download.path": str(DIGITS),
    "download.language": "en",
    "download.max_rows_per_split": 24,
    "model.window_seconds": 10,
    "model.scratch.d_model": 64,
    "train.learning_rate": 3e-3,
    "train.max_steps": 60,
    "train.eval_steps": 60,
    "train.save_steps": 60,
}
# Plain transformers in a fresh process: no module of ours.
PLAIN = """
import json, sys
import numpy as np
from transformers import WhisperForConditionalGeneration, WhisperProcessor
folder, recordings = sys.argv[1:]
processor = WhisperProcessor.from_pretrained(folder)
whisper = WhisperForConditionalGeneration.from_pretrained(folder)
texts = {}
for name, samples in np.load(recordings).items():
    inputs = processor(samples, sampling_rate=16000, return_tensors="pt").input_features
    assert inputs.shape[-1] == 2 * whisper.config.max_source_positions, inputs.shape
    found = processor.batch_decode(whisper.generate(inputs), skip_special_tokens=True)
    texts[name] = found[0].strip()
print(json.dumps(texts))
assert not [name for name in sys.modules if name.split(".")[0] in ("asr", "stages")]
"""
TRAIN = "from asr.errors import exit_with\nfrom stages import train\nexit_with(train.main)"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery, empty_store: Path) -> Path:
    """The six stages on two dozen recordings per split, in a window of 10 s."""
    if not DIGITS.is_dir():
        pytest.skip("no digits-en beside this repository")
    root = tmp_path_factory.mktemp("recorded")
    given = reader.load(write_params(root / "params.yaml", RECORDED))
    shutil.copy(empty_store, root / "mlflow.db")
    before = os.environ.get("DVC_ROOT")
    os.environ["DVC_ROOT"] = str(root)
    try:
        download.run(root / "raw", given.download)
        stats.run(root / "raw", root / "reports/stats", given)
        chunk.run(root / "raw", root / "chunks", root / "reports/chunk", 10, (0.3, 30.0), [])
        featurize.run(root / "chunks", root / "features", 80)
        places = [
            f"{root}/features/train",
            f"{root}/features/validation",
            f"{root}/model",
            f"{root}/reports/train",
        ]
        done = nursery.run(TRAIN, *places, root=root)
        assert done.returncode == 0, done.stdout + done.stderr
        evaluate.run(
            root / "features/test",
            root / "model",
            root / "reports/train",
            root / "reports/evaluate",
            given,
        )
    finally:
        os.environ.pop("DVC_ROOT")
        if before:
            os.environ["DVC_ROOT"] = before
    return root


def recordings(root: Path) -> dict[str, np.ndarray]:
    return {row["id"]: codec.decode(row["audio"]) for row in shards.rows(root / "chunks/test")}


def test_plain_transformers_says_what_the_table_says(trained: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "test.npz", **recordings(trained))
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(trained / "model"), str(tmp_path / "test.npz")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table = pq.read_table(trained / "reports/evaluate/utterances.parquet").to_pylist()
    ours = {line["id"]: line["hypothesis"] for line in table if line["model"] == "finetuned"}
    assert json.loads(done.stdout.splitlines()[-1]) == ours
    assert len(ours) == 24
    assert len(set(ours.values())) > 1, "a model that always says the same shows little"


def test_a_recording_longer_than_the_window_is_cut_decoded_and_joined(trained: Path) -> None:
    one = loader.load_saved(trained / "model")
    longest = sorted(recordings(trained).values(), key=len)[-4:]
    joined = np.concatenate(longest)
    assert len(joined) > 10 * SAMPLE_RATE
    heard = features.log_mel(joined, 80)
    segments = windows.cut(heard, 1000)
    assert len(segments) > 1

    def said(clips: list[Any], seconds: list[float]) -> list[str]:
        return greedy.transcribe(
            one.model, one.tokenizer, seconds, lambda index: clips[index], 8, 444
        )

    whole = said([heard], [len(joined) / SAMPLE_RATE])[0]
    parts = said(
        [segment.features for segment in segments], [segment.duration for segment in segments]
    )
    assert whole == " ".join(filter(None, parts))
    assert whole


def test_the_rows_add_up(trained: Path) -> None:
    summary = files.read_json(trained / "reports/chunk/summary.json")
    assert [split["rows_in"] for split in summary["splits"].values()] == [24, 24, 24, 0]
    assert summary["in_two_splits"]["speaker"] == 0
