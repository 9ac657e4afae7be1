"""Evaluate: decode the whole test split with the fine-tuned model and each baseline; score, with an
interval; tell the worst.

    python -m stages.evaluate data/features/test models/finetuned reports/train reports/evaluate

The only stage that sees test features, and those held out to measure forgetting, if there are any.
WER and CER are summed over the corpus, raw and normalised. Differences to a baseline are paired:
the same utterances, resampled together. 240 clips of 4 s cost 2 s for a model of 2.7 M parameters
on two cores.
"""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from asr import wer
from asr.errors import ModelError, ParamsError, exit_with
from asr.evaluation.metric import corpus_scores
from asr.evaluation.report import caveat, curves, report
from asr.evaluation.table import COUNTS, FINETUNED, SCHEMA, errors, words
from asr.features import FeatureRows, LogMel
from asr.metrics import STEP_METRICS
from asr.model import greedy, loader
from asr.model.loader import Start
from asr.params import reader, schema
from asr.rooms import KEPT
from asr.runtime import command
from asr.runtime.workers import progress
from asr.storage import files, hashing, shards
from asr.tracking import follower, journal

START = "start"


def start_again(finetuned: Start, run: dict[str, Any], given: schema.Params) -> Start:
    """The model before training, as `train` had it.

    Raises:
        BadModel: its weights are not those that `train` started from.
    """
    if run["start"]["name"] == loader.SCRATCH:
        weights = loader.untrained(finetuned.model.config, run["seed"])
        weights.generation_config = finetuned.model.generation_config
        start = Start(weights, finetuned.tokenizer, loader.SCRATCH, None)
    else:
        start = loader.load(
            given.model.name,
            run["start"]["revision"] or given.model.revision,
            loader.window_seconds(finetuned.model),
        )
        loader.set_prompt(start.model, given.language, given.model.task)
    if loader.weights_hash(start.model) != run["start"]["sha256"]:
        raise ModelError(
            f"{given.model.name} has changed since it was trained from; train again (dvc repro -f train)"
        )
    return start


def baseline(name: str, finetuned: Start, run: dict[str, Any], given: schema.Params) -> Start:
    """Any other model to compare with, at its own window."""
    if name == START:
        return start_again(finetuned, run, given)
    other = loader.load(name, None, None)
    loader.set_prompt(other.model, given.language, given.model.task)
    return other


def utterances(
    name: str, one: Start, test: FeatureRows, given: schema.Evaluate
) -> tuple[list[dict[str, Any]], float]:
    """Decode and score every row of a split with one model; also gives the seconds it took."""
    loader.check_mel_bins(one.model, test.num_mel_bins)
    one.model.to(loader.device())
    rows = {
        column: test.column(column)
        for column in ("id", "text", "duration", "speaker", "attributes")
    }
    began = time.monotonic()
    hypotheses = [""] * len(test)
    for language, places in by_language(rows["attributes"]).items():
        with prompted(one, language):
            said = greedy.transcribe(
                one.model,
                one.tokenizer,
                [rows["duration"][row] for row in places],
                partial(_nth, test, places),
                given.per_device_eval_batch_size,
                given.max_new_tokens,
                lambda groups, count: progress(groups, count, "batches", f"decode {name}"),
            )
        for row, text in zip(places, said, strict=True):
            hypotheses[row] = text
    seconds = time.monotonic() - began
    table = [
        {
            "id": id,
            "model": name,
            "reference": text,
            "hypothesis": said,
            **wer.utterance_scores(text, said),
            "duration": duration,
        }
        for id, text, said, duration in zip(
            rows["id"], rows["text"], hypotheses, rows["duration"], strict=True
        )
    ]
    for line, speaker, attributes in zip(table, rows["speaker"], rows["attributes"], strict=True):
        line |= {"speaker": speaker, "attributes": attributes}
    return table, seconds


def _nth(rows: FeatureRows, places: list[int], number: int) -> LogMel:
    return rows.log_mel(places[number])


def by_language(attributes: list[str]) -> dict[str | None, list[int]]:
    """Rows of each language; None for the one that the model is prompted with anyway, which all
    rows but held-out ones have.
    """
    found: dict[str | None, list[int]] = {}
    for row, one in enumerate(attributes):
        found.setdefault(json.loads(one).get("language"), []).append(row)
    return found


