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
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from asr import dvc_hashes, wer
from asr.decoding import loading, recordings
from asr.decoding.recognizer import Recognizer
from asr.decoding.recordings import Heard
from asr.engines import available
from asr.engines.engine import OPENVINO
from asr.errors import ModelError, ParamsError
from asr.evaluation import form, loops
from asr.evaluation.cautions import cautions
from asr.evaluation.decoded import counts_text, settings_text
from asr.evaluation.report import caveat, curves, report
from asr.evaluation.scores import Draws, difference, language_of, score
from asr.evaluation.table import FINETUNED, LOOPED, SCHEMA, START, START_CUT
from asr.features import FeatureRows
from asr.metrics import STEP_METRICS
from asr.model import loader
from asr.model.loader import Start
from asr.params import reader, schema
from asr.rooms import KEPT
from asr.runtime import attempts, command
from asr.runtime.stage import run_stage
from asr.runtime.stage_inputs import unchanged_inputs
from asr.runtime.workers import progress
from asr.storage import files, hashing, shards
from asr.tracking import follower, journal, results

UNSAFE = "[^A-Za-z0-9_. -]"  # characters that MLflow does not take in the name of a metric


def start_revision(run: dict[str, Any], params: schema.Params) -> str | None:
    """The commit of a checkpoint from the hub that training started from."""
    return run["start"]["revision"] or params.model.revision


def start_again(
    finetuned: Start, run: dict[str, Any], window: int | None, params: schema.Params
) -> Start:
    """The model before training.

    Args:
        run: the content of reports/train/run.json.
        window: in seconds; None for that which it was published with.
    Raises:
        ModelError: its weights are not those that `train` started from.
    """
    if run["start"]["name"] == loader.SCRATCH:
        model = loader.untrained(finetuned.model.config, run["seed"])
        model.generation_config = finetuned.model.generation_config
        start = Start(model, finetuned.tokenizer, loader.SCRATCH, None)
    else:
        start = loader.load(params.model.name, start_revision(run, params), window)
        loader.set_prompt(start.model, params.language, params.model.task)
    if loader.weights_hash(start.model) != run["start"]["sha256"]:
        raise ModelError(
            f"{params.model.name} has changed since it was trained from; "
            "train again (dvc repro -f train)"
        )
    return start


def other_model(name: str, folder: Path, run: dict[str, Any], params: schema.Params) -> Start:
    """A model to compare with, at its own window, or the start as it was cut.

    Args:
        folder: of the fine-tuned model.
    """
    if name in (START, START_CUT):
        finetuned = loader.load_saved(folder)
        window = loader.window_seconds(finetuned.model) if name == START_CUT else None
        return start_again(finetuned, run, window, params)
    other = loader.load(name, None, None)
    loader.set_prompt(other.model, params.language, params.model.task)
    return other


def ready(
    name: str, folder: Path, run: dict[str, Any], params: schema.Params
) -> tuple[str, Recognizer]:
    """What the table calls a model, and the model, ready to recognise.

    Args:
        name: FINETUNED, or one of `baselines`.
    """
    how = (params.evaluate.engine, params.evaluate.precision, params.evaluate.decoding)
    if name == FINETUNED:
        return name, loading.of_folder(folder.resolve(), *how)
    other = other_model(name, folder, run, params)
    title = name if name in (START, START_CUT) else other.name
    return title, loading.of_start(other, *how)


def baselines(folder: Path, run: dict[str, Any], params: schema.Params) -> list[str]:
    """`evaluate.baselines`, and beside the start the same as it was cut, if it was.

    Training begins from a Whisper whose window is shorter than it was published with, which may
    hear badly at first; that says nothing of the Whisper.

    Args:
        folder: of the fine-tuned model.
    """
    names = list(params.evaluate.baselines)
    if START in names and run["start"]["name"] != loader.SCRATCH:
        published = loader.load_config(params.model.name, start_revision(run, params))
        trained = loader.load_config(str(folder), None)
        if published.max_source_positions != trained.max_source_positions:
            names.insert(names.index(START) + 1, START_CUT)
    return names


