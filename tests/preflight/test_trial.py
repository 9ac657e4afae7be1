"""The trial trains as training does, at any window, and says of what it had no time for what the
compute tells.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from asr import features
from asr.model import loader, tokenization
from asr.params.schema import Params
from asr.preflight import trial
from asr.training import batches, memory
from support.data import load
from support.model import SHAPE, hub_folder, noise

TINY = {f"model__scratch__{key}": str(value) for key, value in SHAPE.items()}
MADE = tokenization.from_texts(["ett två tre"], 300)
CLIPS = [
    (features.log_mel(noise(0.5 + number / 4, number), 80), [5] * (3 + number))
    for number in range(5)
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "WINDOW_SECONDS", 0.01)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Params:
    return load(
        tmp_path_factory.mktemp("params"),
        model__name="scratch",
        train__per_device_train_batch_size="2",
        **TINY,
    )


def step(given: Params, seconds: int) -> trial.Step:
    whisper = trial.build_model(given, MADE, seconds)
    assert whisper is not None
    return trial.Step(
        whisper, whisper.model.encoder.embed_positions.weight, given.train.precision, 2
    )


def test_every_window_gets_a_time_and_all_are_measured_while_there_is_time(
    small: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "ALL_SECONDS", 1e9)
    found = trial.run(small, MADE, CLIPS, [1.5, 3.0, 1.0], lambda window: window)
    assert list(found) == [1.5, 3.0, 1.0]
    assert all(one["measured"] and one["row_seconds"] > 0 for one in found.values())


def test_what_was_not_measured_follows_from_the_compute_of_the_nearest(
    small: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "ALL_SECONDS", 0.0)
    found = trial.run(small, MADE, CLIPS, [1.0, 3.0], lambda window: window**2)
    assert [one["measured"] for one in found.values()] == [True, False]
    assert found[3.0]["row_seconds"] == pytest.approx(9 * found[1.0]["row_seconds"])


def test_a_window_that_memory_does_not_hold_is_passed_over(
    small: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = trial.Step.row_seconds

    def full(self: trial.Step, clips: object) -> float:
        if self.whisper.config.max_source_positions > 100:
            raise MemoryError
        return measure(self, clips)

    monkeypatch.setattr(trial.Step, "row_seconds", full)
    found = trial.run(small, MADE, CLIPS, [1.0, 3.0], lambda window: window)
    assert [one["measured"] for one in found.values()] == [True, False]
    assert trial.run(small, MADE, CLIPS, [3.0], lambda window: window) == {}


def test_another_error_is_not_hidden(small: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial.Step, "row_seconds", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trial.run(small, MADE, CLIPS, [1.0], lambda window: window)


def test_a_step_goes_forward_and_backward_and_leaves_no_gradient(
    small: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, shapes, grown = step(small, 2), [], []
    loss = batches.summed_loss

    def watched(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        shapes.append((tuple(logits.shape[:2]), int((labels != batches.IGNORED).sum())))
        return loss(logits, labels)

    monkeypatch.setattr(batches, "summed_loss", watched)
    handles = [
        one.register_hook(lambda grad: grown.append(float(grad.abs().sum())))
        for one in tried.whisper.parameters()
        if one.requires_grad
    ]
    assert tried.seconds(CLIPS[:2]) > 0
    assert shapes == [((2, trial.PROMPT + 4), 3 + 4 + 2)]  # each label has an end besides
    assert len(grown) == len(handles)
    assert sum(grown) > 0
    assert all(one.grad is None for one in tried.whisper.parameters())


def test_a_model_that_was_given_a_window_hears_as_one_that_was_built_with_it(small: Params) -> None:
    tried, whole = step(small, 3), step(small, 2)
    tried.set_window(2)
    tried.whisper.load_state_dict(whole.whisper.state_dict())
    clip = torch.from_numpy(np.stack([features.pad(CLIPS[0][0], 200)]))
    heard = [one.whisper.eval().model.encoder(clip).last_hidden_state for one in (tried, whole)]
    assert torch.equal(*heard)
    tried.set_window(3)
    assert len(tried.whisper.model.encoder.embed_positions.weight) == 150


def test_a_checkpoint_is_tried_by_its_shape_alone_and_frozen_layers_are_kept(
    tmp_path: Path,
) -> None:
    folder = hub_folder(tmp_path / "whisper")
    (folder / "model.safetensors").unlink()
    given = load(
        tmp_path, model__name=str(folder), model__freeze_encoder="all", train__precision="bf16"
    )
    whisper = trial.build_model(given, MADE, 2)
    assert whisper is not None
    assert loader.window_seconds(whisper) == 2
    assert not any(one.requires_grad for one in whisper.model.encoder.parameters())
    found = trial.run(given, MADE, CLIPS[:2], [1.0], lambda window: window)
    assert found[1.0]["measured"]


def test_a_model_that_memory_cannot_hold_is_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = load(tmp_path, model__name=str(hub_folder(tmp_path / "whisper")))
    monkeypatch.setattr(memory, "free", lambda _: 1000)
    assert trial.run(given, MADE, CLIPS, [1.0], lambda window: window) == {}
