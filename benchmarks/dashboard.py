"""The Runs page with many runs, beside the page that a user would write.

    python -m benchmarks.dashboard [FOLDER [RUNS]]     # by default 5,000 trainings

It measures the first build of the index, the first table from it, and a redraw. The peers are R1,
MLflow's `search_runs` in the page, and R2, the same with the result cached in the process, where
the first visitor still waits. Each figure is the median of three fresh processes.

A training has 200 points and a test. The store is filled through MLflow's client, which takes 10
minutes for 5,000 trainings, and kept in FOLDER.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
REPEATS = 3
STEPS, VALIDATIONS = 88, 8
POINTS = 2 * STEPS + 3 * VALIDATIONS  # 200
RUNS_PER_JOB = 50  # trainings that a process of the pool logs in one job
PAGE = """
import json, sys, time
began = time.monotonic()
from streamlit.testing.v1 import AppTest
page = AppTest.from_string(sys.argv[1], default_timeout=300).run()
first = time.monotonic() - began
assert not page.exception and len(page.dataframe[0].value) == int(sys.argv[2]), page.exception
reruns = []
for _ in range(3):
    began = time.monotonic()
    page.run()
    reruns.append(time.monotonic() - began)
print(json.dumps([first, sorted(reruns)[1]]))
"""
OURS = "from dashboard.runs.page import page; page()"
PEER = """
import mlflow, streamlit as st
{decorator}
def all_runs():
    mlflow.set_tracking_uri("{uri}")
    return mlflow.search_runs(
        experiment_names=["earshot"], filter_string="tags.fingerprint LIKE '%'", max_results=50000
    )
st.dataframe(all_runs())
"""


def make_store(folder: Path, count: int) -> None:
    """Fill a store with `count` trainings in two processes, unless that was done before."""
    from asr.tracking import client

    marker = folder / "filled"
    if marker.is_file() and marker.read_text() == str(count):
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mlflow.db").unlink(missing_ok=True)
    (folder / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    client.connect().create_experiment(client.EXPERIMENT)
    jobs = [
        range(first, min(first + RUNS_PER_JOB, count)) for first in range(0, count, RUNS_PER_JOB)
    ]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(fill, jobs))
    marker.write_text(str(count))


def fill(numbers: range) -> None:
    """Log trainings as `asr.tracking` uploads them from journals, but each in one call."""
    from mlflow.entities import Param

    from asr.params import reader
    from asr.tracking import client

    params = reader.load(REPOSITORY / "params.yaml").model_dump(exclude={"evaluate"})
    shared_params = {key: str(value) for key, value in reader.flat(params).items()}
    store = client.connect()
    experiment = store.get_experiment_by_name(client.EXPERIMENT).experiment_id
    for number in numbers:
        start_ms = 1_700_000_000_000 + number * 60_000
        fingerprint = f"{number:032x}"
        wer = 0.1 + number % 100 / 200
        values = shared_params | {
            "train.seed": str(number),
            "train.learning_rate": str(1e-4 * (1 + number % 17)),
            "train.max_steps": str(1000 + number % 7),
        }
        run = store.create_run(
            experiment, start_ms, {"fingerprint": fingerprint}, f"exp-{number}"
        ).info.run_id
        points = [*curves(start_ms), *metrics(start_ms, 800, wer)]
        store.log_batch(run, points, [Param(key, value) for key, value in values.items()])
        tags = {"evaluation": fingerprint, "mlflow.parentRunId": run}
        test_run = store.create_run(
            experiment, start_ms, tags, f"test {fingerprint[:8]}"
        ).info.run_id
        more = {
            "test/wer_low": wer - 0.02,
            "test/wer_high": wer + 0.02,
            "test/rtfx": 100 + number % 9,
        }
        scores = metrics(start_ms, 0, wer, **more)
        store.log_batch(test_run, scores, [Param("evaluate.seed", "1")])
        for run_id in (test_run, run):
            store.set_terminated(run_id, end_time=start_ms + 500_000)


def curves(start_ms: int) -> list[Any]:
    """The POINTS points of one training's metrics."""
    from mlflow.entities import Metric

    steps = range(1, STEPS + 1)
    points = [Metric("train/loss", 5 / math.sqrt(step), start_ms, step * 10) for step in steps]
    points += [Metric("train/learning_rate", 1e-3 / step, start_ms, step * 10) for step in steps]
    for key in ("validation/loss", "validation/wer", "validation/cer"):
        points += [
            Metric(key, 0.9 / step, start_ms, step * 100) for step in range(1, VALIDATIONS + 1)
        ]
    return points


def metrics(start_ms: int, step: int, wer: float, **more: float) -> list[Any]:
    """The scores of one test."""
    from mlflow.entities import Metric

    scores = {"test/wer": wer, "test/cer": wer / 2, **more}
    return [Metric(key, value, start_ms, step) for key, value in scores.items()]


def build(folder: Path) -> tuple[float, float]:
    """Seconds until the index is built from nothing, and until a page can show the first rows."""
    from asr.errors import UserError
    from asr.runs import run_index

    for file in (folder / ".cache").glob("runs.*"):
        file.unlink()
    began = time.monotonic()
    first_rows = 0.0
    process = subprocess.Popen(
        [sys.executable, "-m", "asr.runs.refresh", "once"],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None:
        time.sleep(0.05)
        if first_rows:
            continue
        with suppress(UserError):  # the index cannot be read yet
            if not run_index.state().generation.startswith(("None", " ")):
                first_rows = time.monotonic() - began
    return time.monotonic() - began, first_rows


def page(script: str, count: int) -> tuple[float, float]:
    """Seconds to the first table in a fresh process, imports included, and of a redraw.

    Args:
        script: the page.
        count: rows that its table must have.
    """
    command = [sys.executable, "-W", "ignore", "-c", PAGE, script, str(count)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    first, redraw = json.loads(done.stdout.splitlines()[-1])
    return first, redraw


def measure(folder: Path, count: int) -> dict[str, Any]:
    """Measure all figures; the pages take turns, so that a busy moment affects each of them."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    built, first_rows = build(folder)
    scripts = {
        "ours": OURS,
        "R1": PEER.format(decorator="", uri=uri),
        "R2": PEER.format(decorator="@st.cache_data", uri=uri),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in scripts}
    for _ in range(REPEATS):
        for name, script in scripts.items():
            seconds[name].append(page(script, count))
    figures: dict[str, Any] = {
        "trainings": count,
        "points": count * POINTS,
        "first build, s": built,
        "first rows while it builds, s": first_rows,
    }
    for name, pairs in seconds.items():
        figures[f"first table, {name}, s"] = statistics.median(first for first, _ in pairs)
        figures[f"redraw, {name}, ms"] = 1000 * statistics.median(redraw for _, redraw in pairs)
    return figures


def main() -> None:
    default = REPOSITORY / ".cache/bench-dashboard"
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else default).resolve()
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
    os.environ |= {"DVC_ROOT": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true"}
    make_store(folder, count)
    figures = measure(folder, count)
    for name, value in figures.items():
        print(f"{name:32} {value:12,.2f}" if isinstance(value, float) else f"{name:32} {value:12,}")
    target = REPOSITORY / "reports/bench/dashboard.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