@contextmanager
def prompted(one: Start, language: str | None) -> Iterator[None]:
    """Ask a model for another language for a while."""
    config = one.model.generation_config
    before = getattr(config, "language", None), getattr(config, "task", None)
    if language:
        loader.set_prompt(one.model, language, before[1] or "transcribe")
    yield
    if language:
        config.language, config.task = before


def metrics_of(
    table: list[dict[str, Any]], seconds: float, given: schema.Evaluate
) -> dict[str, Any]:
    """One model's scores, as fractions."""
    pairs = [(line["reference"], line["hypothesis"]) for line in table]
    raw = corpus_scores([a for a, _ in pairs], [b for _, b in pairs])
    scores = corpus_scores(
        [wer.normalize(a) for a, _ in pairs], [wer.normalize(b) for _, b in pairs]
    )
    speakers = [line["speaker"] for line in table]
    interval = wer.bootstrap(
        [errors(line) for line in table],
        [words(line) for line in table],
        speakers,
        given.bootstrap_resamples,
        given.seed,
    )
    hours = sum(line["duration"] for line in table) / 3600
    return {
        "wer": scores["wer"],
        "wer_low": interval.low,
        "wer_high": interval.high,
        "ci_unit": interval.unit,
        "cer": scores["cer"],
        "wer_raw": raw["wer"],
        "cer_raw": raw["cer"],
        **{name: sum(line[name] for line in table) for name in COUNTS[1:]},
        "rows": len(table),
        "words": sum(map(words, table)),
        "speakers": len({name for name in speakers if name}),
        "hours": hours,
        "rtfx": hours * 3600 / max(seconds, 1e-9),
    }


def difference(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]], given: schema.Evaluate
) -> dict[str, Any]:
    """WER of the fine-tuned model less a baseline's, with a paired interval, and what that allows
    one to say.
    """
    found = wer.paired(
        [errors(line) for line in ours],
        [errors(line) for line in theirs],
        [words(line) for line in ours],
        [line["speaker"] for line in ours],
        given.bootstrap_resamples,
        given.seed,
    )
    return {
        "difference": found.difference,
        "difference_low": found.low,
        "difference_high": found.high,
        "verdict": found.verdict,
    }


