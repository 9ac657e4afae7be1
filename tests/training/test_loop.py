"""What a step does where memory runs out, and where a loss or a gradient is no number; the rate at
each step.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from asr.errors import Diverged, ModelError
from asr.params import reader
from asr.training import batches
from asr.training.loop import Training
from stages import train
from support.repository import TINY, write_params
from support.training import (
    OUT_OF_MEMORY,
    curve,
    gradients,
    halves_of,
    no_memory_beyond,
    run,
    training,
)

pytestmark = pytest.mark.usefixtures("in_process")
MOVING = {"train.warmup_steps": 0}  # from the first step on
WHOLE = {"train.per_device_train_batch_size": 5, "train.gradient_accumulation_steps": 2}


@pytest.mark.parametrize(("kind", "limit"), [("gpu", 4), ("cpu", 2), ("python", 1)])
def test_halved_micro_batches_give_the_gradients_of_whole_ones(
    kind: str,
    limit: int,
    tmp_path: Path,
    tiny_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = training(tiny_data, tmp_path, **WHOLE)
    wanted = gradients(one)
    seen = no_memory_beyond(limit, OUT_OF_MEMORY[kind], monkeypatch)
    found = gradients(one)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
    assert one.micro_batch_rows() <= limit
    assert sum(seen[seen.index(one.micro_batch_rows()) :]) == 10, "each row of the update once"
    assert "out of memory with 5 rows at once; from here on 3 at once" in capsys.readouterr().out


def test_other_rows_give_other_gradients(tmp_path: Path, tiny_data: Path) -> None:
    """The control of the comparison above."""
    one = training(tiny_data, tmp_path, **WHOLE)
    first = gradients(one)
    one.state.step = 1
    second = gradients(one)
    assert any(
        not torch.allclose(first[name], value, rtol=1e-4, atol=1e-6)
        for name, value in second.items()
    )


def test_memory_that_is_always_short_gives_the_curve_of_small_batches(
    tmp_path: Path, tiny_data: Path
) -> None:
    for name in ("whole", "halved", "small"):
        (tmp_path / name).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(tmp_path / "whole"))
        run(tiny_data, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(tmp_path / "halved"))
        no_memory_beyond(2, OUT_OF_MEMORY["gpu"], patch)
        run(tiny_data, tmp_path / "halved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(tmp_path / "small"))
        patch.setattr(batches, "batch_rows", halves_of(batches.batch_rows))
        changes = {"train.per_device_train_batch_size": 2, "train.gradient_accumulation_steps": 2}
        run(tiny_data, tmp_path / "small", **changes)
    whole, halved, small = (curve(tmp_path / name) for name in ("whole", "halved", "small"))
    for ours, theirs, plain in zip(halved, small, whole, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
        assert ours == pytest.approx(plain, rel=1e-3)


STEP = Training.train_step


class Killed(BaseException):
    """Ends a training as SIGKILL would: nothing more is written."""


def test_a_halved_training_that_is_killed_ends_with_the_bits_of_one_never_stopped(
    tmp_path: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = {"model.dropout": 0.1, "model.apply_spec_augment": True, "train.save_steps": 4}
    found, said = {}, {}
    for name, stops in (("never", ()), ("soon", (5,)), ("late", (9,))):
        root = tmp_path / name
        root.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DVC_ROOT", str(root))
            no_memory_beyond(2, OUT_OF_MEMORY["cpu"], patch, first_step=4)
            for stop in stops:
                kill_after(stop, patch)
                with pytest.raises(Killed):
                    run(tiny_data, root, **noisy)
            kill_after(99, patch)
            capsys.readouterr()
            found[name] = run(tiny_data, root, **noisy)
            said[name] = capsys.readouterr().out
    assert found["soon"] == found["late"] == found["never"]
    assert "step 5: out of memory" in said["never"]
    assert "resumed at step 4 of" in said["soon"], "killed before the halved step was saved"
    assert "resumed at step 8 of" in said["late"]
    assert "out of memory" not in said["late"], "the halving is remembered"


def kill_after(step: int, patch: pytest.MonkeyPatch) -> None:
    def killed(self: Training, parts: list[dict[str, torch.Tensor]]) -> None:
        STEP(self, parts)
        if self.state.step == step:
            raise Killed

    patch.setattr(Training, "train_step", killed)


def test_a_single_row_that_finds_no_memory_is_a_fault(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = training(tiny_data, tmp_path)
    seen = no_memory_beyond(0, OUT_OF_MEMORY["gpu"], monkeypatch)
    with pytest.raises(
        ModelError, match="step 1: no memory for a single row; take a smaller model"
    ):
        gradients(one)
    assert seen == [4, 2, 1]


def test_other_errors_halve_nothing(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = training(tiny_data, tmp_path)
    seen = no_memory_beyond(2, RuntimeError("shapes do not match"), monkeypatch)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        gradients(one)
    assert (seen, one.state.halvings) == ([4], 0)


def test_an_evaluation_that_finds_no_memory_is_a_fault_with_its_way_out(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(_: Training) -> None:
        raise OUT_OF_MEMORY["gpu"]

    monkeypatch.setattr(Training, "hypotheses", short)
    with pytest.raises(ModelError, match=r"lower train\.per_device_eval_batch_size"):
        run(tiny_data, tmp_path)


def poisoned_loss(value: float) -> Callable[[Training, pytest.MonkeyPatch], None]:
    def poison(_: Training, patch: pytest.MonkeyPatch) -> None:
        loss, seen = Training.loss, [0]

        def spoiled(self: Training, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            seen[0] += 1
            return loss(self, batch) + (
                value if seen[0] == 2 else 0.0
            )  # the second part of a step, or the second step

        patch.setattr(Training, "loss", spoiled)

    return poison


def poisoned_gradient(value: float) -> Callable[[Training, pytest.MonkeyPatch], None]:
    """One value of one gradient; the loss stays what it is."""

    def poison(one: Training, _: pytest.MonkeyPatch) -> None:
        seen = [0]

        def spoil(gradient: torch.Tensor) -> torch.Tensor:
            seen[0] += 1
            spoiled = gradient.clone()
            spoiled.view(-1)[0] = value if seen[0] == 2 else spoiled.view(-1)[0]
            return spoiled

        one.unwrapped.model.decoder.layers[0].fc1.weight.register_hook(spoil)

    return poison


@pytest.mark.parametrize("poison", [poisoned_loss, poisoned_gradient], ids=["loss", "gradient"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("precision", "accumulation"), [("fp32", 1), ("fp32", 3), ("bf16", 1), ("bf16", 3)]
)
def test_what_is_no_number_stops_before_the_update_and_names_the_rows(
    poison: Callable[[float], Callable[[Training, pytest.MonkeyPatch], None]],
    value: float,
    precision: str,
    accumulation: int,
    tmp_path: Path,
    tiny_data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = training(
        tiny_data,
        tmp_path,
        **{
            **MOVING,
            "train.precision": precision,
            "train.gradient_accumulation_steps": accumulation,
        },
    )
    poison(value)(one, monkeypatch)
    if accumulation == 1:
        one.train_step(one.micro_batches(0))
    before = everything(one)
    rows = sorted(
        one.train.column("id")[row]
        for part in one.step_examples(one.state.step)
        for window in part
        for row in window.rows
    )
    with pytest.raises(Diverged) as fault:
        one.train_step(one.micro_batches(one.state.step))
    assert sorted(re.findall(r"train-\d+", str(fault.value))) == rows
    assert str(fault.value).startswith(f"step {one.state.step + 1}: loss ")
    assert one.state.step == (accumulation == 1)
    after = everything(one)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def everything(one: Training) -> dict[str, torch.Tensor]:
    """Weights and AdamW's moments."""
    moments = {
        f"{index}.{key}": value
        for index, values in one.optimizer.state_dict()["state"].items()
        for key, value in values.items()
    }
    return {name: value.clone() for name, value in (one.unwrapped.state_dict() | moments).items()}


