"""Upload one journal's runs to MLflow: read what MLflow holds of them, and add what is missing.

Everything may be done twice, also by several processes at once. MLflow does not let us choose the
id of a run, so a run is found by a tag. If a run was created twice, because an answer was lost, the
second is deleted when it is found. A point that MLflow has is not logged again. Costs one request
for 500 points, and one request per metric of a run that MLflow has already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.errors import ParamsError
from asr.runtime.locks import locked
from asr.tracking import journal

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "earshot"
POINTS_PER_REQUEST = 500
FACTS_PER_REQUEST = 100  # params or tags; MLflow accepts no more at once


@dataclass
class RemoteRun:
    """The part of a run that MLflow holds already.

    Attributes:
        params: keys of the params.
        points: keys of the points.
        end: status, and the time it ended in milliseconds; None while it runs.
    """

    id: str
    params: set[str]
    tags: dict[str, str]
    points: set[tuple[Any, ...]]
    end: tuple[str, int | None]


class RunUploader:
    """Uploads one journal to MLflow.

    After an error of any kind use a new uploader, which reads what has arrived.
    """

    def __init__(self, path: Path, client: MlflowClient):
        self.path = path
        self.client = client
        self.read_to = 0  # offset in the journal
        self.history = journal.RunHistory()
        self.remote_runs: dict[tuple[str, str], RemoteRun] = {}  # by the key of the run
        self.experiment_id = ""

    def catch_up(self) -> None:
        """Upload all that the journal has and MLflow lacks.

        Raises:
            ParamsError: the journal has no beginning.
        """
        with locked(self.path.with_suffix(".lock")):
            for record, end in journal.read(self.path, self.read_to):
                self.read_to = end
                try:
                    self.history.add(record)
                except ParamsError as fault:
                    raise ParamsError(f"{self.path.name}: {fault}") from None
            self._upload()

    def close(self, test: bool = False) -> None:
        """Upload the end of a training that no process trains any more.

        Args:
            test: no process tests it either.
        """
        self.history.close()
        if test:
            self.history.close_test()
        with locked(self.path.with_suffix(".lock")):
            self._upload()

    def _upload(self) -> None:
        self.experiment_id = self.experiment_id or self._find_experiment()
        for run in self.history.runs:
            remote = self.remote_runs.get(run.key) or self._find(run) or self._create(run)
            self.remote_runs[run.key] = remote
            training = self.history.runs[0]
            if run is not training:
                run.tags["mlflow.parentRunId"] = self.remote_runs[training.key].id
            self._log_missing(run, remote)
            self._update_status(run, remote)
            # Remember what MLflow has now, so that nothing is read or sent again.
            run.points.clear()
            remote.params |= set(run.params)
            remote.tags |= run.tags
            remote.end = run.status, run.end

    def _find_experiment(self) -> str:
        """The id of our experiment, which is created if it does not exist."""
        from mlflow.exceptions import MlflowException

        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            try:
                return str(self.client.create_experiment(EXPERIMENT))
            except MlflowException:  # another process was quicker
                experiment = self.client.get_experiment_by_name(EXPERIMENT)
                if experiment is None:
                    raise
        return str(experiment.experiment_id)

    def _find(self, run: journal.Run) -> RemoteRun | None:
        """MLflow's run with this tag; if there are several, all but the first by id are deleted."""
        tag, value = run.key
        twins = sorted(
            self.client.search_runs([self.experiment_id], f"tags.`{tag}` = '{value}'"),
            key=lambda twin: str(twin.info.run_id),
        )
        if not twins:
            return None
        for twin in twins[1:]:
            self.client.delete_run(twin.info.run_id)
        info, data = twins[0].info, twins[0].data
        points: set[tuple[Any, ...]] = set()
        for metric in data.metrics:
            for point in self.client.get_metric_history(info.run_id, metric):
                # The journal may give this point either of two keys.
                points |= {(metric, point.step), (metric, point.step, point.timestamp)}
        end = (info.status, info.end_time)
        return RemoteRun(info.run_id, set(data.params), dict(data.tags), points, end)

    def _create(self, run: journal.Run) -> RemoteRun:
        info = self.client.create_run(self.experiment_id, run.begin, run.tags, run.name).info
        return RemoteRun(info.run_id, set(), dict(run.tags), set(), (info.status, None))

    def _log_missing(self, run: journal.Run, remote: RemoteRun) -> None:
        from mlflow.entities import Metric, Param, RunTag

        points = [
            Metric(point.metric, point.value, point.time, point.step)
            for point in run.points
            if point.key not in remote.points
        ]
        params = [
            Param(key, value) for key, value in run.params.items() if key not in remote.params
        ]
        tags = [
            RunTag(key, value) for key, value in run.tags.items() if remote.tags.get(key) != value
        ]
        requests = zip_longest(
            _parts(points, POINTS_PER_REQUEST),
            _parts(params, FACTS_PER_REQUEST),
            _parts(tags, FACTS_PER_REQUEST),
            fillvalue=(),
        )
        for request in requests:
            self.client.log_batch(remote.id, *request)

    def _update_status(self, run: journal.Run, remote: RemoteRun) -> None:
        if run.end is not None and remote.end != (run.status, run.end):
            self.client.set_terminated(remote.id, run.status, run.end)
        elif run.end is None and remote.end[0] != run.status:
            self.client.update_run(remote.id, status=run.status)


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
