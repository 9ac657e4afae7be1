"""Facts about a revision's training from its reports, and params of MLflow as values.

A revision without a run.json has no fingerprint to join it with MLflow. Costs fetching six small
files (`asr.runs.revisions`).
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from asr import dvc_hashes, paths
from asr.errors import DataError, UserError
from asr.evaluation import slices
from asr.metrics import STEP_METRICS
from asr.runs import failed_checks, reports, revisions
from asr.runs.revisions import KEPT, PUBLISHED, RESULT, Revision
from asr.runs.tested import EVALUATE, LOCK_ERRORS, Lock, lock_of, why_untested_at
from asr.tracking import results

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

    What is published needs none: dvc.lock alone ties the reports that git holds.

    The facts are `params`; `scores`, or in `untested` why there are none; `best_wer` and
    `best_step` of the weights kept; number of `parameters`; the share of its rows that the training
    had `left_out`; `seconds`; `failed_checks`; and the hashes of run.json (`run`) and of the table
    of utterances (`utterances`).
    """
    try:
        if (revision.sha or "").startswith(KEPT):
            return _of_kept_model(revision)
        run = reports.read_json(revisions.fetch(revision, paths.RUN), "fingerprint", "params")
        if revision.kind == PUBLISHED:
            return None, {}, {}  # its branch or commit tells it
    except UserError:
        return _published(revision) if revision.kind == PUBLISHED else (None, {}, {})
    params = run["params"] if isinstance(run["params"], dict) else {}
    facts = _facts(revision, params, run.get("best_step"))
    return str(run["fingerprint"]), facts, _curves(revision)


def _facts(revision: Revision, params: dict[str, Any], best_step: int | None) -> dict[str, Any]:
    """The facts of a revision.

    Args:
        params: of the training.
        best_step: as run.json tells it; None where that is not to be had.
    """
    lock = _lock(revision)
    untested = why_untested_at(revision)
    scores = {} if untested else _report(revision, paths.METRICS)
    summary = _report(revision, paths.SUMMARY)
    if best_step not in (None, summary.get("best_step")):
        summary = {}  # of another training
    utterances = _hash(revision, paths.UTTERANCES)  # fetched now, so that no page waits for DVC
    return {
        "params": params | _evaluate_params(revision),
        "scores": {key: value for key, value in scores.items() if key != "models"},
        "untested": untested,
        "best_wer": summary.get("best_validation_wer"),
        "best_step": summary.get("best_step"),
        "parameters": summary.get("parameters"),
        "left_out": _left_out(summary),
        "seconds": _report(revision, paths.TRAIN_TIMING).get("seconds"),
        "failed_checks": failed_checks.of_report(_report(revision, paths.CHECKS)),
        "run": lock.written.get(paths.RUN) if lock else _hash(revision, paths.RUN),
        "utterances": None if untested else utterances,
    }


def _left_out(summary: dict[str, Any]) -> float | None:
    """The share of its rows that a training left out; None where the summary does not tell."""
    told = summary.get("rows_left_out")
    counts = [*told.values()] if isinstance(told, dict) else []
    trained = summary.get("rows_trained")
    if not counts or not all(isinstance(count, int) for count in [trained, *counts]):
        return None
    share: float = sum(counts) / max(trained + sum(counts), 1)
    return share


def _hash(revision: Revision, path: str) -> str | None:
    """MD5 of a file of a revision; None where it is not to be had."""
    with contextlib.suppress(UserError, OSError):
        return dvc_hashes.of_file(revisions.fetch(revision, path))
    return None


def _published(revision: Revision) -> tuple[None, dict[str, Any], Curves]:
    """The facts of a commit by what git holds of it; none if its scores are not its model's."""
    lock = _lock(revision)
    if lock is None or why_untested_at(revision):
        return None, {}, {}
    params = {key: value for told in lock.params.values() for key, value in _flat(told)}
    return None, _facts(revision, params, None), _curves(revision)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested params under dotted keys."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _of_kept_model(revision: Revision) -> tuple[str, dict[str, Any], Curves]:
    """The facts of a kept model, by its report.

    Raises:
        DataError: the report is damaged.
    """
    path = paths.root() / paths.KEPT_REPORTS / f"{revision.name}.json"
    report = reports.read_json(path, "fingerprint", "params", "metrics", "best_step")
    if not isinstance(report["params"], dict) or not isinstance(report["metrics"], dict):
        raise DataError(f"{path.name}: holds no params, or no scores; make keep writes it anew")
    facts = {
        "params": report["params"],
        "scores": {key: value for key, value in report["metrics"].items() if key != "models"},
        "untested": "",
        "best_wer": report.get("best_validation_wer"),
        "best_step": report["best_step"],
        "failed_checks": _texts(report.get("failed_checks")),
        "utterances": report.get("utterances"),
    }
    return str(report["fingerprint"]), facts, {}


def _texts(told: Any) -> dict[str, str]:
    return {str(name): str(text) for name, text in told.items()} if isinstance(told, dict) else {}


def _lock(revision: Revision) -> Lock | None:
    """The dvc.lock of a revision; None where there is none that can be read."""
    try:
        return lock_of(revision)
    except (UserError, *LOCK_ERRORS):
        return None


def _evaluate_params(revision: Revision) -> dict[str, Any]:
    """The params that a revision was tested with, flat; none where nothing tells them."""
    if revision.kind == RESULT:
        result = results.read(str(revision.sha))
        return result.params if result else {}
    if (revision.sha or "").startswith(KEPT):
        return dict(_of_kept_model(revision)[1]["params"])
    lock = _lock(revision)
    params = lock.params.get(EVALUATE, {}).get(EVALUATE) if lock else None
    return {f"{EVALUATE}.{key}": value for key, value in (params or {}).items()}


def bootstrap_params(revision: Revision) -> tuple[int, int]:
    """How many resamples, and which seed, the intervals in a revision's reports are made with.

    Those of the shipped params.yaml where its dvc.lock does not say.
    """
    try:
        params = _evaluate_params(revision)
        return int(params["evaluate.bootstrap_resamples"]), int(params["evaluate.seed"])
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
