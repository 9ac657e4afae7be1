"""Whether the scores in the workspace belong to the model in the workspace: dvc.lock says so.

Scores outlive their model: after `dvc repro train`, or a stop between `train` and `evaluate`,
reports/evaluate is still of the model before. Costs reading dvc.lock and hashing two small files.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from asr import paths

# What a damaged dvc.lock can raise.
LOCK_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError)

Hashes = dict[str, str]  # MD5 by path, as DVC has it; that of a folder ends in .dir


def why_untested(root: Path) -> str | None:
    """Why the scores in reports/evaluate are not those of models/finetuned; None if they are.

    They are if `evaluate` read what the other stages wrote last, and the reports are those that
    were written then. Where there is no dvc.lock, nothing speaks against them.
    """
    try:
        stages = yaml.safe_load((root / "dvc.lock").read_bytes())["stages"]
        if "evaluate" not in stages:
            return "no model was tested yet"
        written = _hashes(stage["outs"] for stage in stages.values())
        read = _hashes([stages["evaluate"]["deps"]])
        for path, tested in read.items():
            if _last_hash(root, path, written) not in (None, tested):
                return f"{path} was made anew after the last test"
        for path in (paths.RUN, paths.METRICS):
            if written.get(path) != _md5((root / path).read_bytes()):
                return f"{path} is not the one that dvc.lock knows"
    except FileNotFoundError as error:
        return None if Path(error.filename).name == "dvc.lock" else f"{error.filename} is not there"
    except LOCK_ERRORS:
        return "dvc.lock cannot be read"
    return None


def _hashes(lists: Any) -> Hashes:
    return {entry["path"]: entry["md5"] for entries in lists for entry in entries}


def _last_hash(root: Path, path: str, written: Hashes) -> str | None:
    """The hash of a file or folder as a stage wrote it last; None if that is not known.

    Args:
        path: an out, or a folder inside an out, whose hash follows from the listing of the out.
    """
    if path in written:
        return written[path]
    out = next((out for out in written if path.startswith(f"{out}/")), None)
    if out is None:
        return None
    listing = root / ".dvc/cache/files/md5" / written[out][:2] / written[out][2:]
    if not listing.is_file():
        return None
    prefix = f"{path.removeprefix(f'{out}/')}/"
    inside = [
        {"md5": entry["md5"], "relpath": entry["relpath"].removeprefix(prefix)}
        for entry in json.loads(listing.read_bytes())
        if entry["relpath"].startswith(prefix)
    ]
    inside.sort(key=lambda entry: entry["relpath"])
    return f"{_md5(json.dumps(inside, sort_keys=True).encode())}.dir"


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
