"""Which numbers belong to which model, and which statistics to which data: dvc.lock says so.

Reports outlive what they tell of: after `dvc repro train`, or a stop between `train` and
`evaluate`, reports/evaluate is still of the model before. Every number that is shown, kept or
compared goes through `why_untested`; what is shown of the data goes through `why_stale`.

A report is of what lies in the repository where each input of its stage has, in dvc.lock, the hash
that the stage which makes it wrote last. An input that is a folder inside an out has its hash from
the listing of the out, which lies in DVC's cache. Where that is not to be had, as in a fresh clone,
the folder counts as unchanged: the scores are this model's even so, on the test that they name.
Files of the workspace are hashed, and not trusted; those that have not changed, once.

Costs 5 ms to read dvc.lock, once for each state of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from asr import paths
from asr.errors import UserError
from asr.runs import revisions
from asr.runs.revisions import Revision
from asr.storage import shards

# What a damaged dvc.lock, or a damaged listing, can raise.
LOCK_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError)
NOT_TESTED = "not tested yet"
OTHER_TEST = "not tested on the present test data yet"
TEST_IT = "run dvc repro evaluate, which tests the model here"
UNREADABLE = "dvc.lock cannot be read"
EVALUATE, TRAIN = "evaluate", "train"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is twenty times faster
TABLES = (".csv", ".json", ".parquet")  # the outs whose values are shown

Hashes = dict[str, str]  # MD5 by path, as DVC has it; that of a folder ends in .dir
FindFile = Callable[[str], Path]  # the path of a file of a revision; UserError: not to be had


class Lock(NamedTuple):
    """What dvc.lock says: what each stage read and wrote, and its params, by its name.

    root: the repository, whose DVC cache has the listings of folders.
    """

    root: Path
    deps: dict[str, Hashes]
    outs: dict[str, Hashes]
    params: dict[str, dict[str, Any]]

    @property
    def written(self) -> Hashes:
        """The outs of all stages."""
        return {path: hash for outs in self.outs.values() for path, hash in outs.items()}


def why_untested(root: Path) -> str:
    """Why the scores in the workspace's reports/evaluate are not its model's; empty if they are.

    What git holds must be there. What DVC alone holds need not be, as in a fresh clone. Without a
    dvc.lock nothing speaks against them.
    """
    try:
        lock = read_lock(root, root / "dvc.lock")
    except FileNotFoundError:
        return ""
    except LOCK_ERRORS:
        return UNREADABLE
    return _why_untested(lock, lambda path: root / path)


def why_untested_at(revision: Revision) -> str:
    """The same for any revision; what it holds is fetched."""
    if revision.sha is None:
        return why_untested(paths.root())
    try:
        lock = lock_of(revision)
    except (UserError, *LOCK_ERRORS):
        return UNREADABLE
    return _why_untested(lock, lambda path: revisions.fetch(revision, path))


def lock_of(revision: Revision) -> Lock:
    """The dvc.lock of a revision.

    Raises:
        UserError: it has none.
        LOCK_ERRORS: it is damaged.
    """
    return read_lock(paths.root(), revisions.fetch(revision, "dvc.lock"))


def _why_untested(lock: Lock, find: FindFile) -> str:
    if EVALUATE not in lock.outs:
        return NOT_TESTED
    for path in changed_deps(lock, EVALUATE):
        return OTHER_TEST if path.startswith(f"{paths.FEATURES}/") else NOT_TESTED
    # Of a training DVC alone holds run.json, and git summary.json.
    training = paths.SUMMARY if _hash_of(find, paths.RUN) is None else paths.RUN
    for path in (training, paths.METRICS, paths.UTTERANCES):
        hash = _hash_of(find, path)
        if hash is None and path != paths.UTTERANCES:
            return NOT_TESTED
        if hash not in (None, lock.written.get(path)):
            return f"{path} is not the one that dvc.lock knows"
    return ""


def _hash_of(find: FindFile, path: str) -> str | None:
    """MD5 of a file of a revision; None where it is not to be had."""
    try:
        return md5_of(find(path))
    except (UserError, OSError):
        return None


def why_stale(root: Path, stage: str) -> str:
    """Why a stage's reports in the workspace are not of its present inputs; empty if they are.

    A folder of data that the stage reads is known by its manifest. Without a dvc.lock nothing
    speaks against them.

    Args:
        stage: such as `stats`, which reads data/raw.
    """
    try:
        lock = read_lock(root, root / "dvc.lock")
        if stage not in lock.outs:
            return f"{stage} has not run yet"
        for path in changed_deps(lock, stage):
            return f"{path} was made anew after {stage} read it"
        for path, hash in _present_files(lock, stage):
            if md5_of(root / path) != hash:
                return f"{path} is not the one that dvc.lock knows"
    except FileNotFoundError:
        return ""
    except LOCK_ERRORS:
        return UNREADABLE
    return ""


def _present_files(lock: Lock, stage: str) -> Iterator[tuple[str, str]]:
    """Files in the workspace that tell what a stage read and wrote, and the hashes in dvc.lock."""
    for path, hash in lock.outs[stage].items():
        if path.endswith(TABLES) and (lock.root / path).is_file():
            yield path, hash
    for folder in lock.deps[stage]:
        path = f"{folder}/{shards.MANIFEST}"
        hashes = _listed(lock, folder) or {}
        if path in hashes and (lock.root / path).is_file():
            yield path, hashes[path]


def read_lock(root: Path, path: Path) -> Lock:
    """Read a dvc.lock, once for each state of it.

    Args:
        root: the repository.
        path: the file, of the workspace or fetched from a revision.
    Raises:
        FileNotFoundError: it is not there.
        LOCK_ERRORS: it is damaged.
    """
    return _read_lock(root, path, *_stamp(path))


@lru_cache(maxsize=64)
def _read_lock(root: Path, path: Path, *stamp: int) -> Lock:  # noqa: ARG001 (cache key)
    stages: dict[str, Any] = yaml.load(path.read_bytes(), LOADER)["stages"]
    deps, outs = (
        {
            stage: {entry["path"]: entry["md5"] for entry in told.get(kind, [])}
            for stage, told in stages.items()
        }
        for kind in ("deps", "outs")
    )
    params = {
        stage: told.get("params", {}).get("params.yaml", {}) for stage, told in stages.items()
    }
    return Lock(root, deps, outs, params)


def changed_deps(lock: Lock, stage: str) -> list[str]:
    """The inputs of a stage that another stage has made anew since; they are outs, or in one."""
    last = {path: _last_hash(lock, path) for path in lock.deps[stage]}
    return [path for path, hash in lock.deps[stage].items() if last[path] not in (None, hash)]


def _last_hash(lock: Lock, path: str) -> str | None:
    """The hash of a file or folder as a stage wrote it last; None if that is not known."""
    written = lock.written
    if path in written:
        return written[path]
    files = _listed(lock, path)
    if files is None:
        return None
    entries = [
        {"md5": hash, "relpath": file.removeprefix(f"{path}/")}
        for file, hash in sorted(files.items())
    ]
    return f"{_md5(json.dumps(entries, sort_keys=True).encode())}.dir"


def _listed(lock: Lock, folder: str) -> Hashes | None:
    """The hashes of the files in a folder that is an out, or inside one; None if not known."""
    for out, hash in lock.written.items():
        if f"{folder}/".startswith(f"{out}/") and hash.endswith(".dir"):
            names = listing(lock.root, hash)
            if names is None:
                return None
            inside = {f"{out}/{name}": one for name, one in names.items()}
            return {path: one for path, one in inside.items() if path.startswith(f"{folder}/")}
    return None


def listing(root: Path, hash: str) -> Hashes | None:
    """The hashes of the files in a folder by their paths in it; None if DVC's cache lacks it.

    Args:
        hash: of the folder; it ends in .dir.
    """
    inside = Path("files/md5", hash[:2], hash[2:])
    path = root / ".dvc/cache" / inside
    if not path.is_file():
        path = _configured_cache(root) / inside
    return _read_listing(path) if path.is_file() else None


@lru_cache(maxsize=256)
def _read_listing(path: Path) -> Hashes:
    return {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_bytes())}


@lru_cache(maxsize=8)
def _configured_cache(root: Path) -> Path:
    """The folder of DVC's cache where it is not the default; asking DVC costs 0.1 s, once."""
    os.environ.setdefault("DVC_NO_ANALYTICS", "true")
    from dvc.config import Config, ConfigError

    with suppress(ConfigError):
        folder = Config(str(root / ".dvc"), validate=False)["cache"].get("dir")
        return root / ".dvc" / (folder or "cache")
    return root / ".dvc/cache"


def folder_md5(folder: Path) -> str:
    """The hash that DVC gives to a folder; costs 2 s for a GB."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    entries = [{"md5": md5_of(folder / name), "relpath": name} for name in names]
    return f"{_md5(json.dumps(entries, sort_keys=True).encode())}.dir"


def md5_of(path: Path) -> str:
    """MD5 of a file, as DVC has it; hashed anew only where its size, time or number changed."""
    return _md5_of(path, *_stamp(path))


@lru_cache(maxsize=4096)
def _md5_of(path: Path, *stamp: int) -> str:  # noqa: ARG001 (cache key)
    with path.open("rb") as file:
        return hashlib.file_digest(file, _new_md5).hexdigest()


def _new_md5() -> Any:
    return hashlib.md5(usedforsecurity=False)


def _stamp(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
