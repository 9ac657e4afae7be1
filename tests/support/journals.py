"""Journals of trainings as `train` and `evaluate` write them, with few steps and made-up values."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from asr.tracking import journal

PARAMS = {
    "train.learning_rate": "auto",
    "model.name": "scratch",
    "download.language": "sv",
    **{f"chunk.many_{number}": number for number in range(120)},
}


def training(path: Path, steps: int = 4, ended: str | None = "FINISHED", **tags: str) -> Path:
    """The journal of a training with a validation at each second step."""
    begin(path, **tags)
    losses(path, range(1, steps + 1))
    if ended:
        journal.append(path, "end", status=ended)
    return path


def begin(
    path: Path, name: str | None = None, params: dict[str, Any] = PARAMS, **tags: str
) -> None:
    """The first line: what is trained, as it stands with more params than MLflow takes at once."""
    journal.append(
        path,
        "begin",
        fingerprint=path.stem,
        name=name or f"repro-{path.stem[:8]}",
        params=params,
        tags=tags,
    )


def losses(path: Path, steps: range) -> None:
    """A loss and a learning rate for each of these steps, and a WER for every second one."""
    for step in steps:
        journal.append(
            path, "metrics", step=step, values={"train/loss": 1 / step, "train/learning_rate": 1e-3}
        )
        if step % 2 == 0:
            journal.append(path, "metrics", step=step, values={"validation/wer": 0.9 / step})


def evaluation(path: Path, inputs: str, wer: float, step: int = 2, **when: float) -> None:
    """The result of a test.

    Args:
        inputs: the hash of what was tested, which tells one test from another.
        when: `time` in seconds since 1970, if it is not now.
    """
    values = {
        "test/wer": wer,
        "test/cer": wer / 2,
        "test/wer_low": wer - 0.02,
        "test/wer_high": wer + 0.02,
        "test/rtfx": 200.0,
        "test/start/wer": 0.9,
    }
    journal.append(
        path,
        "evaluation",
        inputs=inputs,
        name=path.stem[:8],
        params={"evaluate.seed": 1},
        values=values,
        step=step,
        **when,
    )


def new_path(folder: Path) -> Path:
    """A name for a journal that no other test has."""
    return folder / f"{uuid.uuid4().hex}.jsonl"


def life(path: Path) -> Path:
    """A training that was stopped once, went back two steps, ended, and was tested twice, at one
    second and two after its end.
    """
    training(path, steps=6, ended="KILLED", **{"dvc.experiment": "first"})
    begin(path, **{"dvc.experiment": "second"})
    losses(path, range(5, 9))
    ended = round(time.time(), 3)
    journal.append(path, "end", status="FINISHED", time=ended, tags={"checks": "passed"})
    for seconds, wer in enumerate((0.3, 0.2), 1):
        evaluation(path, f"{wer}-{path.stem}", wer, time=ended + seconds)
    return path