def test_a_healthy_step_updates(tmp_path: Path, tiny_data: Path) -> None:
    """The control of the comparison above."""
    one = training(tiny_data, tmp_path, **MOVING)
    before = everything(one)
    one.train_step(one.micro_batches(0))
    after = everything(one)
    assert after.keys() > before.keys()
    assert sum(not torch.equal(after[name], value) for name, value in before.items()) > 10


STEPS, WARMUP, PEAK = 8, 3, 1e-3
AFTER: dict[
    str, Callable[[float], float]
] = {  # of the share of steps that is done after the warm-up
    "linear": lambda done: PEAK * (1 - done),
    "cosine": lambda done: PEAK * (1 + math.cos(math.pi * done)) / 2,
    "constant_with_warmup": lambda _: PEAK,
    "polynomial": lambda done: (
        1e-7 + (PEAK - 1e-7) * (1 - done)
    ),  # of the first degree, and never quite to nothing
}


def wanted(kind: str, warmup: int, step: int) -> float:
    """The rate of the update that ends in this step; the first has done nothing yet."""
    before = step - 1
    return (
        PEAK * before / warmup
        if before < warmup
        else AFTER[kind]((before - warmup) / (STEPS - warmup))
    )


@pytest.mark.parametrize(("kind", "warmup"), [*((kind, WARMUP) for kind in AFTER), ("cosine", 0)])
def test_rates_follow_the_formula(kind: str, warmup: int, tmp_path: Path, tiny_data: Path) -> None:
    steps = {
        "train.max_steps": STEPS,
        "train.warmup_steps": warmup,
        "train.eval_steps": STEPS,
        "train.logging_steps": 1,
    }
    small = {
        "train.lr_scheduler_type": kind,
        "train.learning_rate": PEAK,
        "train.eval_rows": 2,
        "train.save_steps": STEPS,
    }
    given = reader.load(write_params(tmp_path / "params.yaml", {**TINY, **steps, **small}))
    split = tiny_data / "data/features"
    train.run(
        split / "train",
        split / "validation",
        tmp_path / "models/finetuned",
        tmp_path / "reports",
        given,
    )
    rows = csv.DictReader((tmp_path / "reports/steps.csv").read_text().splitlines())
    rates = {int(row["step"]): float(row["learning_rate"]) for row in rows if row["learning_rate"]}
    assert rates == pytest.approx(
        {step: wanted(kind, warmup, step) for step in range(1, STEPS + 1)}
    )
    others = [other for other in AFTER if other not in (kind, "linear", "polynomial")]
    assert all(rates[STEPS] != pytest.approx(wanted(other, warmup, STEPS)) for other in others), (
        "the formulas must differ"
    )
