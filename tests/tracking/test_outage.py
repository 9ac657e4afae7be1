"""Servers that fail in every way: no training feels it, and afterwards MLflow holds what the
journals hold, nothing twice.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from test_follower import begin, evaluation, losses, new_path, training

from asr import paths
from asr.errors import NetworkError, ParamsError
from asr.params import reader
from asr.tracking import client, follower, journal
from asr.tracking.follower import Follower
from asr.tracking.uploader import RunUploader
from asr.training import checkpoints
from harness.training_kills import traces
from stages import train
from support.outage import (
    FAULTS,
    Conversation,
    Fault,
    Proxy,
    answers,
    arrived,
    dies_in_the_middle,
    forked,
    half_an_answer,
    hanging,
    healthy,
    kill,
    lost_answers,
    no_mlflow,
    proxied,
    served,
    sometimes_500,
    train_apart,
    wait_until,
    wanted,
)
from support.repository import REPOSITORY, TINY, write_params

EVERY = bool(os.environ.get("EVERY_FAULT"))  # as `make faults` wants it
TRAINED = FAULTS if EVERY else [hanging, lost_answers]
SYNCED = (
    FAULTS
    if EVERY
    else [lost_answers, dies_in_the_middle, sometimes_500, half_an_answer, no_mlflow]
)
STEPS = 400 if EVERY else 120
LONG = {
    **TINY,
    "train.max_steps": STEPS,
    "train.eval_steps": STEPS // 2,
    "train.save_steps": STEPS // 2,
    "train.logging_steps": 10,
}
MAX_PATIENCE = 0.01  # of a training's time, for its follower to end


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
    wait_until(lambda: answers(upstream), "the server")
    with proxied(upstream) as made:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", made.uri)
        monkeypatch.setenv("DVC_ROOT", str(tmp_path))
        yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr("support.outage.SLOW_SECONDS", 0.05)


def life(path: Path) -> Path:
    """A training that was stopped once, went back two steps, ended, and was tested twice."""
    training(path, steps=6, ended="KILLED", **{"dvc.experiment": "first"})
    begin(path, **{"dvc.experiment": "second"})
    losses(path, range(5, 9))
    journal.append(path, "end", status="FINISHED", tags={"checks": "passed"})
    for wer in (0.3, 0.2):
        evaluation(path, f"{wer}-{path.stem}", wer)
        time.sleep(0.002)  # no two tests end in the same millisecond
    return path


def differences(*paths: Path) -> list[Any]:
    """Where MLflow does not hold these journals, each once, no more and no less."""
    store = client.connect()
    return [
        (there, here) for path in paths if (there := arrived(path, store)) != (here := wanted(path))
    ]


# Trainings, while a server fails


class Watch:
    """How a training in this process and thread deals with its follower.

    Attributes:
        process: the follower.
        connections: addresses that the training itself connected to.
        patience: seconds that it was ready to wait for the follower's end.
        lifetime: seconds from the follower's start until then.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.connections: list[Any] = []
        self.patience = self.lifetime = 0.0
        start, connect = Follower.__init__, socket.socket.connect

        def started(follower: Follower, path: Path) -> None:
            began = time.monotonic()
            start(follower, path)
            assert follower.process
            self.process = follower.process
            wait = follower.process.wait

            def waited(patience: float) -> int:
                self.patience, self.lifetime = patience, time.monotonic() - began
                return wait(patience)

            patch.setattr(follower.process, "wait", waited)

        def connected(self_: socket.socket, address: Any) -> None:
            if threading.current_thread() is threading.main_thread():
                self.connections.append(address)
            connect(self_, address)

        patch.setattr(Follower, "__init__", started)
        patch.setattr(socket.socket, "connect", connected)


def trained(data: Path, root: Path) -> dict[str, str]:
    """Hashes of all that a training leaves."""
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
        nobody = type("Nobody", (), {"finish": lambda _: None})
        patch.setattr("stages.train.Follower", lambda _: nobody())
        return trained(tiny_data, root)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("fault", TRAINED, ids=lambda one: one.__name__)
def test_a_failing_server_costs_the_training_nothing_and_loses_nothing(
    fault: Fault,
    proxy: Proxy,
    calm: dict[str, str],
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, Any], None],
) -> None:
    watch = Watch(monkeypatch)
    proxy.fault = fault
    found = trained(tiny_data, tmp_path)
    wait_until(lambda: proxy.hits > 0, "the fault")
    kill(watch.process)
    proxy.fault = healthy
    (path,) = (tmp_path / ".cache/journal").glob("*.jsonl")
    follower.sync([path])
    follower.sync([path])
    record_property("waited at most", f"{watch.patience / watch.lifetime:.2%}")
    record_property("same bytes", "yes" if found == calm else "no")
    record_property("all there once", "no" if differences(path) else "yes")
    assert found == calm
    assert differences(path) == []
    assert watch.connections == []
    assert watch.patience <= MAX_PATIENCE * watch.lifetime


