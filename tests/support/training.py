"""Trainings of the tiny corpus in this process, looked at step by step or from beginning to end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch

from asr.features import FeatureRows
from asr.params import reader, schema
from asr.storage import files, hashing
from asr.training import optimization
from asr.training.loop import Training
from asr.training.validation import Validation
from stages import train
from support.repository import TINY, write_params

OUT_OF_MEMORY = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't "
        "allocate memory: you tried to allocate 9 bytes."
    ),
    "python": MemoryError(),
    "onednn": RuntimeError("could not create a primitive"),
}


def given(root: Path, **changes: Any) -> schema.Params:
    return reader.load(write_params(root / "changed.yaml", {**TINY, **changes}))


def training(data: Path, root: Path, **changes: Any) -> Training:
    """As the stage makes it, before its first step."""
    chosen = given(root, **changes)
    rows, judged = (
        FeatureRows(data / "data/features" / split) for split in ("train", "validation")
    )
    start = train.start_model(chosen, rows)
    train.choose_trained(start, chosen.model, chosen.train.seed)
    return Training(
        start,
        rows,
        judged,
        chosen.train,
        root / "checkpoints",
        lambda *_, **__: None,
    )


def validation_of(texts: list[str]) -> Validation:
    """A validation of rows with these texts, without sound and without loss."""
    columns = {
        "id": [str(number) for number in range(len(texts))],
        "duration": [5.0] * len(texts),
        "text": texts,
    }
    rows = SimpleNamespace(column=columns.__getitem__)
    collator = SimpleNamespace(choose=lambda _: SimpleNamespace(rows=[]))
    return Validation(cast("Any", rows), cast("Any", collator), len(texts), 0, 8)


def run(data: Path, root: Path, **changes: Any) -> dict[str, str]:
    """The stage's own `run`; gives hashes of all that must not differ."""
    split, chosen = data / "data/features", given(root, **changes)
    train.run(
        split / "train",
        split / "validation",
        root / "models/finetuned",
        root / "reports/train",
        chosen,
    )
    return traces(root)


def traces(root: Path) -> dict[str, str]:
    """Hashes of all that must not differ between trainings that are equal.

    That is the model, reports, and the last checkpoint with AdamW's moments.
    """
    reports = root / "reports/train"
    fingerprint = files.read_json(reports / "run.json")["fingerprint"]
    last = max((root / ".cache/checkpoints" / fingerprint).glob("step-*"))
    paths = [root / "models/finetuned/model.safetensors"]
    paths += [last / name for name in ("model.safetensors", "optimizer.safetensors", "state.json")]
    names = ("steps.csv", "summary.json", "checks.json", "run.json", "taught.npy")
    paths += [reports / name for name in names]
    return {f"{path.parent.name}/{path.name}": hashing.sha256(path) for path in paths}


def everything(one: Training) -> dict[str, torch.Tensor]:
    """Copies of a training's weights and of AdamW's moments, by name."""
    tensors = one.unwrapped.state_dict() | optimization.moments(one.optimizer)
    return {name: value.clone() for name, value in tensors.items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two dicts of tensors have the same names and the same bits."""
    return first.keys() == second.keys() and all(
        torch.equal(first[name], value) for name, value in second.items()
    )


def gradients(one: Training) -> dict[str, torch.Tensor]:
    """Of the next step, by name."""
    one.gradients(one.micro_batches(one.state.step))
    found = {
        name: value.grad.clone()
        for name, value in one.unwrapped.named_parameters()
        if value.grad is not None
    }
    one.optimizer.zero_grad(set_to_none=True)
    return found


def no_memory_beyond(
    limit: int, error: BaseException, patch: Any, first_step: int = 0
) -> list[int]:
    """Let training steps fail for batches of more rows; gives the rows of each batch that was
    tried.
    """
    loss, seen = Training.loss, []

    def limited(self: Training, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.model.training and torch.is_grad_enabled():
            seen.append(len(batch["labels"]))
            if seen[-1] > limit and self.state.step >= first_step:
                raise error
        return loss(self, batch)

    patch.setattr(Training, "loss", limited)
    return seen


def halves_of(rows: Any) -> Any:
    """Batches half as large, of the same rows in the same order."""

    def halved(lengths: tuple[int, ...], size: int, seed: int, index: int) -> list[int]:
        whole = rows(lengths, 2 * size, seed, index // 2)
        return whole[size:] if index % 2 else whole[:size]

    return halved


def curve(root: Path) -> list[list[float]]:
    """The numbers of steps.csv, row by row; 0 where nothing was measured."""
    lines = (root / "reports/train/steps.csv").read_text().splitlines()[1:]
    return [[float(value) if value else 0.0 for value in line.split(",")] for line in lines]
