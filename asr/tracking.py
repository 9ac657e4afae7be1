"""MLflow, filled from the journal by a process of its own, so that no outage and no import touches training.

    python -m asr.tracking follow JOURNAL    # until standard input closes; `train` starts it
    python -m asr.tracking sync [JOURNAL]    # once; without a journal, all of them

The store is sqlite:///mlflow.db at the repository's top, or MLFLOW_TRACKING_URI. A run is found by its tag `fingerprint`; a
point that is there already is not logged again, so a replay changes nothing. Only this module touches MLflow (1 s to import).
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr import files, journal
from asr.faults import BadParams, NetworkFault, exit_with

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "earshot"
POLL_SECONDS = 1.0
BATCH = 500  # metrics in one request
PARAM_BATCH = 100  # MLflow takes no more params at once
PAGE = 500  # runs in one answer
PATIENCE_SECONDS = 60.0
SLOW_NETWORK = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_CONFIGURE_LOGGING": "false",
}


def uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{files.root() / 'mlflow.db'}"


def client() -> MlflowClient:
    """A client on our store; the first one makes the tables, alone, for parallel migrations crash."""
    for name, value in SLOW_NETWORK.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for library in ("mlflow", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
    if not uri().startswith("sqlite:"):
        return MlflowClient(uri())
    files.cache().mkdir(parents=True, exist_ok=True)
    with files.cache("mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = MlflowClient(uri())
        made.search_experiments(max_results=1)
        return made


class Mirror:
    """One journal's run in MLflow, brought up to date by `catch_up`."""

    def __init__(self, path: Path):
        self.path, self.client, self.read_to = path, client(), 0
        self.run_id: str | None = None
        self.ended = True
        self.seen: dict[str, set[int]] = defaultdict(set)

    def catch_up(self) -> None:
        """Log every line of the journal that MLflow does not have."""
        waiting: list[dict[str, Any]] = []
        for record, end in journal.read(self.path, self.read_to):
            self.read_to = end
            if record["kind"] == "metrics":
                waiting.append(record)
                continue
            self._metrics(waiting)
            waiting = []
            {"begin": self._begin, "end": self._end, "evaluation": self._evaluation}[record["kind"]](record)
        self._metrics(waiting)

    def _begin(self, record: dict[str, Any]) -> None:
        if self.run_id is None:
            self.run_id = self._find("fingerprint", record["fingerprint"])
        if self.run_id is None:
            self.run_id = self._create(record, {"fingerprint": record["fingerprint"], **record["tags"]})
        for name, value in record["tags"].items():
            self.client.set_tag(self.run_id, name, value)
        for key in self.client.get_run(self.run_id).data.metrics:
            self.seen[key] |= {point.step for point in self.client.get_metric_history(self.run_id, key)}
        self.ended = False
        self.client.update_run(self.run_id, status="RUNNING")

    def _create(self, record: dict[str, Any], tags: dict[str, str]) -> str:
        from mlflow.entities import Param

        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(EXPERIMENT)
        run = self.client.create_run(experiment_id, int(record["time"] * 1000), tags, record["name"])
        params = [Param(key, str(value)) for key, value in record["params"].items()]
        for at in range(0, len(params), PARAM_BATCH):
            self.client.log_batch(run.info.run_id, params=params[at : at + PARAM_BATCH])
        return str(run.info.run_id)

    def _find(self, tag: str, value: str) -> str | None:
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return None
        found = self.client.search_runs([experiment.experiment_id], f"tags.`{tag}` = '{value}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    def _metrics(self, records: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric

        points = []
        for record in records:
            for key, value in record["values"].items():
                if record["step"] not in self.seen[key]:
                    self.seen[key].add(record["step"])
                    points.append(Metric(key, value, int(record["time"] * 1000), record["step"]))
        for at in range(0, len(points), BATCH):
            self.client.log_batch(self._run(), metrics=points[at : at + BATCH])

    def _run(self) -> str:
        if self.run_id is None:
            raise BadParams(f"{self.path.name}: the journal has no beginning")
        return self.run_id

    def close(self) -> None:
        """Nobody writes the journal any more: a training that told no end was killed."""
        if not self.ended:
            self.client.set_terminated(self._run(), "KILLED")

    def _end(self, record: dict[str, Any]) -> None:
        self.ended = True
        for name, value in record.get("tags", {}).items():
            self.client.set_tag(self._run(), name, value)
        self.client.set_terminated(self._run(), record["status"], int(record["time"] * 1000))

    def _evaluation(self, record: dict[str, Any]) -> None:
        """A child run with the test scores, one per set of inputs; the parent carries the latest."""
        from mlflow.entities import Metric

        parent = self._run()
        child = self._find("evaluation", record["inputs"])
        if child is None:
            tags = {"evaluation": record["inputs"], "mlflow.parentRunId": parent}
            child = self._create({**record, "name": f"test {record['name']}"}, tags)
            time_ms = int(record["time"] * 1000)
            self.client.log_batch(child, [Metric(key, value, time_ms, 0) for key, value in record["values"].items()])
            self.client.set_terminated(child)
        for key in ("test/wer", "test/cer"):
            if self.client.get_run(parent).data.metrics.get(key) != record["values"][key]:
                self.client.log_metric(parent, key, record["values"][key], int(record["time"] * 1000), record["step"])


class Follower:
    """The process that mirrors a journal while a training writes it; it never stops the training."""

    def __init__(self, path: Path):
        command = [sys.executable, "-m", "asr.tracking", "follow", str(path)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def finish(self) -> None:
        """Let it log what is left."""
        if self.process.stdin:
            self.process.stdin.close()
        try:
            failed = self.process.wait(PATIENCE_SECONDS) != 0
        except subprocess.TimeoutExpired:
            self.process.kill()
            failed = True
        if failed:
            print("warning: MLflow does not have all of this training; the journal has: make sync", flush=True)


def follow(path: Path) -> None:
    """Mirror a journal until the writer closes our standard input, as it also does by dying."""
    mirror, ended, warned = None, False, False
    while not ended:
        ended = bool(select.select([sys.stdin], [], [], POLL_SECONDS)[0])
        mirror = _attempt(mirror, path, ended, not warned)
        warned = mirror is None
    if mirror is None:
        raise SystemExit(1)


def _attempt(mirror: Mirror | None, path: Path, ended: bool, warn: bool) -> Mirror | None:
    """Catch up; after a failure the next attempt starts over, which logs nothing twice."""
    from mlflow.exceptions import MlflowException

    try:
        mirror = mirror or Mirror(path)
        mirror.catch_up()
        if ended:
            mirror.close()
        return mirror
    except (MlflowException, OSError) as error:
        if warn:
            print(f"warning: MLflow at {_shown(uri())} does not answer ({type(error).__name__}); training goes on", flush=True)
        return None


def sync(paths: list[Path]) -> None:
    """Bring MLflow up to these journals.

    Raises:
        NetworkFault: MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException

    for path in paths:
        try:
            mirror = Mirror(path)
            mirror.catch_up()
            if not training_runs(path.stem):
                mirror.close()
        except (MlflowException, OSError) as error:
            raise NetworkFault(f"MLflow at {_shown(uri())} does not answer ({type(error).__name__}); when it does: make sync") from None
    print(f"MLflow holds {len(paths)} {'journal' if len(paths) == 1 else 'journals'} at {_shown(uri())}", flush=True)


def training_runs(fingerprint: str) -> bool:
    """Whether a training with this fingerprint runs now: it holds the lock of its checkpoint folder."""
    lock = files.cache("checkpoints", fingerprint, "lock")
    if not lock.is_file():
        return False
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def store_file() -> Path | None:
    """The database on this machine that holds the store; none when a server does."""
    scheme, _, path = uri().partition(":///")
    return Path(path) if scheme == "sqlite" else None


def read_runs(store: MlflowClient, condition: str = "", most: int | None = None) -> Iterator[list[dict[str, Any]]]:
    """Our runs that meet a condition in MLflow's search language, newest first, in pages of plain values; 1.3 ms a run."""
    experiment = store.get_experiment_by_name(EXPERIMENT)
    token: str | None = ""
    while experiment is not None and token is not None:
        page = store.search_runs([experiment.experiment_id], condition, max_results=most or PAGE, page_token=token or None)
        yield [plain_run(run) for run in page]
        token = None if most else page.token


def read_run(store: MlflowClient, run_id: str) -> dict[str, Any] | None:
    """One run; none if it was deleted, for good or not."""
    from mlflow.exceptions import MlflowException

    try:
        run = store.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return plain_run(run) if run.info.lifecycle_stage == "active" else None


def plain_run(run: Any) -> dict[str, Any]:
    """What a run is, without MLflow's classes; times are seconds."""
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
    """One metric over the steps; 3 ms. What was logged last counts where a step comes twice."""
    points = sorted(store.get_metric_history(run_id, key), key=lambda point: (point.step, point.timestamp))
    return sorted({point.step: point.value for point in points}.items())


def sync_apart(path: Path) -> None:
    """Sync in a process of its own with limited patience: an outage costs a warning, not the stage."""
    command = [sys.executable, "-m", "asr.tracking", "sync", str(path)]
    try:
        failed = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=PATIENCE_SECONDS).returncode != 0
    except subprocess.TimeoutExpired:
        failed = True
    if failed:
        print("warning: MLflow does not have this evaluation; the journal has: make sync", flush=True)


def _shown(address: str) -> str:
    """An address without the password that may stand in it."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def main() -> None:
    command, *given = sys.argv[1:] or ["help"]
    if command == "follow" and len(given) == 1:
        follow(Path(given[0]))
    elif command == "sync" and len(given) <= 1:
        sync([Path(given[0])] if given else sorted(files.cache("journal").glob("*.jsonl")))
    else:
        raise BadParams(f"usage: {(__doc__ or '').split(chr(10) + chr(10))[1].strip()}")


if __name__ == "__main__":
    exit_with(main)
