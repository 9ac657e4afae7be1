"""MLflow servers that fail in every way beside trainings and syncs; eight trainings at once.

make harness NAME=outages       # 3 minutes
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asr.tracking import client, follower, journal
from support.outage import (
    FAULTS,
    Fault,
    Proxy,
    Watch,
    always_500,
    arrived,
    differences,
    forked,
    sync_after,
    train_apart,
    train_beside,
    wanted,
)
from support.repository import TINY, write_params
from support.waiting import wait_for

MAX_PATIENCE = 0.01  # of a training's time, for its follower to end


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.__name__)
def test_a_failing_server_costs_the_training_nothing_and_loses_nothing(
    fault: Fault,
    proxy: Proxy,
    calm: dict[str, str],
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, Any], None],
) -> None:
    done = train_beside(fault, proxy, tiny_data, tmp_path, Watch(monkeypatch))
    record_property("waited at most", f"{done.watch.patience / done.watch.lifetime:.2%}")
    record_property("same bytes", "yes" if done.hashes == calm else "no")
    record_property("all there once", "no" if differences(done.journal) else "yes")
    assert done.hashes == calm
    assert differences(done.journal) == []
    assert done.connections == []
    assert done.watch.patience <= MAX_PATIENCE * done.watch.lifetime


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.__name__)
def test_after_any_fault_a_sync_leaves_all_of_it_once(
    fault: Fault, proxy: Proxy, tmp_path: Path
) -> None:
    assert differences(sync_after(fault, proxy, tmp_path)) == []


@pytest.mark.usefixtures("in_process")
def test_a_follower_that_keeps_the_training_waiting_is_noticed(
    proxy: Proxy, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control of the first test."""
    monkeypatch.setattr(follower, "GRACE_SHARE", 0.5)
    done = train_beside(always_500, proxy, tiny_data, tmp_path, Watch(monkeypatch))
    assert done.watch.patience > MAX_PATIENCE * done.watch.lifetime


@pytest.mark.usefixtures("impatient")
def test_a_follower_that_loses_a_line_of_the_journal_is_noticed(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control of both tests."""
    add = journal.RunHistory.add

    def add_all_but_one(self: journal.RunHistory, record: dict[str, Any]) -> None:
        if (record["kind"], record.get("step")) != ("metrics", 3):
            add(self, record)

    monkeypatch.setattr(journal.RunHistory, "add", add_all_but_one)
    path = sync_after(always_500, proxy, tmp_path)
    assert len(differences(path)) == 1


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
    wait_for(lambda: (tmp_path / "mlflow.db").is_file(), "the store")
    store = client.connect()
    wait_for(lambda: all_there(paths, store), "eight runs")
    assert differences(*paths) == []
    assert all(arrived(path, store)[0][2] == "FINISHED" for path in paths)
    chosen = write_params(
        tmp_path / "killed.yaml",
        {**TINY, "train.max_steps": 5000, "train.eval_steps": 5000, "train.save_steps": 5000},
    )
    killed = forked().Process(target=train_apart, args=(tiny_data, tmp_path, chosen))
    killed.start()
    running = "attributes.status = 'RUNNING'"
    wait_for(lambda: bool(next(client.read_runs(store, running))), "a running run")
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    wait_for(lambda: not next(client.read_runs(store, running)), "its end")
    (path,) = set((tmp_path / ".cache/journal").glob("*.jsonl")) - set(paths)
    assert arrived(path, store)[0][2] == "KILLED"
    assert differences(path) == []


def all_there(paths: list[Path], store: Any) -> bool:
    try:
        return all(arrived(path, store) == wanted(path) for path in paths)
    except AttributeError:  # not even the experiment is there
        return False
