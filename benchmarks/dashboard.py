"""The Runs page with many runs: the first build of the index, the first table from it, a redraw;
beside the page a user would write.

    python -m benchmarks.dashboard [FOLDER [RUNS]]     # 5,000 trainings

Each has 200 points and a test; the store takes 10 minutes to fill.

R1 is MLflow's `search_runs` in the page, R2 the same with its answer cached in the process (which
also answers the first visitor late). Each figure is of a fresh process, the median of three; the
store is filled through MLflow's client and kept in FOLDER.
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
from multiprocessing import get_context
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
TIMES = 3
STEPS, VALIDATIONS = 88, 8  # 2 x 88 + 3 x 8 = 200 points
PAGE = """
import json, sys, time
began = time.monotonic()
from streamlit.testing.v1 import AppTest
page = AppTest.from_string(sys.argv[1], default_timeout=300).run()
first = time.monotonic() - began
assert not page.exception and len(page.dataframe[0].value) == int(sys.argv[2]), page.exception
reruns = []
for _ in range(3):
    at = time.monotonic()
    page.run()
    reruns.append(time.monotonic() - at)
print(json.dumps([first, sorted(reruns)[1]]))
"""
OURS = "from dashboard.runs.page import page; page()"
PEER = """
import mlflow, streamlit as st
{decorator}
def found():
    mlflow.set_tracking_uri("{uri}")
    return mlflow.search_runs(
        experiment_names=["earshot"],
        filter_string="tags.fingerprint LIKE '%'",
        max_results=50000,
    )
st.dataframe(found())
"""


def fill(numbers: range) -> None:
    """Trainings as the journal's mirror logs them, but a run at a time in one call."""
    from mlflow.entities import Metric, Param

    from asr.params import reader
    from asr.tracking import client

    chosen = {
        key: str(value)
        for key, value in reader.flat(
            reader.load(REPOSITORY / "params.yaml").model_dump(exclude={"evaluate"})
        ).items()
    }
    store = client.connect()
    experiment = store.get_experiment_by_name(client.EXPERIMENT).experiment_id
    for number in numbers:
        at, fingerprint = 1_700_000_000_000 + number * 60_000, f"{number:032x}"
        run = store.create_run(
            experiment, at, {"fingerprint": fingerprint}, f"exp-{number}"
        ).info.run_id
        given = chosen | {
            "train.seed": str(number),
            "train.learning_rate": str(1e-4 * (1 + number % 17)),
            "train.max_steps": str(1000 + number % 7),
        }
        points = [
            Metric("train/loss", 5 / math.sqrt(step), at, step * 10) for step in range(1, STEPS + 1)
        ]
        points += [
            Metric("train/learning_rate", 1e-3 / step, at, step * 10)
            for step in range(1, STEPS + 1)
        ]
        for key in ("validation/loss", "validation/wer", "validation/cer"):
            points += [
                Metric(key, 0.9 / step, at, step * 100) for step in range(1, VALIDATIONS + 1)
            ]
        wer = 0.1 + number % 100 / 200
        store.log_batch(
            run,
            [*points, Metric("test/wer", wer, at, 800), Metric("test/cer", wer / 2, at, 800)],
            list(map(Param, given, given.values())),
        )
        child = store.create_run(
            experiment,
            at,
            {"evaluation": fingerprint, "mlflow.parentRunId": run},
            f"test {fingerprint[:8]}",
        ).info.run_id
        scores = {
            "test/wer": wer,
            "test/cer": wer / 2,
            "test/wer_low": wer - 0.02,
            "test/wer_high": wer + 0.02,
            "test/rtfx": 100 + number % 9,
        }
        store.log_batch(
            child,
            [Metric(key, value, at, 0) for key, value in scores.items()],
            [Param("evaluate.seed", "1")],
        )
        for one in (child, run):
            store.set_terminated(one, end_time=at + 500_000)


def make_store(folder: Path, count: int) -> None:
    """Fill a store, if it is not there; two processes."""
    from asr.tracking import client

    if (folder / "filled").is_file() and (folder / "filled").read_text() == str(count):
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mlflow.db").unlink(missing_ok=True)
    (folder / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    client.connect().create_experiment(client.EXPERIMENT)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(fill, [range(at, min(at + 50, count)) for at in range(0, count, 50)]))
    (folder / "filled").write_text(str(count))


def build(folder: Path) -> tuple[float, float]:
    """Seconds until the index is whole from nothing, and until a page can show the first rows."""
    from asr.errors import UserError
    from asr.runs import run_index

    for file in (folder / ".cache").glob("runs.*"):
        file.unlink()
    began, first = time.monotonic(), 0.0
    process = subprocess.Popen(
        [sys.executable, "-m", "asr.runs.refresh", "once"],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None:
        time.sleep(0.05)
        try:
            first = first or (
                time.monotonic() - began
                if run_index.state().generation not in ("", "None ")
                else 0.0
            )
        except UserError:
            continue
    return time.monotonic() - began, first


def page(script: str, count: int) -> tuple[float, float]:
    """Seconds to the first table in a fresh process, imports included, and of a redraw."""
    command = [sys.executable, "-W", "ignore", "-c", PAGE, script, str(count)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    first, again = json.loads(done.stdout.splitlines()[-1])
    return first, again


def measure(folder: Path, count: int) -> dict[str, Any]:
    """All figures, ours and the peers' in turn."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    built, usable = build(folder)
    scripts = {
        "ours": OURS,
        "R1": PEER.format(decorator="", uri=uri),
        "R2": PEER.format(decorator="@st.cache_data", uri=uri),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in scripts}
    for _ in range(TIMES):
        for name, script in scripts.items():
            found[name].append(page(script, count))
    told: dict[str, Any] = {"trainings": count, "points": count * (2 * STEPS + 3 * VALIDATIONS)}
    told |= {"first build, s": built, "first rows while it builds, s": usable}
    for name, pairs in found.items():
        told[f"first table, {name}, s"] = statistics.median(first for first, _ in pairs)
        told[f"redraw, {name}, ms"] = 1000 * statistics.median(again for _, again in pairs)
    return told


def main() -> None:
    folder = Path(
        sys.argv[1] if len(sys.argv) > 1 else REPOSITORY / ".cache/bench-dashboard"
    ).resolve()
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
    os.environ |= {"DVC_ROOT": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true"}
    make_store(folder, count)
    told = measure(folder, count)
    for name, value in told.items():
        print(f"{name:32} {value:12,.2f}" if isinstance(value, float) else f"{name:32} {value:12,}")
    target = REPOSITORY / "reports/bench/dashboard.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
