"""Files that are computed once: kept under .cache/shards by the name of what they are made from,
and linked to where they are wanted.

So nothing is computed twice: after a kill, when a corpus grows, in `dvc exp run --temp`, or when
one goes back and forth. A file is used only if it is as it was when it was made. Costs one hashing
of the file (1 s per GB), and no second copy on the disk: once neither data/ nor DVC's cache holds
it (`dvc gc`), it goes when nobody has wanted it for a month.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asr import paths
from asr.storage import files, hashing

DRAFT_SECONDS = 86_400  # a draft this old is what a kill left
UNUSED_SECONDS = (
    30 * 86_400
)  # a file that has no other name on the disk is kept so long after its last use


def folder(name: str = "shards") -> Path:
    """A folder of .cache for what is computed once; what a kill left there long ago is removed, and
    what `make` kept and nobody wants.
    """
    found = paths.cache(name)
    found.mkdir(parents=True, exist_ok=True)
    for draft in found.glob(".*.part"):
        if _age(draft) > DRAFT_SECONDS:
            draft.unlink(missing_ok=True)
    for told in found.glob("*.json"):
        made = told.with_suffix(".arrow")
        if _age(told) > UNUSED_SECONDS and _names(made) < 2:
            told.unlink(missing_ok=True)
            made.unlink(missing_ok=True)
    return found


def _age(path: Path) -> float:
    """Seconds since a file was written or last wanted; none where another process has just removed
    it.
    """
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _names(path: Path) -> int:
    """How many names a file has on the disk."""
    try:
        return path.stat().st_nlink
    except FileNotFoundError:
        return 0


def path_of(store: Path, made_from: Any) -> Path:
    """The place of the file that is made from this JSON value."""
    return store / f"{hashing.hash_of(made_from)[:32]}.arrow"


def make(kept: Path, write: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Write a file by `write`, which gives its line of the manifest, unless it is there already;
    returns that line.

    Two processes that make the same file at once write the same bytes, and one of them stays.
    """
    if known := entry(kept):
        return known
    with files.draft(kept) as part:
        made = write(part)
    files.write_json(kept.with_suffix(".json"), {**made, "name": kept.name})
    return made


def entry(kept: Path) -> dict[str, Any] | None:
    """What was told of a file when it was made, which counts as a use; None where it is not there,
    or not as it was.
    """
    try:
        known: dict[str, Any] = files.read_json(kept.with_suffix(".json"))
        if hashing.sha256(kept) != known["sha256"]:
            return None
        os.utime(kept.with_suffix(".json"))
        return known
    except (OSError, ValueError, KeyError, TypeError):
        return None
