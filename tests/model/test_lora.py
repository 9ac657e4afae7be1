"""LoRA: adapters alone are trained and kept, the plain model is measured and saved, and a stopped
training ends with the same bits.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from asr.errors import ParamsError, Stopped
from asr.features import input_features
from asr.model import greedy, loader, lora, regularization
from asr.params import reader, schema
from asr.storage import files, hashing
from asr.training import optimization
from asr.training.loop import Training
from stages import train
from support.model import clip, scratch
from support.repository import TINY, write_params

pytestmark = pytest.mark.usefixtures("in_process")

CHOSEN = schema.Lora(rank=4, alpha=8, dropout=0.0, target_modules=["q_proj", "v_proj"])
ADAPTED = {
    **TINY,
    "model.lora.rank": 4,
    "model.lora.dropout": 0.1,
    "model.dropout": 0.1,
    "train.learning_rate": 1e-2,
    "train.gradient_accumulation_steps": 2,
}


def trained(data: Path, root: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """One training in `root`; gives its failed checks with what they say."""
    os.environ["DVC_ROOT"] = str(root)  # which the fixture `own_root` puts back
    AcceleratorState._reset_state(reset_partial_state=True)
    split = data / "data/features"
    root.mkdir(exist_ok=True)
    given = reader.load(write_params(root / "params.yaml", changes))
    train.run(
        split / "train",
        split / "validation",
        root / "models/finetuned",
        root / "reports/train",
        given,
    )
    found = files.read_json(root / "reports/train/checks.json")
    return {name: one["detail"] for name, one in found.items() if not one["passed"]}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where trainings lie that several tests look at."""
    return tmp_path_factory.mktemp("rooms")


@pytest.fixture
def start(rooms: Path, tiny_data: Path) -> Path:
    """A model that has learnt a little, to go on from."""
    if not (rooms / "learnt").is_dir():
        learns = {
            "train.max_steps": 40,
            "train.eval_steps": 40,
            "train.learning_rate": 3e-3,
            "model.scratch.d_model": 48,
        }
        assert trained(tiny_data, rooms / "scratch", {**TINY, **learns}) == {}
        shutil.move(rooms / "scratch/models/finetuned", rooms / "learnt")
    return rooms / "learnt"


@pytest.fixture
def whole(rooms: Path, tiny_data: Path, start: Path) -> Path:
    """A training with adapters from beginning to end."""
    if not (rooms / "whole").is_dir():
        assert trained(tiny_data, rooms / "whole", {**ADAPTED, "model.name": str(start)}) == {}
    return rooms / "whole"


def traces(root: Path) -> dict[str, str]:
    """Hashes of all that must not differ."""
    (last,) = root.glob(".cache/checkpoints/*/step-00000010")
    paths = [
        root / "models/finetuned/model.safetensors",
        *last.glob("*.safetensors"),
        last / "state.json",
    ]
    paths += [
        root / "reports/train" / name
        for name in ("steps.csv", "summary.json", "checks.json", "run.json")
    ]
    return {f"{path.parent.name}/{path.name}": hashing.sha256(path) for path in paths}


def test_the_saved_model_is_plain_and_only_the_targets_differ_from_the_start(
    whole: Path, start: Path
) -> None:
    before, after = (
        load_file(start / "model.safetensors"),
        load_file(whole / "models/finetuned/model.safetensors"),
    )
    assert before.keys() == after.keys()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.endswith(("q_proj.weight", "v_proj.weight"))}
    assert not lora.layers(loader.load_saved(whole / "models/finetuned").model)


def test_checkpoints_hold_the_adapters_alone(whole: Path) -> None:
    for path in whole.glob(".cache/checkpoints/*/*/model.safetensors"):
        assert all(lora.MARK in name for name in load_file(path))
    summary = files.read_json(whole / "reports/train/summary.json")
    plain = load_file(whole / "models/finetuned/model.safetensors")
    assert summary["parameters"] == sum(value.numel() for value in plain.values())
    assert summary["parameters_trained"] == 3 * 2 * 4 * (
        48 + 48
    )  # attentions, targets, rank, both sides


def test_a_stopped_training_with_adapters_ends_with_the_same_bits(
    tmp_path: Path, tiny_data: Path, start: Path, whole: Path
) -> None:
    given = {**ADAPTED, "model.name": str(start)}
    step = Training.train_step

    def stopped(self: Training, parts: Any) -> None:
        step(self, parts)
        if self.state.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "train_step", stopped)
        with pytest.raises(Stopped, match="at step 7 of 10"):
            trained(tiny_data, tmp_path, given)
    assert not (tmp_path / "models").exists()
    assert trained(tiny_data, tmp_path, given) == {}
    assert traces(tmp_path) == traces(whole)


def test_another_seed_gives_other_adapters(
    tmp_path: Path, tiny_data: Path, start: Path, whole: Path
) -> None:
    """The control of the test above; and what goes with adapters: frozen layers, bf16,
    checkpointing, averaging.
    """
    others = {
        "train.seed": 2,
        "model.freeze_encoder": "all",
        "train.precision": "bf16",
        "train.gradient_checkpointing": True,
    }
    averaged = {
        "train.average_weights": "last",
        "train.average_count": 2,
        "model.lora.target_modules": ["k_proj", "out_proj", "fc1", "fc2"],
    }
    assert (
        trained(tiny_data, tmp_path, {**ADAPTED, "model.name": str(start), **others, **averaged})
        == {}
    )
    ours, theirs = traces(tmp_path), traces(whole)
    assert all(ours[name] != theirs[name] for name in ours if not name.endswith("checks.json"))


