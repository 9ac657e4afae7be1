"""The journal of a training: one JSON line per event, the source that MLflow is filled from.

Journals lie in .cache/journal. Appending a line costs 20 us and needs no network. A line that was
cut short by a kill is skipped. After a resume lines may occur twice, with the same values; a
`RunHistory` holds each point once.
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

MAX_TAG = 500  # characters; MLflow takes some thousands


def path_of(fingerprint: str) -> Path:
    return paths.cache("journal", f"{fingerprint}.jsonl")


def append(path: Path, kind: str, **values: Any) -> None:
    """Append one line; if a kill cuts it short, readers skip it.

    It begins with a newline, to end a line that a kill may have cut short before it.
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
    """Yield the complete lines from byte `start` on, each with the offset of the byte after it."""
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
    """One value of a metric.

    Attributes:
        time: milliseconds, as MLflow counts them.
        key: two points with the same key are the same point.
    """

    metric: str
    value: float
    time: int
    step: int
    key: tuple[Any, ...]


@dataclass
class Run:
    """A training, or one of its tests, as MLflow should hold it.

    Attributes:
        key: name and value of a tag that no other run has; MLflow's run is found by it.
        begin: start, in milliseconds since 1970.
        end: end likewise; None while it runs.
        points: the points not yet uploaded.
    """

    key: tuple[str, str]
    name: str
    begin: int
    params: dict[str, str]
    tags: dict[str, str]
    status: str = "RUNNING"
    end: int | None = None
    points: list[Point] = field(default_factory=list)


class RunHistory:
    """The runs that the lines of a journal describe; lines are added one by one.

    Attributes:
        runs: the training first, then its tests.
        time: of the last line, in milliseconds.
    """

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.time = 0
        self._seen: set[tuple[Any, ...]] = set()  # keys of the training's points
        self._latest_scores: dict[str, float] = {}

    def add(self, record: dict[str, Any]) -> None:
        """Add one line of the journal.

        Raises:
            ParamsError: it is not a `begin`, and there was none before it.
        """
        kind = record["kind"]
        if kind != "begin" and not self.runs:
            raise ParamsError("the journal has no beginning")
        self.time = round(record["time"] * 1000)
        handlers = {
            "begin": self._begin,
            "metrics": self._metrics,
            "end": self._end,
            "testing": self._testing,
            "untested": self._untested,
            "evaluation": self._evaluation,
        }
        if kind in handlers:  # the others tell how far a training is
            handlers[kind](record)

    def close(self) -> None:
        """Mark the training as killed if it has no end; call it if nothing trains it."""
        if self.runs and self.runs[0].end is None:
            self.runs[0].status = "KILLED"
            self.runs[0].end = self.time
            self.runs[0].tags["state"] = "killed"

    def close_test(self) -> None:
        """Mark its test as killed if that has no end; call it if nothing tests it."""
        if self.runs and self.runs[0].tags.get("state") == "evaluating":
            self.runs[0].tags["state"] = "evaluation killed"

    def _begin(self, record: dict[str, Any]) -> None:
        if not self.runs:
            key = ("fingerprint", record["fingerprint"])
            self.runs = [_new_run(key, record["name"], self.time, record)]
        training = self.runs[0]
        training.tags |= {**record["tags"], "state": "training"}
        training.status = "RUNNING"
        training.end = None

    def _metrics(self, record: dict[str, Any]) -> None:
        step = record["step"]
        for metric, value in record["values"].items():
            self._add_point(Point(metric, value, self.time, step, (metric, step)))

    def _add_point(self, point: Point) -> None:
        if point.key not in self._seen:
            self._seen.add(point.key)
            self.runs[0].points.append(point)

    def _end(self, record: dict[str, Any]) -> None:
        training = self.runs[0]
        training.tags |= record.get("tags", {})
        training.tags["state"] = _end_in_words(record, training.params)
        training.status = record["status"]
        training.end = self.time

    def _testing(self, _: dict[str, Any]) -> None:
        self.runs[0].tags["state"] = "evaluating"

    def _untested(self, record: dict[str, Any]) -> None:
        self.runs[0].tags["state"] = f"evaluation failed: {record['line']}"[:MAX_TAG]

    def _evaluation(self, record: dict[str, Any]) -> None:
        """Add a run with the scores of a test, unless there is one with the same inputs.

        WER and CER are also added to the training if they changed. The same step may be tested
        several times, so the time is part of the key of these points.
        """
        self.runs[0].tags["state"] = "tested"
        key = ("evaluation", record["inputs"])
        if not any(run.key == key for run in self.runs):
            self.runs.append(self._new_test(key, record))
        for metric in (metrics.TEST_WER, metrics.TEST_CER):
            value = record["values"][metric]
            if self._latest_scores.get(metric) != value:
                self._latest_scores[metric] = value
                step = record["step"]
                point_key = (metric, step, self.time)
                self._add_point(Point(metric, value, self.time, step, point_key))

    def _new_test(self, key: tuple[str, str], record: dict[str, Any]) -> Run:
        test = _new_run(key, f"test {record['name']}", self.time, record)
        test.status = "FINISHED"
        test.end = self.time
        test.points = [
            Point(metric, value, self.time, 0, (metric, 0))
            for metric, value in record["values"].items()
        ]
        return test


