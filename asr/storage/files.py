"""Files and folders that appear whole or not at all.

Everything is written beside its path, synced, and renamed. Costs one fsync per file and one per
folder.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def sync(path: Path) -> None:
    """Force a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `path` when the block ends without an error.

    After an error it is deleted, and `path` stays as it was. Folders that a killed process left are
    deleted first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left_over in path.parent.glob(f".{path.name}.*.part"):
        shutil.rmtree(left_over, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        draft.chmod(0o777 & ~umask())
        yield draft
        for file in sorted(draft.rglob("*"), reverse=True):
            sync(file)
        sync(draft)
        shutil.rmtree(path, ignore_errors=True)
        draft.rename(path)
        sync(path.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@contextmanager
def draft(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give a path for a file that becomes `path` when the block ends without an error.

    After an error it is deleted, and `path` stays as it was.

    Args:
        durable: force it to the disk before it gets its name; without, a power cut may leave an
            empty file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        if durable:
            sync(part)
        part.replace(path)
        if durable:
            sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, or replace its content in one step."""
    with draft(path) as part:
        part.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 file, or replace its content in one step."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, or replace its content in one step; NaN is refused with ValueError."""
    content = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, content + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def link(source: Path, target: Path) -> None:
    """Give a file a second name; it is copied only where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
