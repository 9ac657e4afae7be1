"""What many tests share: a tiny corpus taken once through the real stages, and its params."""

from __future__ import annotations

import os

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import shutil  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from collections import defaultdict  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402
from ruamel.yaml import YAML  # noqa: E402
from xdist.scheduler import LoadScopeScheduling  # noqa: E402

pytest_plugins = ["pipeline_fixtures", "browser_fixtures"]
REPOSITORY = Path(__file__).parents[1]
SHIPPED = Path(__file__).with_name(
    "params.yaml"
)  # the workspace's own may say anything that a user tries
ABSENT = "beside this repository"  # why a test of recordings that are not shipped was skipped
TINY: dict[str, Any] = {
    "download.synthetic.rows.train": 40,
    "download.synthetic.rows.validation": 8,
    "download.synthetic.rows.test": 8,
    "download.synthetic.voices.train": 8,
    "download.synthetic.voices.validation": 2,
    "download.synthetic.voices.test": 4,
    "chunk.rows_per_chunk": 16,
    "model.scratch.d_model": 32,
    "model.scratch.encoder_layers": 1,
    "model.scratch.decoder_layers": 1,
    "model.scratch.encoder_attention_heads": 2,
    "model.scratch.decoder_attention_heads": 2,
    "model.scratch.encoder_ffn_dim": 64,
    "model.scratch.decoder_ffn_dim": 64,
    "model.scratch.max_target_positions": 32,
    "model.apply_spec_augment": False,
    "train.learning_rate": 1e-3,
    "train.warmup_steps": 2,
    "train.max_steps": 10,
    "train.per_device_train_batch_size": 4,
    "train.eval_steps": 5,
    "train.eval_rows": 6,
    "train.save_steps": 3,
    "train.logging_steps": 2,
    "evaluate.bootstrap_resamples": 200,
}


def write_params(target: Path, changes: dict[str, Any]) -> Path:
    """The shipped params with some values changed."""
    yaml = YAML()
    values = yaml.load(SHIPPED.read_text(encoding="utf-8"))
    for key, value in changes.items():
        *sections, name = key.split(".")
        section = values
        for one in sections:
            section = section[one]
        assert name in section, key
        section[name] = value
    with target.open("w", encoding="utf-8") as file:
        yaml.dump(values, file)
    return target


def copy_repository(target: Path) -> Path:
    """The tracked rooms that a pipeline run needs."""
    for name in ("asr", "stages", ".dvc"):
        shutil.copytree(
            REPOSITORY / name,
            target / name,
            ignore=shutil.ignore_patterns("__pycache__", "cache", "tmp"),
        )
    for path in (
        REPOSITORY / "dvc.yaml",
        SHIPPED,
        REPOSITORY / ".dvcignore",
        REPOSITORY / ".gitignore",
    ):
        shutil.copy(path, target / path.name)
    return target


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
    from children import Nursery

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
def one_process() -> Iterator[None]:
    """Trainings in this process: no MLflow, and signals and precision are restored afterwards."""
    from accelerate.state import AcceleratorState

    from asr.tracking import follower
    from asr.tracking.follower import Follower

    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    AcceleratorState._reset_state(reset_partial_state=True)  # the precision is the process's
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Follower, "__init__", lambda *_: None)
        patch.setattr(Follower, "finish", lambda _: None)
        patch.setattr(follower, "sync_apart", lambda _: None)
        yield
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


@pytest.fixture
def in_process() -> Iterator[None]:
    """Trainings in this process, as `one_process` has them."""
    with one_process():
        yield


ONE_REPOSITORY = (
    "test_pipeline.py",
    "test_dashboard_browser.py",
    "test_dashboard_load.py",
)  # which takes a minute to make


class ByFile(LoadScopeScheduling):
    """Of several processes, one runs a file's tests, and those of the files that share a
    repository.
    """

    def _split_scope(self, nodeid: str) -> str:
        name = Path(nodeid.partition("::")[0]).name
        return "repository" if name in ONE_REPOSITORY else name


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


SECONDS: dict[str, float] = defaultdict(float)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """With CI=true a skipped test is a failed one, but for want of a GPU or of recordings we may
    not ship.
    """
    outcome = yield
    report = outcome.get_result()
    excused = (
        "gpu" in item.keywords or hasattr(report, "wasxfail") or ABSENT in str(report.longrepr)
    )
    if report.skipped and os.environ.get("CI") == "true" and not excused:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    SECONDS[report.location[0]] += report.duration


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section("seconds per file")
    for name, seconds in sorted(SECONDS.items(), key=lambda pair: -pair[1]):
        terminalreporter.write_line(f"{seconds:7.1f}  {name}")
