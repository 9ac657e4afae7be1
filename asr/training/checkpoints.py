"""Checkpoints: safetensors and JSON, complete or absent, in a folder that one process locks.

A checkpoint is a folder such as `step-00000200` with its files and a manifest of their hashes,
which is written last. The folder is synced and renamed into place. If the newest checkpoint is
damaged, the one before it is used. Saving 2.7 M weights and AdamW's state costs 60 ms. torch is
imported only to save or load.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.errors import ModelError
from asr.runtime.locks import locked
from asr.storage import files, hashing

if TYPE_CHECKING:
    import torch

MAX_KEPT = 2
LOCK_SECONDS = 0.3  # how long we wait for a process that only tests the lock


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after a step.

    tensors: by file (`model`, `optimizer`), then by name.
    state: all other state, as JSON.
    """

    step: int
    tensors: dict[str, dict[str, torch.Tensor]]
    state: dict[str, Any]


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Lock the folder for this process.

    Raises:
        ModelError: another process holds it.
    """
    path = folder / "lock"
    with ExitStack() as stack:
        try:
            descriptor = stack.enter_context(locked(path, patience=LOCK_SECONDS))
        except BlockingIOError:
            raise ModelError(
                f"the same training runs already, as process {path.read_text().strip()}; "
                "wait for it or stop it"
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield


def save(folder: Path, stem: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to `<folder>/<stem>-<step>`."""
    from safetensors.torch import save_file

    with files.new_folder(path_of(folder, stem, checkpoint.step)) as draft:
        for name, tensors in checkpoint.tensors.items():
            contiguous = {key: value.contiguous() for key, value in tensors.items()}
            save_file(contiguous, draft / f"{name}.safetensors")
        files.write_json(draft / "state.json", checkpoint.state)
        hashes = {file.name: hashing.sha256(file) for file in sorted(draft.iterdir())}
        files.write_json(draft / "manifest.json", {"step": checkpoint.step, "sha256": hashes})


def path_of(folder: Path, stem: str, step: int) -> Path:
    """The folder of one checkpoint."""
    return folder / f"{stem}-{step:08d}"


def steps(folder: Path, stem: str) -> list[int]:
    """The steps of the checkpoints in a folder, newest first."""
    paths = folder.glob(f"{stem}-{'[0-9]' * 8}")
    return sorted((int(path.name.rpartition("-")[2]) for path in paths), reverse=True)


def load(folder: Path, stem: str, step: int) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        ModelError: a file is missing or damaged.
    """
    from safetensors.torch import load_file

    path = path_of(folder, stem, step)
    check(path)
    tensors = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
    return Checkpoint(step, tensors, files.read_json(path / "state.json"))


def check(path: Path) -> None:
    """Compare a checkpoint's files with its manifest.

    Raises:
        ModelError: a file is missing or damaged.
    """
    try:
        hashes = files.read_json(path / "manifest.json")["sha256"]
        damaged = [name for name, digest in hashes.items() if hashing.sha256(path / name) != digest]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path.name} is not whole ({type(error).__name__})") from None
    if damaged:
        raise ModelError(f"{path.name} is damaged: {damaged[0]}")


def latest(folder: Path) -> Checkpoint | None:
    """Load the newest undamaged checkpoint, or return None; print how many steps damage costs."""
    available = steps(folder, "step")
    for step in available:
        try:
            checkpoint = load(folder, "step", step)
        except ModelError as fault:
            print(f"checkpoint {fault}; falling back", flush=True)
            continue
        lost = available[0] - step
        if lost:
            print(f"the damaged checkpoint costs {lost} steps, which are done again", flush=True)
        return checkpoint
    return None


def keep_newest(folder: Path, weights_steps: list[int]) -> None:
    """Delete all but the newest MAX_KEPT checkpoints, and all weights but those of these steps."""
    for step in steps(folder, "step")[MAX_KEPT:]:
        shutil.rmtree(path_of(folder, "step", step))
    for step in steps(folder, "weights"):
        if step not in weights_steps:
            shutil.rmtree(path_of(folder, "weights", step))
