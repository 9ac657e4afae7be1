"""Evaluate: decode the test split with the fine-tuned model and each baseline, and score them.

    python -m stages.evaluate data/features/test models/finetuned reports/train reports/evaluate

The only stage that sees test features, and those held out to measure forgetting, if there are any.
WER and CER are summed over the corpus, raw and normalized, and the WER has an interval. Differences
to a baseline are paired: the same utterances, resampled together. The report names the worst
utterances. 240 clips of 4 s cost 2 s for a model of 2.7 M parameters on two cores.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from asr import dvc_hashes, wer
from asr.decoding.recordings import Heard
from asr.engines import available
from asr.engines.engine import OPENVINO
from asr.errors import ParamsError
from asr.evaluation import form, hypotheses, loops
from asr.evaluation.cautions import cautions
from asr.evaluation.decoded import counts_text, settings_text
from asr.evaluation.models import baselines, compared
from asr.evaluation.report import caveat, curves, report
from asr.evaluation.scores import Draws, difference, score
from asr.evaluation.table import FINETUNED, LOOPED, SCHEMA, START, START_CUT
from asr.features import FeatureRows, language_of
from asr.metrics import STEP_METRICS
from asr.model import loader
from asr.params import reader, schema
from asr.rooms import KEPT
from asr.runtime import attempts, command
from asr.runtime.stage import run_stage
from asr.runtime.stage_inputs import unchanged_inputs
from asr.storage import files, hashing, shards
from asr.tracking import follower, journal, results

UNSAFE = "[^A-Za-z0-9_. -]"  # characters that MLflow does not take in the name of a metric


def hear(
    name: str,
    taken: Collection[str],
    test: FeatureRows,
    folder: Path,
    run: dict[str, Any],
    params: schema.Params,
) -> tuple[str, list[dict[str, Any]], dict[str, Any]]:
    """Decode and score a split with one model, which is let go afterwards.

    Args:
        taken: what other models are called in the table.
    Returns:
        What the table calls it, its rows, and how they were decoded.
    Raises:
        ParamsError: two models would have the same name in the table.
    """
    model = compared(name, folder, run, params)
    title = model.title
    if title in taken or (title != name and title in (FINETUNED, START, START_CUT)):
        raise ParamsError(
            f"evaluate.baselines: {name} would be shown as {title}, which another model is; "
            "rename its folder"
        )
    heard, how = hypotheses.of_split(model, test, params.evaluate)
    return title, table_of(title, heard, test, params.language), how


def table_of(
    title: str, heard: list[Heard], test: FeatureRows, language: str
) -> list[dict[str, Any]]:
    """The rows of the table of utterances.

    Args:
        title: what the table calls the model.
        language: Whisper's code, of rows that name no other.
    """
    columns = zip(
        test.column("id"),
        test.column("text"),
        heard,
        test.column("duration"),
        test.column("speaker"),
        test.column("attributes"),
        strict=True,
    )
    return [
        {
            "id": id,
            "model": title,
            "reference": text,
            "hypothesis": one.text,
            **counts(text, one.text, language_of(attributes) or language),
            LOOPED: one.looped or loops.find(one.text, text) is not None,
            "duration": duration,
            "speaker": speaker,
            "attributes": attributes,
        }
        for id, text, one, duration, speaker, attributes in columns
    ]


def counts(reference: str, hypothesis: str, language: str) -> dict[str, int]:
    """The counts of one row of the table."""
    of_form = vars(form.count(reference, hypothesis, language))
    return wer.utterance_scores(reference, hypothesis) | of_form


def evaluate(
    test: FeatureRows, folder: Path, run: dict[str, Any], params: schema.Params
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Scores and utterances of the fine-tuned model and of each baseline.

    Memory holds one model at a time.

    Args:
        folder: of the fine-tuned model.
    Raises:
        ParamsError: two models would have the same name in the table.
    """
    draws = Draws(params.evaluate.bootstrap_resamples, params.evaluate.seed)
    metrics: dict[str, Any] = {}
    tables: dict[str, list[dict[str, Any]]] = {}
    for name in [FINETUNED, *baselines(folder, run, params)]:
        title, table, how = hear(name, tables.keys(), test, folder, run, params)
        tables[title] = table
        metrics[title] = score(table, params.language, draws) | how
        if title != FINETUNED:
            metrics[title] |= difference(tables[FINETUNED], table, draws)
    return metrics, [row for table in tables.values() for row in table]


