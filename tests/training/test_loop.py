"""What a step does where memory runs out, and where a loss or a gradient is no number; the rate at
each step.
"""

from __future__ import annotations

import gc
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from asr import metrics
from asr.errors import Diverged, ModelError
from asr.metrics import STEP_COLUMNS
from asr.training import batches
from asr.training.loop import Training, pace_text
from support.training import (
    OUT_OF_MEMORY,
    equal,
    everything,
    gradients,
    halves_of,
    no_memory_beyond,
    run,
    training,
)

pytestmark = pytest.mark.usefixtures("in_process")
MOVING = {"train.warmup_steps": 0}  # from the first step on
SHORT = {
    "train.max_steps": 8,
    "train.eval_steps": 4,
    "train.eval_rows": 2,
    "train.save_steps": 2,
}
WHOLE = {"train.per_device_train_batch_size": 5, "train.gradient_accumulation_steps": 2}


@pytest.fixture(autouse=True)
def few_objects() -> Iterator[None]:
    """Each halving collects garbage; what was imported is left out, for it takes 0.4 s."""
    gc.freeze()
    yield
    gc.unfreeze()


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


def measured(one: Training) -> list[list[float]]:
    """The numbers of steps.csv after a whole training, row by row."""
    one.run()
    return [[row[name] for name in STEP_COLUMNS if name in row] for row in one.state.rows]


