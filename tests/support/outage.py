"""A real MLflow server, the ways in which one fails, and what it must hold once it works again."""

from __future__ import annotations

import http.client
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from asr.errors import NetworkError
from asr.params import reader
from asr.tracking import client, follower, journal
from asr.tracking.follower import Follower
from support.journals import life, new_path
from support.processes import without_mlflow
from support.repository import PYTHONPATH, TINY, write_params
from support.servers import QuietHandler, QuietServer
from support.waiting import wait_for

SLOW_SECONDS = 5.0
START, FINISH = Follower.__init__, Follower.finish  # the fixture `in_process` replaces them
LONG = {
    **TINY,
    "train.max_steps": 120,
    "train.eval_steps": 60,
    "train.save_steps": 60,
    "train.logging_steps": 10,
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@contextmanager
def served(store: str, folder: Path) -> Iterator[int]:
    """The port of what `mlflow server` runs, on a store that is there; it may take seconds until it
    answers.
    """
    port = free_port()
    places = {
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": str(folder),
        "MLFLOW_DISABLE_TELEMETRY": "1",
    }
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "mlflow.server.fastapi_app:app",
        "--port",
        str(port),
        "--log-level",
        "error",
    ]
    quiet: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    server = subprocess.Popen(command, cwd=folder, env={**os.environ, **places}, **quiet)
    try:
        yield port
    finally:
        server.kill()
        server.wait(20)


class Conversation(QuietHandler):
    """One client's requests, answered as the proxy's present fault wants."""

    server: Proxy

    def _take(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.fault(self)

    do_GET = do_POST = do_PATCH = do_DELETE = _take

    def work(self) -> tuple[int, bytes]:
        """What the real server answers."""
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
        upstream.request(
            self.command,
            self.path,
            self.body,
            {"Content-Type": self.headers.get("Content-Type") or "application/json"},
        )
        reply = upstream.getresponse()
        content = reply.read()
        upstream.close()
        return reply.status, content

    def say(
        self, status: int, content: bytes, kind: str = "application/json", part: int | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:part])

    def reset(self) -> None:
        super().reset()
        self.server.struck()


Fault = Callable[[Conversation], None]


class Proxy(QuietServer):
    """Stands before the server at `upstream`, and fails as told; `hits` counts how often it did."""

    def __init__(self, upstream: int):
        super().__init__(Conversation)
        self.upstream, self.hits, self.asked = upstream, 0, 0
        self.closing, self.seen, self.draw = threading.Event(), set[str](), random.Random(1)
        self.fault: Fault = healthy

    def struck(self) -> None:
        self.hits += 1


