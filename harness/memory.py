"""Memory of a training while it goes through its corpus: flat, chunk after chunk and evaluation
after evaluation.

    make harness NAME=memory COUNT=2000     # 10 chunks of so many rows, 10 evaluations; 2 minutes

The stage's own `run` is a child forked from a process that has imported torch. After each chunk's
worth of rows, and after each evaluation, it reads its own memory, in which mapped files do not
count. Prints the figures; all is well if those from the second chunk on are within 2 % of each
other. The control is a training that keeps its batches.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.update({"OMP_NUM_THREADS": "1", "WORKERS": "1"})

import numpy as np

from asr.features import FEATURES, TAIL
from asr.params import reader
from asr.storage import shards
from asr.training.loop import Training
from stages import train
from support.processes import fork, own_memory, without_mlflow
from support.repository import TINY, write_params

CHUNKS = 10
BATCH = 25
EVALUATIONS = 10
WITHIN = 0.02
MEL_BINS = 80
WORDS = "noll ett två tre fyra fem sex sju åtta nio".split()


def write_split(split: Path, count: int, rows_per_chunk: int, seed: int) -> None:
    """Rows of 0.3 to 0.5 s, as `featurize` writes them, of random values."""
    draw, writer = (
        np.random.default_rng(seed),
        shards.SplitWriter(split, "chunk", FEATURES, max_rows=rows_per_chunk),
    )
    for number in range(count):
        frames = int(draw.integers(30, 51)) + TAIL
        writer.add(
            {
                "id": f"{split.name}-{number:06d}",
                "copy": 0,
                "mel": draw.bytes(MEL_BINS * frames * 3 // 2),
                "num_frames": frames,
                "floor": -1.0,
                "edge": None,
                "duration": (frames - TAIL) / 100,
                "text": " ".join(draw.choice(WORDS, 2)),
                "speaker": None,
                "attributes": "{}",
            }
        )
    writer.close()


def settled_memory() -> int:
    """KiB of this process's own memory, without what malloc keeps for the next step.

    Pages that are still shared with the parent count, as they do where DVC starts a training; else
    those that the counting of references copies would look like growth.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return own_memory(os.getpid()) >> 10


def watch(rows_per_chunk: int, leak: bool) -> dict[str, list[int]]:
    """Have a training tell its own memory, from outside; the lists grow while it runs."""
    seen: dict[str, list[int]] = {"chunks": [], "evaluations": []}
    step, validate, kept = Training.train_step, Training.validate, list[Any]()

    def stepped(self: Training, parts: Any) -> None:
        step(self, parts)
        if leak:
            kept.append(parts)  # 32 KiB for each row
        if self.state.step * BATCH % rows_per_chunk == 0:
            seen["chunks"].append(settled_memory())

    def validated(self: Training) -> None:
        validate(self)
        if self.state.step:
            seen["evaluations"].append(settled_memory())

    Training.train_step, Training.validate = stepped, validated  # type: ignore[method-assign]
    return seen


def child(top: Path, chunks: int, rows_per_chunk: int, leak: bool) -> None:
    """The whole stage; writes what it saw to seen.json."""
    sys.stdout = (top / "log").open("w")
    os.environ["DVC_ROOT"] = str(top)
    os.chdir(top)
    without_mlflow()
    steps = chunks * rows_per_chunk // BATCH
    changes = {
        "max_steps": steps,
        "eval_steps": steps // EVALUATIONS,
        "save_steps": steps // 5,
        "eval_rows": 32,
        "logging_steps": 10,
    }
    changes |= {"per_device_train_batch_size": BATCH}
    named = {f"train.{name}": value for name, value in changes.items()}
    given = reader.load(
        write_params(top / "params.yaml", {**TINY, **named, "model.scratch.window_seconds": 1})
    )
    seen = watch(rows_per_chunk, leak)
    train.run(
        top / "features/train",
        top / "features/validation",
        top / "models/finetuned",
        top / "reports/train",
        given,
    )
    (top / "seen.json").write_text(json.dumps(seen))


def spread(values: list[int]) -> float:
    """How far the figures lie apart, as a share of the smallest."""
    return (max(values) - min(values)) / min(values)


def shake(count: int, seed: int, broken: bool) -> bool:
    """Train on 10 chunks of `count` rows; whether memory stayed flat."""
    with tempfile.TemporaryDirectory(prefix="earshot-memory-") as folder:
        top = Path(folder)
        write_split(top / "features/train", CHUNKS * count, count, seed)
        write_split(top / "features/validation", 40, 40, seed + 1)
        os.waitpid(fork(lambda: child(top, CHUNKS, count, broken)), 0)
        seen = json.loads((top / "seen.json").read_text())
    seen["chunks"] = seen["chunks"][1:]
    for name, values in seen.items():
        print(
            f"{name}: {len(values)} figures, {spread(values):.1%} apart; "
            f"MiB: {' '.join(f'{value / 1024:.1f}' for value in values)}"
        )
    return all(spread(values) <= WITHIN for values in seen.values())
