"""What memory there is, whether an error says that it is gone, and a training that really finds
none.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import ModelError
from asr.training import memory
from support.repository import REPOSITORY, TINY, write_params
from support.training import OUT_OF_MEMORY

CPU = torch.device("cpu")
# A training in an address space that holds its batches by the half, not whole.
LIMITED = """
import os
import resource
from pathlib import Path
from asr.errors import exit_with
from asr.preflight import forecast
from asr.tracking.follower import Follower
from stages import train

Follower.__init__ = lambda *_: None
Follower.finish = lambda _: None
run = train.Training.run

def limited(self):
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = held + int(os.environ["LIMIT"])
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    run(self)

train.Training.run = limited
forecast.forecast = lambda *_: None
exit_with(train.main)
"""

# oneDNN finds no memory for its code where all that a process may have is taken and only holes of
# malloc are left; then the
# limit goes, and what it found first must not stay.
FULL = """
import resource
from pathlib import Path
import torch
from asr.training import memory

def layer(length):
    torch.nn.functional.conv1d(torch.zeros(2, 80, length), torch.zeros(64, 80, 3))

layer(100)
held = [torch.randn(30_000) for _ in range(400)]
del held[::2]
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken, resource.RLIM_INFINITY))
for when in ("limited", "free"):
    try:
        layer(101)
    except RuntimeError as error:
        print(when, memory.ran_out(error), error)
        fault = error
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
memory.forgo_onednn(fault)
layer(102)
print("went on")
"""


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_errors_of_memory_are_known(kind: str) -> None:
    assert memory.ran_out(OUT_OF_MEMORY[kind])
    with pytest.raises(ModelError, match="no memory for a cat"), memory.must_hold("a cat"):
        raise OUT_OF_MEMORY[kind]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes"), ValueError("out of memory."), OSError(12, "Cannot allocate memory")],
)
def test_other_errors_are_not(error: Exception) -> None:
    assert not memory.ran_out(error)
    with pytest.raises(type(error)), memory.must_hold("a cat"):
        raise error


def test_a_tensor_too_large_for_any_machine_is_an_error_of_memory() -> None:
    with pytest.raises(RuntimeError) as fault:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert memory.ran_out(fault.value)


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(1, 25))
def test_parts_hold_every_row_in_order(rows: int, size: int) -> None:
    batch = {"a": torch.arange(rows), "b": torch.arange(2 * rows).view(rows, 2)}
    parts = list(memory.split_batch(batch, size))
    assert len(parts) == -(-rows // size)
    assert all(len(part["a"]) <= size for part in parts)
    for key, value in batch.items():
        assert torch.equal(torch.cat([part[key] for part in parts]), value)
    assert (parts[0] is batch) == (size >= rows)


def test_the_peak_rises_with_what_is_held() -> None:
    before = memory.peak(CPU)
    grown = torch.ones(before - psutil.Process().memory_info().rss + (64 << 20), dtype=torch.uint8)
    assert memory.peak(CPU) >= before + (32 << 20)
    assert len(grown) < memory.free(CPU)


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [(memory.LIMITS[0], "5000\n", 5000), (memory.LIMITS[1], "7000\n", 7000)],
)
def test_a_containers_limit_is_known(name: str, text: str, limit: int, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert memory.free(CPU, tmp_path) == limit
    (tmp_path / name).write_text("max\n")
    assert memory.free(CPU, tmp_path) > 1 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="address spaces are limited so on Linux only")
def test_a_training_that_really_finds_no_memory_goes_on_with_halves(
    tmp_path: Path, tiny_data: Path
) -> None:
    changes = {
        "train.per_device_train_batch_size": 32,
        "train.max_steps": 3,
        "train.eval_rows": 1,
        "model.scratch.encoder_ffn_dim": 12288,
    }
    write_params(tmp_path / "params.yaml", {**TINY, **changes})
    split = tiny_data / "data/features"
    command = [
        sys.executable,
        "-c",
        LIMITED,
        str(split / "train"),
        str(split / "validation"),
        "models/finetuned",
        "reports/train",
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "DVC_ROOT": str(tmp_path),
        "MALLOC_ARENA_MAX": "1",
        "LIMIT": str(500 << 20),
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "out of memory with 32 rows at once; from here on 16 at once" in done.stdout
    assert (tmp_path / "models/finetuned/model.safetensors").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="address spaces are limited so on Linux only")
@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN"
)
def test_a_thread_in_which_onednn_found_no_memory_goes_on_without_it() -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FULL], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{when} True {memory.ONEDNN}" for when in ("limited", "free")
    ] + ["went on"]


def test_other_errors_leave_onednn_as_it_is() -> None:
    before = torch.backends.mkldnn.enabled
    memory.forgo_onednn(RuntimeError("shapes"))
    assert torch.backends.mkldnn.enabled == before


@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is glibc's")
def test_what_was_freed_is_given_back() -> None:
    pieces = [
        np.ones(1000) for _ in range(10_000)
    ]  # 80 MB, in pieces that malloc keeps when they are freed
    held = pieces[::100]
    del pieces
    before = psutil.Process().memory_info().rss
    memory.give_back()
    assert psutil.Process().memory_info().rss < before - 40e6
    assert len(held) == 100