@contextmanager
def proxied(upstream: int) -> Iterator[Proxy]:
    with Proxy(upstream) as proxy:
        threading.Thread(
            target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        try:
            yield proxy
        finally:
            proxy.closing.set()
            proxy.shutdown()


def healthy(one: Conversation) -> None:
    one.say(*one.work())


def down(one: Conversation) -> None:
    one.reset()


def slow(one: Conversation) -> None:
    one.server.struck()
    one.server.closing.wait(SLOW_SECONDS)
    healthy(one)


def always_500(one: Conversation) -> None:
    one.server.struck()
    one.say(500, b'{"error_code": "INTERNAL_ERROR", "message": "planted"}')


def sometimes_500(one: Conversation) -> None:
    always_500(one) if one.server.draw.random() < 0.2 else healthy(one)


def no_mlflow(one: Conversation) -> None:
    """Another service has the port."""
    one.server.struck()
    one.say(200, b"<html><body>Welcome!</body></html>", "text/html")


def hanging(one: Conversation) -> None:
    one.server.struck()
    one.server.closing.wait()


def half_an_answer(one: Conversation) -> None:
    status, content = one.work()
    one.say(status, content, part=len(content) // 2)
    one.wfile.flush()
    one.reset()


def lost_answers(one: Conversation) -> None:
    """The first answer of each kind is lost, after the server did the work."""
    kind = f"{one.command} {one.path.partition('?')[0]}"
    if kind in one.server.seen:
        return healthy(one)
    one.server.seen.add(kind)
    one.work()
    return one.reset()


def dies_in_the_middle(one: Conversation) -> None:
    """Nobody answers after the second request; any upload takes more."""
    one.server.asked += 1
    healthy(one) if one.server.asked <= 2 else one.reset()


FAULTS: list[Fault] = [
    hanging,
    lost_answers,
    dies_in_the_middle,
    slow,
    down,
    always_500,
    sometimes_500,
    no_mlflow,
    half_an_answer,
]
# What a training's tag `state` says that was not tested, by the status of its end.
STATE = {"FINISHED": "trained", "KILLED": "killed", "FAILED": "failed: "}


def wanted(path: Path) -> list[tuple[Any, ...]]:
    """What MLflow must hold of a journal, read from its lines without our own account of them."""
    records = [record for record, _ in journal.read(path)]
    begins = [one for one in records if one["kind"] == "begin"]
    last = [one for one in records if one["kind"] in ("begin", "end")][-1]
    points: dict[tuple[str, int], float] = {}
    for one in records:
        if one["kind"] == "metrics":
            for key, value in one["values"].items():
                points.setdefault((key, one["step"]), value)
    tests = {one["inputs"]: one for one in reversed(records) if one["kind"] == "evaluation"}
    found = sorted((key, step, value) for (key, step), value in points.items())
    for key in ("test/wer", "test/cer"):
        scores = [
            (key, one["step"], one["values"][key]) for one in records if one["kind"] == "evaluation"
        ]
        found += [
            one for before, one in zip([None, *scores], scores, strict=False) if one != before
        ]
    tags = {key: value for one in records for key, value in one.get("tags", {}).items()}
    tags["state"] = "tested" if tests else STATE[last.get("status", "KILLED")]
    params = {key: str(value) for key, value in begins[0]["params"].items()}
    status = last.get("status", "KILLED")
    lines = [
        ("training", path.stem, status, params, {"fingerprint": path.stem, **tags}, sorted(found))
    ]
    for inputs, one in tests.items():
        scores = sorted((key, 0, value) for key, value in one["values"].items())
        lines.append(
            (
                "test",
                inputs,
                "FINISHED",
                {key: str(value) for key, value in one["params"].items()},
                {"evaluation": inputs},
                scores,
            )
        )
    return sorted(lines, key=str)


def arrived(path: Path, store: Any) -> list[tuple[Any, ...]]:
    """What MLflow holds of a journal, in the same form; runs and points that are there twice stand
    there twice.
    """
    experiment = store.get_experiment_by_name(client.EXPERIMENT)
    runs = store.search_runs([experiment.experiment_id], f"tags.fingerprint = '{path.stem}'")
    for parent in list(runs):
        runs += store.search_runs(
            [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        )
    return sorted((_line(run, store) for run in runs), key=str)


def _line(run: Any, store: Any) -> tuple[Any, ...]:
    tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
    points = [
        (one.key, one.step, one.value)
        for key in run.data.metrics
        for one in store.get_metric_history(run.info.run_id, key)
    ]
    kind, name = (
        ("test", tags["evaluation"]) if "evaluation" in tags else ("training", tags["fingerprint"])
    )
    return kind, name, run.info.status, dict(run.data.params), tags, sorted(points)


def kill(process: subprocess.Popen[Any]) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    process.wait()


def train_apart(data: Path, root: Path, chosen: Path) -> None:
    """A whole training in a process of its own, with a real follower; its journal goes to the
    root's `.cache`.
    """
    os.environ |= {"DVC_ROOT": str(root), "PYTHONPATH": PYTHONPATH}
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.chdir(root)
    sys.stdout = sys.stderr = (root / f"log-{os.getpid()}").open("a")
    from stages import train

    split, out = data / "data/features", root / f"out-{os.getpid()}"
    train.run(
        split / "train", split / "validation", out / "model", out / "reports", reader.load(chosen)
    )


def forked() -> Any:
    """Where such processes come from: forked, in a moment, from one that has imported torch and
    nothing more.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["stages.train"])
    return context


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real server on a store of its own."""
    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        client.connect()
        patch.setenv("STORE_OF_SERVER", client.uri())
        with served(client.uri(), folder) as port:
            yield port


@pytest.fixture
def proxy(upstream: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """In front of the server; our client is sent there."""
    wait_for(lambda: answers(upstream), "the server")
    with proxied(upstream) as made:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", made.uri)
        monkeypatch.setenv("DVC_ROOT", str(tmp_path))
        yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr("support.outage.SLOW_SECONDS", 0.05)


def differences(*paths: Path) -> list[Any]:
    """Where MLflow does not hold these journals, each once, no more and no less."""
    store = client.connect()
    return [
        (there, here) for path in paths if (there := arrived(path, store)) != (here := wanted(path))
    ]


class Watch:
    """How a training in this process and thread deals with its follower.

    Attributes:
        process: the follower.
        connections: addresses that the main thread connected to.
        patience: seconds that it was ready to wait for the follower's end.
        lifetime: seconds from the follower's start until then.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.connections: list[Any] = []
        self.patience = self.lifetime = 0.0
        connect = socket.socket.connect

        def started(follower: Follower, path: Path) -> None:
            began = time.monotonic()
            START(follower, path)
            assert follower.process
            self.process = follower.process
            wait = follower.process.wait

            def waited(patience: float | None = None) -> int:
                if patience is not None:  # the training waits; a test does so without a limit
                    self.patience, self.lifetime = patience, time.monotonic() - began
                return wait(patience)

            patch.setattr(follower.process, "wait", waited)

        def connected(self_: socket.socket, address: Any) -> None:
            if threading.current_thread() is threading.main_thread():
                self.connections.append(address)
            connect(self_, address)

        patch.setattr(Follower, "__init__", started)
        patch.setattr(Follower, "finish", FINISH)
        patch.setattr(socket.socket, "connect", connected)


def trained(data: Path, root: Path) -> dict[str, str]:
    """Hashes of all that a training leaves."""
    from stages import train
    from support.training import traces

    split, given = data / "data/features", reader.load(write_params(root / "changed.yaml", LONG))
    train.run(
        split / "train",
        split / "validation",
        root / "models/finetuned",
        root / "reports/train",
        given,
    )
    return traces(root)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> dict[str, str]:
    """What a training leaves that nobody is told of."""
    root = tmp_path_factory.mktemp("calm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        without_mlflow(patch.setattr)
        return trained(tiny_data, root)


@dataclass
class Training:
    """What a training left beside a server that failed.

    Attributes:
        hashes: of its files, by path.
        connections: addresses that the training itself connected to.
        watch: how long it waited for its follower.
        journal: its path.
    """

    hashes: dict[str, str]
    connections: list[Any]
    watch: Watch
    journal: Path


def train_beside(fault: Fault, proxy: Proxy, data: Path, root: Path, watch: Watch) -> Training:
    """Train while the server fails; then it works again, and MLflow is synced twice."""
    proxy.fault = fault
    hashes = trained(data, root)
    connections = list(watch.connections)  # what syncs next may connect
    wait_for(lambda: proxy.hits > 0, "the fault")
    kill(watch.process)
    proxy.fault = healthy
    (path,) = (root / ".cache/journal").glob("*.jsonl")
    follower.sync([path])
    follower.sync([path])
    return Training(hashes, connections, watch, path)


def sync_after(fault: Fault, proxy: Proxy, root: Path) -> Path:
    """The journal of a training that was synced while the server failed, and once more."""
    path = life(new_path(root))
    proxy.fault = fault
    for _ in range(8 if fault is lost_answers else 2):
        with suppress(NetworkError):
            follower.sync([path])
    assert proxy.hits
    proxy.fault = healthy
    follower.sync([path])
    return path
