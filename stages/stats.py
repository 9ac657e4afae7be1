"""Stats: how long the recordings and labels are, what each window costs, which rows look wrong.

    python -m stages.stats data/raw reports/stats

Also recommends a window. Costs 60 us a row, most of it for tokens, decoding 200 recordings of each
split, and a trial of a few seconds in which up to 20 recordings are trained on. Memory grows by 13
bytes a row, and by the different words of the texts while a tokenizer is made.

Written for people (a report, a picture), programs (JSON) and `dvc plots` (CSV). The time that a row
takes differs from run to run: it is printed, and stands in timing.json alone.
"""

from __future__ import annotations

import csv
import io
import multiprocessing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.errors import DataError
from asr.model.window import window_seconds
from asr.params import reader, schema
from asr.runtime import command
from asr.runtime.formatting import rough_duration
from asr.runtime.stage import run_stage
from asr.stats import outliers, report, row_stats, window_cost
from asr.storage import files, shards
from asr.whisper import POSITIONS_PER_SECOND

if TYPE_CHECKING:
    from transformers import WhisperTokenizer


SCRATCH = "scratch"  # loader.SCRATCH, without the import of torch


def summary(seconds: np.ndarray) -> dict[str, float]:
    """Count, hours, mean, quartiles and maximum of durations that are known."""
    if not len(seconds):
        return {"count": 0}
    q25, q50, q75 = np.quantile(seconds.astype(np.float64), [0.25, 0.5, 0.75])
    total = float(seconds.sum(dtype=np.float64))
    return {
        "count": len(seconds),
        "hours": total / 3600,
        "mean_seconds": total / len(seconds),
        "q25_seconds": float(q25),
        "median_seconds": float(q50),
        "q75_seconds": float(q75),
        "max_seconds": float(seconds.max()),
    }


def texts(split: Path) -> Iterator[str]:
    """The transcripts of a split, one at a time."""
    return (row["text"] or "" for row in shards.rows(split, ["text"]))


def start_sizes(raw: Path, params: schema.Params) -> tuple[WhisperTokenizer, dict[str, Any]]:
    """The tokenizer and the sizes of the model that training would start from.

    Returns:
        The sizes have the names of `WhisperConfig`.
    """
    from asr.model import tokenization  # here and below: imports transformers, 1 s for each worker

    model = params.model
    num_mel_bins = params.featurize.num_mel_bins
    if model.name == SCRATCH:
        scratch = model.scratch
        tokenizer = tokenization.from_texts(texts(raw / "train"), scratch.vocab_size)
        sizes = scratch.model_dump() | {"vocab_size": len(tokenizer)}
    else:
        from asr.model import loader  # imports torch, which scratch does not need

        tokenizer = tokenization.load(loader.resolve_model(model.name), model.revision)
        sizes = loader.load_config(model.name, model.revision).to_dict()
    return tokenizer, {**sizes, "num_mel_bins": num_mel_bins}


def windows_of(model: schema.Model, sizes: Mapping[str, Any]) -> tuple[str, int, int | None]:
    """The window that params name.

    Returns:
        The param that sets it, its seconds, and those that the start model was trained with; None
        where it is built from scratch.
    """
    own = None
    if model.name != SCRATCH:
        own = int(sizes["max_source_positions"]) // POSITIONS_PER_SECOND
    if model.window_seconds is not None:
        param = "model.window_seconds"
    elif own is None:
        param = "model.scratch.window_seconds"
    else:
        param = "model.window_seconds: null, the start model's own,"
    return param, window_seconds(model, own), own


def label_lengths(train: Path, tokenizer: WhisperTokenizer) -> np.ndarray:
    """(N,) int32 tokens of the training labels, prompt and end not counted."""
    from asr.model import tokenization

    blocks = [np.zeros(0, np.int32)]
    for path in shards.paths(train):
        for batch in shards.batches(path, ["text"]):
            batch_texts = [text or "" for text in batch.column("text").to_pylist()]
            ids = tokenization.text_ids(tokenizer, batch_texts)
            blocks.append(np.array([len(tokens) for tokens in ids], np.int32))
    return np.concatenate(blocks)


