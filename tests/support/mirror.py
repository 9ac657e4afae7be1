"""Folders of checkpoints as a training leaves them, without tensors; and Python in a process of its
own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from asr.storage import files, hashing
from asr.training import checkpoints
from support.repository import PYTHONPATH, REPOSITORY


def saved(folder: Path, step: int, weights: int) -> None:
    """What a save leaves: the checkpoint of a step, the best weights, no more than is kept."""
    for stem, number in (("weights", weights), ("step", step)):
        with files.new_folder(checkpoints.path_of(folder, stem, number)) as draft:
            for name in ("model.safetensors", "optimizer.safetensors", "state.json")[
                :: 1 if stem == "step" else 2
            ]:
                (draft / name).write_bytes(f"{stem} {number} {name} ".encode() * 99)
            hashes = {file.name: hashing.sha256(file) for file in draft.iterdir()}
            files.write_json(draft / "manifest.json", {"step": number, "sha256": hashes})
    checkpoints.keep_newest(folder, [weights])
    with (folder.parent / "log").open("a") as log:
        log.write(f"step {step}\n")


def whole(folder: Path) -> tuple[list[int], list[int]]:
    """Steps and weights of a folder, all of which must be whole."""
    for place in folder.iterdir():
        checkpoints.check(place)
    return checkpoints.steps(folder, "step"), checkpoints.steps(folder, "weights")


def run_python(code: str, *given: str, **environment: str) -> subprocess.CompletedProcess[str]:
    places = {"PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *given]
    return subprocess.run(
        command,
        env={**os.environ, **places, **environment},
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
