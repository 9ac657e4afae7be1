"""Stats: how long the recordings are, which window to take and what it costs, how long the labels
are, and which rows look wrong.

    python -m stages.stats data/raw reports/stats

Costs 60 us a row, most of it for tokens, decoding 200 recordings of each split, and a trial of a
few seconds in which up to 20 recordings are trained on. Memory grows by 13 bytes a row, and by the
different words of the texts while a tokenizer is made. Written for people (a report, a picture),
programs (JSON) and `dvc plots` (CSV). The time that a row takes is another in each run: it is
printed, and stands in timing.json alone.
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

from asr.errors import DataError, exit_with
from asr.model import tokenization
from asr.model.window import window_seconds
from asr.params import reader, schema
from asr.runtime import command
from asr.runtime.formatting import rough_duration
from asr.stats import outliers, report, row_stats, window_cost
from asr.storage import files, shards
from asr.whisper import POSITIONS_PER_SECOND

if TYPE_CHECKING:
    from transformers import WhisperTokenizer


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


def model_of(raw: Path, given: schema.Params) -> tuple[WhisperTokenizer, dict[str, Any]]:
    """The tokenizer and the sizes, under the names of `WhisperConfig`, of the model that training
    would start from.
    """
    from asr.model import tokenization  # 1 s

    chosen, bins = given.model, given.featurize.num_mel_bins
    if chosen.name == "scratch":
        made = tokenization.from_texts(texts(raw / "train"), chosen.scratch.vocab_size)
        return made, {**chosen.scratch.model_dump(), "vocab_size": len(made), "num_mel_bins": bins}
    from asr.model import loader  # torch, only for the checkpoint's place

    made = tokenization.load(loader.resolve_model(chosen.name), chosen.revision)
    return made, {
        **loader.load_config(chosen.name, chosen.revision).to_dict(),
        "num_mel_bins": bins,
    }


def windows_of(chosen: schema.Model, sizes: Mapping[str, Any]) -> tuple[str, int, int | None]:
    """The param that sets the window, the window, and the one that the start model was trained
    with, if it was.
    """
    own = (
        None
        if chosen.name == "scratch"
        else int(sizes["max_source_positions"]) // POSITIONS_PER_SECOND
    )
    param = "model.window_seconds"
    if chosen.window_seconds is None:
        param = (
            "model.scratch.window_seconds"
            if own is None
            else "model.window_seconds: null, the start model's own,"
        )
    return param, window_seconds(chosen, own), own


def label_lengths(train: Path, made: WhisperTokenizer) -> np.ndarray:
    """(N,) int32 lengths of the training labels in the model's tokens, prompt and end not counted."""
    from asr.model import tokenization

    blocks = [np.zeros(0, np.int32)]
    for path in shards.paths(train):
        for batch in shards.batches(path, ["text"]):
            found = [text or "" for text in batch.column("text").to_pylist()]
            blocks.append(
                np.array([len(ids) for ids in tokenization.text_ids(made, found)], np.int32)
            )
    return np.concatenate(blocks)


