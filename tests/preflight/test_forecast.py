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

from asr.errors import DiskError, ModelError
from asr.preflight import forecast
from asr.training import checkpoints, memory
from asr.training.loop import Training
from support.training import OUT_OF_MEMORY, no_memory_beyond, run, training

pytestmark = pytest.mark.usefixtures("in_process")
NOISY = {"model.dropout": 0.1, "model.apply_spec_augment": True, "train.max_steps": 6}
Usage = namedtuple("Usage", "total used free")


def test_the_forecast_changes_no_bit_and_costs_two_steps(
    tmp_path: Path,
    tiny_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found, rows = {}, {}
    for name in ("asked", "never"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("DVC_ROOT", str(tmp_path / name))
        with pytest.MonkeyPatch.context() as patch:
            rows[name] = no_memory_beyond(99, MemoryError(), patch)
            if name == "never":
                patch.setattr(forecast, "forecast", lambda *_: None)
            found[name] = run(tiny_data, tmp_path / name, **NOISY)
    assert found["asked"] == found["never"]
    assert len(rows["asked"]) - len(rows["never"]) == 2
    said = capsys.readouterr().out
    assert said.count("forecast: 6 steps in about ") == 1
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "asked"))
    run(tiny_data, tmp_path / "asked", **NOISY)
    said = capsys.readouterr().out
    assert "resumed at step 6" in said
    assert "forecast" not in said, "what is finished is not asked"


def test_a_disk_too_small_is_refused_with_numbers_before_anything_is_written(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = training(tiny_data, tmp_path)
    needed = sum(forecast.disk_needed(one, tmp_path / "models/finetuned").values())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, needed))
    assert forecast.refuse_full_disk(one, tmp_path / "models/finetuned").endswith(" free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, needed - 1))
    with pytest.raises(
        DiskError, match=r"want [0-9.]+ MB of disk, [0-9.]+ MB are free; make room \(make fresh"
    ) as fault:
        run(tiny_data, tmp_path)
    assert fault.value.exit_code == 7
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_training_never_takes_more_disk_than_was_told(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured after each write, before what is old goes; and not much less, or the forecast would
    be worth nothing.
    """
    changes = {
        "train.average_weights": "last",
        "train.average_count": 2,
        "train.eval_steps": 2,
        "train.save_steps": 3,
    }
    taken, told = [0], {}
    save, needed = checkpoints.save, forecast.disk_needed

    def measured(folder: Path, *rest: Any) -> None:
        save(folder, *rest)
        taken.append(sum(path.stat().st_size for path in folder.rglob("*.safetensors")))

    def noted(*given: Any) -> dict[Path, int]:
        told.update(needed(*given))
        return told

    monkeypatch.setattr(checkpoints, "save", measured)
    monkeypatch.setattr(forecast, "disk_needed", noted)
    run(tiny_data, tmp_path, **changes)
    checkpoint_bytes, model_bytes = told.values()
    assert 0.7 * checkpoint_bytes < max(taken) < 1.1 * checkpoint_bytes, (
        "headers of a tiny model's files are not counted"
    )
    saved = (tmp_path / "models/finetuned/model.safetensors").stat().st_size
    assert model_bytes == pytest.approx(saved, rel=0.1)


def test_checkpoints_that_are_there_take_no_room_twice(tmp_path: Path, tiny_data: Path) -> None:
    one = training(tiny_data, tmp_path)
    before = forecast.disk_needed(one, tmp_path / "models/finetuned")[one.folder]
    one.train_step(one.micro_batches(0))
    one.save()
    there = sum(path.stat().st_size for path in one.folder.rglob("*.safetensors"))
    assert forecast.disk_needed(one, tmp_path / "models/finetuned")[one.folder] == before - there


def test_memory_that_is_near_is_said(
    tmp_path: Path,
    tiny_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = training(tiny_data, tmp_path)
    forecast.forecast(one, tmp_path / "models/finetuned")
    assert "memory is near" not in capsys.readouterr().out
    monkeypatch.setattr(memory, "free", lambda _: 100)
    forecast.forecast(one, tmp_path / "models/finetuned")
    assert "memory is near: lower train.per_device_train_batch_size" in capsys.readouterr().out


def test_memory_that_is_short_is_found_before_the_first_step(
    tmp_path: Path,
    tiny_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = training(tiny_data, tmp_path)
    no_memory_beyond(2, OUT_OF_MEMORY["gpu"], monkeypatch)
    forecast.forecast(one, tmp_path / "models/finetuned")
    assert (one.state.halvings, one.state.step) == (1, 0)
    assert "from here on 2 at once" in capsys.readouterr().out
    assert all(value.grad is None for value in one.unwrapped.parameters())
    monkeypatch.setattr(forecast, "moments_to_come", lambda _: 1 << 60)
    with pytest.raises(ModelError, match="no memory for AdamW's moments"):
        forecast.forecast(one, tmp_path / "models/finetuned")


def test_moments_are_counted_till_they_are_there(tmp_path: Path, tiny_data: Path) -> None:
    one = training(tiny_data, tmp_path)
    trained = sum(value.nbytes for value in one.unwrapped.parameters() if value.requires_grad)
    assert forecast.moments_to_come(one) == 2 * trained
    assert forecast.memory_needed(one) == memory.peak(torch.device("cpu")) + 2 * trained
    one.train_step(one.micro_batches(0))
    assert forecast.moments_to_come(one) == 0


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
def test_evaluations_that_are_left(
    step: int, every: int, last: int, left: int, tmp_path: Path, tiny_data: Path
) -> None:
    one = training(tiny_data, tmp_path, **{"train.eval_steps": every, "train.max_steps": last})
    one.state.step = step
    assert forecast.evaluations_left(one) == left
    if step % every == 0:
        one.state.row(step)["validation_wer"] = 1.0
        assert forecast.evaluations_left(one) == left - 1


def test_an_evaluation_is_forecast_by_rows_and_groups(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that only decoding moves: a pass of the encoder takes 8 s for 4 rows, each token
    1 s.
    """
    one = training(tiny_data, tmp_path, **{"train.per_device_eval_batch_size": 4})
    clock = [0.0]
    encoder, decoder = one.unwrapped.model.encoder, one.unwrapped.model.decoder
    encoder.register_forward_hook(lambda *_: clock.__setitem__(0, clock[0] + 8))
    decoder.register_forward_hook(lambda *_: clock.__setitem__(0, clock[0] + 1))
    monkeypatch.setattr(forecast, "now", lambda _: clock[0])
    longest = max(len(example.text_ids) for example in one.validation.examples)
    assert len(one.validation.row_numbers) == 6
    assert forecast.evaluation_seconds(one) == pytest.approx(2 * 8 * 6 / 4 + 2 * (longest + 1))


def test_a_signal_during_the_forecast_is_obeyed_by_the_training(
    tmp_path: Path,
    tiny_data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = training(tiny_data, tmp_path)
    gradients = Training.gradients

    def told(self: Training, parts: Any) -> torch.Tensor:
        self.signals.received = 15
        return gradients(self, parts)

    monkeypatch.setattr(Training, "gradients", told)
    forecast.forecast(one, tmp_path / "models/finetuned")
    assert "forecast" not in capsys.readouterr().out