def _new_run(key: tuple[str, str], name: str, begin: int, record: dict[str, Any]) -> Run:
    tag, value = key
    params = {param: str(value) for param, value in record["params"].items()}
    return Run(key, name, begin, params, {tag: value})


def _end_in_words(record: dict[str, Any], params: dict[str, str]) -> str:
    """The state that the end of a training leaves it in."""
    if record["status"] == "FINISHED":
        return "trained"
    if record["status"] == "FAILED":
        return f"failed: {record.get('line', '')}"[:MAX_TAG]
    if "step" in record:
        return f"stopped at step {record['step']} of {params.get('train.max_steps')}"
    return "stopped"


@dataclass
class Course:
    """How a training goes, or went; small, so that an index can keep it of each.

    Attributes:
        name: of its first experiment; it keeps it for life.
        begin, begun: when it was begun first, and when last, in seconds since 1970.
        end: when it ended; None while it runs, and after a kill.
        status: of MLflow.
        step: that the log told of last; None before that.
        steps: how many there shall be.
        steps_done: whether only the last validation and the checks are left.
        pieces: how often it was begun until it finished.
        seconds: of all pieces until it finished, or until now.
        test: "", "begun", "done" or "failed".
        line: of the error that ended the training or its test.
    """

    name: str = ""
    begin: float = 0.0
    begun: float = 0.0
    end: float | None = None
    status: str = "RUNNING"
    step: int | None = None
    steps: int | None = None
    steps_done: bool = False
    pieces: int = 0
    seconds: float = 0.0
    test: str = ""
    line: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    _before: float = 0.0  # seconds of the pieces before this one
    _has_finished: bool = False  # once; what is done again costs it no more

    def add(self, record: dict[str, Any]) -> None:
        """Add one line of the journal."""
        kind, when = record["kind"], record["time"]
        if kind == "begin":
            self._begin(record)
        elif self.end is None and not self._has_finished:
            self.seconds = round(self._before + when - self.begun, 3)
        if kind in ("metrics", "resumed"):
            self.step = record["step"]
            self.steps_done = self.steps_done or self.step == self.steps
        elif kind == "trained":
            self.steps_done = True
        elif kind == "end":
            self.end, self.status, self.line = when, record["status"], record.get("line", "")
            self.step = record.get("step", self.step)
            self.tags |= record.get("tags", {})
            self._has_finished = self._has_finished or self.status == "FINISHED"
        elif kind in ("testing", "untested", "evaluation"):
            self.test = {"testing": "begun", "untested": "failed"}.get(kind, "done")
            self.line = record.get("line", "")

    def _begin(self, record: dict[str, Any]) -> None:
        steps = record["params"].get("train.max_steps")
        self.name = self.name or record["name"]
        self.begun = record["time"]
        self.begin = self.begin or self.begun
        self._before = self.seconds
        self.pieces += not self._has_finished
        self.end, self.status, self.step, self.steps_done = None, "RUNNING", None, False
        self.steps = steps if isinstance(steps, int) else None
        self.test = self.line = ""
        self.tags |= record["tags"]


def course(path: Path) -> Course | None:
    """How the training of a journal goes; None if the journal has no beginning."""
    told = Course()
    for record, _ in read(path):
        if told.begin or record["kind"] == "begin":
            told.add(record)
    return told if told.begin else None
