"""Stats: how long the recordings are, what each window would cost, how long the labels are.

    python -m stages.stats data/raw reports/stats

Durations come from headers and tables; a recording whose header says nothing is decoded. Costs 1 us a row, and one pass over the
transcripts with the model's tokenizer. Written for people (a table, a picture), programs (JSON) and `dvc plots` (CSV).
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from asr import audio, files, params, shards, stage
from asr.audio import FRAMES_PER_SECOND, POSITIONS_PER_SECOND
from asr.faults import BadData, exit_with

matplotlib.use("Agg")

WHISPER_SECONDS = 30
SMALL = {"d": 768, "encoder_layers": 12, "decoder_layers": 12}  # whisper-small, for the share of compute
LABEL_TOKENS = 30
BYTES_PER_FRAME = 1.5  # a mel bin's value takes 12 bits
HISTOGRAM_BINS = 60


def durations(split: Path) -> tuple[list[float], int]:
    """Seconds of each recording of a split, and how many could not be told."""
    known, unknown = [], 0
    for path in shards.paths(split):
        for index, batch in enumerate(shards.batches(path, ["duration"])):
            values = batch.column("duration").to_pylist()
            if None in values:
                values = [value if value is not None else _decoded(path, index, row) for row, value in enumerate(values)]
            known += [value for value in values if value is not None]
            unknown += values.count(None)
    return known, unknown


def _decoded(path: Path, index: int, row: int) -> float | None:
    encoded = shards.read_batch(path, index).column("audio")[row].as_py()
    try:
        return len(audio.decode(encoded or b"")) / audio.SAMPLE_RATE
    except audio.Undecodable:
        return None


def summary(seconds: list[float]) -> dict[str, float]:
    """Count, hours, mean, quartiles and maximum."""
    if not seconds:
        return {"count": 0}
    q25, q50, q75 = np.quantile(seconds, [0.25, 0.5, 0.75])
    return {
        "count": len(seconds),
        "hours": sum(seconds) / 3600,
        "mean_seconds": float(np.mean(seconds)),
        "q25_seconds": float(q25),
        "median_seconds": float(q50),
        "q75_seconds": float(q75),
        "max_seconds": max(seconds),
    }


def training_flops(window_seconds: float) -> float:
    """Multiply-adds of one whisper-small training clip, by the count in Radford's architecture: encoder, cross attention, decoder."""
    d, positions, tokens = SMALL["d"], window_seconds * POSITIONS_PER_SECOND, LABEL_TOKENS
    convolutions = positions * (12 * 80 * d + 6 * d**2)
    encoder = SMALL["encoder_layers"] * (24 * positions * d**2 + 4 * positions**2 * d)
    cross = SMALL["decoder_layers"] * 4 * positions * d**2
    decoder = SMALL["decoder_layers"] * (28 * tokens * d**2 + 4 * tokens * positions * d + 4 * tokens**2 * d)
    return 3 * (convolutions + encoder + cross + decoder + 2 * tokens * d * 51_865)


def window_price(window: float, seconds: list[float], num_mel_bins: int) -> dict[str, float]:
    """What a window would cost on these training recordings."""
    fit = [one for one in seconds if one <= window]
    return {
        "window_seconds": window,
        "rows_fit": len(fit),
        "share_fit": len(fit) / max(len(seconds), 1),
        "padding_share": 1 - sum(fit) / (window * len(fit)) if fit else 0.0,
        "compute_against_30s": training_flops(window) / training_flops(WHISPER_SECONDS),
        "feature_bytes": round(sum(fit) * FRAMES_PER_SECOND * BYTES_PER_FRAME * num_mel_bins),
        "padded_float32_bytes": round(len(fit) * window * FRAMES_PER_SECOND * 4 * num_mel_bins),
    }


def label_lengths(raw: Path, given: params.Model) -> dict[str, float]:
    """Lengths of the training labels in the model's tokens, prompt and end not counted."""
    from asr import tokenizer  # 1 s

    texts = [row["text"] for row in shards.rows(raw / "train", ["text"])]
    if given.name == "scratch":
        made = tokenizer.from_texts(texts, given.scratch.vocab_size)
    else:
        from asr import model  # torch, only for the checkpoint's place

        made = tokenizer.load(model.place(given.name), given.revision)
    lengths = [len(ids) for ids in tokenizer.text_ids(made, texts)]
    q50, q95 = np.quantile(lengths, [0.5, 0.95])
    return {"mean_tokens": float(np.mean(lengths)), "median_tokens": float(q50), "q95_tokens": float(q95), "max_tokens": max(lengths)}


