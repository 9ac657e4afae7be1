"""Stores and reports that tests of runs share: real MLflow stores filled through the journal,
reports as the stages write them.
"""

from __future__ import annotations

import random
import shutil
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from asr import dvc_hashes, paths
from asr.storage import files
from asr.tracking import client, journal
from asr.tracking.uploader import RunUploader
from support import journals

PARAMS = {
    "model.name": "scratch",
    "train.learning_rate": "auto",
    "train.max_steps": 40,
    "train.seed": 1,
    "model.dropout": 0.0,
}


def training(
    name: str = "repro", steps: int = 40, ended: str | None = "FINISHED", **changed: Any
) -> Path:
    """The journal of a training, with a validation at each tenth step."""
    path = journal.path_of(uuid.uuid4().hex)
    journals.begin(path, name, {**PARAMS, **changed})
    go_on(path, range(1, steps + 1), ended)
    return path


def go_on(path: Path, steps: range, ended: str | None = "FINISHED") -> None:
    for step in steps:
        journal.append(
            path, "metrics", step=step, values={"train/loss": 5 / step, "train/learning_rate": 1e-3}
        )
        if step % 10 == 0:
            journal.append(
                path,
                "metrics",
                step=step,
                values={"validation/loss": 6 / step, "validation/wer": 0.9 / step},
            )
    if ended:
        journal.append(path, "end", status=ended)


def evaluation(path: Path, wer: float) -> None:
    """The result of a test that no other is like."""
    journals.evaluation(path, uuid.uuid4().hex, wer, step=40)


def new_store(target: Path, template: Path) -> None:
    """An empty store; making one takes MLflow three seconds, so one is copied."""
    shutil.copy(template, target / "mlflow.db")


def mirror(*paths: Path) -> None:
    """What the follower of a training does, without closing runs that go on."""
    for path in paths:
        RunUploader(path, client.connect()).catch_up()


def utterances(errors: list[int], speakers: list[str | None], words: int = 5) -> pa.Table:
    """An utterance table in the form that `evaluate` writes."""
    count = len(errors)
    columns = {
        "id": [f"u{number}" for number in range(count)],
        "model": ["finetuned"] * count,
        "hits": [words - wrong for wrong in errors],
        "substitutions": errors,
        "deletions": [0] * count,
        "insertions": [0] * count,
        "speaker": pa.array(speakers, pa.string()),
    }
    return pa.table(columns)


def write_reports(
    root: Path, fingerprint: str, table: pa.Table, test_hash: str = "t1", **scores: Any
) -> None:
    """What a finished training and its test leave in reports/."""
    wrong, words = (
        sum(table["substitutions"].to_pylist()),
        sum(table["hits"].to_pylist()) + sum(table["substitutions"].to_pylist()),
    )
    wer = wrong / words
    known = {
        "wer": wer,
        "cer": wer / 2,
        "wer_low": wer - 0.01,
        "wer_high": wer + 0.01,
        "rtfx": 123.0,
        "rows": len(table),
    }
    files.write_json(
        root / paths.RUN,
        {"fingerprint": fingerprint, "params": {**PARAMS, "train.learning_rate": 0.001}},
    )
    files.write_json(
        root / paths.METRICS, {**known, "test_hash": test_hash, "models": {}, **scores}
    )
    files.write_json(root / paths.SUMMARY, {"parameters": 1277184})
    files.write_json(root / "reports/train/timing.json", {"seconds": 60.5})
    files.write_text(
        root / paths.STEPS,
        "step,train_loss,learning_rate,validation_loss,validation_wer\n10,0.5,0.001,0.6,0.09\n",
    )
    (root / paths.UTTERANCES).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, root / paths.UTTERANCES)


def damaged(content: bytes, seed: int) -> bytes:
    """Bytes changed, a stretch zeroed or the end cut off, by seed."""
    draw, hurt = random.Random(seed), bytearray(content)
    kind = seed % 4
    if kind == 0:
        return bytes(hurt[: draw.randrange(len(hurt))])
    if kind == 1:
        at = draw.randrange(len(hurt))
        hurt[at : at + 4096] = bytes(len(hurt[at : at + 4096]))
        return bytes(hurt)
    for _ in range(1 if kind == 2 else 200):
        hurt[draw.randrange(len(hurt) if kind == 3 else 4096)] = draw.randrange(256)
    return bytes(hurt)


def write_lock(root: Path, trained: str, tested: str, **hashes: str) -> None:
    """A dvc.lock in which a model was trained, and a model was tested.

    Args:
        root: has run.json and metrics.json, and may have more reports; their hashes are taken.
        trained: MD5 of the model that `train` wrote last.
        tested: MD5 of the one that `evaluate` read.
        hashes: other hashes, by the names in `paths`, such as RUN.
    """
    model, code = {"path": paths.MODEL}, {"path": "asr/wer.py", "md5": "0"}
    train = {"outs": [{**model, "md5": trained}, *_outs(root, ("RUN", "SUMMARY"), hashes)]}
    evaluate = {
        "deps": [{**model, "md5": tested}, code],
        "outs": _outs(root, ("METRICS", "UTTERANCES"), hashes),
    }
    stages = {"train": train, "evaluate": evaluate}
    files.write_text(root / "dvc.lock", yaml.safe_dump({"stages": stages}))


def _outs(root: Path, names: tuple[str, ...], hashes: dict[str, str]) -> list[dict[str, str]]:
    """Entries of dvc.lock for those of these reports that are there."""
    outs = {name: getattr(paths, name) for name in names}
    return [
        {"path": path, "md5": hashes.get(name) or dvc_hashes.of_file(root / path)}
        for name, path in outs.items()
        if (root / path).is_file()
    ]
