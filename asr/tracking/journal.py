"""What happened in a training, one JSON line each, appended under .cache/journal: the truth that
MLflow is filled from.

A line costs 20 us and no network. A line cut short by a kill is passed over. After a resume lines
may come twice, with the same values; an `Account` of the lines has each point once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from asr import metrics, paths
from asr.errors import ParamsError


def path_of(fingerprint: str) -> Path:
    return paths.cache("journal", f"{fingerprint}.jsonl")


def append(path: Path, kind: str, **values: Any) -> None:
    """Add one line; it is whole or, after a kill, ignored. A newline before it ends what a kill cut
    short.
    """
    line = json.dumps({"kind": kind, "time": round(time.time(), 3), **values}, ensure_ascii=False)
    try:
        file = path.open("ab")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        file.write(f"\n{line}\n".encode())


def read(path: Path, start: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Whole lines from byte `start` on, each with the byte after it."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            start += len(line)
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError:
                continue
            yield record, start


class Point(NamedTuple):
    """One value of a metric, at a time in milliseconds as MLflow counts it; points with the same
    mark are one.
    """

    key: str
    value: float
    time: int
    step: int
    mark: tuple[Any, ...]


@dataclass
class Run:
    """All that should be known of a training, or of one of its tests; times in milliseconds, `end`
    is None while it runs.
    """

    mark: tuple[str, str]  # the tag by which it is found, and no other run
    name: str
    begin: int
    params: dict[str, str]
    tags: dict[str, str]
    status: str = "RUNNING"
    end: int | None = None
    points: list[Point] = field(default_factory=list)


class RunHistory:
    """What lines, added one by one, amount to: `runs` holds the training first, then its tests."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.time = 0
        self._seen: set[tuple[Any, ...]] = set()
        self._scores: dict[str, float] = {}

    def add(self, record: dict[str, Any]) -> None:
        """Take in one line.

        Raises:
            BadParams: the line belongs to a training that never began.
        """
        if record["kind"] != "begin" and not self.runs:
            raise ParamsError("the journal has no beginning")
        self.time = int(record["time"] * 1000)
        {
            "begin": self._begin,
            "metrics": self._metrics,
            "end": self._end,
            "evaluation": self._evaluation,
        }[record["kind"]](record)

    def close(self) -> None:
        """Nobody writes the journal any more: a training that told no end was killed."""
        if self.runs and self.runs[0].end is None:
            self.runs[0].status, self.runs[0].end = "KILLED", self.time

    def _begin(self, record: dict[str, Any]) -> None:
        if not self.runs:
            self.runs = [
                _run(("fingerprint", record["fingerprint"]), record["name"], self.time, record)
            ]
        training = self.runs[0]
        training.tags |= record["tags"]
        training.status, training.end = "RUNNING", None

    def _metrics(self, record: dict[str, Any]) -> None:
        for key, value in record["values"].items():
            self._point(Point(key, value, self.time, record["step"], (key, record["step"])))

    def _point(self, point: Point) -> None:
        if point.mark not in self._seen:
            self._seen.add(point.mark)
            self.runs[0].points.append(point)

    def _end(self, record: dict[str, Any]) -> None:
        training = self.runs[0]
        training.tags |= record.get("tags", {})
        training.status, training.end = record["status"], self.time

    def _evaluation(self, record: dict[str, Any]) -> None:
        """A run of its own with all scores, one per set of inputs; the training carries the latest
        WER and CER.
        """
        mark, time = ("evaluation", record["inputs"]), self.time
        if not any(run.mark == mark for run in self.runs):
            test = _run(mark, f"test {record['name']}", time, record)
            test.status, test.end = "FINISHED", time
            test.points = [
                Point(key, value, time, 0, (key, 0)) for key, value in record["values"].items()
            ]
            self.runs.append(test)
        for key in (metrics.TEST_WER, metrics.TEST_CER):
            value = record["values"][key]
            if self._scores.get(key) != value:
                self._scores[key] = value
                self._point(Point(key, value, time, record["step"], (key, record["step"], time)))


def _run(mark: tuple[str, str], name: str, begin: int, record: dict[str, Any]) -> Run:
    return Run(
        mark,
        name,
        begin,
        {key: str(value) for key, value in record["params"].items()},
        {mark[0]: mark[1]},
    )
