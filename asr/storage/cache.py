"""Files that are computed once: cached under .cache/shards, and linked where they are needed.

A file is named by a hash of what it is made from, so nothing is computed twice: after a kill, when
a corpus grows, in `dvc exp run --temp`, or when one goes back and forth. It is used only if it has
the hash that it had when it was made. Costs one hashing of the file (1 s per GB), and no second
copy on the disk. Once neither data/ nor DVC's cache links to it (`dvc gc`), it is deleted when it
has not been used for a month.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asr import paths
from asr.storage import files, hashing

DRAFT_SECONDS = 86_400  # a draft this old was left by a kill
UNUSED_SECONDS = 30 * 86_400  # a file that nothing links to is kept this long after its last use


def folder(name: str = "shards") -> Path:
    """Return a cache folder, cleaned of what is not needed any more.

    Drafts older than a day are deleted, and cached files that nothing links to and nobody used for
    a month.
    """
    path = paths.cache(name)
    path.mkdir(parents=True, exist_ok=True)
    for draft in path.glob(".*.part"):
        if _age(draft) > DRAFT_SECONDS:
            draft.unlink(missing_ok=True)
    for entry_path in path.glob("*.json"):
        cached = entry_path.with_suffix(".arrow")
        if _age(entry_path) > UNUSED_SECONDS and _num_links(cached) < 2:
            entry_path.unlink(missing_ok=True)
            cached.unlink(missing_ok=True)
    return path


def _age(path: Path) -> float:
    """Seconds since a file was written or last used; 0 if another process has just removed it."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _num_links(path: Path) -> int:
    """How many names a file has on the disk; 0 where it does not exist."""
    try:
        return path.stat().st_nlink
    except FileNotFoundError:
        return 0


def path_of(store: Path, made_from: Any) -> Path:
    """The path of the file that is made from this JSON value."""
    return store / f"{hashing.hash_of(made_from)[:32]}.arrow"


def make(path: Path, write: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Write a file unless it is cached already, and return its entry of the manifest.

    Two processes that make the same file at once write the same bytes, and one of them stays.

    Args:
        path: where it is cached.
        write: writes it to a path, and returns its entry of the manifest.
    """
    cached = entry(path)
    if cached:
        return cached
    with files.draft(path) as draft:
        written = write(draft)
    files.write_json(path.with_suffix(".json"), {**written, "name": path.name})
    return written


def entry(path: Path) -> dict[str, Any] | None:
    """The manifest entry of a cached file, which counts as a use of it.

    None where it is missing or damaged.
    """
    entry_path = path.with_suffix(".json")
    try:
        stored: dict[str, Any] = files.read_json(entry_path)
        if hashing.sha256(path) != stored["sha256"]:
            return None
        os.utime(entry_path)
        return stored
    except (OSError, ValueError, KeyError, TypeError):
        return None
