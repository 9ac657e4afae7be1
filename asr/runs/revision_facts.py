"""What a run or a revision tells of itself, in one form: MLflow's params as params.yaml has them,
and the stages' reports at a commit.

A revision without DVC's run.json has nothing to join with MLflow. Costs what `asr.runs.revisions`
costs to fetch six small files.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from asr import paths
from asr.errors import UserError
from asr.metrics import STEP_METRICS
from asr.runs import reports, revisions
from asr.runs.revisions import Revision

PLAIN = {"None": None, "True": True, "False": False}
NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,20})?(e[+-]?\d{1,2})?")


def typed(run: dict[str, Any]) -> dict[str, Any]:
    """A run with its params as params.yaml has them; MLflow keeps everything as text."""
    return {**run, "params": {key: value_of(text) for key, text in run["params"].items()}}


@lru_cache(maxsize=100_000)
def value_of(text: str) -> Any:
    """What Python shows as this text; what is no plain value stays text, as do numbers too long for
    a column.
    """
    if text in PLAIN:
        return PLAIN[text]
    if NUMBER.fullmatch(text):
        return float(text) if set(text) & set(".e") else int(text)
    if text.startswith("[") and len(text) < 1000:
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            return ast.literal_eval(text)
    return text


def read(
    revision: Revision,
) -> tuple[str | None, dict[str, Any], dict[str, list[tuple[int, float]]]]:
    """Fingerprint, what the reports tell, and the curves of a revision; without run.json there is
    nothing to join.
    """
    try:
        run = reports.read_json(revisions.fetch(revision, paths.RUN), "fingerprint", "params")
    except UserError:
        return None, {}, {}
    if revision.sha is None and not is_locked(Path(paths.root() / paths.RUN)):
        return str(run["fingerprint"]), {"params": run["params"], "scores": {}}, _steps(revision)
    scores, summary, timing = (
        _report(revision, one) for one in (paths.METRICS, paths.SUMMARY, paths.TRAIN_TIMING)
    )
    _keep(revision, paths.UTTERANCES)
    known = {
        "params": run["params"] if isinstance(run["params"], dict) else {},
        "scores": {key: value for key, value in scores.items() if key != "models"},
        "parameters": summary.get("parameters"),
        "seconds": timing.get("seconds"),
    }
    return str(run["fingerprint"]), known, _steps(revision)


def is_locked(run: Path) -> bool:
    """Whether dvc.lock tells of this run.json; after a git checkout without dvc checkout the scores
    beside it are another model's.
    """
    try:
        lock = yaml.safe_load((paths.root() / "dvc.lock").read_bytes())
        (wanted,) = [
            out["md5"] for out in lock["stages"]["train"]["outs"] if out["path"] == paths.RUN
        ]
        return bool(wanted == hashlib.md5(run.read_bytes(), usedforsecurity=False).hexdigest())
    except FileNotFoundError:
        return True
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return False


def _keep(revision: Revision, path: str) -> None:
    """Have a file at hand, so that no page waits for DVC."""
    with contextlib.suppress(UserError):
        revisions.fetch(revision, path)


def _report(revision: Revision, path: str) -> dict[str, Any]:
    try:
        return reports.read_json(revisions.fetch(revision, path))
    except UserError:
        return {}


def _steps(revision: Revision) -> dict[str, list[tuple[int, float]]]:
    """steps.csv under MLflow's names."""
    columns = {name: column for column, name in STEP_METRICS.items()}
    try:
        rows = reports.read_csv(revisions.fetch(revision, paths.STEPS), "step", *columns.values())
        return {
            key: [(int(row["step"]), float(row[column])) for row in rows if row[column]]
            for key, column in columns.items()
        }
    except (UserError, ValueError):
        return {}
