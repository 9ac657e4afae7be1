"""Which numbers belong to which model, and which statistics to which data: dvc.lock says so.

Reports outlive what they tell of: after `dvc repro train`, or a stop between `train` and
`evaluate`, reports/evaluate is still of the model before. Every number that is shown, kept or
compared goes through `why_untested`; what is shown of the data goes through `why_stale`.

A report is of what lies in the repository where each input of its stage has, in dvc.lock, the hash
that the stage which makes it wrote last. An input that is a folder inside an out has its hash from
the listing of the out, which lies in DVC's cache. Where that is not to be had, as in a fresh clone,
it is not known whether the folder has changed, and `why_unknown` says so: the scores are this
model's even so, on the test that they name. Files of the workspace are hashed, and not trusted;
those that have not changed, once.

Costs 5 ms to read dvc.lock, once for each state of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from asr import dvc_hashes, paths
from asr.dvc_hashes import Hashes
from asr.errors import UserError
from asr.runs import dvc_cache, revisions
from asr.runs.revisions import KEPT, RESULT, Revision
from asr.storage import shards

LOCK_ERRORS = dvc_cache.READ_ERRORS  # what a damaged dvc.lock, or a damaged listing, can raise
NOT_TESTED = "not tested yet"
OTHER_TEST = "not tested on the present test data yet"
TEST_IT = "run dvc repro evaluate, which tests the model here"
UNREADABLE = "dvc.lock cannot be read"
EVALUATE, TRAIN = "evaluate", "train"
FROM_DATA = ("stats", "chunk", "featurize", "train")  # stages between a corpus and its model
TABLES = (".csv", ".json", ".parquet")  # the outs whose values are shown

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
    """The same for any revision; what it holds is fetched.

    A kept result, and the report of a kept model, were written whole by what made them.
    """
    if revision.sha is None:
        return why_untested(paths.root())
    if revision.kind == RESULT or revision.sha.startswith(KEPT):
        return ""
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
        return dvc_hashes.of_file(find(path))
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
            if dvc_hashes.of_file(root / path) != hash:
                return f"{path} is not the one that dvc.lock knows"
    except FileNotFoundError:
        return ""
    except LOCK_ERRORS:
        return UNREADABLE
    return ""


def why_other_data(root: Path) -> str:
    """Why corpus and statistics in the workspace are not those of its model; empty if they are."""
    try:
        stages = read_lock(root, root / "dvc.lock").outs
    except FileNotFoundError:
        return ""
    except LOCK_ERRORS:
        return UNREADABLE
    reasons = (why_stale(root, stage) for stage in FROM_DATA if stage in stages)
    return next(filter(None, reasons), "")


def why_unknown(root: Path) -> str:
    """Why it is not known whether the model's data are still here as it had them; empty if it is.

    Without a dvc.lock nothing speaks against them.
    """
    try:
        lock = read_lock(root, root / "dvc.lock")
    except (FileNotFoundError, *LOCK_ERRORS):
        return ""
    for stage in (TRAIN, EVALUATE):
        for path in unknown_deps(lock, stage):
            return (
                f"whether {path} is as {stage} read it is not known, for DVC's cache lacks the "
                "list of its files; dvc fetch brings it, or dvc commit after --no-commit"
            )
    return ""


def stages_of_model(lock: Lock) -> set[str]:
    """The stages whose last execution led to the model and its test, or told of their data."""
    behind: set[str] = set()
    lost: set[str] = set()
    todo = [(EVALUATE, False)]
    while todo:
        stage, is_lost = todo.pop()
        (lost if is_lost else behind).add(stage)
        todo += [(maker, is_lost or not same) for maker, same in _makers(lock, stage).items()]
    found = behind - lost
    beside = lock.outs.keys() - behind - lost  # such as `stats`, of which no stage reads anything
    return found | {
        stage
        for stage in beside
        if all(same and maker in found for maker, same in _makers(lock, stage).items())
    }


def _makers(lock: Lock, stage: str) -> dict[str, bool]:
    """The stages that made the inputs of a stage, and whether these are known to be as it read
    them.
    """
    makers: dict[str, bool] = {}
    others = {*changed_deps(lock, stage), *unknown_deps(lock, stage)}
    for path in lock.deps.get(stage, {}):
        maker = _maker(lock, path)
        if maker:
            makers[maker] = makers.get(maker, True) and path not in others
    return makers


def _maker(lock: Lock, path: str) -> str | None:
    """The stage that makes a file or folder; None if no stage does."""
    for stage, outs in lock.outs.items():
        if any(f"{path}/".startswith(f"{out}/") for out in outs):
            return stage
    return None


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
    return _read_lock(root, path, *dvc_hashes.stamp(path))


@lru_cache(maxsize=64)
def _read_lock(root: Path, path: Path, *stamp: int) -> Lock:  # noqa: ARG001 (cache key)
    stages: dict[str, Any] = yaml.load(path.read_bytes(), dvc_cache.LOADER)["stages"]
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
    last = {path: _last_hash(lock, path) for path in lock.deps.get(stage, {})}
    return [path for path, hash in last.items() if hash not in (None, lock.deps[stage][path])]


def unknown_deps(lock: Lock, stage: str) -> list[str]:
    """The inputs of a stage that another makes, and of which it is not known if they changed."""
    deps = lock.deps.get(stage, {})
    return [path for path in deps if _maker(lock, path) and _last_hash(lock, path) is None]


def _last_hash(lock: Lock, path: str) -> str | None:
    """The hash of a file or folder as a stage wrote it last; None if that is not known."""
    written = lock.written
    if path in written:
        return written[path]
    files = _listed(lock, path)
    if files is None:
        return None
    return dvc_hashes.of_listing(
        {file.removeprefix(f"{path}/"): hash for file, hash in files.items()}
    )


def _listed(lock: Lock, folder: str) -> Hashes | None:
    """The hashes of the files in a folder that is an out, or inside one; None if not known."""
    for out, hash in lock.written.items():
        if f"{folder}/".startswith(f"{out}/") and hash.endswith(".dir"):
            names = dvc_cache.listing(lock.root, hash)
            if names is None:
                return None
            inside = {f"{out}/{name}": one for name, one in names.items()}
            return {path: one for path, one in inside.items() if path.startswith(f"{folder}/")}
    return None
