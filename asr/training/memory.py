"""Memory: what this process holds and may hold, and the parts of a batch that fit where the whole
did not. Costs microseconds.
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

ONEDNN = (
    "could not create a primitive"  # what PyTorch's library for CPUs says when it finds no memory
)
LIMITS = (
    "memory.max",
    "memory/memory.limit_in_bytes",
)  # of a container, by the two ways that Linux has


def ran_out(error: Exception) -> bool:
    """Whether an error says that there is no memory left, of the device or of the machine."""
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or bool(should_reduce_batch_size(error))
        or ONEDNN in str(error)
    )


def forgo_onednn(error: Exception) -> None:
    """Go on without oneDNN where it was the one that found no memory, for it finds none in this
    thread ever after.

    Its assembler keeps its first error per thread, so each new shape fails, however much is free
    again. PyTorch's own kernels round differently in the last bit, and a training that is resumed
    begins with oneDNN anew.
    """
    if ONEDNN in str(error):
        torch.backends.mkldnn.set_flags(_enabled=False)


@contextmanager
def must_hold(what: str) -> Iterator[None]:
    """Refuse what memory does not hold.

    Args:
        what: is done in the block, and the way out.
    Raises:
        BadModel: memory ran out.
    """
    try:
        yield
    except Exception as error:
        if not ran_out(error):
            raise
        raise ModelError(f"no memory for {what}") from None


def peak(device: torch.device) -> int:
    """Bytes that this process held at most, on the device it computes on."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free(device: torch.device, groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may hold: its own and those that nobody has, within the container's
    limit.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    found = [int(psutil.virtual_memory().available + psutil.Process().memory_info().rss)]
    for name in LIMITS:
        text = (groups / name).read_text().strip() if (groups / name).is_file() else ""
        found += [int(text)] if text.isdecimal() else []
    return min(found)


def give_back() -> None:
    """Return to the machine what was freed and malloc still keeps, where that can be asked for."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def parts(batch: dict[str, torch.Tensor], size: int) -> Iterator[dict[str, torch.Tensor]]:
    """A batch in parts of at most `size` rows; a batch that is no larger comes as it is."""
    rows = len(next(iter(batch.values())))
    for at in range(0, rows, size):
        yield (
            batch if size >= rows else {key: value[at : at + size] for key, value in batch.items()}
        )
