"""Locks between processes, held on a file; the system releases them when a process dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAUSE_SECONDS = 0.1  # between two tries


@contextmanager
def locked(path: Path, patience: float | None = None) -> Iterator[int]:
    """Hold a lock, one process or thread at a time.

    Args:
        path: a file, created if missing, or an existing folder.
        patience: seconds to wait at most; None waits for ever.
    Yields:
        the descriptor of the locked file.
    Raises:
        BlockingIOError: another holds the lock for longer than `patience`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags, 0o666)
    try:
        _acquire(descriptor, patience)
        yield descriptor
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, patience: float | None) -> None:
    if patience is None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    for _ in range(round(patience / PAUSE_SECONDS)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:  # perhaps only `is_locked`, which holds it for a moment
            time.sleep(PAUSE_SECONDS)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock; False where the file does not exist."""
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
