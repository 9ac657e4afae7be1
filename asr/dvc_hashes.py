"""Hashes of files and folders as DVC has them in dvc.lock and in its cache.

DVC's own functions take two seconds to import. A file costs 2 s per GB, and is hashed anew only
where its size, its time or its number on the disk has changed. Imports nothing of this package.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

Hashes = dict[str, str]  # MD5 by path; that of a folder ends in .dir


def of_file(path: Path) -> str:
    """MD5 of a file."""
    return _of_file(path, *stamp(path))


@lru_cache(maxsize=4096)
def _of_file(path: Path, *stamp: int) -> str:  # noqa: ARG001 (cache key)
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def of_folder(folder: Path) -> str:
    """The hash of a folder with all that is in it."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return of_listing({name.as_posix(): of_file(folder / name) for name in names})


def of_listing(hashes: Mapping[str, str]) -> str:
    """The hash of a folder whose files have these hashes, by their paths in it."""
    entries = [{"md5": hash, "relpath": name} for name, hash in sorted(hashes.items())]
    content = json.dumps(entries, sort_keys=True).encode()
    return f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}.dir"


def stamp(path: Path) -> tuple[int, ...]:
    """Numbers that change when a file changes.

    Raises:
        OSError: it is not there.
    """
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