def csv_text(rows: list[dict[str, Any]]) -> str:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def histogram(by_split: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Recordings per bin of duration, with the share of them that is no longer."""
    top = max((max(seconds) for seconds in by_split.values() if seconds), default=1.0)
    edges = np.linspace(0, top, HISTOGRAM_BINS + 1)
    rows = []
    for split, seconds in by_split.items():
        counts, _ = np.histogram(seconds, edges)
        shares = np.cumsum(counts) / max(len(seconds), 1)
        for edge, count, share in zip(edges[1:], counts, shares, strict=True):
            rows.append({"seconds": round(float(edge), 3), "split": split, "count": int(count), "share": round(float(share), 6)})
    return rows


def draw(by_split: dict[str, list[float]], windows: list[float], path: Path) -> None:
    """Histogram and cumulative curve with the candidate windows; the same numbers give the same bytes."""
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "earshot", "font.size": 10}):
        figure = Figure(figsize=(8, 3), layout="constrained")
        left, right = figure.subplots(1, 2)
        top = max(max(seconds) for seconds in by_split.values())
        for split, seconds in by_split.items():
            left.hist(seconds, bins=HISTOGRAM_BINS, range=(0, top), histtype="step", density=True, label=split)
            right.plot(np.sort(seconds), np.linspace(0, 1, len(seconds)), label=split)
        for window in windows:
            if window <= top * 1.2:
                right.axvline(window, color="gray", linewidth=0.8, linestyle=":")
        left.set(xlabel="duration (s)", ylabel="density")
        right.set(xlabel="duration (s); dotted: candidate windows", ylabel="share of recordings", ylim=(0, 1.02))
        left.legend()
        draft = path.with_name(f".{path.name}.part")
        figure.savefig(draft, format="svg", metadata={"Date": None})
        draft.replace(path)


def table(windows: list[dict[str, float]]) -> str:
    lines = [f"{'window':>8} {'rows that fit':>16} {'padding':>8} {'compute':>8} {'features':>10} {'padded fp32':>12}"]
    for row in windows:
        lines.append(
            f"{row['window_seconds']:>6g} s {row['rows_fit']:>9,} {row['share_fit']:>6.1%} {row['padding_share']:>8.0%} "
            f"{row['compute_against_30s']:>8.0%} {row['feature_bytes'] / 1e6:>7,.0f} MB {row['padded_float32_bytes'] / 1e6:>9,.0f} MB"
        )
    return "\n".join(lines)


def run(raw: Path, reports: Path, given: params.Params) -> None:
    """Write reports/stats: stats.json, windows.csv, durations.csv, durations.svg."""
    by_split, unknown = {}, {}
    for split in shards.splits(raw):
        by_split[split], unknown[split] = durations(raw / split)
    if not by_split["train"]:
        raise BadData("train: no recording can be read, so there is nothing to measure")
    windows = [window_price(one, by_split["train"], given.featurize.num_mel_bins) for one in given.stats.window_candidates_seconds]
    labels = label_lengths(raw, given.model)
    spread = {split: {**summary(seconds), "unknown": unknown[split]} for split, seconds in by_split.items()}
    reports.mkdir(parents=True, exist_ok=True)
    draw(
        {split: seconds for split, seconds in by_split.items() if seconds}, given.stats.window_candidates_seconds, reports / "durations.svg"
    )
    files.write_text(reports / "windows.csv", csv_text(windows))
    files.write_text(reports / "durations.csv", csv_text(histogram(by_split)))
    files.write_json(
        reports / "stats.json", {"durations": spread, "labels": labels, "windows": {f"{w['window_seconds']:g}": w for w in windows}}
    )
    for split, one in spread.items():
        if one["count"]:
            hours, median, longest = one["hours"], one["median_seconds"], one["max_seconds"]
            print(f"{split}: {one['count']:,} recordings, {hours:.2f} h, median {median:.2f} s, longest {longest:.2f} s")
    print(table(windows))
    print(f"labels: median {labels['median_tokens']:.0f} tokens, longest {labels['max_tokens']:.0f}")


def main() -> None:
    raw, reports = stage.paths(__doc__, "raw", "reports")
    given = params.load()
    with stage.timing(reports):
        run(raw, reports, given)


if __name__ == "__main__":
    exit_with(main)