def labels(train: Path, lengths: np.ndarray, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Quantiles of the labels' lengths, and those near the limit of the decoder's positions."""
    prompt = tokenization.prompt_tokens(sizes["vocab_size"])
    q50, q95 = np.quantile(lengths, [0.5, 0.95])
    longest = outliers.most(
        lengths,
        np.flatnonzero(
            lengths + prompt > outliers.NEAR_LIMIT_SHARE * sizes["max_target_positions"]
        ),
    )
    ids = {place: row["id"] for place, row in row_stats.rows_at(train, longest, "id")}
    return {
        "mean_tokens": float(np.mean(lengths)),
        "median_tokens": float(q50),
        "q95_tokens": float(q95),
        "max_tokens": int(lengths.max()),
        "prompt_tokens": prompt,
        **outliers.labels(lengths + prompt, sizes["max_target_positions"]),
        "examples": [
            {"id": ids[place], "tokens": int(lengths[place]) + prompt} for place in longest
        ],
    }


def forecast(
    train: Path,
    given: schema.Params,
    told: Mapping[str, Any],
    made: WhisperTokenizer,
    sizes: Mapping[str, Any],
) -> dict[str, Any]:
    """Seconds of a training row, and of all that fit, at each window, as a trial on this machine
    tells; nothing where it cannot be made.
    """
    from asr import features
    from asr.model import tokenization  # torch, 3 s
    from asr.preflight import trial

    clips = [
        (
            features.log_mel(sound, sizes["num_mel_bins"]),
            tokenization.text_ids(made, [row["text"] or ""])[0],
        )
        for row in outliers.sample(train, trial.CLIPS, ["text", "audio"])
        if (sound := outliers.first_samples(row)) is not None
    ]
    fit = {row["window_seconds"]: row["rows_fit"] for row in told["windows"].values()}
    first = {
        float(told["recommended"][key]) for key in ("window_seconds", "present_window_seconds")
    }
    order = [*sorted(first), *sorted(set(fit) - first)]
    times = (
        trial.run(
            given, made, clips, order, lambda window: window_cost.training_flops(window, sizes)
        )
        if clips
        else {}
    )
    return {
        f"{window:g}": {
            **times[window],
            "epoch_seconds": times[window]["row_seconds"] * fit[window],
        }
        for window in sorted(times)
    }


def forecast_apart(*given: Any) -> dict[str, Any]:
    """The forecast in a process of its own, for torch holds more memory than all else here does,
    and a recording may end it.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
        try:
            return apart.submit(forecast, *given).result()
        except BrokenProcessPool:
            return {}


def print_epoch_times(times: Mapping[str, Mapping[str, float]]) -> None:
    """How long an epoch takes, for a terminal."""
    told = ", ".join(
        f"{rough_duration(one['epoch_seconds'])} at {window} s" for window, one in times.items()
    )
    print(
        f"an epoch would take about {told}"
        if told
        else "how long an epoch takes is unknown: no trial was possible here"
    )


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def table(windows: Iterable[Mapping[str, float]]) -> str:
    """The windows' prices for a terminal."""
    lines = [
        f"{'window':>8} {'rows that fit':>18} {'padding':>8} {'compute':>8} {'features':>10} {'padded fp32':>12}"
    ]
    for row in windows:
        lines.append(
            f"{row['window_seconds']:>6g} s {row['rows_fit']:>9,} {row['share_fit']:>8.2%} {row['padding_share']:>8.0%} "
            f"{row['compute_against_30s']:>8.0%} {row['feature_bytes'] / 1e6:>7,.0f} MB {row['padded_float32_bytes'] / 1e6:>9,.0f} MB"
        )
    return "\n".join(lines)


def measure(
    raw: Path, given: schema.Params, made: WhisperTokenizer, sizes: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """All that stats.json tells, and the durations of each split."""
    met: list[str] = []
    by_split = {split: row_stats.take(raw / split, met) for split in shards.splits(raw)}
    seconds = by_split["train"].known
    if not len(seconds):
        raise DataError("train: no recording can be read, so there is nothing to measure")
    param, present, trained = windows_of(given.model, sizes)
    least = given.stats.min_share_kept
    chosen = window_cost.recommended(seconds, least, sizes, trained)
    wanted = sorted(
        {float(one) for one in (*given.stats.window_candidates_seconds, chosen, present)}
    )
    prices = {f"{one:g}": window_cost.price(one, seconds, sizes) for one in wanted}
    reasons = (
        window_cost.reason(prices[f"{chosen}"], least, trained, len(seconds)),
        window_cost.difference(prices[f"{chosen}"], prices[f"{present}"], param),
    )
    told = {
        "durations": {
            split: {**summary(one.known), "unknown": len(one.seconds) - len(one.known)}
            for split, one in by_split.items()
        },
        "labels": labels(raw / "train", label_lengths(raw / "train", made), sizes),
        "windows": prices,
        "recommended": {
            "window_seconds": chosen,
            "present_window_seconds": present,
            "reason": " ".join(reasons),
        },
        "silence": {split: outliers.silence(raw / split) for split in by_split},
        "speaking_rate": outliers.improbable(raw, by_split),
        "scripts": outliers.strange(raw, by_split, met),
    }
    return told, {split: one.known for split, one in by_split.items()}


def run(
    raw: Path, reports: Path, given: schema.Params, timed: dict[str, Any] | None = None
) -> None:
    """Write reports/stats: stats.json, report.md, windows.csv, durations.csv, durations.svg.

    Args:
        timed: takes what a row takes at each window; without it no trial is made.
    """
    made, sizes = model_of(raw, given)
    told, by_split = measure(raw, given, made, sizes)
    print_summary(told)
    if timed is not None:
        timed["windows"] = forecast_apart(raw / "train", given, told, made, sizes)
        print_epoch_times(timed["windows"])
    chosen, present = (
        told["recommended"][key] for key in ("window_seconds", "present_window_seconds")
    )
    bins = report.histogram(by_split)
    reports.mkdir(parents=True, exist_ok=True)
    report.draw(
        bins, given.stats.window_candidates_seconds, chosen, present, reports / "durations.svg"
    )
    files.write_text(reports / "windows.csv", csv_text(list(told["windows"].values())))
    files.write_text(reports / "durations.csv", csv_text(bins))
    files.write_text(reports / "report.md", report.report(told))
    files.write_json(reports / "stats.json", told)


def print_summary(told: Mapping[str, Any]) -> None:
    """The gist, for a terminal."""
    for split, one in told["durations"].items():
        if one["count"]:
            hours, median, longest = one["hours"], one["median_seconds"], one["max_seconds"]
            print(
                f"{split}: {one['count']:,} recordings, {hours:.2f} h, median {median:.2f} s, longest {longest:.2f} s"
            )
    print(table(told["windows"].values()))
    print(f"recommended window: {told['recommended']['reason']}")
    lengths = told["labels"]
    print(
        f"labels: median {lengths['median_tokens']:.0f} tokens, longest {lengths['max_tokens']:,}; "
        f"{lengths['over_limit']:,} do not fit the decoder, {lengths['near_limit']:,} nearly"
    )
    silent = ", ".join(
        f"{one['silent_share']:.0%} of {split}"
        for split, one in told["silence"].items()
        if one["recordings"]
    )
    print(
        f"silent: {silent or 'unknown'}; {told['speaking_rate']['outliers']:,} rows with an improbable rate of speech, "
        f"{told['scripts']['suspects']:,} in a strange script (report.md names some)"
    )


def main() -> None:
    raw, reports = command.paths(__doc__, "raw", "reports")
    given = reader.load()
    with command.timing(reports) as timed:
        run(raw, reports, given, timed)


if __name__ == "__main__":
    exit_with(main)