def evaluate(
    test: FeatureRows, finetuned: Start, run: dict[str, Any], given: schema.Params
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Scores and utterances of the fine-tuned model and of each baseline."""
    scores, tables = {}, {}
    for name in [FINETUNED, *given.evaluate.baselines]:
        one = finetuned if name == FINETUNED else baseline(name, finetuned, run, given)
        shown = name if name in (FINETUNED, START) else one.name
        if shown in scores or (shown in (FINETUNED, START) and shown != name):
            raise ParamsError(
                f"evaluate.baselines: {name} would be shown as {shown}, which another model is; rename its folder"
            )
        tables[shown], seconds = utterances(shown, one, test, given.evaluate)
        scores[shown] = metrics_of(tables[shown], seconds, given.evaluate)
        if shown != FINETUNED:
            scores[shown] |= difference(tables[FINETUNED], tables[shown], given.evaluate)
    return scores, [line for table in tables.values() for line in table]


def holdout(
    test: Path, finetuned: Start, run: dict[str, Any], taught: Path, given: schema.Params
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Scores and utterances of what was held out, which shows what training made a model forget;
    None where nothing was.
    """
    split = test.with_name(shards.HOLDOUT)
    if not split.is_dir() or not shards.manifest(split)["rows"]:
        return None, []
    scores, table = evaluate(FeatureRows(split), finetuned, run, given)
    return {
        **scores[FINETUNED],
        "rows_taught": num_taught(FeatureRows(split), taught),
        "models": scores,
    }, table


def num_taught(test: FeatureRows, path: Path) -> int:
    """Rows whose sound the model was taught, or chosen by: what they measure is memory."""
    taught = {row.tobytes() for row in np.load(path, allow_pickle=False)}
    return sum(test.digest(row) in taught for row in range(len(test)))


def record(
    run: dict[str, Any], metrics: dict[str, Any], steps: list[dict[str, str]], given: schema.Params
) -> None:
    """Tell the journal, and MLflow from it; a training that was fetched rather than run here is
    told first.
    """
    path = journal.path_of(run["fingerprint"])
    if not path.is_file():
        journal.append(
            path,
            "begin",
            fingerprint=run["fingerprint"],
            name=f"fetched-{run['fingerprint'][:8]}",
            params=run["params"],
            tags={},
        )
        for row in steps:
            journal.append(
                path,
                "metrics",
                step=int(row["step"]),
                values={name: float(row[key]) for key, name in STEP_METRICS.items() if row[key]},
            )
        journal.append(path, "end", status="FINISHED")
    values = {
        f"test/{key}": value for key, value in metrics.items() if isinstance(value, int | float)
    }
    values |= {
        f"holdout/{key}": value
        for key, value in metrics.get(shards.HOLDOUT, {}).items()
        if isinstance(value, int | float)
    }
    for name, scores in metrics["models"].items():
        if name != FINETUNED:
            values |= {
                f"test/{re.sub('[^A-Za-z0-9_. -]', '-', name)}/{key}": scores[key]
                for key in ("wer", "cer", "difference")
            }
    chosen = reader.flat({"evaluate": given.evaluate.model_dump()})
    inputs = hashing.hash_of(
        [run["fingerprint"], metrics["test_hash"], chosen, hashing.code_hash(KEPT["evaluation"])]
    )
    journal.append(
        path,
        "evaluation",
        inputs=inputs,
        name=run["fingerprint"][:8],
        params=chosen,
        values=values,
        step=run["best_step"],
    )
    follower.sync_apart(path)


def write_table(path: Path, table: list[dict[str, Any]]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(table, schema=SCHEMA), sink)
    files.write_bytes(path, sink.getvalue().to_pybytes())


def run(
    test: Path, finetuned: Path, train_reports: Path, reports: Path, given: schema.Params
) -> None:
    """Write reports/evaluate: metrics.json, utterances.parquet, report.md, curves.svg."""
    told = files.read_json(train_reports / "run.json")
    with (train_reports / "steps.csv").open(newline="") as file:
        steps = list(csv.DictReader(file))
    scores, table = evaluate(FeatureRows(test), loader.load_saved(finetuned), told, given)
    known = num_taught(FeatureRows(test), train_reports / "taught.npy")
    metrics = {
        **scores[FINETUNED],
        "test_hash": shards.data_hash(test),
        "rows_taught": known,
        "models": scores,
    }
    held_out, held_out_table = holdout(
        test, loader.load_saved(finetuned), told, train_reports / "taught.npy", given
    )
    if held_out:
        metrics[shards.HOLDOUT] = held_out
    write_table(reports / "utterances.parquet", table)
    write_table(reports / "holdout.parquet", held_out_table)
    curves(steps, reports / "curves.svg")
    files.write_text(reports / "report.md", report(metrics, table, steps))
    files.write_json(reports / "metrics.json", metrics)
    record(told, metrics, steps, given)
    for name, line in scores.items():
        print(
            f"{name}: WER {line['wer']:.4f} ({line['wer_low']:.4f} to {line['wer_high']:.4f}), CER {line['cer']:.4f}"
        )
    for name, line in metrics.get(shards.HOLDOUT, {}).get("models", {}).items():
        print(
            f"held out, {name}: WER {line['wer']:.4f} ({line['wer_low']:.4f} to {line['wer_high']:.4f}), {line['rows']:,} utterances"
        )
    print(caveat(metrics))
    for name, scored in (("test", metrics), ("holdout", held_out or {"rows_taught": 0})):
        if seen := scored["rows_taught"]:
            which = f"{seen} of {scored['rows']} {name} rows"
            print(
                f"CHECK FAILED: {name}_rows_unseen: {which} are in training or validation; their WER is memory"
            )


def main() -> None:
    test, finetuned, train_reports, reports = command.paths(
        __doc__, "test", "finetuned", "train_reports", "reports"
    )
    given = reader.load()
    with command.timing(reports):
        run(test, finetuned, train_reports, reports, given)


if __name__ == "__main__":
    exit_with(main)
