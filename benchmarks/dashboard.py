"""The pages with many runs and many utterances, beside the page that a user would write.

    python -m benchmarks.dashboard [FOLDER [RUNS]]     # by default 5,000 trainings

It measures the first build of the index of runs; and on the page Runs, and on the page Errors with
20,000 utterances, the first draw in a fresh process, a redraw, and a filter or a search. The peers
are R1, MLflow's `search_runs` in the page, and R2, the same with the result cached in the process,
where the first visitor still waits. Each figure is the median of three fresh processes.

A training has 200 points and a test. The first hundred are written through MLflow's client, the
others copied from them inside the database, each with a name, a fingerprint and a seed of its own:
two minutes for 5,000. The store is kept in FOLDER.
"""

from __future__ import annotations

import json
import math
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import time
import uuid
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
REPEATS = 3
STEPS, VALIDATIONS = 88, 8
POINTS = 2 * STEPS + 3 * VALIDATIONS  # 200
WRITTEN = 100  # trainings that MLflow's client writes
UTTERANCES = 20_000
WORDS = "noll ett två tre fyra fem sex sju åtta nio tio elva tolv tjugo trettio hundra".split()
PAGE = """
import json, sys, time
from statistics import median
script, count, box, *typed = sys.argv[1:]
began = time.monotonic()
from streamlit.testing.v1 import AppTest
page = AppTest.from_string(script, default_timeout=300).run()

def shown():
    assert not page.exception, page.exception
    numbers = [one.value for one in page.metric if one.label == "Utterances"]
    return int(numbers[0].replace(",", "")) if numbers else len(page.dataframe[0].value)

def seconds(change):
    began = time.monotonic()
    change().run()
    return time.monotonic() - began

first = time.monotonic() - began
assert shown() == int(count), shown()
found = {"first draw, s": first, "redraw, s": median(seconds(lambda: page) for _ in range(3))}
if box:
    times = []
    for text in typed:
        times.append(seconds(lambda: page.text_input(key=box).set_value(text)))
        assert 0 < shown() < int(count), text
    found["filter or search, s"] = median(times)
print(json.dumps(found))
"""
OURS = "from dashboard.{}.page import page; page()"
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
    """Fill a store with `count` trainings, unless that was done before."""
    from asr.tracking import client

    marker = folder / "filled"
    if marker.is_file() and marker.read_text() == str(count):
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mlflow.db").unlink(missing_ok=True)
    (folder / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    client.connect().create_experiment(client.EXPERIMENT)
    fill(range(min(count, WRITTEN)))
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        for number in range(WRITTEN, count):
            copy_training(database, number)
    marker.write_text(str(count))


def copy_training(database: sqlite3.Connection, number: int) -> None:
    """Make training `number` and its test from those that MLflow wrote, curves and scores alike."""
    fingerprint = f"{number:032x}"
    parent = uuid.uuid4().hex
    copy_run(database, number, "fingerprint", parent, f"exp-{number}")
    test = uuid.uuid4().hex
    copy_run(database, number, "evaluation", test, f"test {fingerprint[:8]}")
    change = "UPDATE params SET value = ? WHERE run_uuid = ? AND key = 'train.seed'"
    database.execute(change, (str(number), parent))
    change = "UPDATE tags SET value = ? WHERE run_uuid = ? AND key = 'mlflow.parentRunId'"
    database.execute(change, (parent, test))


def copy_run(database: sqlite3.Connection, number: int, tag: str, id: str, name: str) -> None:
    """Copy the run whose tag holds the fingerprint of the training that `number` is copied from.

    Args:
        id, name: of the new run, whose tag holds its own fingerprint.
    """
    pattern = number % WRITTEN
    found = "SELECT run_uuid FROM tags WHERE key = ? AND value = ?"
    (old,) = database.execute(found, (tag, f"{pattern:032x}")).fetchone()
    for table in ("runs", "params", "metrics", "latest_metrics", "tags"):
        names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        others = ", ".join(column for column in names if column != "run_uuid")
        copied = f"SELECT ?, {others} FROM {table} WHERE run_uuid = ?"
        database.execute(f"INSERT INTO {table} (run_uuid, {others}) {copied}", (id, old))
    for key, value in ((tag, f"{number:032x}"), ("mlflow.runName", name)):
        change = "UPDATE tags SET value = ? WHERE run_uuid = ? AND key = ?"
        database.execute(change, (value, id, key))
    later_ms = 60_000 * (number - pattern)
    change = "UPDATE runs SET name = ?, start_time = start_time + ?, end_time = end_time + ?"
    database.execute(f"{change} WHERE run_uuid = ?", (name, later_ms, later_ms, id))


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


def make_utterances(folder: Path) -> None:
    """Write a test of UTTERANCES rows with some words wrong, as `evaluate` writes it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from asr import paths, wer
    from asr.evaluation.table import FINETUNED, SCHEMA

    draw = random.Random(1)
    rows = []
    for number in range(UTTERANCES):
        said = draw.choices(WORDS, k=draw.randint(3, 9))
        heard = [word if draw.random() < 0.9 else draw.choice(WORDS) for word in said]
        texts = {"reference": " ".join(said), "hypothesis": " ".join(heard)}
        facts = {"speaker": f"voice {number % 50}", "duration": len(said) / 2, "attributes": "{}"}
        scores = wer.utterance_scores(**texts)
        rows.append({"id": f"test-{number:05d}", "model": FINETUNED, **texts, **scores, **facts})
    target = folder / paths.UTTERANCES
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), target)
    (folder / paths.METRICS).write_text('{"test_hash": "none", "wer": 0.1}\n')


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
            if run_index.state().generation[:1].isdigit():
                first_rows = time.monotonic() - began
    return time.monotonic() - began, first_rows


@dataclass(frozen=True)
class Visit:
    """A page, and what is typed into it.

    count: rows that it must show at first.
    box, typed: key of the field, and texts that are typed into it, each of which must narrow what
        is shown; none for a page without such a field.
    """

    script: str
    count: int
    box: str = ""
    typed: tuple[str, ...] = ()


def seconds_of(visit: Visit) -> dict[str, float]:
    """Seconds of the first draw in a fresh process, imports included, and of each further one."""
    words = [visit.script, str(visit.count), visit.box, *visit.typed]
    command = [sys.executable, "-W", "ignore", "-c", PAGE, *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(folder: Path, count: int) -> dict[str, Any]:
    """Measure all figures; the pages take turns, so that a busy moment affects each of them."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    built, first_rows = build(folder)
    visits = {
        "Runs": Visit(OURS.format("runs"), count, "filter", ("exp-7", "seed=77", "exp-1 seed=1")),
        "Errors": Visit(
            OURS.format("errors"), UTTERANCES, "errors_search", ("tjugo", "ett två", "trettio")
        ),
        "R1": Visit(PEER.format(decorator="", uri=uri), count),
        "R2": Visit(PEER.format(decorator="@st.cache_data", uri=uri), count),
    }
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in visits}
    for _ in range(REPEATS):
        for name, visit in visits.items():
            seconds[name].append(seconds_of(visit))
    figures: dict[str, Any] = {
        "trainings": count,
        "points": count * POINTS,
        "utterances": UTTERANCES,
        "first build, s": built,
        "first rows while it builds, s": first_rows,
    }
    for name, found in seconds.items():
        for what in found[0]:
            figures[f"{name}: {what}"] = statistics.median(one[what] for one in found)
    return figures


def main() -> None:
    default = REPOSITORY / ".cache/bench-dashboard"
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else default).resolve()
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
    os.environ |= {"DVC_ROOT": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true"}
    make_store(folder, count)
    make_utterances(folder)
    figures = measure(folder, count)
    for name, value in figures.items():
        print(f"{name:32} {value:12,.2f}" if isinstance(value, float) else f"{name:32} {value:12,}")
    target = REPOSITORY / "reports/bench/dashboard.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
