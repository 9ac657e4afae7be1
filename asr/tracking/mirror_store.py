"""Where checkpoints are copied to: a folder, an object store, the hub, whatever `fsspec` can write
to.

The address stands in EARSHOT_MIRROR, and secrets in the environment, as each store wants them. An
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

PATIENCE_SECONDS = 60.0  # for one operation, and a second more for each SLOWEST bytes
SLOWEST = 1_000_000


def address() -> str | None:
    """Where to, as the environment says; a plain path is meant from the repository's top."""
    given = os.environ.get("EARSHOT_MIRROR")
    return given if not given or "://" in given else str(paths.resolve(given))


def reason(error: Exception) -> str:
    """What went wrong, without the address, which may hold a password."""
    if isinstance(error, ImportError):
        return str(error)
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


@contextmanager
def limit(size: int = 0) -> Iterator[None]:
    """End this process if an operation on so many bytes hangs."""
    timer = threading.Timer(PATIENCE_SECONDS + size / SLOWEST, _hangs)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _hangs() -> None:
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
        size = source.seek(0, os.SEEK_END)
        source.seek(0)
        path = f"{self.top}/{name}"
        with limit(size):
            self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            with self.fs.open(path, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)

    def read(self, name: str, target: Path) -> None:
        """Copy a file here.

        Raises:
            FileNotFoundError: it is not there.
        """
        with limit():
            size = self.fs.size(f"{self.top}/{name}") or 0
        with limit(size):
            self.fs.get_file(f"{self.top}/{name}", str(target))

    def content(self, name: str) -> bytes | None:
        """A small file; none if there is none."""
        with limit():
            self.fs.invalidate_cache()
            try:
                return bytes(self.fs.cat_file(f"{self.top}/{name}"))
            except FileNotFoundError:
                return None

    def drop(self, *names: str) -> None:
        """Remove files or folders that are there."""
        for name in names:
            with limit():
                self.fs.rm(f"{self.top}/{name}", recursive=True)

    def names(self) -> list[str]:
        """What stands at the top."""
        with limit():
            self.fs.invalidate_cache()
            try:
                return [
                    path.rstrip("/").rpartition("/")[2]
                    for path in self.fs.ls(self.top, detail=False)
                ]
            except FileNotFoundError:
                return []
