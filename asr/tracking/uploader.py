"""One journal's runs in MLflow: what it has of them, and what it lacks; everything may be done
twice, by several processes at once.

MLflow has no name for a run that we could choose, so a run is found by a tag; one that was made
twice, because an answer was lost, is deleted when it is found. A point that is there already is not
logged again. Costs one request for 500 points, and for a run that MLflow has already one for each
metric.
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
POINTS = 500  # in one request
FACTS = 100  # params or tags; MLflow takes no more at once


@dataclass
class RemoteRun:
    """What MLflow has of one run."""

    id: str
    params: set[str]
    tags: dict[str, str]
    points: set[tuple[Any, ...]]  # the marks
    end: tuple[str, int | None]


class RunUploader:
    """One journal in MLflow; after an error of any kind start with a new one, which looks at what
    arrived.
    """

    def __init__(self, path: Path, client: MlflowClient):
        self.path, self.client, self.read_to = path, client, 0
        self.account = journal.RunHistory()
        self.held: dict[tuple[str, str], RemoteRun] = {}
        self.experiment = ""

    def catch_up(self) -> None:
        """Give MLflow all that the journal has and MLflow lacks.

        Raises:
            BadParams: the journal has no beginning.
        """
        with locked(self.path.with_suffix(".lock")):
            for record, end in journal.read(self.path, self.read_to):
                self.read_to = end
                try:
                    self.account.add(record)
                except ParamsError as fault:
                    raise ParamsError(f"{self.path.name}: {fault}") from None
            self._give()

    def close(self) -> None:
        """Nobody writes the journal any more."""
        self.account.close()
        with locked(self.path.with_suffix(".lock")):
            self._give()

    def _give(self) -> None:
        self.experiment = self.experiment or self._place()
        for run in self.account.runs:
            held = self.held.get(run.mark) or self._find(run) or self._create(run)
            self.held[run.mark] = held
            if run is not self.account.runs[0]:
                run.tags["mlflow.parentRunId"] = self.held[self.account.runs[0].mark].id
            self._complete(run, held)

    def _place(self) -> str:
        """The id of our experiment, which is made if need be."""
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            try:
                return str(self.client.create_experiment(EXPERIMENT))
            except MlflowException:  # another process was quicker
                found = self.client.get_experiment_by_name(EXPERIMENT)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _find(self, run: journal.Run) -> RemoteRun | None:
        """The run that carries the mark; of several all processes choose the same one."""
        tag, value = run.mark
        twins = sorted(
            self.client.search_runs([self.experiment], f"tags.`{tag}` = '{value}'"),
            key=lambda one: str(one.info.run_id),
        )
        if not twins:
            return None
        for twin in twins[1:]:
            self.client.delete_run(twin.info.run_id)
        info, data = twins[0].info, twins[0].data
        points: set[tuple[Any, ...]] = set()
        for key in data.metrics:
            for point in self.client.get_metric_history(info.run_id, key):
                points |= {(key, point.step), (key, point.step, point.timestamp)}
        return RemoteRun(
            info.run_id, set(data.params), dict(data.tags), points, (info.status, info.end_time)
        )

    def _create(self, run: journal.Run) -> RemoteRun:
        made = self.client.create_run(self.experiment, run.begin, run.tags, run.name)
        return RemoteRun(made.info.run_id, set(), dict(run.tags), set(), (made.info.status, None))

    def _complete(self, run: journal.Run, held: RemoteRun) -> None:
        """What is there is known, so that nothing is asked or given again while the journal grows."""
        from mlflow.entities import Metric, Param, RunTag

        points = [
            Metric(one.key, one.value, one.time, one.step)
            for one in run.points
            if one.mark not in held.points
        ]
        params = [Param(key, value) for key, value in run.params.items() if key not in held.params]
        tags = [
            RunTag(key, value) for key, value in run.tags.items() if held.tags.get(key) != value
        ]
        for batch in zip_longest(
            _parts(points, POINTS), _parts(params, FACTS), _parts(tags, FACTS), fillvalue=()
        ):
            self.client.log_batch(held.id, *batch)
        if run.end is not None and held.end != (run.status, run.end):
            self.client.set_terminated(held.id, run.status, run.end)
        elif run.end is None and held.end[0] != run.status:
            self.client.update_run(held.id, status=run.status)
        run.points.clear()
        held.params |= set(run.params)
        held.tags |= run.tags
        held.end = run.status, run.end


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[at : at + size] for at in range(0, len(items), size))
