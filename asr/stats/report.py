"""What `stats` found, for people and for `dvc plots`: a histogram as rows and as a picture, and a
report.

The same numbers give the same bytes. The picture is drawn from the histogram, so that it is as
large for a million recordings as for ten. Costs the import of matplotlib (0.5 s).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asr.runtime.formatting import cell
from asr.storage import files

BINS = 40
# seconds; the last bin holds what is longer, or one recording of an hour would press all others
# into the first
LONGEST = 60.0
COLOURS = {"train": "#1f9a92", "validation": "#d97f1d", "test": "#6f83dd", "holdout": "#b0568f"}


def histogram(by_split: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Recordings per bin of duration, with the share of them that is no longer; empty splits have
    none.
    """
    told = {split: seconds for split, seconds in by_split.items() if len(seconds)}
    top = min(max((float(seconds.max()) for seconds in told.values()), default=1.0), LONGEST)
    edges = np.linspace(0, top, BINS + 1)
    rows = []
    for split, seconds in told.items():
        counts, _ = np.histogram(np.minimum(seconds, np.float32(top)), edges.astype(np.float32))
        shares = np.cumsum(counts) / len(seconds)
        for edge, count, share in zip(edges[1:], counts, shares, strict=True):
            rows.append(
                {
                    "seconds": round(float(edge), 3),
                    "split": split,
                    "count": int(count),
                    "share": round(float(share), 6),
                }
            )
    return rows


