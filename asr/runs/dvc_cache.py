"""DVC's cache, read without DVC: listings of folders, and results that nothing else holds.

DVC notes each execution of a stage in its run cache, and has what the stage wrote until `dvc gc`
drops it. So the reports are there of a training that no commit holds and no `evaluate` kept: of an
older one, or of one that DVC restored or pulled. `bring_results` copies them to .cache/results.
DVC's own functions take two seconds to import.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from asr import paths
from asr.dvc_hashes import Hashes
from asr.tracking import results

# What a damaged entry, or a damaged report in it, can raise.
READ_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError)
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is twenty times faster
REPORT_STAGES = (b"stages.train", b"stages.evaluate")

_seen: set[Path] = set()  # entries of the run cache that were looked at


class Execution(NamedTuple):
    """An entry of the run cache: what a stage read and wrote."""

    deps: Hashes
    outs: Hashes
    params: dict[str, Any]


def file_of(root: Path, hash: str) -> Path | None:
    """The file in the cache with this hash; None if it is not there."""
    for cache in caches(root):
        path = cache / "files/md5" / hash[:2] / hash[2:]
        if path.is_file():
            return path
    return None


def caches(root: Path) -> Iterator[Path]:
    """Where the cache may be: its default folder, then the one that DVC is told of."""
    yield root / ".dvc/cache"
    yield _configured(root)


@lru_cache(maxsize=8)
def _configured(root: Path) -> Path:
    """The folder of the cache by DVC's settings, which cost 0.1 s, once."""
    if not (root / ".dvc").is_dir():
        return root / ".dvc/cache"
    os.environ.setdefault("DVC_NO_ANALYTICS", "true")
    from dvc.config import Config, ConfigError

    with suppress(ConfigError):
        folder = Config(str(root / ".dvc"), validate=False)["cache"].get("dir")
        return root / ".dvc" / (folder or "cache")
    return root / ".dvc/cache"


def listing(root: Path, hash: str) -> Hashes | None:
    """The hashes of the files in a folder by their paths in it; None if the cache lacks it.

    Args:
        hash: of the folder; it ends in .dir.
    """
    path = file_of(root, hash)
    return _read_listing(path) if path else None


@lru_cache(maxsize=256)
def _read_listing(path: Path) -> Hashes:
    return {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_bytes())}


def bring_results(root: Path) -> int:
    """Copy the results that the cache alone has to .cache/results; return how many were looked at.

    Costs 0.1 ms per entry of the run cache, and 2 ms per training, once in a process.
    """
    paths_now = {path for cache in set(caches(root)) for path in cache.glob("runs/*/*/*")}
    new = paths_now - _seen
    _seen.update(new)
    if not new:
        return 0
    trainings = {}
    tests = []
    for path in paths_now:
        execution = _read(path)
        if execution and paths.RUN in execution.outs:
            trainings[execution.outs[paths.RUN], execution.outs.get(paths.MODEL)] = execution
        elif execution and paths.METRICS in execution.outs and path in new:
            tests.append(execution)
    for test in tests:
        training = trainings.get((test.deps.get(paths.RUN, ""), test.deps.get(paths.MODEL)))
        if training:
            with suppress(*READ_ERRORS):
                _bring(root, training, test)
    return len(tests)


def _read(path: Path) -> Execution | None:
    """The entry of a training or of a test; None of any other stage, or if it is damaged."""
    with suppress(*READ_ERRORS):
        content = path.read_bytes()
        if any(stage in content for stage in REPORT_STAGES):
            told = yaml.load(content, LOADER)
            deps, outs = (
                {entry["path"]: entry["md5"] for entry in told[kind]} for kind in ("deps", "outs")
            )
            return Execution(deps, outs, told.get("params", {}).get("params.yaml", {}))
    return None


def _bring(root: Path, training: Execution, test: Execution) -> None:
    """Copy one result, if the cache has all of it."""
    hashes = {**training.outs, **test.outs}
    found = {path: file_of(root, hashes[path]) for path in results.REPORTS if path in hashes}
    there = {path: file for path, file in found.items() if file}
    if len(there) == len(found):
        params = {f"evaluate.{key}": value for key, value in test.params["evaluate"].items()}
        results.keep(there, test.deps[paths.MODEL], params)