def test_memory_that_is_always_short_gives_the_curve_of_small_batches(
    tmp_path: Path, tiny_data: Path
) -> None:
    for name in ("whole", "halved", "small"):
        (tmp_path / name).mkdir()
    whole = measured(training(tiny_data, tmp_path / "whole", **SHORT))
    with pytest.MonkeyPatch.context() as patch:
        no_memory_beyond(2, OUT_OF_MEMORY["gpu"], patch)
        halved = measured(training(tiny_data, tmp_path / "halved", **SHORT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "batch_rows", halves_of(batches.batch_rows))
        changes = {"train.per_device_train_batch_size": 2, "train.gradient_accumulation_steps": 2}
        small = measured(training(tiny_data, tmp_path / "small", **{**SHORT, **changes}))
    for ours, theirs, plain in zip(halved, small, whole, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
        assert ours == pytest.approx(plain, rel=1e-3)


STEP = Training.train_step


class Killed(BaseException):
    """Ends a training as SIGKILL would: nothing more is written."""


def test_a_halved_training_that_is_killed_ends_with_the_bits_of_one_never_stopped(
    tmp_path: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = {**SHORT, "model.dropout": 0.1, "model.apply_spec_augment": True}

    def resumed(name: str, stop: int) -> Training:
        """A training that goes on from its checkpoint, if it has one, and is killed at a step."""
        one = training(tiny_data, tmp_path / name, **noisy)
        one.resume()
        with pytest.MonkeyPatch.context() as patch:
            no_memory_beyond(2, OUT_OF_MEMORY["cpu"], patch, first_step=4)
            kill_after(stop, patch)
            one.run()
        return one

    ended, printed = {}, {}
    for name, stop in (("never", None), ("soon", 5), ("late", 7)):
        (tmp_path / name).mkdir()
        if stop is not None:
            with pytest.raises(Killed):
                resumed(name, stop)
            capsys.readouterr()
        ended[name] = resumed(name, 99)
        printed[name] = capsys.readouterr().out
    for name in ("soon", "late"):
        assert equal(everything(ended[name]), everything(ended["never"]))
        assert vars(ended[name].state) == vars(ended["never"].state)
    assert "step 5: out of memory" in printed["never"]
    assert "resumed at step 4 of" in printed["soon"], "killed before the halved step was saved"
    assert "resumed at step 6 of" in printed["late"]
    assert "out of memory" not in printed["late"], "the halving is remembered"


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
    """The loss of the second part of a step, or of the second step."""

    def poison(_: Training, patch: pytest.MonkeyPatch) -> None:
        loss, seen = Training.loss, [0]

        def spoiled(self: Training, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            seen[0] += 1
            return loss(self, batch) + (value if seen[0] == 2 else 0.0)

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
    ids = one.train.column("id")
    rows = sorted(
        ids[row]
        for part in one.step_examples(one.state.step)
        for window in part
        for row in window.rows
    )
    with pytest.raises(Diverged) as fault:
        one.train_step(one.micro_batches(one.state.step))
    assert sorted(re.findall(r"train-\d+", str(fault.value))) == rows
    assert str(fault.value).startswith(f"step {one.state.step + 1}: loss ")
    assert one.state.step == (accumulation == 1)
    assert equal(everything(one), before)


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
    changes = {
        "train.lr_scheduler_type": kind,
        "train.learning_rate": PEAK,
        "train.warmup_steps": warmup,
        "train.max_steps": STEPS,
        "train.eval_steps": STEPS,
        "train.save_steps": STEPS,
        "train.eval_rows": 1,
        "train.logging_steps": 1,
    }
    one = training(tiny_data, tmp_path, **changes)
    one.run()
    rates = {row["step"]: row["learning_rate"] for row in one.state.rows if row["step"]}
    assert rates == pytest.approx(
        {step: wanted(kind, warmup, step) for step in range(1, STEPS + 1)}
    )
    others = [other for other in AFTER if other not in (kind, "linear", "polynomial")]
    assert all(rates[STEPS] != pytest.approx(wanted(other, warmup, STEPS)) for other in others), (
        "the formulas must differ"
    )


LOOP = " ".join(["again"] * 222)


def spoilt(references: list[str], rows: int, loop: str = "") -> list[str]:
    """Hypotheses with nothing understood of the first rows; the last row ends in a loop."""
    texts = ["x"] * rows + references[rows:]
    return [*texts[:-1], f"{texts[-1]} {loop}"]


def heard(patch: pytest.MonkeyPatch, *evaluations: list[str]) -> None:
    """What the next evaluations decode."""
    coming = iter(evaluations)
    patch.setattr(Training, "hypotheses", lambda _: next(coming))


def test_an_evaluation_is_journaled_with_the_step_that_would_be_kept(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = training(tiny_data, tmp_path, **{"train.max_steps": 40})
    lines: list[tuple[int, dict[str, float]]] = []
    one.record = lambda _, step, values: lines.append((step, values))
    texts = one.validation.references
    heard(monkeypatch, spoilt(texts, 0), spoilt(texts, 4), spoilt(texts, 2, LOOP), spoilt(texts, 3))
    for step in (0, 10, 20, 30):
        one.state.step = step
        one.validate()
    found = {step: values.get(metrics.VALIDATION_BEST_STEP) for step, values in lines}
    assert found == {0: None, 10: 10, 20: 20, 30: 20}
    by_step = dict(lines)
    assert min((10, 20, 30), key=lambda step: by_step[step][metrics.VALIDATION_WER]) == 30, (
        "the control: plain WER would have kept another"
    )
    bounded = [by_step[step][metrics.VALIDATION_WER_BOUNDED] for step in (10, 20, 30)]
    assert one.state.best_score is not None
    assert min(bounded) == bounded[1] == one.state.best_score[0]
    assert one.state.best_wer == by_step[20][metrics.VALIDATION_WER]
    assert all(metrics.VALIDATION_CER_BOUNDED in values for values in by_step.values())
    kept = [path.name for path in (tmp_path / "checkpoints").glob("weights-*")]
    assert "weights-00000020" in kept
    assert "weights-00000030" not in kept


@pytest.mark.parametrize(("rows", "steps"), [(2, [10, 20]), (4, [10])])
def test_the_mean_of_weights_is_taken_where_its_score_is_better(
    rows: int, steps: list[int], tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though one row loops; by plain WER the best step would have been taken both times."""
    changes = {"train.average_weights": "best", "train.average_count": 2}
    one = training(tiny_data, tmp_path, **{"train.max_steps": 40}, **changes)
    texts = one.validation.references
    heard(monkeypatch, spoilt(texts, 4), spoilt(texts, 5), spoilt(texts, rows, LOOP))
    for step in (10, 20):
        one.state.step = step
        one.validate()
    before = one.state.best_wer
    assert one.load_best() == steps
    assert before is not None
    assert one.state.best_wer is not None
    assert (one.state.best_wer > before) == (steps != [10])


@pytest.mark.parametrize(
    ("steps_per_second", "told"),
    [(11.24, "11.2 steps/s"), (1.0, "1.0 steps/s"), (0.4, "2.5 s/step"), (0.02, "50.0 s/step")],
)
def test_slow_steps_are_told_in_seconds(steps_per_second: float, told: str) -> None:
    assert pace_text(steps_per_second) == told
