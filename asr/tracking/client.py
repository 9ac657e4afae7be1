"""A client of MLflow, and its runs as plain values.

The store is sqlite:///mlflow.db at the repository's top, or MLFLOW_TRACKING_URI. Only this module
and `uploader` touch MLflow (1 s to import).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr import paths
from asr.runtime.locks import locked
from asr.tracking.uploader import EXPERIMENT

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUNS_PER_PAGE = 500
MLFLOW_SETTINGS = {
    # If only the answer was lost, a retry would do the same thing twice.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the URL may hold a password
}


def uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{paths.root() / 'mlflow.db'}"


def connect() -> MlflowClient:
    """A client of our store.

    The first client creates the tables; a lock prevents simultaneous migrations, which would crash.
    """
    for name, value in MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for library in ("mlflow", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
    if not uri().startswith("sqlite:"):
        return MlflowClient(uri())
    with locked(paths.cache("mlflow.lock")):
        client = MlflowClient(uri())
        client.search_experiments(max_results=1)
        return client


def store_file() -> Path | None:
    """The path of the store's database on this machine; None if a server holds the store."""
    scheme, _, path = uri().partition(":///")
    return Path(path) if scheme == "sqlite" else None


def read_runs(
    store: MlflowClient, condition: str = "", limit: int | None = None
) -> Iterator[list[dict[str, Any]]]:
    """Yield pages of our runs as plain values, newest first; costs 1.3 ms a run.

    Args:
        condition: which runs, in MLflow's search language; all if empty.
        limit: read one page of so many runs; all pages if None.
    """
    experiment = store.get_experiment_by_name(EXPERIMENT)
    token: str | None = ""
    while experiment is not None and token is not None:
        page = store.search_runs(
            [experiment.experiment_id],
            condition,
            max_results=limit or RUNS_PER_PAGE,
            page_token=token or None,
        )
        yield [plain_run(run) for run in page]
        token = None if limit else page.token


def read_run(store: MlflowClient, run_id: str) -> dict[str, Any] | None:
    """One run; None if it was deleted, also if MLflow could still restore it."""
    from mlflow.exceptions import MlflowException

    try:
        run = store.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return plain_run(run) if run.info.lifecycle_stage == "active" else None


def plain_run(run: Any) -> dict[str, Any]:
    """A run as plain values, without MLflow's classes; times in seconds since 1970."""
    tags = dict(run.data.tags)
    start, end = run.info.start_time, run.info.end_time
    return {
        "id": run.info.run_id,
        "fingerprint": tags.get("fingerprint"),
        "parent": tags.get("mlflow.parentRunId"),
        "name": run.info.run_name or tags.get("mlflow.runName") or run.info.run_id[:8],
        "status": run.info.status,
        "start": start / 1000 if start else None,
        "end": end / 1000 if end else None,
        "params": dict(run.data.params),
        "tags": tags,
        "metrics": dict(run.data.metrics),
    }


def read_curve(store: MlflowClient, run_id: str, key: str) -> list[tuple[int, float]]:
    """Steps and values of one metric; 3 ms. If a step was logged twice, the last value counts."""
    points = sorted(
        store.get_metric_history(run_id, key), key=lambda point: (point.step, point.timestamp)
    )
    return sorted({point.step: point.value for point in points}.items())
