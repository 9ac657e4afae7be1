"""Servers that fail in every way: no training feels it, and afterwards MLflow holds what the
journals hold, nothing twice.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asr import paths
from asr.errors import ParamsError
from asr.tracking import client, follower, journal
from asr.tracking.follower import Follower
from asr.tracking.uploader import RunUploader
from asr.training import checkpoints
from support.journals import life, losses, new_path, training
from support.outage import (
    Conversation,
    Proxy,
    Watch,
    arrived,
    differences,
    hanging,
    healthy,
    kill,
    lost_answers,
    sync_after,
    train_beside,
)
from support.repository import REPOSITORY
from support.waiting import HANG_SECONDS, wait_for

# Trainings, while a server fails


MAX_PATIENCE = 0.01  # of a training's time, for its follower to end


@pytest.mark.usefixtures("in_process")
def test_a_failing_server_costs_the_training_nothing_and_loses_nothing(
    proxy: Proxy,
    calm: dict[str, str],
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that hangs; harness/test_outages.py has all others."""
    done = train_beside(hanging, proxy, tiny_data, tmp_path, Watch(monkeypatch))
    assert done.hashes == calm
    assert differences(done.journal) == []
    assert done.connections == []
    assert done.watch.patience <= MAX_PATIENCE * done.watch.lifetime


# What a server, or a sync, may leave half done


@pytest.mark.usefixtures("impatient")
def test_after_a_fault_a_sync_leaves_all_of_it_once(proxy: Proxy, tmp_path: Path) -> None:
    assert differences(sync_after(lost_answers, proxy, tmp_path)) == []


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
    wait_for(lambda: proxy.hits > 0, "the fault")
    process.stdin.close()
    assert process.stdout.read() == b""
    process.stdout.close()
    assert process.poll() is None
    assert process.wait(HANG_SECONDS) == 1, "its patience is over, though the server hangs"


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
