"""Checkpoints: whole or absent, safetensors and JSON, and a lock that says who holds the folder.

A checkpoint is a folder `step-00000200` with its files and a manifest of their hashes, written
last; the folder is synced and renamed into place. A damaged one is passed over for the one before.
Saving 2.7 M weights and AdamW's state costs 60 ms. torch is imported by who saves or loads; looking
at a folder takes none.
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


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by file (`model`, `optimizer`) and the rest of the state as JSON."""

    step: int
    tensors: dict[str, dict[str, torch.Tensor]]
    state: dict[str, Any]


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep the folder to this process.

    Raises:
        BadModel: another process holds it.
    """
    lock = folder / "lock"
    with ExitStack() as stack:
        try:
            descriptor = stack.enter_context(locked(lock, patience=0.3))
        except BlockingIOError:
            raise ModelError(
                f"the same training runs already, as process {lock.read_text().strip()}; wait for it or stop it"
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield


def save(folder: Path, stem: str, checkpoint: Checkpoint) -> None:
    """Write `<folder>/<stem>-<step>`."""
    from safetensors.torch import save_file

    with files.new_folder(path_of(folder, stem, checkpoint.step)) as draft:
        for name, tensors in checkpoint.tensors.items():
            save_file(
                {key: value.contiguous() for key, value in tensors.items()},
                draft / f"{name}.safetensors",
            )
        files.write_json(draft / "state.json", checkpoint.state)
        hashes = {file.name: hashing.sha256(file) for file in sorted(draft.iterdir())}
        files.write_json(draft / "manifest.json", {"step": checkpoint.step, "sha256": hashes})


def path_of(folder: Path, stem: str, step: int) -> Path:
    return folder / f"{stem}-{step:08d}"


def steps(folder: Path, stem: str) -> list[int]:
    """Steps that a folder has checkpoints of, newest first."""
    return sorted(
        (int(path.name.rpartition("-")[2]) for path in folder.glob(f"{stem}-{'[0-9]' * 8}")),
        reverse=True,
    )


def load(folder: Path, stem: str, step: int) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        BadModel: it is not whole.
    """
    from safetensors.torch import load_file

    path = path_of(folder, stem, step)
    check(path)
    tensors = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
    return Checkpoint(step, tensors, files.read_json(path / "state.json"))


def check(path: Path) -> None:
    """Compare a checkpoint's files with its manifest.

    Raises:
        BadModel: it is not whole.
    """
    try:
        hashes = files.read_json(path / "manifest.json")["sha256"]
        damaged = [name for name, digest in hashes.items() if hashing.sha256(path / name) != digest]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path.name} is not whole ({type(error).__name__})") from None
    if damaged:
        raise ModelError(f"{path.name} is damaged: {damaged[0]}")


def latest(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint; says what a damaged one costs."""
    found = steps(folder, "step")
    for step in found:
        try:
            checkpoint = load(folder, "step", step)
        except ModelError as fault:
            print(f"checkpoint {fault}; falling back", flush=True)
            continue
        if step < found[0]:
            print(
                f"the damaged checkpoint costs {found[0] - step} steps, which are done again",
                flush=True,
            )
        return checkpoint
    return None


def keep_newest(folder: Path, wanted: list[int]) -> None:
    """Drop checkpoints older than the last two, and weights of steps that are no longer wanted."""
    for step in steps(folder, "step")[MAX_KEPT:]:
        shutil.rmtree(path_of(folder, "step", step))
    for step in steps(folder, "weights"):
        if step not in wanted:
            shutil.rmtree(path_of(folder, "weights", step))
