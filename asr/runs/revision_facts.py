"""Facts about a revision's training from its reports, and params of MLflow as values.

A revision without a run.json has no fingerprint to join it with MLflow. Costs fetching six small
files (`asr.runs.revisions`).
"""

from __future__ import annotations

import ast
import contextlib
import re
from functools import lru_cache
from typing import Any

from asr import paths
from asr.errors import UserError
from asr.evaluation import slices
from asr.metrics import STEP_METRICS
from asr.runs import reports, revisions
from asr.runs.revisions import Revision
from asr.runs.tested import EVALUATE, LOCK_ERRORS, Lock, lock_of, md5_of, why_untested_at

Curves = dict[str, list[tuple[int, float]]]  # steps and values by metric

PLAIN = {"None": None, "True": True, "False": False}
NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,20})?(e[+-]?\d{1,2})?")
MAX_LIST_CHARACTERS = 1000


def typed(run: dict[str, Any]) -> dict[str, Any]:
    """A run with its params as values; MLflow stores them as text."""
    return {**run, "params": {key: value_of(text) for key, text in run["params"].items()}}


@lru_cache(maxsize=100_000)
def value_of(text: str) -> Any:
    """The value whose `str` is this text; other texts, and very long numbers, stay text."""
    if text in PLAIN:
        return PLAIN[text]
    if NUMBER.fullmatch(text):
        return float(text) if set(text) & set(".e") else int(text)
    if text.startswith("[") and len(text) < MAX_LIST_CHARACTERS:
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            return ast.literal_eval(text)
    return text


def read(revision: Revision) -> tuple[str | None, dict[str, Any], Curves]:
    """Fingerprint, facts and curves of a revision; all empty if there is no run.json.

    The facts are `params`; `scores`, or in `untested` why there are none; `best_wer` and
    `best_step` of the weights kept; number of `parameters`; `seconds`; and the hashes of
    run.json in dvc.lock (`run`) and of the table of utterances (`utterances`).
    """
    try:
        run = reports.read_json(revisions.fetch(revision, paths.RUN), "fingerprint", "params")
    except UserError:
        return None, {}, {}
    lock = _lock(revision)
    written = lock.written if lock else {}
    untested = why_untested_at(revision)
    scores = {} if untested else _report(revision, paths.METRICS)
    summary = _report(revision, paths.SUMMARY)
    if run.get("best_step") not in (None, summary.get("best_step")):
        summary = {}  # of another training
    params = run["params"] if isinstance(run["params"], dict) else {}
    utterances = None
    with contextlib.suppress(UserError, OSError):  # fetched now, so that no page waits for DVC
        utterances = md5_of(revisions.fetch(revision, paths.UTTERANCES))
    facts = {
        "params": params | _evaluate_params(lock),
        "scores": {key: value for key, value in scores.items() if key != "models"},
        "untested": untested,
        "best_wer": summary.get("best_validation_wer"),
        "best_step": summary.get("best_step"),
        "parameters": summary.get("parameters"),
        "seconds": _report(revision, paths.TRAIN_TIMING).get("seconds"),
        "run": written.get(paths.RUN),
        "utterances": None if untested else utterances,
    }
    return str(run["fingerprint"]), facts, _curves(revision)


def _lock(revision: Revision) -> Lock | None:
    """The dvc.lock of a revision; None where there is none that can be read."""
    try:
        return lock_of(revision)
    except (UserError, *LOCK_ERRORS):
        return None


def _evaluate_params(lock: Lock | None) -> dict[str, Any]:
    """The params that a revision was tested with, flat."""
    params = lock.params.get(EVALUATE, {}).get(EVALUATE) if lock else None
    return {f"{EVALUATE}.{key}": value for key, value in (params or {}).items()}


def bootstrap_params(revision: Revision) -> tuple[int, int]:
    """How many resamples, and which seed, the intervals in a revision's reports are made with.

    Those of the shipped params.yaml where its dvc.lock does not say.
    """
    params = _evaluate_params(_lock(revision))
    try:
        return int(params["evaluate.bootstrap_resamples"]), int(params["evaluate.seed"])
    except LOCK_ERRORS:
        return slices.RESAMPLES, slices.SEED


def _report(revision: Revision, path: str) -> dict[str, Any]:
    try:
        return reports.read_json(revisions.fetch(revision, path))
    except UserError:
        return {}


def _curves(revision: Revision) -> Curves:
    """The columns of steps.csv under MLflow's names; none if it cannot be read."""
    try:
        rows = reports.read_csv(revisions.fetch(revision, paths.STEPS), "step", *STEP_METRICS)
        return {
            metric: [(int(row["step"]), float(row[column])) for row in rows if row[column]]
            for column, metric in STEP_METRICS.items()
        }
    except (UserError, ValueError):
        return {}
