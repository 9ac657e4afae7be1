"""MLflow filled from the journal: nothing twice, nothing lost, and no outage that reaches the
training.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asr.errors import ParamsError
from asr.tracking import client, follower, journal
from asr.tracking.follower import Follower
from asr.tracking.uploader import RunUploader
from support.journals import PARAMS, begin, evaluation, losses, new_path, training
from support.outage import answers, free_port, kill, served
from support.repository import REPOSITORY
from support.waiting import wait_for


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a store that two processes created at once."""
    root = tmp_path_factory.mktemp("store")
    address = f"sqlite:///{root / 'mlflow.db'}"
    environment = {
        **os.environ,
        "DVC_ROOT": str(root),
        "MLFLOW_TRACKING_URI": address,
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [sys.executable, "-m", "asr.tracking.follower", "sync"]
    for name in "ab":
        training(root / f".cache/journal/{name}.jsonl")
    both = [
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in "ab"
    ]
    told = [one.communicate() for one in both]
    assert [one.returncode for one in both] == [0, 0], told
    assert [out for out, _ in told] == [f"MLflow holds 2 journals at {address}\n"] * 2
    return address


@pytest.fixture(scope="module", autouse=True)
def port(made: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real MLflow server on that store, which starts while the first tests run."""
    with served(made, tmp_path_factory.mktemp("server")) as number:
        yield number


@pytest.fixture
def store(made: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made)
    return client.connect()


def runs(store: Any, condition: str) -> list[Any]:
    experiment = store.get_experiment_by_name(client.EXPERIMENT)
    return list(store.search_runs([experiment.experiment_id], condition))


def run_of(store: Any, path: Path) -> Any:
    (only,) = runs(store, f"tags.fingerprint = '{path.stem}'")
    return only


def history(store: Any, run_id: str, key: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in store.get_metric_history(run_id, key))


def follow(path: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "asr.tracking.follower", "follow", str(path)]
    given = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=given,
    )


def test_a_training_becomes_one_run_with_its_params_points_and_times(
    store: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = training(new_path(tmp_path), **{"dvc.experiment": "tidy-newt"})
    follower.sync([path])
    run = run_of(store, path)
    assert run.data.params == {key: str(value) for key, value in PARAMS.items()}
    assert (run.info.run_name, run.info.status, run.data.tags["dvc.experiment"]) == (
        f"repro-{path.stem[:8]}",
        "FINISHED",
        "tidy-newt",
    )
    assert history(store, run.info.run_id, "train/loss") == [
        (1, 1.0),
        (2, 0.5),
        (3, 1 / 3),
        (4, 0.25),
    ]
    assert history(store, run.info.run_id, "validation/wer") == [(2, 0.45), (4, 0.225)]
    written = [record["time"] for record, _ in journal.read(path)]
    assert (run.info.start_time, run.info.end_time) == (
        int(written[0] * 1000),
        int(written[-1] * 1000),
    )
    assert capsys.readouterr().out.startswith("MLflow holds 1 journal at sqlite://")


def test_syncing_twice_logs_nothing_twice(store: Any, tmp_path: Path) -> None:
    path = training(new_path(tmp_path))
    evaluation(path, f"in-{path.stem}", 0.3)
    follower.sync([path])
    before = everything(store, path)
    follower.sync([path])
    assert everything(store, path) == before


def everything(store: Any, path: Path) -> list[Any]:
    """All that MLflow holds of a training and its tests."""
    run = run_of(store, path)
    children = runs(store, f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    return [
        (
            one.info.run_id,
            one.info.status,
            one.data.params,
            one.data.tags,
            {key: history(store, one.info.run_id, key) for key in one.data.metrics},
        )
        for one in (run, *children)
    ]


def test_a_replay_after_a_resume_leaves_one_run_and_each_point_once(
    store: Any, tmp_path: Path
) -> None:
    path = training(new_path(tmp_path), steps=4, ended=None)
    follower.sync([path])
    begin(path)
    losses(path, range(3, 7))
    journal.append(path, "end", status="FINISHED")
    follower.sync([path])
    run = run_of(store, path)
    assert [step for step, _ in history(store, run.info.run_id, "train/loss")] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in history(store, run.info.run_id, "validation/wer")] == [2, 4, 6]
    assert run.info.status == "FINISHED"


def test_a_journal_is_caught_up_with_as_it_grows(store: Any, tmp_path: Path) -> None:
    path = new_path(tmp_path)
    begin(path)
    mirror = RunUploader(path, client.connect())
    for step in range(1, 4):
        losses(path, range(step, step + 1))
        mirror.catch_up()
        assert run_of(store, path).data.metrics["train/loss"] == 1 / step
    assert run_of(store, path).info.status == "RUNNING"


def test_an_evaluation_is_a_child_run_and_its_scores_stand_at_the_parent(
    store: Any, tmp_path: Path
) -> None:
    path = training(new_path(tmp_path))
    evaluation(path, f"one-{path.stem}", 0.3)
    follower.sync([path])
    parent = run_of(store, path)
    (child,) = runs(store, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert (child.info.status, child.data.params, child.data.tags["evaluation"]) == (
        "FINISHED",
        {"evaluate.seed": "1"},
        f"one-{path.stem}",
    )
    assert child.data.metrics == {
        "test/wer": 0.3,
        "test/cer": 0.15,
        "test/wer_low": pytest.approx(0.28),
        "test/wer_high": pytest.approx(0.32),
        "test/rtfx": 200.0,
        "test/start/wer": 0.9,
    }
    assert (parent.data.metrics["test/wer"], parent.data.metrics["test/cer"]) == (0.3, 0.15)
    assert "test/wer_low" not in parent.data.metrics


def test_the_parent_carries_the_latest_of_several_evaluations_also_after_a_replay(
    store: Any, tmp_path: Path
) -> None:
    path = training(new_path(tmp_path))
    for number, wer in enumerate((0.3, 0.2, 0.3, 0.2, 0.25)):
        evaluation(path, f"{wer}-{path.stem}", wer)
        if number == 2:
            follower.sync([path])
            assert run_of(store, path).data.metrics["test/wer"] == 0.3
        time.sleep(0.01)
    follower.sync([path])
    before = everything(store, path)
    follower.sync([path])
    assert everything(store, path) == before
    assert run_of(store, path).data.metrics["test/wer"] == 0.25
    assert len(before) == 1 + 3


def test_lines_that_a_kill_cut_off_do_not_stop_a_sync(store: Any, tmp_path: Path) -> None:
    path = training(new_path(tmp_path), ended=None)
    path.write_bytes(path.read_bytes()[:-9])
    follower.sync([path])
    assert len(history(store, run_of(store, path).info.run_id, "train/loss")) == 4
    assert len(history(store, run_of(store, path).info.run_id, "validation/wer")) == 1


@pytest.mark.usefixtures("store")
def test_a_journal_without_a_beginning_is_told_by_name(tmp_path: Path) -> None:
    path = new_path(tmp_path)
    losses(path, range(1, 2))
    with pytest.raises(ParamsError, match=f"^{path.name}: the journal has no beginning$") as caught:
        follower.sync([path])
    assert caught.value.exit_code == 2


def test_a_finished_training_is_followed_to_its_end_and_stays_finished(
    store: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = training(new_path(tmp_path), steps=2, ended=None)
    running = Follower(path)
    losses(path, range(3, 5))
    journal.append(path, "end", status="FINISHED")
    monkeypatch.setattr(follower, "GRACE_SECONDS", 60.0)
    running.began -= 36_000  # so long a training waits a moment for its follower
    running.finish()
    run = run_of(store, path)
    assert (run.info.status, len(history(store, run.info.run_id, "train/loss"))) == ("FINISHED", 4)
    assert capfd.readouterr().out == ""


def test_a_training_that_died_without_an_end_is_killed_and_stays_so_when_synced(
    store: Any, tmp_path: Path
) -> None:
    path = training(new_path(tmp_path), ended=None)
    running = follow(path)
    out, err = running.communicate()
    assert (running.returncode, out) == (0, ""), err
    assert run_of(store, path).info.status == "KILLED"
    follower.sync([path])
    assert run_of(store, path).info.status == "KILLED"


def test_an_outage_costs_a_warning_and_a_sync_to_the_server_fills_it_later(
    store: Any,
    port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    dead = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:secret@127.0.0.1:{dead}")
    path = training(new_path(tmp_path), steps=2, ended=None)
    running = Follower(path)
    losses(path, range(3, 5))
    journal.append(path, "end", status="FINISHED")
    content = path.read_bytes()
    assert running.process
    out = ""
    while "does not answer" not in out:
        out += capfd.readouterr().out
    running.finish()
    kill(running.process)
    out += capfd.readouterr().out
    assert out.count("warning: MLflow at ") == 1
    assert f"warning: MLflow at http://127.0.0.1:{dead} does not answer" in out
    assert (
        "the rest is uploaded to MLflow in the background, 60 s at most; "
        "if something is missing then: make sync"
    ) in out
    assert "secret" not in out
    assert path.read_bytes() == content
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    wait_for(lambda: answers(port), "the server")
    follower.sync([path])
    follower.sync([path])
    run = run_of(store, path)
    assert (run.info.status, history(store, run.info.run_id, "train/loss")) == (
        "FINISHED",
        [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)],
    )
    assert run.data.params["chunk.many_119"] == "119"


def test_syncing_with_a_dead_server_is_one_line_and_the_code_of_the_network(tmp_path: Path) -> None:
    path = training(new_path(tmp_path))
    told = subprocess.run(
        [sys.executable, "-m", "asr.tracking.follower", "sync", str(path)],
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
        },
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in told.stderr
    assert told.returncode == 4
    assert told.stderr.splitlines()[-1].startswith("error 4: ")


def test_a_run_that_is_not_ours_does_not_get_our_points(store: Any, tmp_path: Path) -> None:
    first, second = training(new_path(tmp_path)), training(new_path(tmp_path), steps=2)
    follower.sync([first, second])
    assert run_of(store, first).info.run_id != run_of(store, second).info.run_id
    assert len(history(store, run_of(store, second).info.run_id, "train/loss")) == 2


def test_the_store_lies_at_the_root_unless_the_environment_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert client.uri() == f"sqlite:///{tmp_path.resolve() / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert client.uri() == "http://127.0.0.1:5000"


def test_our_package_switches_telemetry_off_before_mlflow_is_there() -> None:
    code = (
        "import asr; from mlflow.telemetry.utils import is_telemetry_disabled as off; print(off())"
    )
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "CI", "PYTEST_CURRENT_TEST")
    }
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert told.stdout.strip() == "True", told.stderr


@pytest.mark.parametrize("given", [[], ["follow"], ["sync", "a", "b"], ["erase"]])
def test_the_command_line_says_how_it_is_used(
    given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["asr.tracking.client", *given])
    with pytest.raises(
        ParamsError, match=r"^usage: python -m asr.tracking.follower follow JOURNAL"
    ) as caught:
        follower.main()
    assert caught.value.exit_code == 2
