"""The models that can transcribe: their names, and where they are. Imports no torch."""

from __future__ import annotations

import json
from contextlib import suppress

import psutil

from asr import paths
from asr.errors import DataError, ParamsError
from asr.paths import MODEL
from asr.runs import revisions

WORKSPACE = "workspace"


def resolve(name: str) -> str:
    """The path or hub id of a model.

    Args:
        name: WORKSPACE, a folder, a DVC experiment or revision (fetched through DVC), or a hub id.
    Raises:
        DataError: the workspace or the revision holds no model.
    """
    if name == WORKSPACE:
        if reason := why_missing():
            raise DataError(reason)
        return MODEL
    if paths.resolve(name).is_dir():
        return name
    try:
        return str(revisions.fetch(revisions.find(name), MODEL))
    except ParamsError:
        return name


def why_missing() -> str | None:
    """Why the workspace holds no model, and what to do; None if it holds one."""
    if paths.resolve(MODEL).is_dir():
        return None
    if _is_being_made():
        return "the model is being trained now; wait for its end"
    return "no model has been trained here yet; run dvc repro"


def _is_being_made() -> bool:
    """Whether a living DVC runs the stage that writes the model, as DVC's own lock file says."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        locks = json.loads((paths.root() / ".dvc/tmp/rwlock").read_bytes())
        writer = locks["write"][str(paths.resolve(MODEL))]
        return bool(psutil.pid_exists(writer["pid"]))
    return False
