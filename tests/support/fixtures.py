"""A tiny corpus taken once through the real stages, and a root of its own for each test."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from support.processes import without_mlflow
from support.repository import TINY, write_params

settings.register_profile("suite", deadline=None)  # an example may take any time on a busy machine
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has its own `.cache`, and no test writes into the repository."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(autouse=True)
def own_main() -> Iterator[None]:
    """A page under test takes the name `__main__`, and worker processes that are spawned afterwards
    would import it.
    """
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture(scope="session")
def tiny_params(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The shipped params, shrunk."""
    from asr.params import reader

    return reader.load(write_params(tmp_path_factory.mktemp("params") / "params.yaml", TINY))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory, tiny_params: Any) -> Path:
    """data/raw, data/chunks and data/features of the tiny corpus, and reports."""
    from stages import chunk, download, featurize

    root = tmp_path_factory.mktemp("tiny")
    before = os.environ.get("DVC_ROOT")
    os.environ["DVC_ROOT"] = str(root)
    try:
        download.run(root / "data/raw", tiny_params.download)
        chunk.run(
            root / "data/raw",
            root / "data/chunks",
            root / "reports/chunk",
            tiny_params.chunk.rows_per_chunk,
            (0.3, 30.0),
            [],
        )
        featurize.run(root / "data/chunks", root / "data/features", 80)
    finally:
        os.environ.pop("DVC_ROOT")
        if before:
            os.environ["DVC_ROOT"] = before
    return root


@pytest.fixture(scope="session")
def nursery() -> Iterator[Any]:
    """Children forked from a process that has imported torch."""
    from support.children import Nursery

    made = Nursery()
    yield made
    made.close()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store, to be copied; MLflow takes 4 s to make one."""
    from asr.tracking import client

    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        client.connect()
    return folder / "mlflow.db"


@contextmanager
def one_process(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trainings in this process: no MLflow, and signals and precision are restored afterwards."""
    from accelerate.state import AcceleratorState

    from asr.tracking import follower

    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    AcceleratorState._reset_state(reset_partial_state=True)  # the precision is the process's
    without_mlflow(patch.setattr)
    patch.setattr(follower, "sync_apart", lambda _: None)
    yield
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trainings in this process, as `one_process` has them."""
    with one_process(monkeypatch):
        yield
