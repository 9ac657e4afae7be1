"""Present the stats: a histogram as rows for `dvc plots` and as a picture, and a Markdown report.

The same numbers give the same bytes. The picture is drawn from the histogram, so its size does not
grow with the number of recordings. Costs the import of matplotlib (0.5 s).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asr.markdown import cell
from asr.storage import files

BINS = 40
# Seconds. Longer recordings count in the last bin; without a limit, a recording of an hour would
# squeeze all others into the first bin.
LONGEST = 60.0
COLORS = {"train": "#1f9a92", "validation": "#d97f1d", "test": "#6f83dd", "holdout": "#b0568f"}
PICTURE_STYLE: Any = {
    "svg.hashsalt": "earshot",  # the same ids each time
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

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
LABEL_HEADS = ("id", "tokens with prompt")
SILENCE_HEADS = ("split", "heard", "silent", "mostly silent", "such as")
RATE_HEADS = ("id", "split", "characters a second", "deviations", "text")
SCRIPT_HEADS = ("id", "split", "script", "text")


def histogram(by_split: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Count recordings per bin of duration.

    Args:
        by_split: (N,) the durations of each split's recordings in seconds.
    Returns:
        A row for each split and bin: the bin's upper edge in seconds, the split, the count, and the
        share of recordings up to this edge. Empty splits have no rows.
    """
    with_rows = {split: seconds for split, seconds in by_split.items() if len(seconds)}
    longest = max((float(seconds.max()) for seconds in with_rows.values()), default=1.0)
    top = min(longest, LONGEST)
    edges = np.linspace(0, top, BINS + 1)
    rows = []
    for split, seconds in with_rows.items():
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
    """Draw the histogram and the cumulative curve, with the windows, as SVG.

    Args:
        bins: rows of `histogram`.
        candidates, recommended: windows in seconds.
        present: the window of params in seconds.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(PICTURE_STYLE):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        for split in dict.fromkeys(row["split"] for row in bins):
            _draw_split(left, right, split, [row for row in bins if row["split"] == split])
        top = max(float(row["seconds"]) for row in bins)
        for axes in (left, right):
            mark(axes, candidates, recommended, present, top)
            axes.set(xlabel="duration (s)", xlim=(0, None), ylim=(0, None))
        left.set(ylabel="share of the split in each bin (%)")
        right.set(ylabel="share no longer than this (%)", ylim=(0, 103))
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
        with files.draft(path) as draft:
            figure.savefig(draft, format="svg", metadata={"Date": None})


def _draw_split(left: Any, right: Any, split: str, bins: Sequence[Mapping[str, Any]]) -> None:
    """Draw a split's histogram on the left axes, and its cumulative curve on the right ones."""
    edges = [0.0, *(row["seconds"] for row in bins)]
    counts = np.array([row["count"] for row in bins])
    shares = [100 * row["share"] for row in bins]
    style = {
        "label": split,
        "color": COLORS.get(split, "black"),
        "linewidth": 1.8 if split == "train" else 1.0,
    }
    left.stairs(100 * counts / counts.sum(), edges, fill=False, **style)
    right.plot(edges, [0.0, *shares], **style)


def mark(
    axes: Any, candidates: Sequence[float], recommended: float, present: float, top: float
) -> None:
    """Draw the windows as vertical lines.

    Candidates above `top` seconds, where the recordings end, are left out. The recommended window
    and the window of params are always drawn.
    """
    named = (recommended, present)
    others = [window for window in candidates if window <= top and window not in named]
    for window in others:
        label = "other candidates" if window == others[0] else None
        axes.axvline(window, color="gray", linewidth=0.8, linestyle=":", label=label)
    label = f"recommended window, {recommended:g} s"
    axes.axvline(recommended, color="black", linewidth=1.4, label=label)
    if present != recommended:
        label = f"window in params, {present:g} s"
        axes.axvline(present, color="black", linewidth=1.2, linestyle="--", label=label)