def draw(
    bins: Sequence[Mapping[str, Any]],
    candidates: Sequence[float],
    recommended: float,
    present: float,
    path: Path,
) -> None:
    """Histogram and cumulative curve, with the windows."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(
        {
            "svg.hashsalt": "earshot",
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    ):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        top = max(float(row["seconds"]) for row in bins)
        for split in dict.fromkeys(row["split"] for row in bins):
            mine = [row for row in bins if row["split"] == split]
            edges = [0.0, *(row["seconds"] for row in mine)]
            counts, colour = np.array([row["count"] for row in mine]), COLOURS.get(split, "black")
            style = {"label": split, "color": colour, "linewidth": 1.8 if split == "train" else 1.0}
            left.stairs(100 * counts / counts.sum(), edges, fill=False, **style)
            right.plot(edges, [0.0, *(100 * row["share"] for row in mine)], **style)
        for axes in (left, right):
            mark(axes, candidates, recommended, present, top)
            axes.set(xlabel="duration (s)", xlim=(0, None), ylim=(0, None))
        left.set(ylabel="share of the split in each bin (%)")
        right.set(ylabel="share no longer than this (%)", ylim=(0, 103))
        figure.legend(
            *left.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False
        )
        with files.draft(path) as part:
            figure.savefig(part, format="svg", metadata={"Date": None})


def mark(
    axes: Any, candidates: Sequence[float], recommended: float, present: float, top: float
) -> None:
    """The windows as upright lines: candidates as far as the recordings go, the recommended and the
    present one in any case.
    """
    others = [
        window for window in candidates if window <= top and window not in (recommended, present)
    ]
    for window in others:
        label = "other candidates" if window == others[0] else None
        axes.axvline(window, color="gray", linewidth=0.8, linestyle=":", label=label)
    axes.axvline(
        recommended, color="black", linewidth=1.4, label=f"recommended window, {recommended:g} s"
    )
    if present != recommended:
        axes.axvline(
            present,
            color="black",
            linewidth=1.2,
            linestyle="--",
            label=f"window in params, {present:g} s",
        )


def report(told: Mapping[str, Any]) -> str:
    """stats.json as Markdown."""
    labels, rate, written = told["labels"], told["speaking_rate"], told["scripts"]
    limit = labels["max_target_positions"]
    sections = [
        "# What the recordings are like",
        f"**Recommended window:** {told['recommended']['reason']}",
        "![Histogram and cumulative curve of the durations, with the windows](durations.svg)",
        "## What a window costs",
        table(WINDOW_HEADS, [window_cells(row) for row in told["windows"].values()]),
        "Of the training split. Compute is that of a training row, against a window of 30 s; how long it takes on this machine is printed, "
        "stands in timing.json, and is on the dashboard's Data page.",
        "## Durations",
        table(
            DURATION_HEADS, [duration_cells(split, row) for split, row in told["durations"].items()]
        ),
        "## Labels",
        f"In the model's tokens: median {labels['median_tokens']:.0f}, 95 % have at most {labels['q95_tokens']:.0f}, longest "
        f"{labels['max_tokens']:,}. The decoder has {limit} positions, of which a prompt takes {labels['prompt_tokens']}: "
        f"{labels['over_limit']:,} training rows do not fit and are lost, {labels['near_limit']:,} more come within a tenth of it.",
        table(
            ("id", "tokens with prompt"),
            [(row["id"], f"{row['tokens']:,}") for row in labels["examples"]],
        ),
        "## Silence",
        "Heard: at most 200 recordings of each split, chosen by seed, and of each its first 30 s. A frame of 10 ms is silent if it lies "
        "40 dB below the recording's loudest frame, or below -70 dB of full scale.",
        table(SILENCE_HEADS, [silence_cells(split, row) for split, row in told["silence"].items()]),
        "## Improbable rates of speech",
        f"Median {rate['median_characters_per_second']:.1f} characters a second. {rate['outliers']:,} rows lie more than "
        f"{rate['threshold']:g} robust standard deviations away; the transcript is often another recording's, or has lost its end.",
        table(RATE_HEADS, [rate_cells(row) for row in rate["examples"]]),
        "## Strange scripts",
        f"The corpus is written in {' and '.join(map(cell, written['own'])) or 'no script'}. {written['suspects']:,} rows are "
        "written mostly in another. A wrong language in the same script is not seen by this.",
        table(
            SCRIPT_HEADS,
            [(row["id"], row["split"], row["script"], row["text"]) for row in written["examples"]],
        ),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


WINDOW_HEADS = (
    "window",
    "rows that fit",
    "share",
    "padding",
    "compute",
    "features",
    "padded float32",
)
DURATION_HEADS = ("split", "recordings", "hours", "median", "longest", "unknown")
SILENCE_HEADS = ("split", "heard", "silent", "mostly silent", "such as")
RATE_HEADS = ("id", "split", "characters a second", "deviations", "text")
SCRIPT_HEADS = ("id", "split", "script", "text")


def window_cells(row: Mapping[str, float]) -> tuple[str, ...]:
    shares = (
        f"{row['share_fit']:.2%}",
        f"{row['padding_share']:.0%}",
        f"{row['compute_against_30s']:.0%}",
    )
    sizes = (f"{row[key] / 1e6:,.0f} MB" for key in ("feature_bytes", "padded_float32_bytes"))
    return (f"{row['window_seconds']:g} s", f"{row['rows_fit']:,}", *shares, *sizes)


def duration_cells(split: str, row: Mapping[str, float]) -> tuple[str, ...]:
    known = ("–",) * 3
    if row["count"]:
        known = (
            f"{row['hours']:,.2f} h",
            f"{row['median_seconds']:.2f} s",
            f"{row['max_seconds']:.2f} s",
        )
    return (split, f"{row['count']:,}", *known, f"{row['unknown']:,}")


def silence_cells(split: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    worst = ", ".join(f"{one['id']} ({one['silent_share']:.0%})" for one in row["examples"])
    return (
        split,
        f"{row['recordings']:,}",
        f"{row['silent_share']:.0%}",
        f"{row['mostly_silent']:,}",
        worst or "–",
    )


def rate_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["id"],
        row["split"],
        f"{row['characters_per_second']:.1f}",
        f"{row['deviations']:+.1f}",
        row["text"],
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; nothing where it has no rows."""
    lines = [heads, ["---"] * len(heads), *([cell(one) for one in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""