def labels(train: Path, lengths: np.ndarray, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """How long the labels are, and which are near the limit of the decoder's positions.

    Args:
        lengths: (N,) tokens, prompt and end not counted.
    """
    from asr.model import tokenization

    positions = sizes["max_target_positions"]
    prompt = tokenization.prompt_tokens(sizes["vocab_size"])
    q50, q95 = np.quantile(lengths, [0.5, 0.95])
    near = np.flatnonzero(lengths + prompt > outliers.NEAR_LIMIT_SHARE * positions)
    longest = outliers.highest(lengths, near)
    ids = {index: row["id"] for index, row in row_stats.rows_at(train, longest, "id")}
    examples = [{"id": ids[index], "tokens": int(lengths[index]) + prompt} for index in longest]
    return {
        "mean_tokens": float(np.mean(lengths)),
        "median_tokens": float(q50),
        "q95_tokens": float(q95),
        "max_tokens": int(lengths.max()),
        "prompt_tokens": prompt,
        **outliers.labels(lengths + prompt, positions),
        "examples": examples,
    }


def forecast(
    train: Path,
    params: schema.Params,
    stats: Mapping[str, Any],
    tokenizer: WhisperTokenizer,
    sizes: Mapping[str, Any],
) -> dict[str, Any]:
    """Seconds of a training row, and of all that fit, at each window, from a trial on this machine.

    Returns:
        `{row_seconds, measured, epoch_seconds}` by window; nothing where no trial is possible.
    """
    from asr import features
    from asr.model import tokenization
    from asr.preflight import trial  # imports torch, 3 s

    clips = []
    for row in outliers.sample(train, trial.CLIPS, ["text", "audio"]):
        samples = outliers.first_samples(row)
        if samples is not None:
            (ids,) = tokenization.text_ids(tokenizer, [row["text"] or ""])
            clips.append((features.log_mel(samples, sizes["num_mel_bins"]), ids))
    if not clips:
        return {}
    rows_fit = {row["window_seconds"]: row["rows_fit"] for row in stats["windows"].values()}
    recommended = stats["recommended"]
    first = {float(recommended[key]) for key in ("window_seconds", "present_window_seconds")}
    windows = [*sorted(first), *sorted(set(rows_fit) - first)]
    times = trial.run(
        params, tokenizer, clips, windows, lambda window: window_cost.training_flops(window, sizes)
    )
    return {
        f"{window:g}": {
            **times[window],
            "epoch_seconds": times[window]["row_seconds"] * rows_fit[window],
        }
        for window in sorted(times)
    }


def forecast_apart(*arguments: Any) -> dict[str, Any]:
    """The forecast, in a process of its own.

    Torch holds more memory than all else here, and a damaged recording may end the process.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(forecast, *arguments).result()
        except BrokenProcessPool:
            return {}


def print_epoch_times(times: Mapping[str, Mapping[str, float]]) -> None:
    """Print how long an epoch takes at each window."""
    if not times:
        print("how long an epoch takes is unknown: no trial was possible here")
        return
    durations = ", ".join(
        f"{rough_duration(time['epoch_seconds'])} at {window} s" for window, time in times.items()
    )
    print(f"an epoch would take about {durations}")


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, with the columns of the first."""
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def table(windows: Iterable[Mapping[str, float]]) -> str:
    """The cost of each window as a table for a terminal."""
    heads = f"{'window':>8} {'rows that fit':>18} {'padding':>8} {'compute':>8}"
    lines = [f"{heads} {'features':>10} {'padded fp32':>12}"]
    for row in windows:
        rows_fit = f"{row['rows_fit']:>9,} {row['share_fit']:>8.2%}"
        compute = f"{row['padding_share']:>8.0%} {row['compute_against_30s']:>8.0%}"
        features_mb = row["feature_bytes"] / 1e6
        padded_mb = row["padded_float32_bytes"] / 1e6
        lines.append(
            f"{row['window_seconds']:>6g} s {rows_fit} {compute} "
            f"{features_mb:>7,.0f} MB {padded_mb:>9,.0f} MB"
        )
    return "\n".join(lines)


def measure(
    raw: Path, params: schema.Params, tokenizer: WhisperTokenizer, sizes: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The content of stats.json, and the known durations of each split in seconds.

    Raises:
        DataError: no training recording can be read.
    """
    scripts: list[str] = []  # all writing systems that the texts have
    by_split = {
        split: row_stats.read_row_stats(raw / split, scripts) for split in shards.splits(raw)
    }
    seconds = by_split["train"].known
    if not len(seconds):
        raise DataError("train: no recording can be read, so there is nothing to measure")
    windows, recommended = window_stats(params, seconds, sizes)
    stats = {
        "durations": {
            split: {**summary(rows.known), "unknown": len(rows.seconds) - len(rows.known)}
            for split, rows in by_split.items()
        },
        "labels": labels(raw / "train", label_lengths(raw / "train", tokenizer), sizes),
        "windows": windows,
        "recommended": recommended,
        "silence": {split: outliers.silence(raw / split) for split in by_split},
        "speaking_rate": outliers.improbable_rates(raw, by_split),
        "scripts": outliers.strange_scripts(raw, by_split, scripts),
    }
    return stats, {split: rows.known for split, rows in by_split.items()}


def window_stats(
    params: schema.Params, seconds: np.ndarray, sizes: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cost of each window by its seconds, and the one that is recommended, with the reason.

    Args:
        seconds: (N,) of the training recordings.
    """
    param, present, trained = windows_of(params.model, sizes)
    min_share = params.stats.min_share_kept
    best = window_cost.recommended(seconds, min_share, sizes, trained)
    candidates = {float(window) for window in params.stats.window_candidates_seconds}
    windows = sorted(candidates | {float(best), float(present)})
    costs = {f"{window:g}": window_cost.price(window, seconds, sizes) for window in windows}
    reason = window_cost.reason(costs[f"{best}"], min_share, trained, len(seconds))
    difference = window_cost.difference(costs[f"{best}"], costs[f"{present}"], param)
    return costs, {
        "window_seconds": best,
        "present_window_seconds": present,
        "reason": f"{reason} {difference}",
    }


def run(
    raw: Path, reports: Path, params: schema.Params, timed: dict[str, Any] | None = None
) -> None:
    """Write reports/stats: stats.json, report.md, windows.csv, durations.csv, durations.svg.

    Args:
        timed: takes what a row takes at each window; without it no trial is made.
    """
    tokenizer, sizes = start_sizes(raw, params)
    stats, seconds = measure(raw, params, tokenizer, sizes)
    print_summary(stats)
    if timed is not None:
        timed["windows"] = forecast_apart(raw / "train", params, stats, tokenizer, sizes)
        print_epoch_times(timed["windows"])
    bins = report.histogram(seconds)
    reports.mkdir(parents=True, exist_ok=True)
    report.draw(
        bins,
        params.stats.window_candidates_seconds,
        stats["recommended"]["window_seconds"],
        stats["recommended"]["present_window_seconds"],
        reports / "durations.svg",
    )
    files.write_text(reports / "windows.csv", csv_text(list(stats["windows"].values())))
    files.write_text(reports / "durations.csv", csv_text(bins))
    files.write_text(reports / "report.md", report.report(stats))
    files.write_json(reports / "stats.json", stats)


def print_summary(stats: Mapping[str, Any]) -> None:
    """Print the gist of stats.json."""
    for split, durations in stats["durations"].items():
        if durations["count"]:
            print(
                f"{split}: {durations['count']:,} recordings, {durations['hours']:.2f} h, "
                f"median {durations['median_seconds']:.2f} s, "
                f"longest {durations['max_seconds']:.2f} s"
            )
    print(table(stats["windows"].values()))
    print(f"recommended window: {stats['recommended']['reason']}")
    lengths = stats["labels"]
    print(
        f"labels: median {lengths['median_tokens']:.0f} tokens, longest {lengths['max_tokens']:,}; "
        f"{lengths['over_limit']:,} do not fit the decoder, {lengths['near_limit']:,} nearly"
    )
    silent = ", ".join(
        f"{silence['silent_share']:.0%} of {split}"
        for split, silence in stats["silence"].items()
        if silence["recordings"]
    )
    print(
        f"silent: {silent or 'unknown'}; "
        f"{stats['speaking_rate']['outliers']:,} rows with an improbable rate of speech, "
        f"{stats['scripts']['suspects']:,} in a strange script (report.md names some)"
    )


def main() -> None:
    raw, reports = command.paths(__doc__, "raw", "reports")
    params = reader.load()
    with command.timing(reports) as timed:
        run(raw, reports, params, timed)


if __name__ == "__main__":
    run_stage(main)
