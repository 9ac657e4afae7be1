"""The reports of every training and its test, kept under .cache/results.

The reports of the next experiment take the place of these in the workspace, and what no commit
holds lies in DVC's cache alone. So `evaluate` copies them when it ends: into the repository that
owns `.cache`, also from the folder that `dvc exp run --temp` throws away. A result is
.cache/results/<fingerprint>/<hash of model, test and evaluate's params>/, with the reports at their
paths in the repository, and about.json. It appears whole or not at all, and never changes: a test
that is made again leaves it as it is. It costs 0.1 MB for 240 test recordings, and stays until
somebody deletes it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from asr import dvc_hashes, paths
from asr.runtime.locks import locked
from asr.storage import files, hashing
from asr.tracking import journal

REPORTS = (
    paths.RUN,
    paths.SUMMARY,
    paths.CHECKS,
    paths.STEPS,
    paths.TRAIN_TIMING,
    paths.METRICS,
    paths.UTTERANCES,
    paths.HOLDOUT,
)
ABOUT = "about.json"


class Result(NamedTuple):
    """A kept result.

    Attributes:
        key: its path below .cache/results.
        name: of the run in MLflow, as it was given once.
        model: the hash of models/finetuned, as DVC has it.
        params: those of `evaluate`, flat.
    """

    key: str
    name: str
    model: str
    params: dict[str, Any]


def folder(*parts: str) -> Path:
    return paths.cache("results", *parts)


def keep(reports: Mapping[str, Path], model: str, params: dict[str, Any]) -> Path:
    """Copy the reports of a training and its test, unless they are kept already.

    Args:
        reports: where those of REPORTS lie that there are, by their paths in the repository.
        model: the hash of models/finetuned, as DVC has it.
        params: those of `evaluate`, flat.
    Returns:
        the folder of the result.
    Raises:
        KeyError, OSError: the reports of the training or of its test are not there.
        ValueError: run.json is damaged.
    """
    fingerprint = str(files.read_json(reports[paths.RUN])["fingerprint"])
    if not fingerprint.isalnum():  # a foreign file's must not become part of a path
        raise ValueError(f"{fingerprint!r}: no fingerprint")
    tested = [dvc_hashes.of_file(reports[path]) for path in (paths.UTTERANCES, paths.HOLDOUT)]
    key = hashing.hash_of([model, tested, params])[:32]
    target = folder(fingerprint, key)
    with locked(paths.cache("results.lock")):
        if not target.is_dir():
            with files.new_folder(target) as draft:
                for path, source in reports.items():
                    (draft / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, draft / path)
                about = {"name": _name(fingerprint), "model": model, "params": params}
                files.write_json(draft / ABOUT, about)
            os.utime(folder())  # by which readers see that there is a new one
    return target


def _name(fingerprint: str) -> str:
    """The name that the run was given in MLflow, as its journal has it."""
    records = journal.read(journal.path_of(fingerprint))
    begun = (record["name"] for record, _ in records if record["kind"] == "begin")
    return str(next(begun, f"repro-{fingerprint[:8]}"))


def kept() -> list[Result]:
    """All results, by fingerprint; listed anew only where one was added since."""
    try:
        return _kept(folder(), *dvc_hashes.stamp(folder()))
    except FileNotFoundError:
        return []


@lru_cache(maxsize=2)
def _kept(top: Path, *stamp: int) -> list[Result]:  # noqa: ARG001 (cache key)
    folders = sorted(path.parent for path in top.glob(f"*/*/{ABOUT}"))
    keys = [path.relative_to(top).as_posix() for path in folders if not path.name.startswith(".")]
    return [result for key in keys if (result := read(key))]


def read(key: str) -> Result | None:
    """A result by its path below .cache/results; None where it is not there, or damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        about = files.read_json(folder(key, ABOUT))
        return Result(key, str(about["name"]), str(about["model"]), dict(about["params"]))
    return None