def hear(
    name: str,
    taken: Collection[str],
    test: FeatureRows,
    folder: Path,
    run: dict[str, Any],
    params: schema.Params,
) -> tuple[str, list[dict[str, Any]], dict[str, Any]]:
    """Decode a split with one model, which is let go afterwards.

    Args:
        taken: what other models are called in the table.
    Returns:
        What the table calls it, and what `utterances` returns.
    Raises:
        ParamsError: two models would have the same name in the table.
    """
    title, recognizer = ready(name, folder, run, params)
    if title in taken or (title != name and title in (FINETUNED, START, START_CUT)):
        raise ParamsError(
            f"evaluate.baselines: {name} would be shown as {title}, which another model is; "
            "rename its folder"
        )
    return title, *utterances(title, recognizer, test, params)


def utterances(
    title: str, recognizer: Recognizer, test: FeatureRows, params: schema.Params
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Decode and score every row of a split with one model.

    Args:
        title: what the table calls the model.
    Returns:
        The rows of the table, and how they were decoded, for metrics.json.
    """
    loader.check_mel_bins(recognizer.vocabulary.num_mel_bins, test.num_mel_bins)
    began = time.monotonic()
    heard = decode(title, recognizer, test, params.evaluate)
    seconds = time.monotonic() - began
    durations = test.column("duration")
    columns = zip(
        test.column("id"),
        test.column("text"),
        heard,
        durations,
        test.column("speaker"),
        test.column("attributes"),
        strict=True,
    )
    table = [
        {
            "id": id,
            "model": title,
            "reference": text,
            "hypothesis": one.text,
            **counts(text, one.text, language_of(attributes) or params.language),
            LOOPED: one.looped or loops.find(one.text, text) is not None,
            "duration": duration,
            "speaker": speaker,
            "attributes": attributes,
        }
        for id, text, one, duration, speaker, attributes in columns
    ]
    return table, how_decoded(recognizer, heard, sum(durations), seconds)


def counts(reference: str, hypothesis: str, language: str) -> dict[str, int]:
    """The counts of one row of the table."""
    of_form = vars(form.count(reference, hypothesis, language))
    return wer.utterance_scores(reference, hypothesis) | of_form


def how_decoded(
    recognizer: Recognizer, heard: list[Heard], sound: float, seconds: float
) -> dict[str, Any]:
    """How a split was decoded: what was chosen, what was hard, how fast it went.

    Args:
        sound, seconds: of sound, and that decoding took.
    """
    return {
        "decoding": recognizer.method,
        "engine": recognizer.engine.name,
        "precision": recognizer.engine.precision,
        "processor": available.device_name(recognizer.engine.name),
        "window_seconds": recognizer.vocabulary.window_seconds,
        "fell_back": sum(one.fell_back for one in heard),
        "silent": sum(one.silent for one in heard),
        "looped": sum(one.looped for one in heard),
        "capped": sum(one.capped for one in heard),
        "rtfx": sound / max(seconds, 1e-9),
    }


def decode(
    title: str, recognizer: Recognizer, test: FeatureRows, params: schema.Evaluate
) -> list[Heard]:
    """What is heard in every row, decoded in the row's own language."""
    heard: dict[int, Heard] = {}
    for language, rows in by_language(test.column("attributes")).items():
        heard |= zip(
            rows, _decode_rows(title, recognizer, test, rows, language, params), strict=True
        )
    return [heard[row] for row in range(len(test))]


def _decode_rows(
    title: str,
    recognizer: Recognizer,
    test: FeatureRows,
    rows: list[int],
    language: str | None,
    params: schema.Evaluate,
) -> list[Heard]:
    durations = test.column("duration")
    return recordings.decode(
        recognizer,
        [durations[row] for row in rows],
        lambda index: test.log_mel(rows[index]),
        language,
        params.per_device_eval_batch_size,
        params.max_new_tokens,
        lambda groups, count: progress(groups, count, "batches", f"decode {title}"),
    )


def by_language(attributes: list[str]) -> dict[str | None, list[int]]:
    """Row numbers by the language that the rows' attributes name.

    None stands for the language that the model is prompted with anyway; only held-out rows have
    another one.
    """
    rows: dict[str | None, list[int]] = {}
    for row, text in enumerate(attributes):
        rows.setdefault(language_of(text), []).append(row)
    return rows


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
