"""The forecast before the long run: it changes nothing, refuses a disk that is too small, and
counts what will be done.
"""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import DiskError, ModelError
from asr.preflight import forecast
from asr.training import checkpoints, memory
from asr.training.loop import Training
from stages import train
from support.training import OUT_OF_MEMORY, equal, everything, no_memory_beyond, run, training

pytestmark = pytest.mark.usefixtures("in_process")
SHORT = {
    "train.max_steps": 4,
    "train.eval_steps": 4,
    "train.eval_rows": 2,
    "train.save_steps": 4,
}
NOISY = {**SHORT, "model.dropout": 0.1, "model.apply_spec_augment": True}
OUT = Path("models/finetuned")
Usage = namedtuple("Usage", "total used free")


def test_the_forecast_changes_no_bit_and_costs_two_steps(
    tmp_path: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, rows, batches = {}, {}, {}
    for name in ("asked", "never"):
        with pytest.MonkeyPatch.context() as patch:
            batches[name] = no_memory_beyond(99, MemoryError(), patch)
            (tmp_path / name).mkdir()
            one = training(tiny_data, tmp_path / name, **NOISY)
            if name == "asked":
                forecast.forecast(one, tmp_path / OUT)
            one.run()
        tensors[name], rows[name] = everything(one), one.state.rows
    assert equal(tensors["asked"], tensors["never"])
    assert rows["asked"] == rows["never"]
    assert len(batches["asked"]) - len(batches["never"]) == 2
    assert capsys.readouterr().out.count("forecast: 4 steps in about ") == 1


def test_a_training_that_has_ended_is_not_forecast(
    tmp_path: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = training(tiny_data, tmp_path, **SHORT)
    one.state.step = 4
    forecast.forecast(one, tmp_path / OUT)
    assert capsys.readouterr().out == ""


# Disk


def test_a_disk_too_small_is_refused_with_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two folders on one disk count together."""
    needed = {tmp_path / "not/there/yet": 2_000_000, tmp_path: 1_000_000}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, 3_000_000))
    assert forecast.refuse_full_disk(needed) == "3.0 MB of disk of 3.0 MB free"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, 2_999_999))
    with pytest.raises(
        DiskError, match=r"want 3\.0 MB of disk, 3\.0 MB are free; make room \(make fresh"
    ) as error:
        forecast.refuse_full_disk(needed)
    assert error.value.exit_code == 7


def test_a_training_without_room_writes_nothing(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, 1))
    with pytest.raises(DiskError, match="make room"):
        run(tiny_data, tmp_path, **SHORT)
    assert not list(tmp_path.rglob("*.safetensors"))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 9), st.integers(1, 9))
def test_checkpoints_and_weights_are_counted_at_their_most(
    weights: int, moments: int, averaged: int, evaluations: int
) -> None:
    """One checkpoint more than is kept; weights: the best, those to average, those not yet gone."""
    found = forecast.checkpoints_bytes(weights, moments, averaged, evaluations)
    whole = [weights, moments] * (checkpoints.MAX_KEPT + 1)
    alone = [weights] * (1 + averaged + evaluations)
    assert found == sum(whole + alone)


def test_a_training_never_takes_more_disk_than_was_forecast(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured after each write, before what is old goes; and not much less, or the forecast would
    be worth nothing.
    """
    changes = {
        "train.average_weights": "last",
        "train.average_count": 2,
        "train.eval_rows": 1,
        "train.eval_steps": 2,
        "train.save_steps": 3,
    }
    one = training(tiny_data, tmp_path, **changes)
    checkpoint_bytes, model_bytes = forecast.disk_needed(one, tmp_path / OUT).values()
    taken, save = [0], checkpoints.save

    def measured(folder: Path, *rest: Any) -> None:
        save(folder, *rest)
        taken.append(sum(path.stat().st_size for path in folder.rglob("*.safetensors")))

    monkeypatch.setattr(checkpoints, "save", measured)
    one.run()
    train.write_model(one, tmp_path / OUT)
    assert 0.7 * checkpoint_bytes < max(taken) < 1.1 * checkpoint_bytes, (
        "headers of a tiny model's files are not counted"
    )
    saved = (tmp_path / OUT / "model.safetensors").stat().st_size
    assert model_bytes == pytest.approx(saved, rel=0.1)


def test_checkpoints_that_are_there_take_no_room_twice(tmp_path: Path, tiny_data: Path) -> None:
    one = training(tiny_data, tmp_path)
    before = forecast.disk_needed(one, tmp_path / OUT)[one.folder]
    one.train_step(one.micro_batches(0))
    one.save()
    there = sum(path.stat().st_size for path in one.folder.rglob("*.safetensors"))
    assert forecast.disk_needed(one, tmp_path / OUT)[one.folder] == before - there


# Memory


def test_memory_that_is_near_is_said(
    tmp_path: Path,
    tiny_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = training(tiny_data, tmp_path)
    forecast.forecast(one, tmp_path / OUT)
    assert "memory is near" not in capsys.readouterr().out
    monkeypatch.setattr(memory, "free", lambda _: 100)
    forecast.forecast(one, tmp_path / OUT)
    assert "memory is near: lower train.per_device_train_batch_size" in capsys.readouterr().out


def test_memory_that_is_short_is_found_before_the_first_step(
    tmp_path: Path,
    tiny_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = training(tiny_data, tmp_path)
    no_memory_beyond(2, OUT_OF_MEMORY["gpu"], monkeypatch)
    forecast.forecast(one, tmp_path / OUT)
    assert (one.state.halvings, one.state.step) == (1, 0)
    assert "from here on 2 at once" in capsys.readouterr().out
    assert all(value.grad is None for value in one.unwrapped.parameters())
    monkeypatch.setattr(forecast, "moments_to_come", lambda _: 1 << 60)
    with pytest.raises(ModelError, match="no memory for AdamW's moments"):
        forecast.forecast(one, tmp_path / OUT)


def test_moments_are_counted_till_they_are_there() -> None:
    trained = torch.nn.Parameter(torch.ones(3, 5))
    optimizer = torch.optim.AdamW([trained])
    assert forecast.moments_to_come(optimizer) == 2 * 3 * 5 * 4
    trained.sum().backward()
    optimizer.step()
    assert forecast.moments_to_come(optimizer) == 0
    assert forecast.moments_bytes(optimizer) == 2 * 3 * 5 * 4


def test_processes_of_one_machine_need_memory_together(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(memory, "peak", lambda _: 1000)
    assert forecast.memory_needed(cpu, 24) == 1024
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert forecast.memory_needed(cpu, 24) == 3 * 1024


# Time


@pytest.mark.parametrize(
    ("step", "every", "last", "left"),
    [
        (0, 5, 10, 3),
        (0, 4, 10, 4),
        (1, 4, 10, 3),
        (4, 4, 10, 3),
        (9, 4, 10, 1),
        (0, 50, 10, 2),
        (3, 3, 4, 2),
    ],
)
def test_evaluations_that_are_left(step: int, every: int, last: int, left: int) -> None:
    assert forecast.evaluations_left(step, every, last, validated=False) == left
    if step % every == 0:
        assert forecast.evaluations_left(step, every, last, validated=True) == left - 1


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 29))
def test_as_many_evaluations_are_left_as_the_loop_makes(every: int, last: int, step: int) -> None:
    """It evaluates each `every` steps, and at the last."""
    step = min(step, last)
    due = [number for number in range(step, last + 1) if number % every == 0 or number == last]
    assert forecast.evaluations_left(step, every, last, validated=False) == len(due)


def test_an_evaluation_costs_two_encodings_a_row_and_a_token_a_batch() -> None:
    seconds = forecast.evaluation_seconds(encoded=2.0, token=1.0, rows=6, batch_size=4, longest=9)
    assert seconds == 2 * 2.0 * 6 + 2 * (9 + 1) * 1.0


def test_decoding_is_timed_by_rows_and_tokens(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that only decoding moves: the encoder takes 8 s, the decoder 1 s a token."""
    one = training(tiny_data, tmp_path, **{"train.per_device_eval_batch_size": 4})
    clock = [0.0]
    encoder, decoder = one.unwrapped.model.encoder, one.unwrapped.model.decoder
    encoder.register_forward_hook(lambda *_: clock.__setitem__(0, clock[0] + 8))
    decoder.register_forward_hook(lambda *_: clock.__setitem__(0, clock[0] + 1))
    monkeypatch.setattr(forecast, "now", lambda _: clock[0])
    assert forecast.decoding_seconds(one.unwrapped, one.validation, 4) == (8 / 4, 1.0)
    longest = max(len(example.text_ids) for example in one.validation.examples)
    assert len(one.validation.row_numbers) == 6
    assert forecast.evaluation_of(one) == 2 * 2 * 6 + 2 * (longest + 1)


def test_a_signal_during_the_forecast_is_obeyed_by_the_training(
    tmp_path: Path,
    tiny_data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = training(tiny_data, tmp_path)
    gradients = Training.gradients

    def signalled(self: Training, parts: Any) -> torch.Tensor:
        self.signals.received = 15
        return gradients(self, parts)

    monkeypatch.setattr(Training, "gradients", signalled)
    forecast.forecast(one, tmp_path / OUT)
    assert "forecast" not in capsys.readouterr().out
    assert one.signals.received == 15