@pytest.fixture
def eight(tiny_data: Path, tmp_path: Path) -> Iterator[list[Any]]:
    """Eight trainings that start at once on a repository that has no store yet."""
    made = []
    for seed in range(8):
        chosen = write_params(
            tmp_path / f"{seed}.yaml", {**TINY, "train.seed": seed, "train.max_steps": 4}
        )
        made.append(forked().Process(target=train_apart, args=(tiny_data, tmp_path, chosen)))
    for one in made:
        one.start()
    yield made
    for one in made:
        one.kill()
        one.join()


def test_eight_trainings_at_once_all_arrive_in_a_fresh_store_and_a_killed_one_ends(
    eight: list[Any], tiny_data: Path, tmp_path: Path
) -> None:
    for one in eight:
        one.join()
    assert [one.exitcode for one in eight] == [0] * 8, [
        path.read_text() for path in tmp_path.glob("log-*")
    ]
    paths = list((tmp_path / ".cache/journal").glob("*.jsonl"))
    assert len(paths) == 8
    wait_until(lambda: (tmp_path / "mlflow.db").is_file(), "the store")
    store = client.connect()
    wait_until(lambda: all_there(paths, store), "eight runs")
    assert differences(*paths) == []
    assert all(arrived(path, store)[0][2] == "FINISHED" for path in paths)
    chosen = write_params(
        tmp_path / "killed.yaml",
        {**TINY, "train.max_steps": 5000, "train.eval_steps": 5000, "train.save_steps": 5000},
    )
    killed = forked().Process(target=train_apart, args=(tiny_data, tmp_path, chosen))
    killed.start()
    running = "attributes.status = 'RUNNING'"
    wait_until(lambda: bool(next(client.read_runs(store, running))), "a running run")
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    wait_until(lambda: not next(client.read_runs(store, running)), "its end")
    (path,) = set((tmp_path / ".cache/journal").glob("*.jsonl")) - set(paths)
    assert arrived(path, store)[0][2] == "KILLED"
    assert differences(path) == []


def all_there(paths: list[Path], store: Any) -> bool:
    try:
        return all(arrived(path, store) == wanted(path) for path in paths)
    except AttributeError:  # not even the experiment is there
        return False


# What a server, or a sync, may leave half done


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", SYNCED, ids=lambda one: one.__name__)
def test_after_any_fault_a_sync_leaves_all_of_it_once(
    fault: Fault, proxy: Proxy, tmp_path: Path
) -> None:
    path = life(new_path(tmp_path))
    proxy.fault = fault
    for _ in range(8 if fault is lost_answers else 2):
        with suppress(NetworkError):
            follower.sync([path])
    assert proxy.hits
    proxy.fault = healthy
    follower.sync([path])
    assert differences(path) == []


class Breaking:
    """A client that loses its connection when its n-th request is done: what a kill leaves there,
    or before the next request.
    """

    def __init__(self, client: Any, number: int):
        self.client, self.left = client, number

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            done = getattr(self.client, name)(*given, **named)
            self.left -= 1
            if self.left == 0:
                raise ConnectionResetError
            return done

        return call


