"""Checkpoints come back bit for bit or not at all, damaged ones are passed over, and one process
holds the folder.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import ModelError
from asr.training import checkpoints
from asr.training.checkpoints import Checkpoint
from support.repository import REPOSITORY

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")
HOLD = """
import sys
from pathlib import Path
from asr.training import checkpoints
with checkpoints.hold_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
DIE_WHILE_SAVING = """
import os, signal, sys
from pathlib import Path
import torch
from asr.storage import files
from asr.training import checkpoints
write, deadly = files.write_json, sys.argv[2]
def killed(path, value):
    if path.name == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, value)
files.write_json = killed
checkpoint = checkpoints.Checkpoint(4, {"model": {"w": torch.ones(3)}}, {})
checkpoints.save(Path(sys.argv[1]), "step", checkpoint)
"""


def point(step: int) -> Checkpoint:
    draw = torch.Generator().manual_seed(step)
    weights = {
        "w": torch.randn(5, 3, generator=draw),
        "half": torch.randn(4, generator=draw).to(torch.bfloat16),
        "tail": torch.tensor(float("nan")),
    }
    moments = {
        "0.step": torch.tensor(float(step)),
        "0.exp_avg": torch.randn(3, 5, generator=draw).T,
        "1.mask": torch.tensor([True, False]),
    }
    return Checkpoint(
        step,
        {"model": weights, "optimizer": moments},
        {"step": step, "loss": 0.1 + 0.2, "best": None, "rows": [{"wer": 1 / 3}], "text": "åäö"},
    )


def assert_same(found: Checkpoint | None, wanted: Checkpoint) -> None:
    assert found is not None
    assert (found.step, found.state) == (wanted.step, wanted.state)
    assert found.tensors.keys() == wanted.tensors.keys()
    for name, tensors in wanted.tensors.items():
        assert found.tensors[name].keys() == tensors.keys()
        for key, value in tensors.items():
            other = found.tensors[name][key]
            assert (other.dtype, other.shape) == (value.dtype, value.shape)
            assert (
                other.contiguous()
                .flatten()
                .view(torch.uint8)
                .equal(value.contiguous().flatten().view(torch.uint8))
            )


def save_three(folder: Path) -> Path:
    for step in (2, 4, 7):
        checkpoints.save(folder, "step", point(step))
    return folder


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, "step", point(3))
    assert_same(checkpoints.load(tmp_path, "step", 3), point(3))
    assert_same(checkpoints.latest(tmp_path), point(3))


def test_the_newest_checkpoint_is_the_one_of_the_highest_step(tmp_path: Path) -> None:
    for step in (9, 10, 100, 2):
        checkpoints.save(tmp_path, "step", point(step))
    checkpoints.save(tmp_path, "best", point(500))
    assert checkpoints.steps(tmp_path, "step") == [100, 10, 9, 2]
    assert_same(checkpoints.latest(tmp_path), point(100))


def test_no_checkpoint_is_no_fault(tmp_path: Path) -> None:
    assert checkpoints.latest(tmp_path) is None
    assert checkpoints.latest(tmp_path / "never") is None


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    checkpoints.save(
        tmp_path, "step", Checkpoint(3, {"model": {"old": torch.ones(2)}}, {"step": 0})
    )
    checkpoints.save(tmp_path, "step", point(3))
    assert_same(checkpoints.latest(tmp_path), point(3))


@settings(max_examples=25)
@given(name=st.sampled_from(FILES), share=st.floats(0, 0.99))
def test_a_truncated_file_falls_back_to_the_checkpoint_before(
    tmp_path_factory: pytest.TempPathFactory, name: str, share: float
) -> None:
    folder = save_three(tmp_path_factory.mktemp("cut"))
    damaged = folder / "step-00000007" / name
    content = damaged.read_bytes()
    damaged.write_bytes(content[: int(share * (len(content) - 2))])
    assert_same(checkpoints.latest(folder), point(4))