def _base_thawed(patch: pytest.MonkeyPatch) -> None:
    freeze = regularization.freeze

    def thaw(whisper: Any, *rest: Any) -> None:
        freeze(whisper, *rest)
        whisper.model.decoder.layers[0].fc1.weight.requires_grad_(True)

    patch.setattr(regularization, "freeze", thaw)


def _adapters_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lora, "add", lambda *_: None)
    patch.setattr(regularization, "freeze", lambda *_: None)


def _saved_without_them(patch: pytest.MonkeyPatch) -> None:
    save = loader.save

    def bare(whisper: Any, *rest: Any) -> None:
        for name, value in whisper.state_dict().items():
            if name.endswith("q_proj.weight"):
                value.zero_()
        save(whisper, *rest)

    patch.setattr(loader, "save", bare)


PLANTED: list[tuple[Callable[[pytest.MonkeyPatch], None], str]] = [
    (_base_thawed, "weights"),
    (_adapters_forgotten, "weights"),
    (_saved_without_them, "saved_model"),
]


@pytest.mark.parametrize(("plant", "name"), PLANTED, ids=lambda one: getattr(one, "__name__", ""))
def test_a_fault_of_adapters_is_caught(
    plant: Callable[[pytest.MonkeyPatch], None],
    name: str,
    tmp_path: Path,
    tiny_data: Path,
    start: Path,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        assert name in trained(
            tiny_data, tmp_path, {**ADAPTED, "model.name": str(start), "train.max_steps": 4}
        )


def adapted() -> loader.Start:
    """A tiny model whose adapters do something."""
    start = scratch()
    lora.add(start.model, CHOSEN, 1)
    for layer in lora.layers(start.model).values():
        torch.nn.init.normal_(
            layer.lora_B["default"].weight, generator=torch.Generator().manual_seed(2)
        )
    return start


def test_the_merged_model_says_what_the_adapted_one_says_and_leaves_it_alone() -> None:
    start = adapted()
    before = {name: value.clone() for name, value in start.model.state_dict().items()}
    plain = lora.merged(start.model)
    inputs = {
        "input_features": input_features([clip(1.5)], 200),
        "decoder_input_ids": torch.arange(5)[None],
    }
    with torch.no_grad():
        ours, theirs, bare = (
            plain(**inputs).logits,
            start.model(**inputs).logits,
            scratch().model(**inputs).logits,
        )
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(ours, bare, atol=0.1)
    assert all(torch.equal(value, before[name]) for name, value in start.model.state_dict().items())
    assert plain.state_dict().keys() == scratch().model.state_dict().keys()
    assert greedy.generation_prompt(plain) == greedy.generation_prompt(scratch().model)


def test_two_ways_of_merging_agree_and_all_else_is_shared() -> None:
    start = adapted()
    plain, wanted = (
        lora.merged(start.model).state_dict(),
        lora.plain_weights(start.model, lora.trained(start.model.state_dict())),
    )
    assert all(torch.equal(value, wanted[name]) for name, value in plain.items())
    theirs = {value.data_ptr() for value in start.model.state_dict().values()}
    assert {name for name, value in plain.items() if value.data_ptr() not in theirs} == {
        f"{name}.weight" for name in lora.layers(start.model)
    }


def test_without_adapters_nothing_is_merged() -> None:
    whisper = scratch().model
    assert lora.merged(whisper) is whisper
    assert lora.trained(whisper.state_dict()).keys() == whisper.state_dict().keys()


def test_adapters_do_nothing_at_first_and_are_a_function_of_the_seed() -> None:
    first, again, other = scratch().model, scratch().model, scratch().model
    drawn = torch.random.get_rng_state()
    for whisper, seed in ((first, 1), (again, 1), (other, 2)):
        lora.add(whisper, CHOSEN, seed)
    assert torch.equal(drawn, torch.random.get_rng_state())
    assert loader.weights_hash(lora.merged(first)) == loader.weights_hash(scratch().model)
    assert loader.weights_hash(first) == loader.weights_hash(again) != loader.weights_hash(other)


def test_auto_asks_ten_times_the_rate_for_adapters() -> None:
    start = loader.Start(scratch().model, scratch().tokenizer, "whisper-x", None)
    usual = optimization.learning_rate("auto", start)
    lora.add(start.model, CHOSEN, 1)
    assert optimization.learning_rate("auto", start) == pytest.approx(10 * usual, rel=0.1)
    assert optimization.learning_rate(2e-4, start) == 2e-4


def test_without_peft_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        ParamsError,
        match=(
            r"model.lora.rank: got 4, which needs peft: pip install -c requirements.txt -e "
            r"'.\[lora\]'"
        ),
    ):
        lora.add(scratch().model, CHOSEN, 1)


def test_from_scratch_there_is_nothing_to_adapt(tmp_path: Path) -> None:
    with pytest.raises(
        ParamsError,
        match=r"model\.lora\.rank: got 4, want null where all weights are still to be learnt",
    ):
        reader.load(write_params(tmp_path / "params.yaml", {"model.lora.rank": 4}))