def test_a_sync_that_dies_at_any_request_is_made_good_by_the_next(
    upstream: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert upstream
    monkeypatch.setenv("MLFLOW_TRACKING_URI", os.environ["STORE_OF_SERVER"])
    store, paths, died = client.connect(), list[Path](), True
    while died:
        paths.append(life(new_path(tmp_path)))
        try:
            RunUploader(paths[-1], Breaking(store, len(paths))).catch_up()
            died = False
        except ConnectionResetError:
            RunUploader(paths[-1], store).catch_up()
    assert len(paths) > 12
    assert differences(*paths) == []


def test_a_sync_that_is_killed_is_made_good_by_the_next(proxy: Proxy, tmp_path: Path) -> None:
    path, reached = life(new_path(tmp_path)), threading.Event()

    def hangs_after_its_work(one: Conversation) -> None:
        status, content = one.work()
        if one.path.endswith("log-batch"):
            reached.set()
            one.server.closing.wait()
        one.say(status, content)

    proxy.fault = hangs_after_its_work
    command = [sys.executable, "-m", "asr.tracking.follower", "sync", str(path)]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert reached.wait(90)
    assert differences(path)
    kill(process)
    proxy.fault = healthy
    follower.sync([path])
    assert differences(path) == []


def test_syncs_at_once_log_nothing_twice(proxy: Proxy, tmp_path: Path) -> None:
    paths = [life(new_path(tmp_path)) for _ in range(2)]
    together = [
        threading.Thread(target=follower.sync, args=[order])
        for order in (paths, paths[::-1], paths)
    ]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    assert differences(*paths) == []
    assert not proxy.hits


def test_runs_that_were_made_twice_become_one(proxy: Proxy, tmp_path: Path) -> None:
    """As by a server that did what nobody waited for any more."""
    path = life(new_path(tmp_path))
    follower.sync([path])
    store = client.connect()
    experiment = store.get_experiment_by_name(client.EXPERIMENT).experiment_id
    for tags in ({"fingerprint": path.stem}, {"evaluation": f"0.2-{path.stem}"}):
        store.create_run(experiment, 0, tags)
    assert differences(path)
    follower.sync([path])
    assert differences(path) == []
    assert not proxy.hits


@pytest.mark.usefixtures("proxy")
def test_a_sync_while_a_training_runs_does_not_end_it(tmp_path: Path) -> None:
    path = training(journal.path_of("running1"), ended=None)
    with checkpoints.hold_folder(paths.cache("checkpoints", path.stem)):
        follower.sync([path])
        assert status(path) == "RUNNING"
    losses(path, range(5, 6))
    follower.sync([path])
    assert differences(path) == []
    assert status(path) == "KILLED"
    assert tmp_path in path.parents


@pytest.mark.usefixtures("proxy")
def test_a_training_that_ends_while_a_sync_reads_is_not_taken_for_a_killed_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = training(journal.path_of("ending1"), ended=None)
    holder, catch_up = (
        checkpoints.hold_folder(paths.cache("checkpoints", path.stem)),
        RunUploader.catch_up,
    )
    holder.__enter__()

    def ends_then(self: RunUploader) -> None:
        catch_up(self)
        journal.append(path, "end", status="FINISHED")
        holder.__exit__(None, None, None)

    monkeypatch.setattr(RunUploader, "catch_up", ends_then)
    follower.sync([path])
    assert status(path) == "RUNNING"
    monkeypatch.undo()


def status(path: Path) -> str:
    ((_, _, found, *_),) = arrived(path, client.connect())
    return str(found)


@pytest.mark.usefixtures("proxy")
def test_a_training_that_was_killed_with_its_follower_is_closed_by_the_next(tmp_path: Path) -> None:
    lost, mine = (training(journal.path_of(name), ended=None) for name in ("lost1", "mine1"))
    store = client.connect()
    for path in (lost, mine):
        RunUploader(path, store).catch_up()
        losses(path, range(5, 8))
    assert (status(lost), status(mine)) == ("RUNNING", "RUNNING")
    follower.close_killed(store, mine)
    assert (status(lost), status(mine)) == ("KILLED", "RUNNING")
    assert differences(lost) == []
    assert tmp_path in lost.parents


@pytest.mark.usefixtures("proxy")
def test_a_journal_that_cannot_be_told_does_not_hold_up_the_others(tmp_path: Path) -> None:
    bad, good = new_path(tmp_path), life(new_path(tmp_path))
    losses(bad, range(1, 3))
    with pytest.raises(ParamsError, match=bad.name):
        follower.sync([bad, good])
    assert differences(good) == []


def test_a_follower_that_is_left_lets_go_of_the_output_and_leaves_in_time(
    proxy: Proxy, tmp_path: Path
) -> None:
    proxy.fault = hanging
    path = training(new_path(tmp_path))
    code = (
        "from asr.tracking import follower; follower.PATIENCE_SECONDS = 3; "
        f"follower.follow(follower.Path({str(path)!r}))"
    )
    pipe: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, **pipe)
    wait_until(lambda: proxy.hits > 0, "the fault")
    process.stdin.close()
    assert process.stdout.read() == b""
    process.stdout.close()
    assert process.poll() is None
    assert process.wait(8) == 1, "the server hangs for ten seconds"


def test_a_machine_without_room_for_a_process_trains_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refused)
    Follower(new_path(tmp_path)).finish()
    assert capsys.readouterr().out == (
        "warning: MLflow is not told of this training (Resource temporarily "
        "unavailable); the journal is: make sync\n"
    )
