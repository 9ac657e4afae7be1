"""The page a person reads of an evaluation, and its curves. The same numbers give the same bytes;
0.3 s for the picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

from asr import wer
from asr.evaluation.table import COUNTS, FINETUNED, errors
from asr.runtime.formatting import cell
from asr.storage import files
from asr.storage.shards import HOLDOUT

matplotlib.use("Agg")

WORST = 10
HEADER = [
    "| model | WER | 95 % interval | CER | raw WER | raw CER | sub | del | ins | against the fine-tuned |",
    "|---|---|---|---|---|---|---|---|---|---|",
]


def report(
    metrics: dict[str, Any], table: list[dict[str, Any]], steps: list[dict[str, str]]
) -> str:
    """The page a person reads: scores, what they allow one to say, the curve, the worst utterances."""
    unit = metrics["ci_unit"]
    lines = [
        "# Test results",
        "",
        f"{metrics['rows']:,} utterances, {metrics['words']:,} words, {metrics['hours']:.2f} h.",
        "",
    ]
    lines += HEADER
    lines += [score_line(name, scores) for name, scores in metrics["models"].items()]
    if metrics["rows_taught"]:
        lines += [
            "",
            f"**{metrics['rows_taught']} test rows are in training or validation: what they measure is memory.**",
        ]
    if HOLDOUT in metrics:
        kept = metrics[HOLDOUT]
        lines += [
            "",
            f"Held out, never trained on: {kept['rows']:,} utterances, {kept['words']:,} words.",
            "",
            *HEADER,
        ]
        lines += [score_line(name, scores) for name, scores in kept["models"].items()]
    lines += [
        "",
        f"The interval is by {unit}. {caveat(metrics)}",
        "",
        "## Loss and WER per step",
        "",
        "![curves](curves.svg)",
        "",
    ]
    lines += ["| step | training loss | validation loss | validation WER |", "|---|---|---|---|"]
    lines += [
        f"| {row['step']} | {row['train_loss'][:6]} | {row['validation_loss'][:6]} | {row['validation_wer'][:6]} |"
        for row in steps
        if row["validation_wer"]
    ]
    worst = sorted(
        (line for line in table if line["model"] == FINETUNED),
        key=lambda line: (-errors(line), line["id"]),
    )[:WORST]
    lines += [
        "",
        "## Worst utterances",
        "",
        "| id | errors | reference | hypothesis |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {cell(line['id'])} | {errors(line)} | {cell(line['reference'])} | {cell(line['hypothesis'])} |"
        for line in worst
    ]
    return "\n".join(lines) + "\n"


def score_line(name: str, scores: dict[str, Any]) -> str:
    verdict = ""
    if "verdict" in scores:
        low, high = scores["difference_low"], scores["difference_high"]
        verdict = f"fine-tuned is {scores['verdict']} ({scores['difference']:+.4f}, {low:+.4f} to {high:+.4f})"
    rates = " | ".join(f"{scores[key]:.4f}" for key in ("cer", "wer_raw", "cer_raw"))
    counts = " | ".join(f"{scores[key]:,}" for key in COUNTS[1:])
    return f"| {cell(name)} | {scores['wer']:.4f} | {scores['wer_low']:.4f} to {scores['wer_high']:.4f} | {rates} | {counts} | {verdict} |"


def caveat(metrics: dict[str, Any]) -> str:
    if metrics["ci_unit"] == "speaker":
        return f"{metrics['speakers']} speakers were drawn with replacement."
    return (
        f"With fewer than {wer.MIN_SPEAKERS} known speakers ({metrics['speakers']}), utterances were drawn, not speakers: "
        "for voices that were not in this test the uncertainty is larger."
    )


def curves(steps: list[dict[str, str]], path: Path) -> None:
    """Draw loss and WER per step; the same numbers give the same bytes."""
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "earshot", "font.size": 10}):
        figure = Figure(figsize=(8, 3), layout="constrained")
        left, right = figure.subplots(1, 2)
        for key, label in (("train_loss", "training"), ("validation_loss", "validation")):
            left.plot(*points(steps, key), marker=".", label=label)
        right.plot(*points(steps, "validation_wer"), marker=".", color="tab:green")
        left.set(xlabel="step", ylabel="loss per token", ylim=(0, None))
        right.set(xlabel="step", ylabel="validation WER", ylim=(0, None))
        left.legend()
        with files.draft(path) as part:
            figure.savefig(part, format="svg", metadata={"Date": None})


def points(steps: list[dict[str, str]], key: str) -> tuple[list[int], list[float]]:
    rows = [row for row in steps if row[key]]
    return [int(row["step"]) for row in rows], [float(row[key]) for row in rows]