def holdout(
    test: Path, folder: Path, run: dict[str, Any], seen_audio: Path, params: schema.Params
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Scores and utterances of held-out data, which show what training made a model forget.

    Args:
        test: the test split; held-out data lies beside it.
        folder: of the fine-tuned model.
        seen_audio: taught.npy.
    Returns:
        None and no rows where nothing is held out.
    """
    split = test.with_name(shards.HOLDOUT)
    if not split.is_dir() or not shards.manifest(split)["rows"]:
        return None, []
    rows = FeatureRows(split)
    scores, table = evaluate(rows, folder, run, params)
    metrics = {
        **scores[FINETUNED],
        "rows_taught": num_taught(rows, seen_audio),
        "models": scores,
    }
    return metrics, table


def num_taught(test: FeatureRows, seen_audio: Path) -> int:
    """Rows whose sound the model was trained or chosen by: what they measure is memory."""
    seen = {digest.tobytes() for digest in np.load(seen_audio, allow_pickle=False)}
    return sum(test.digest(row) in seen for row in range(len(test)))


def record(
    run: dict[str, Any], metrics: dict[str, Any], steps: list[dict[str, str]], params: schema.Params
) -> None:
    """Write the evaluation to the journal, and upload that to MLflow.

    Args:
        steps: the rows of steps.csv.
    """
    path = journal.path_of(run["fingerprint"])
    if not path.is_file():
        record_fetched(path, run, steps)
    evaluate_params = reader.flat({"evaluate": params.evaluate.model_dump()})
    code = hashing.code_hash(KEPT["evaluation"])
    inputs = [run["fingerprint"], metrics["test_hash"], evaluate_params, code]
    journal.append(
        path,
        "evaluation",
        inputs=hashing.hash_of(inputs),
        name=run["fingerprint"][:8],
        params=evaluate_params,
        values=logged_values(metrics),
        step=run["best_step"],
    )
    follower.sync_apart(path)


@contextmanager
def journaled(train_reports: Path) -> Iterator[None]:
    """Tell the journal of the training that it is tested, and MLflow if that fails."""
    fingerprint = files.read_json(train_reports / "run.json")["fingerprint"]
    path = journal.path_of(fingerprint)
    is_recorded = attempts.note(fingerprint)  # else nobody could tell that the test was killed
    if is_recorded and path.is_file():
        journal.append(path, "testing")
    try:
        yield
    except Exception as error:
        if path.is_file():
            line = " ".join(str(error).split())
            journal.append(path, "untested", line=line or type(error).__name__)
            follower.sync_apart(path)
        raise


def record_fetched(path: Path, run: dict[str, Any], steps: list[dict[str, str]]) -> None:
    """Write the journal of a training that was fetched rather than run here."""
    fingerprint = run["fingerprint"]
    journal.append(
        path,
        "begin",
        fingerprint=fingerprint,
        name=f"fetched-{fingerprint[:8]}",
        params=run["params"],
        tags={},
    )
    for row in steps:
        values = {name: float(row[key]) for key, name in STEP_METRICS.items() if row[key]}
        journal.append(path, "metrics", step=int(row["step"]), values=values)
    journal.append(path, "end", status="FINISHED")


def logged_values(metrics: dict[str, Any]) -> dict[str, float]:
    """The numbers of metrics.json under the names that MLflow has for them."""
    values = _numbers("test", metrics) | _numbers("holdout", metrics.get(shards.HOLDOUT, {}))
    for model, scores in metrics["models"].items():
        if model != FINETUNED:
            prefix = f"test/{re.sub(UNSAFE, '-', model)}"
            values |= {f"{prefix}/{key}": scores[key] for key in ("wer", "cer", "difference")}
    return values


def _numbers(prefix: str, metrics: dict[str, Any]) -> dict[str, float]:
    return {
        f"{prefix}/{key}": value for key, value in metrics.items() if isinstance(value, int | float)
    }


def write_table(path: Path, table: list[dict[str, Any]]) -> None:
    """Write the table of utterances as Parquet."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(table, schema=SCHEMA), sink)
    files.write_bytes(path, sink.getvalue().to_pybytes())


def run(
    test: Path, finetuned: Path, train_reports: Path, reports: Path, params: schema.Params
) -> None:
    """Write reports/evaluate: metrics.json, utterances.parquet, report.md, curves.svg.

    Raises:
        ParamsError: this machine has no such engine or precision.
    """
    available.refuse_absent(params.evaluate.engine, params.evaluate.precision)
    tell_of_gpu(params.evaluate)
    training_run = files.read_json(train_reports / "run.json")
    seen_audio = train_reports / "taught.npy"
    with (train_reports / "steps.csv").open(newline="") as file:
        steps = list(csv.DictReader(file))
    rows = FeatureRows(test)
    scores, table = evaluate(rows, finetuned, training_run, params)
    metrics = {
        **scores[FINETUNED],
        "test_hash": shards.data_hash(test),
        "rows_taught": num_taught(rows, seen_audio),
        "models": scores,
    }
    held_out, held_out_table = holdout(test, finetuned, training_run, seen_audio, params)
    if held_out:
        metrics[shards.HOLDOUT] = held_out
    write_table(reports / "utterances.parquet", table)
    write_table(reports / "holdout.parquet", held_out_table)
    curves(steps, reports / "curves.svg")
    files.write_text(reports / "report.md", report(metrics, table, steps))
    files.write_json(reports / "metrics.json", metrics)
    record(training_run, metrics, steps, params)
    print_scores(metrics)


def tell_of_gpu(params: schema.Evaluate) -> None:
    """Say that there is a GPU, which the engine chosen leaves idle."""
    if params.engine == OPENVINO and loader.device() != "cpu":
        print("this machine has a GPU: -S evaluate.engine=torch decodes on it", flush=True)


def print_scores(metrics: dict[str, Any]) -> None:
    """Print each model's scores, and how many rows measure memory."""
    held_out = metrics.get(shards.HOLDOUT, {"rows_taught": 0, "models": {}})
    for name, scores in metrics["models"].items():
        print(f"{name}: {_wer_text(scores)}, CER {scores['cer']:.4f}")
        print(f"{name}: {settings_text(scores)}; {counts_text(scores)}")
    for name, scores in held_out["models"].items():
        print(f"held out, {name}: {_wer_text(scores)}, {scores['rows']:,} utterances")
    print(*cautions(metrics["models"]), caveat(metrics), sep="\n")
    for split, split_metrics in (("test", metrics), (shards.HOLDOUT, held_out)):
        if seen := split_metrics["rows_taught"]:
            print(
                f"CHECK FAILED: {split}_rows_unseen: {seen} of {split_metrics['rows']} {split} "
                "rows are in training or validation; their WER is memory"
            )


def _wer_text(scores: dict[str, Any]) -> str:
    return f"WER {scores['wer']:.4f} ({scores['wer_low']:.4f} to {scores['wer_high']:.4f})"


def keep(finetuned: Path, train_reports: Path, reports: Path, params: schema.Evaluate) -> None:
    """Keep the reports of this training and its test outside the workspace."""
    folders = {"train": train_reports, "evaluate": reports}
    at = {path: folders[Path(path).parent.name] / Path(path).name for path in results.REPORTS}
    there = {path: file for path, file in at.items() if file.is_file()}
    evaluate_params = reader.flat({"evaluate": params.model_dump()})
    results.keep(there, dvc_hashes.of_folder(finetuned), evaluate_params)


def main() -> None:
    names = ("test", "finetuned", "train_reports", "reports")
    test, finetuned, train_reports, reports = command.paths(__doc__, *names)
    params = reader.load()
    # What was tested while its inputs changed is not kept: nobody knows what it is of.
    with command.timing(reports), journaled(train_reports), unchanged_inputs():
        run(test, finetuned, train_reports, reports, params)
    keep(finetuned, train_reports, reports, params.evaluate)


if __name__ == "__main__":
    run_stage(main)