def report(stats: Mapping[str, Any]) -> str:
    """Return stats.json as Markdown."""
    sections = [
        "# What the recordings are like",
        f"**Recommended window:** {stats['recommended']['reason']}",
        "![Histogram and cumulative curve of the durations, with the windows](durations.svg)",
        *_window_section(stats["windows"]),
        *_duration_section(stats["durations"]),
        *_label_section(stats["labels"]),
        *_silence_section(stats["silence"]),
        *_rate_section(stats["speaking_rate"]),
        *_script_section(stats["scripts"]),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _window_section(windows: Mapping[str, Any]) -> list[str]:
    return [
        "## What a window costs",
        table(WINDOW_HEADS, [window_cells(row) for row in windows.values()]),
        "Of the training split. Compute is that of a training row, against a window of 30 s; "
        "how long it takes on this machine is printed, stands in timing.json, and is on the "
        "dashboard's Data page.",
    ]


def _duration_section(durations: Mapping[str, Any]) -> list[str]:
    rows = [duration_cells(split, row) for split, row in durations.items()]
    return ["## Durations", table(DURATION_HEADS, rows)]


def _label_section(labels: Mapping[str, Any]) -> list[str]:
    return [
        "## Labels",
        f"In the model's tokens: median {labels['median_tokens']:.0f}, 95 % have at most "
        f"{labels['q95_tokens']:.0f}, longest {labels['max_tokens']:,}. "
        f"The decoder has {labels['max_target_positions']} positions, of which a prompt takes "
        f"{labels['prompt_tokens']}: {labels['over_limit']:,} training rows do not fit and are "
        f"lost, {labels['near_limit']:,} more come within a tenth of it.",
        table(LABEL_HEADS, [(row["id"], f"{row['tokens']:,}") for row in labels["examples"]]),
    ]


def _silence_section(silence: Mapping[str, Any]) -> list[str]:
    return [
        "## Silence",
        "Heard: at most 200 recordings of each split, chosen by seed, and of each its first 30 s. "
        "A frame of 10 ms is silent if it lies 40 dB below the recording's loudest frame, "
        "or below -70 dB of full scale.",
        table(SILENCE_HEADS, [silence_cells(split, row) for split, row in silence.items()]),
    ]


def _rate_section(rate: Mapping[str, Any]) -> list[str]:
    return [
        "## Improbable rates of speech",
        f"Median {rate['median_characters_per_second']:.1f} characters a second. "
        f"{rate['outliers']:,} rows lie more than {rate['threshold']:g} robust standard "
        "deviations away; the transcript is often another recording's, or has lost its end.",
        table(RATE_HEADS, [rate_cells(row) for row in rate["examples"]]),
    ]


def _script_section(scripts: Mapping[str, Any]) -> list[str]:
    own = " and ".join(map(cell, scripts["own"])) or "no script"
    rows = [(row["id"], row["split"], row["script"], row["text"]) for row in scripts["examples"]]
    return [
        "## Strange scripts",
        f"The corpus is written in {own}. {scripts['suspects']:,} rows are written mostly in "
        "another. A wrong language in the same script is not seen by this.",
        table(SCRIPT_HEADS, rows),
    ]


def window_cells(row: Mapping[str, float]) -> tuple[str, ...]:
    return (
        f"{row['window_seconds']:g} s",
        f"{row['rows_fit']:,}",
        f"{row['share_fit']:.2%}",
        f"{row['padding_share']:.0%}",
        f"{row['compute_against_30s']:.0%}",
        f"{row['feature_bytes'] / 1e6:,.0f} MB",
        f"{row['padded_float32_bytes'] / 1e6:,.0f} MB",
    )


def duration_cells(split: str, row: Mapping[str, float]) -> tuple[str, ...]:
    durations: tuple[str, ...] = ("–",) * 3
    if row["count"]:
        durations = (
            f"{row['hours']:,.2f} h",
            f"{row['median_seconds']:.2f} s",
            f"{row['max_seconds']:.2f} s",
        )
    return (split, f"{row['count']:,}", *durations, f"{row['unknown']:,}")


def silence_cells(split: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    examples = ", ".join(
        f"{example['id']} ({example['silent_share']:.0%})" for example in row["examples"]
    )
    return (
        split,
        f"{row['recordings']:,}",
        f"{row['silent_share']:.0%}",
        f"{row['mostly_silent']:,}",
        examples or "–",
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
    """A Markdown table; an empty text if it has no rows."""
    if not rows:
        return ""
    cells = [[cell(text) for text in row] for row in rows]
    lines = [heads, ["---"] * len(heads), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
