"""The memory of this process: how much it uses and may use, and batches split into parts that fit.

Costs microseconds.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch
from accelerate.utils.memory import should_reduce_batch_size

from asr.errors import ModelError

# The message of oneDNN, PyTorch's library for CPUs, when it finds no memory.
ONEDNN = "could not create a primitive"
# A container's limit, in version 2 and in version 1 of Linux's control groups.
LIMITS = ("memory.max", "memory/memory.limit_in_bytes")


def ran_out(error: Exception) -> bool:
    """Whether an error says that the memory of the device or of the machine ran out."""
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or bool(should_reduce_batch_size(error))
        or ONEDNN in str(error)
    )


def forgo_onednn(error: Exception) -> None:
    """Switch oneDNN off if the error comes from it.

    oneDNN keeps the first error of each thread: every new shape would fail in this thread, however
    much memory is free again. PyTorch's own kernels differ from it in the last bit. A training that
    is resumed begins with oneDNN again.
    """
    if ONEDNN in str(error):
        torch.backends.mkldnn.set_flags(_enabled=False)


@contextmanager
def must_hold(what: str) -> Iterator[None]:
    """Turn an error for lack of memory in the block into a message.

    Args:
        what: end of the message: what needs the memory, and what the user can change.
    Raises:
        ModelError: memory ran out.
    """
    try:
        yield
    except Exception as error:
        if not ran_out(error):
            raise
        raise ModelError(f"no memory for {what}") from None


def peak(device: torch.device) -> int:
    """The most bytes that this process has used so far, on the device it computes on."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free(device: torch.device, groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may use: what it uses now, and what is free.

    Args:
        groups: the folder of Linux's control groups; a container's limit found there counts too.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    limits = [int(psutil.virtual_memory().available + psutil.Process().memory_info().rss)]
    for name in LIMITS:
        path = groups / name
        text = path.read_text().strip() if path.is_file() else ""
        if text.isdecimal():  # "max" means no limit
            limits.append(int(text))
    return min(limits)


def give_back() -> None:
    """Make malloc return freed memory to the machine, on systems with glibc."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def split_batch(batch: dict[str, torch.Tensor], size: int) -> Iterator[dict[str, torch.Tensor]]:
    """Split a batch into parts of at most `size` rows; a smaller batch is yielded as it is."""
    num_rows = len(next(iter(batch.values())))
    if num_rows <= size:
        yield batch
        return
    for start in range(0, num_rows, size):
        yield {key: value[start : start + size] for key, value in batch.items()}
