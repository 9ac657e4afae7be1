"""Two processes train as one does that takes twice as many batches a step: the same curve, the same
weights, also after a kill.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asr.storage import hashing
from support.children import WITHOUT_MLFLOW, Nursery
from support.repository import REPOSITORY, TINY, write_params
from support.training import curve, run

NOISY: dict[str, Any] = {
    **TINY,
    "model.dropout": 0.1,
    "model.apply_spec_augment": True,
    "train.max_steps": 12,
    "train.learning_rate": 3e-3,
}
KILLED = """
import os, signal
from asr.training.loop import Training
step = Training.train_step
def killed(self, parts):
    step(self, parts)
    if self.state.step == 8 and self.accelerator.process_index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
Training.train_step = killed
"""


NO_MEMORY = """
import torch
from asr.training.loop import Training
loss = Training.loss
def limited(self, batch):
    small = len(batch["labels"]) <= 2 or not torch.is_grad_enabled() or self.state.step < 4
    if small or self.accelerator.process_index == 0:
        return loss(self, batch)
    whole = loss(self, batch)
    whole.register_hook(out_of_memory)
    return whole
def out_of_memory(gradient):
    raise torch.OutOfMemoryError("CUDA out of memory.")
Training.loss = limited
"""


def train_two(
    root: Path, data: Path, plan: str = "", **changes: Any
) -> subprocess.CompletedProcess[str]:
    """The stage's own command with two processes; a plan is run first in each of them."""
    write_params(root / "params.yaml", {**NOISY, **changes, "train.gradient_accumulation_steps": 1})
    (root / "sitecustomize.py").write_text(
        f"import sys\nif 'LOCAL_RANK' in __import__('os').environ:\n{indented(plan)}"
        if plan
        else ""
    )
    split = data / "data/features"
    command = [
        sys.executable,
        "-m",
        "stages.train",
        f"{split}/train",
        f"{split}/validation",
        "models/finetuned",
        "reports/train",
    ]
    places = {"PYTHONPATH": f"{root}:{REPOSITORY}", "DVC_ROOT": str(root), "PROCESSES": "2"}
    return subprocess.run(
        command,
        cwd=root,
        env={**os.environ, **places},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def train_one(nursery: Nursery, root: Path, data: Path, accumulation: int) -> None:
    """The stage in one process."""
    write_params(root / "params.yaml", {**NOISY, "train.gradient_accumulation_steps": accumulation})
    split = data / "data/features"
    code = f"{WITHOUT_MLFLOW}\nfrom stages import train\ntrain.main()"
    places = [f"{split}/train", f"{split}/validation", "models/finetuned", "reports/train"]
    done = nursery.run(code, *places, root=root, DVC_ROOT=str(root))
    assert done.returncode == 0, done.stdout + done.stderr


def indented(plan: str) -> str:
    return "".join(f"    {line}\n" for line in plan.strip().splitlines())


def result(root: Path) -> tuple[str, str]:
    return (root / "reports/train/steps.csv").read_text(), hashing.sha256(
        root / "models/finetuned/model.safetensors"
    )


@pytest.fixture(scope="module")
def alone(
    tmp_path_factory: pytest.TempPathFactory, nursery: Nursery, tiny_data: Path
) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("alone")
    train_one(nursery, root, tiny_data, 2)
    return result(root)


def numbers_in(steps: str) -> list[list[float]]:
    return [
        [float(value) if value else 0.0 for value in line.split(",")]
        for line in steps.splitlines()[1:]
    ]


def test_two_processes_give_the_curve_of_one_and_resume_to_it(
    tmp_path: Path, tiny_data: Path, alone: tuple[str, str]
) -> None:
    killed = train_two(tmp_path, tiny_data, KILLED)
    assert killed.returncode != 0
    assert not (tmp_path / "models").exists()
    done = train_two(tmp_path, tiny_data)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resumed at step 6 of 12" in done.stdout
    assert done.stdout.count("checks: 13 of 13 passed") == 1, "one process speaks"
    for ours, theirs in zip(numbers_in(result(tmp_path)[0]), numbers_in(alone[0]), strict=True):
        assert ours == pytest.approx(theirs, rel=0.01)


def test_other_batches_give_another_curve(
    tmp_path: Path, nursery: Nursery, tiny_data: Path, alone: tuple[str, str]
) -> None:
    """The control of the comparison above."""
    train_one(nursery, tmp_path, tiny_data, 1)
    pairs = zip(numbers_in(result(tmp_path)[0]), numbers_in(alone[0]), strict=True)
    assert any(ours != pytest.approx(theirs, rel=0.01) for ours, theirs in pairs)


@pytest.mark.usefixtures("in_process")
def test_processes_halve_together_where_one_finds_no_memory(
    tmp_path: Path, tiny_data: Path
) -> None:
    """The second process fails inside a backward pass; the curve is that of one that never fails,
    without noise.
    """
    still = {**NOISY, "model.dropout": 0.0, "model.apply_spec_augment": False, "train.max_steps": 8}
    (tmp_path / "two").mkdir()
    done = train_two(tmp_path / "two", tiny_data, NO_MEMORY, **still)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        done.stdout.count("step 5: out of memory with 4 rows at once; from here on 2 at once") == 1
    )
    run(tiny_data, tmp_path, **{**still, "train.gradient_accumulation_steps": 2})
    for ours, theirs in zip(curve(tmp_path / "two"), curve(tmp_path), strict=True):
        assert ours == pytest.approx(theirs, rel=0.01)


def test_processes_must_be_a_number(tmp_path: Path, nursery: Nursery) -> None:
    write_params(tmp_path / "params.yaml", TINY)
    code = "from asr.errors import exit_with\nfrom stages import train\nexit_with(train.main)"
    done = nursery.run(code, "a", "b", "c", "d", root=tmp_path, PROCESSES="two")
    assert done.returncode == 2
    assert "PROCESSES: got 'two'" in done.stderr
