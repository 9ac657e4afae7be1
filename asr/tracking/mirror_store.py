"""Where checkpoints are copied to: a folder, an object store, the hub, whatever `fsspec` can write.

The address stands in EARSHOT_MIRROR; secrets stand in the environment, as each store wants them. An
operation that hangs ends its process.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from asr import paths
from asr.errors import NetworkError
from asr.runtime.formatting import without_secret

PATIENCE_SECONDS = 60.0  # for one operation; more for large files
MIN_BYTES_PER_SECOND = 1_000_000
COPY_BYTES = 1 << 20  # read and written at once


def address() -> str | None:
    """The address of the mirror, if there is one; a plain path counts from the repository's top."""
    text = os.environ.get("EARSHOT_MIRROR")
    return text if not text or "://" in text else str(paths.resolve(text))


def reason(error: Exception) -> str:
    """What went wrong, without the address, which may hold a password."""
    if isinstance(error, ImportError):
        return str(error)
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


@contextmanager
def time_limit(num_bytes: int = 0) -> Iterator[None]:
    """End this process if an operation on so many bytes hangs."""
    seconds = PATIENCE_SECONDS + num_bytes / MIN_BYTES_PER_SECOND
    timer = threading.Timer(seconds, _end_process)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end_process() -> None:
    print(f"error 4: {without_secret(address())}: does not answer", file=sys.stderr, flush=True)
    os._exit(NetworkError.exit_code)


class Store:
    """One training's folder in the mirror."""

    def __init__(self, fingerprint: str):
        from fsspec.core import url_to_fs

        self.fs, top = url_to_fs(address())
        self.top = f"{top.rstrip('/')}/{fingerprint}"

    def write(self, name: str, source: IO[bytes]) -> None:
        """Copy a whole file there; a kill may leave half of it."""
        num_bytes = source.seek(0, os.SEEK_END)
        source.seek(0)
        path = f"{self.top}/{name}"
        with time_limit(num_bytes):
            self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            with self.fs.open(path, "wb") as target:
                shutil.copyfileobj(source, target, COPY_BYTES)

    def read(self, name: str, target: Path) -> None:
        """Copy a file here.

        Raises:
            FileNotFoundError: it is not there.
        """
        path = f"{self.top}/{name}"
        with time_limit():
            num_bytes = self.fs.size(path) or 0
        with time_limit(num_bytes):
            self.fs.get_file(path, str(target))

    def content(self, name: str) -> bytes | None:
        """The bytes of a small file; None if there is none."""
        with time_limit():
            self.fs.invalidate_cache()
            try:
                return bytes(self.fs.cat_file(f"{self.top}/{name}"))
            except FileNotFoundError:
                return None

    def drop(self, *names: str) -> None:
        """Remove files or folders that are there."""
        for name in names:
            with time_limit():
                self.fs.rm(f"{self.top}/{name}", recursive=True)

    def names(self) -> list[str]:
        """Names of the files and folders at the top."""
        with time_limit():
            self.fs.invalidate_cache()
            try:
                listed = self.fs.ls(self.top, detail=False)
            except FileNotFoundError:
                return []
        return [path.rstrip("/").rpartition("/")[2] for path in listed]