@settings(max_examples=25)
@given(name=st.sampled_from(FILES[:3]), share=st.floats(0, 0.999), bit=st.integers(0, 7))
def test_a_flipped_bit_falls_back_to_the_checkpoint_before(
    tmp_path_factory: pytest.TempPathFactory, name: str, share: float, bit: int
) -> None:
    folder = save_three(tmp_path_factory.mktemp("flip"))
    damaged = folder / "step-00000007" / name
    content = bytearray(damaged.read_bytes())
    content[int(share * len(content))] ^= 1 << bit
    damaged.write_bytes(content)
    assert_same(checkpoints.latest(folder), point(4))


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"sha256": []}', '{"sha256": null}', ""])
def test_a_manifest_of_another_form_falls_back(tmp_path: Path, content: str) -> None:
    (save_three(tmp_path) / "step-00000007" / "manifest.json").write_text(content, encoding="utf-8")
    assert_same(checkpoints.latest(tmp_path), point(4))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_falls_back(tmp_path: Path, name: str) -> None:
    (save_three(tmp_path) / "step-00000007" / name).unlink()
    assert_same(checkpoints.latest(tmp_path), point(4))


def test_falling_back_says_what_is_damaged_and_what_it_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_three(tmp_path)
    (tmp_path / "step-00000007" / "state.json").write_bytes(b"{}")
    checkpoints.latest(tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        "checkpoint step-00000007 is damaged: state.json; falling back",
        "the damaged checkpoint costs 3 steps, which are done again",
    ]


def test_a_whole_checkpoint_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints.latest(save_three(tmp_path))
    assert capsys.readouterr().out == ""


def test_all_damaged_is_as_none(tmp_path: Path) -> None:
    save_three(tmp_path)
    for step in (2, 4, 7):
        assert checkpoints.latest(tmp_path) is not None
        (tmp_path / f"step-{step:08d}" / "model.safetensors").write_bytes(b"")
    assert checkpoints.latest(tmp_path) is None


def test_loading_a_damaged_one_by_name_is_a_bad_model(tmp_path: Path) -> None:
    save_three(tmp_path)
    (tmp_path / "step-00000004" / "manifest.json").unlink()
    with pytest.raises(
        ModelError, match=r"^step-00000004 is not whole \(FileNotFoundError\)$"
    ) as caught:
        checkpoints.load(tmp_path, "step", 4)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("deadly", ["state.json", "manifest.json"])
def test_a_save_that_was_killed_leaves_the_one_before_and_its_draft_goes_with_the_next(
    tmp_path: Path, deadly: str
) -> None:
    checkpoints.save(tmp_path, "step", point(2))
    killed = subprocess.run(
        [sys.executable, "-c", DIE_WHILE_SAVING, str(tmp_path), deadly],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert killed.returncode == -signal.SIGKILL
    assert list(tmp_path.glob(".step-00000004.*.part"))
    assert_same(checkpoints.latest(tmp_path), point(2))
    checkpoints.save(tmp_path, "step", point(4))
    assert_same(checkpoints.latest(tmp_path), point(4))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000004"]


def test_a_save_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        checkpoints.save(tmp_path, "step", Checkpoint(1, {}, {"loss": float("nan")}))
    assert not list(tmp_path.iterdir())


def test_a_second_holder_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    with first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(ModelError) as caught, checkpoints.hold_folder(tmp_path):
            pass
        assert (
            str(caught.value)
            == f"the same training runs already, as process {first.pid}; wait for it or stop it"
        )
        assert caught.value.exit_code == 5
        first.kill()
    with checkpoints.hold_folder(tmp_path):
        assert (tmp_path / "lock").read_text(encoding="utf-8") == str(os.getpid())


def test_only_the_last_two_and_the_best_weights_are_kept(tmp_path: Path) -> None:
    save_three(tmp_path)
    for step in (2, 6):
        checkpoints.save(tmp_path, "weights", point(step))
    checkpoints.keep_newest(tmp_path, [6])
    assert (checkpoints.steps(tmp_path, "step"), checkpoints.steps(tmp_path, "weights")) == (
        [7, 4],
        [6],
    )
