"""The report of an evaluation in Markdown, and its curves as SVG.

The same numbers give the same bytes. The picture costs 0.3 s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

from asr import wer
from asr.evaluation.cautions import cautions, form_text
from asr.evaluation.decoded import counts_text, settings_text
from asr.evaluation.table import COUNTS, FINETUNED, START, START_CUT, errors
from asr.markdown import cell
from asr.storage import files
from asr.storage.shards import HOLDOUT

matplotlib.use("Agg")

WORST_ROWS = 10
HEADER = [
    "| model | WER | 95 % interval | CER | raw WER | raw CER | sub | del | ins "
    "| against the fine-tuned |",
    "|---|---|---|---|---|---|---|---|---|---|",
]


MEASURES_TEXT = {
    "wer": "WER",
    "cer": "CER",
    "wer_bounded": "bounded WER",
    "cer_bounded": "bounded CER",
    "wer_without_form": "WER without errors of form",
    "wer_without_loops": "WER without utterances in circles",
    "cer_without_loops": "CER without utterances in circles",
}


def report(
    metrics: dict[str, Any], table: list[dict[str, Any]], steps: list[dict[str, str]]
) -> str:
    """The report in Markdown: scores, their limits, the curves, the worst utterances.

    Args:
        metrics: the content of metrics.json.
        table: the rows of the table of utterances.
        steps: the rows of steps.csv.
    """
    lines = [
        *_scores(metrics),
        *_cut(metrics["models"]),
        *counted_otherwise(metrics["models"]),
        *_verdicts(metrics["models"]),
        *_held_out(metrics),
        *_decoding(metrics),
        "",
        f"The interval is by {metrics['ci_unit']}. {caveat(metrics)}",
        *_steps(steps),
        *_worst_utterances(table),
    ]
    return "\n".join(lines) + "\n"


def _scores(metrics: dict[str, Any]) -> list[str]:
    lines = [
        "# Test results",
        "",
        f"{metrics['rows']:,} utterances, {metrics['words']:,} words, {metrics['hours']:.2f} h.",
        "",
        *HEADER,
        *(score_line(name, scores) for name, scores in metrics["models"].items()),
    ]
    if metrics["rows_taught"]:
        lines += [
            "",
            f"**{metrics['rows_taught']} test rows are in training or validation: "
            "what they measure is memory.**",
        ]
    return lines


def _cut(models: dict[str, Any]) -> list[str]:
    """What the two starts are, where the window was cut."""
    if START_CUT not in models:
        return []
    published, cut = (models[name]["window_seconds"] for name in (START, START_CUT))
    return [
        "",
        f"`{START}` is the model as it was published, with a window of {published} s. "
        f"`{START_CUT}` is the same with one of {cut} s, from which training began.",
    ]


def counted_otherwise(models: dict[str, Any]) -> list[str]:
    """Scores that no row decides alone, by Whisper's normalizer, and what errors are made of."""
    lines = [
        "",
        "## Counted otherwise",
        "",
        "Bounded: no utterance counts as more errors than its reference has words (characters).",
        "",
        "| model | bounded WER | bounded CER | WER as Whisper normalizes | CER so | errors of form "
        "| utterances in circles |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, scores in models.items():
        rates = ("wer_bounded", "cer_bounded", "wer_whisper", "cer_whisper")
        columns = [
            cell(name),
            *(f"{scores[key]:.4f}" for key in rates),
            form_text(scores),
            f"{scores['loops']['rows']:,} ({100 * scores['loops']['share']:.0f} % of errors)",
        ]
        lines.append(f"| {' | '.join(columns)} |")
    finetuned = models[FINETUNED]
    normalizers = f"{finetuned['normalizer']}; {finetuned['whisper_normalizer']}"
    lines += ["", f"Normalizers: {normalizers}.", *_cautions(models)]
    for name, scores in models.items():
        if ids := scores["loops"]["ids"]:
            more = scores["loops"]["rows"] - len(ids)
            last = f" and {more:,} more" if more else ""
            lines += ["", f"In circles, {cell(name)}: {', '.join(map(cell, ids))}{last}."]
    return lines


def _cautions(models: dict[str, Any]) -> list[str]:
    return [line for sentence in cautions(models) for line in ("", f"**{cell(sentence)}**")]


def _verdicts(models: dict[str, Any]) -> list[str]:
    """The differences to each baseline, by each way to count."""
    lines = []
    for name, scores in models.items():
        if "verdicts" not in scores:
            continue
        lines += [
            "",
            f"## The fine-tuned model against {cell(name)}",
            "",
            "| counted | difference | 95 % interval | the fine-tuned is |",
            "|---|---|---|---|",
        ]
        for measure, found in scores["verdicts"].items():
            low, high = found["difference_low"], found["difference_high"]
            columns = [
                MEASURES_TEXT[measure],
                f"{found['difference']:+.4f}",
                f"{low:+.4f} to {high:+.4f}",
                found["verdict"],
            ]
            lines.append(f"| {' | '.join(columns)} |")
    return lines


def _held_out(metrics: dict[str, Any]) -> list[str]:
    """Scores on the rows of the holdout, if there are any."""
    if HOLDOUT not in metrics:
        return []
    holdout = metrics[HOLDOUT]
    return [
        "",
        f"Held out, never trained on: {holdout['rows']:,} utterances, {holdout['words']:,} words.",
        "",
        *HEADER,
        *(score_line(name, scores) for name, scores in holdout["models"].items()),
    ]


def _decoding(metrics: dict[str, Any]) -> list[str]:
    """How the test was decoded, and in how many utterances of each model that was hard."""
    return [
        "",
        f"Decoding: {settings_text(metrics)}. Utterances that were hard:",
        "",
        *(f"- {cell(name)}: {counts_text(scores)}" for name, scores in metrics["models"].items()),
    ]


def _steps(steps: list[dict[str, str]]) -> list[str]:
    """The curves, and their numbers at each validation."""
    lines = [
        "",
        "## Loss and WER per step",
        "",
        "![curves](curves.svg)",
        "",
        "| step | training loss | validation loss | validation WER |",
        "|---|---|---|---|",
    ]
    for row in steps:
        if row["validation_wer"]:
            columns = ("train_loss", "validation_loss", "validation_wer")
            values = " | ".join(row[column][:6] for column in columns)
            lines.append(f"| {row['step']} | {values} |")
    return lines


def _worst_utterances(table: list[dict[str, Any]]) -> list[str]:
    """The utterances with the most errors of the fine-tuned model."""
    lines = [
        "",
        "## Worst utterances",
        "",
        "| id | errors | reference | hypothesis |",
        "|---|---|---|---|",
    ]
    rows = [row for row in table if row["model"] == FINETUNED]
    rows.sort(key=lambda row: (-errors(row), row["id"]))
    for row in rows[:WORST_ROWS]:
        texts = f"{cell(row['reference'])} | {cell(row['hypothesis'])}"
        lines.append(f"| {cell(row['id'])} | {errors(row)} | {texts} |")
    return lines


def score_line(name: str, scores: dict[str, Any]) -> str:
    """One model's row of the table of scores."""
    verdict = ""
    if "verdict" in scores:
        low, high = scores["difference_low"], scores["difference_high"]
        interval = f"{scores['difference']:+.4f}, {low:+.4f} to {high:+.4f}"
        verdict = f"fine-tuned is {scores['verdict']} ({interval})"
    substitutions_deletions_insertions = COUNTS[1:]
    columns = [
        cell(name),
        f"{scores['wer']:.4f}",
        f"{scores['wer_low']:.4f} to {scores['wer_high']:.4f}",
        *(f"{scores[key]:.4f}" for key in ("cer", "wer_raw", "cer_raw")),
        *(f"{scores[key]:,}" for key in substitutions_deletions_insertions),
        verdict,
    ]
    return f"| {' | '.join(columns)} |"


def caveat(metrics: dict[str, Any]) -> str:
    """A sentence on what was drawn for the intervals, and what they do not cover."""
    if metrics["ci_unit"] == "speaker":
        return f"{metrics['speakers']} speakers were drawn with replacement."
    return (
        f"With fewer than {wer.MIN_SPEAKERS} known speakers ({metrics['speakers']}), "
        "utterances were drawn, not speakers: "
        "for voices that were not in this test the uncertainty is larger."
    )


def curves(steps: list[dict[str, str]], path: Path) -> None:
    """Draw loss and WER per step as an SVG file."""
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "earshot", "font.size": 10}):
        figure = Figure(figsize=(8, 3), layout="constrained")
        left, right = figure.subplots(1, 2)
        for column, label in (("train_loss", "training"), ("validation_loss", "validation")):
            left.plot(*points(steps, column), marker=".", label=label)
        right.plot(*points(steps, "validation_wer"), marker=".", color="tab:green")
        left.set(xlabel="step", ylabel="loss per token", ylim=(0, None))
        right.set(xlabel="step", ylabel="validation WER", ylim=(0, None))
        left.legend()
        with files.draft(path) as part:
            figure.savefig(part, format="svg", metadata={"Date": None})


def points(steps: list[dict[str, str]], column: str) -> tuple[list[int], list[float]]:
    """The steps at which a column of steps.csv was measured, and its values there."""
    rows = [row for row in steps if row[column]]
    return [int(row["step"]) for row in rows], [float(row[column]) for row in rows]
