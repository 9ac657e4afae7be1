"""The models that can transcribe: their names, and where they are. Imports no torch."""

from __future__ import annotations

import json
from contextlib import suppress

import psutil

from asr import dvc_hashes, paths
from asr.errors import DataError, ParamsError
from asr.paths import MODEL, RUN
from asr.runs import revisions
from asr.runs.tested import LOCK_ERRORS, TRAIN, read_lock
from asr.storage import files

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


def training() -> str | None:
    """The fingerprint of the training that made the workspace's model; None if it is not known.

    Files that are not those of one training, as dvc.lock has them, tell nothing: a report may have
    outlived its model. Costs hashing the model, 2 s per GB, once for each state of it.
    """
    root = paths.root()
    with suppress(*LOCK_ERRORS):
        outs = read_lock(root, root / "dvc.lock").outs[TRAIN]
        model_hash = dvc_hashes.of_folder(root / MODEL)
        run_hash = dvc_hashes.of_file(root / RUN)
        if (model_hash, run_hash) == (outs[MODEL], outs[RUN]):
            return str(files.read_json(root / RUN)["fingerprint"])
    return None


def _is_being_made() -> bool:
    """Whether a living DVC runs the stage that writes the model, as DVC's own lock file says."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        locks = json.loads((paths.root() / ".dvc/tmp/rwlock").read_bytes())
        writer = locks["write"][str(paths.resolve(MODEL))]
        return bool(psutil.pid_exists(writer["pid"]))
    return False
