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

import yaml

from asr import paths
from asr.errors import UserError
from asr.evaluation import slices
from asr.metrics import STEP_METRICS
from asr.runs import reports, revisions
from asr.runs.revisions import Revision
from asr.runs.tested import LOCK_ERRORS, why_untested

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

    The facts are params, scores, number of parameters and seconds.
    """
    try:
        run = reports.read_json(revisions.fetch(revision, paths.RUN), "fingerprint", "params")
    except UserError:
        return None, {}, {}
    fingerprint = str(run["fingerprint"])
    if revision.sha is None and why_untested(paths.root()):
        return fingerprint, {"params": run["params"], "scores": {}}, _curves(revision)
    scores = _report(revision, paths.METRICS)
    summary = _report(revision, paths.SUMMARY)
    timing = _report(revision, paths.TRAIN_TIMING)
    with contextlib.suppress(UserError):  # fetched now, so that no page has to wait for DVC
        revisions.fetch(revision, paths.UTTERANCES)
    facts = {
        "params": run["params"] if isinstance(run["params"], dict) else {},
        "scores": {key: value for key, value in scores.items() if key != "models"},
        "parameters": summary.get("parameters"),
        "seconds": timing.get("seconds"),
    }
    return fingerprint, facts, _curves(revision)


def bootstrap_params(revision: Revision) -> tuple[int, int]:
    """How many resamples, and which seed, the intervals in a revision's reports are made with.

    Those of the shipped params.yaml where its dvc.lock does not say.
    """
    try:
        lock = yaml.safe_load(revisions.fetch(revision, "dvc.lock").read_bytes())
        params = lock["stages"]["evaluate"]["params"]["params.yaml"]["evaluate"]
        return int(params["bootstrap_resamples"]), int(params["seed"])
    except (UserError, *LOCK_ERRORS):
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
