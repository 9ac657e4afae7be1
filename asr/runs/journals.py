"""A journal as the index keeps it: the course of the training, its run as MLflow would have it, and
its curves. Costs 20 us a line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asr.runs import revision_facts
from asr.runs.revision_facts import Curves
from asr.tracking import journal
from asr.tracking.journal import Course, Run, RunHistory


def read(path: Path) -> tuple[Course | None, dict[str, Any], Curves]:
    """Course, run and curves of a journal; no course if it has no beginning."""
    course, history = Course(), RunHistory()
    for record, _ in journal.read(path):
        if history.runs or record["kind"] == "begin":
            course.add(record)
            history.add(record)
    if not history.runs:
        return None, {}, {}
    training, *tests = history.runs
    return course, _plain_run(training, tests[-1] if tests else None), _curves(training)


def _plain_run(training: Run, test: Run | None) -> dict[str, Any]:
    """A run as `asr.tracking.client` reads it from MLflow, with the scores of its last test."""
    points = [*training.points, *(test.points if test else [])]
    run = {
        "id": None,
        "fingerprint": training.key[1],
        "parent": None,
        "name": training.name,
        "status": training.status,
        "start": training.begin / 1000,
        "end": training.end / 1000 if training.end else None,
        "params": {**training.params, **(test.params if test else {})},
        "tags": training.tags,
        "metrics": {point.metric: point.value for point in points},
    }
    return revision_facts.typed(run)


def _curves(training: Run) -> Curves:
    found: Curves = {}
    for point in training.points:
        found.setdefault(point.metric, []).append((point.step, point.value))
    return {metric: sorted(points) for metric, points in found.items()}
