"""The models that can transcribe: their names, and where they are. Imports no torch."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

from huggingface_hub import constants

from asr import dvc_hashes, paths
from asr.errors import DataError, ModelError, ParamsError
from asr.paths import MODEL, RUN
from asr.storage import files, hashing

WORKSPACE = "workspace"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
MODELS = "models/"  # what begins so is meant for a folder
SNAPSHOTS = "snapshots"  # as the hub's own client names the folder of its commits
SHOWN_DIGITS = 8  # of a hash that names weights
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def resolve(name: str) -> Path:
    """The folder of a model; one of the hub is fetched where it is not here yet.

    A model of the hub that is here is taken as it is, and the hub is not asked for a later one.

    Args:
        name: WORKSPACE, a folder, a DVC experiment or revision (fetched through DVC), or a hub id.
    Raises:
        DataError: the workspace or the revision holds no model.
        ModelError: there is no such folder, or it holds no Whisper.
        NetworkError: the hub cannot be reached, or refuses access.
    """
    if name == WORKSPACE:
        if reason := why_missing():
            raise DataError(reason)
        return paths.resolve(MODEL)
    if (folder := paths.resolve(name)).is_dir():
        return folder
    if snapshot := _snapshot(name):
        return snapshot
    from asr.runs import revisions

    try:
        return revisions.fetch(revisions.find(name), MODEL)
    except ParamsError:
        if not HUB_ID.fullmatch(name) or name.startswith(MODELS):
            raise ModelError(
                f"{name} is not there; want workspace, a folder, a DVC revision, or a hub id"
            ) from None
        return _fetch_from_hub(name)


def weights_text(name: str, folder: Path) -> str:
    """Which weights a name stands for now, in words; later it may stand for others.

    Costs hashing the weights, 1 s per GB, unless a training or the hub names them.

    Args:
        name, folder: as `resolve` takes and returns them.
    """
    if revision := hub_revision(folder):
        return f"revision {revision[:SHOWN_DIGITS]}"
    if name == WORKSPACE and (fingerprint := training()):
        return f"training {fingerprint[:SHOWN_DIGITS]}"
    return f"weights {_weights_hash(folder)[:SHOWN_DIGITS]}"


def is_hub_id(name: str) -> bool:
    """Whether a name stands for a model of the hub that is here."""
    return _snapshot(name) is not None


def hub_revision(folder: Path) -> str | None:
    """The commit of a model of the hub; None if the folder is not of the hub's cache."""
    return folder.name if folder.parent.name == SNAPSHOTS else None


def _weights_hash(folder: Path) -> str:
    """A hash of the files that hold a model's weights."""
    found = sorted(folder.glob("*.safetensors"))
    return hashing.hash_of([hashing.sha256(path) for path in found])


def _fetch_from_hub(name: str) -> Path:
    """Have transformers fetch a model, which knows what it needs."""
    from asr.model import loader

    loader.load(name, None, None)
    if snapshot := _snapshot(name):
        return snapshot
    raise ModelError(f"model.name: {name} has no safetensors; want a model that is saved so")


def _snapshot(name: str) -> Path | None:
    """The folder in the hub's cache with the whole of a model; None if it is not here."""
    if not HUB_ID.fullmatch(name):
        return None
    folder = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    with suppress(OSError):
        commit = (folder / "refs/main").read_text(encoding="utf-8").strip()
        snapshot = folder / SNAPSHOTS / commit
        if all((snapshot / file).is_file() for file in _needed(snapshot)):
            return snapshot
    return None


def _needed(snapshot: Path) -> list[str]:
    """The files without which a model cannot be loaded."""
    index = snapshot / f"{WEIGHTS}.index.json"
    if not index.is_file():
        return [CONFIG, WEIGHTS]
    return [CONFIG, *files.read_json(index)["weight_map"].values()]


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
    from asr.runs.tested import LOCK_ERRORS, TRAIN, read_lock

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
    import psutil

    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        locks = json.loads((paths.root() / ".dvc/tmp/rwlock").read_bytes())
        writer = locks["write"][str(paths.resolve(MODEL))]
        return bool(psutil.pid_exists(writer["pid"]))
    return False
