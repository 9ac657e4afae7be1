"""How long the recordings are, and what each window would cost: the numbers of `stats` as tables
and curves.

What a report holds is checked where it is used: a value that is no number is a fault or a gap,
never a traceback.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from asr import paths
from asr.errors import DataError
from asr.runs import reports
from asr.runtime import formatting
from dashboard import widgets

MOST = 1e15  # what is more is damage
COLOURS = [
    "#1f9a92",
    "#d97f1d",
    "#6f83dd",
    "#b0568f",
]  # train, validation, test, holdout: told apart on white and on black


def number(value: Any) -> float | None:
    """A number from a report, or None where there is none."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST
    return float(value) if known else None


def figures(text: str, name: str) -> float:
    """A number from a table.

    Raises:
        BadData: it is none.
    """
    try:
        value = number(float(text))
    except ValueError:
        value = None
    if value is None:
        raise DataError(f"{name}: a value that is no number; run dvc checkout or dvc repro")
    return value


def rows_of(report: dict[str, Any], key: str, name: str) -> dict[str, dict[str, Any]]:
    """The part of a report that holds one line of values per name."""
    found = report[key]
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise DataError(f"{name}: {key} holds no lines of values; run dvc checkout or dvc repro")
    return found


def show(root: Path) -> None:
    """Quartiles per split, histogram, cumulative curve."""
    stats = reports.read_json(root / paths.STATS, "durations", "labels", "windows")
    told = rows_of(stats, "durations", "stats.json")
    keys = [
        "count",
        "hours",
        "mean_seconds",
        "q25_seconds",
        "median_seconds",
        "q75_seconds",
        "max_seconds",
        "unknown",
    ]
    table = pd.DataFrame(
        [
            {"split": split, **{key: number(one.get(key)) for key in keys}}
            for split, one in told.items()
        ]
    )
    st.dataframe(
        table.dropna(axis="columns", how="all"), hide_index=True, column_config=DURATION_COLUMNS
    )
    bins = reports.read_csv(root / paths.DURATIONS, "seconds", "split", "count", "share")
    candidates = [
        value
        for one in rows_of(stats, "windows", "stats.json").values()
        if (value := number(one.get("window_seconds")))
    ]
    taken = number(advice(stats).get("window_seconds"))
    left, right = st.columns(2)
    with left:
        st.altair_chart(curve(bins, "density", candidates, taken), width="stretch")
    with right:
        st.altair_chart(curve(bins, "share", candidates, taken), width="stretch")
    labels = stats["labels"] if isinstance(stats["labels"], dict) else {}
    tokens = [
        value
        for key in ("median", "q95", "max")
        if (value := number(labels.get(f"{key}_tokens"))) is not None
    ]
    if len(tokens) == 3:
        st.caption(
            "Training labels in the model's tokens: median {:,.0f}, 95 % have at most {:,.0f}, longest {:,.0f}.".format(
                *tokens
            )
        )


DURATION_COLUMNS = {
    "split": st.column_config.TextColumn("Split"),
    "count": st.column_config.NumberColumn("Recordings", format="localized"),
    "hours": st.column_config.NumberColumn("Hours", format="%.2f h"),
    "mean_seconds": st.column_config.NumberColumn("Mean", format="%.2f s"),
    "q25_seconds": st.column_config.NumberColumn("First quartile", format="%.2f s"),
    "median_seconds": st.column_config.NumberColumn("Median", format="%.2f s"),
    "q75_seconds": st.column_config.NumberColumn("Third quartile", format="%.2f s"),
    "max_seconds": st.column_config.NumberColumn("Longest", format="%.2f s"),
    "unknown": st.column_config.NumberColumn(
        "Unknown", format="localized", help="Recordings whose length nobody could tell"
    ),
}


def advice(stats: dict[str, Any]) -> dict[str, Any]:
    """What stats.json recommends; nothing in one that is older."""
    found = stats.get("recommended")
    return found if isinstance(found, dict) else {}


def curve(
    bins: list[dict[str, str]], what: str, candidates: list[float], taken: float | None
) -> Any:
    """A line per split over the seconds: the share of its recordings in each bin, or up to there.
    Hovering tells the values.

    Args:
        taken: the recommended window, which is drawn as a full line.
    """
    table = pd.DataFrame(
        {
            "seconds": [figures(row["seconds"], "durations.csv") for row in bins],
            "split": [row["split"] for row in bins],
            "count": [figures(row["count"], "durations.csv") for row in bins],
            "share": [figures(row["share"], "durations.csv") for row in bins],
        }
    )
    table["density"] = table["count"] / table.groupby("split")["count"].transform("sum").clip(
        lower=1
    )
    title = "share of the split" if what == "density" else "share no longer than this"
    splits = table["split"].unique().tolist()
    colour = alt.Color(
        "split:N",
        title=None,
        sort=splits,
        scale=alt.Scale(range=COLOURS),
        legend=alt.Legend(orient="top", symbolType="stroke", symbolStrokeWidth=3),
    )
    x = alt.X(
        "seconds:Q", title="duration (s)", scale=alt.Scale(domainMin=0), axis=alt.Axis(tickCount=8)
    )
    y = alt.Y(f"{what}:Q", title=title, axis=alt.Axis(format="%"))
    near = alt.selection_point(
        nearest=True, on="pointerover", fields=["seconds"], empty=False, clear="pointerout"
    )
    lines = alt.Chart(table).mark_line(
        interpolate="step-before" if what == "density" else "linear", strokeWidth=2
    )
    lines = lines.encode(
        x=x, y=y, color=colour, strokeDash=alt.StrokeDash("split:N", sort=splits, legend=None)
    )
    points = alt.Chart(table).mark_point(filled=True, size=60).encode(x=x, y=y, color=colour)
    points = points.encode(
        opacity=alt.when(near).then(alt.value(1)).otherwise(alt.value(0)), tooltip=TIPS
    ).add_params(near)
    top = float(table["seconds"].max()) * 1.2 if len(table) else 0.0
    return alt.layer(
        *rules([one for one in candidates if one <= top], taken), lines, points
    ).properties(height=320)


def rules(candidates: list[float], taken: float | None) -> list[Any]:
    """Upright lines: dotted for candidate windows, full for the recommended one."""
    drawn = []
    for title, dash, found in (
        ("candidate", [2, 4], candidates),
        ("recommended", [1, 0], [] if taken is None else [taken]),
    ):
        marks = alt.Chart(pd.DataFrame({"seconds": found}, dtype=float)).mark_rule(
            strokeDash=dash, color="gray", strokeWidth=1.5
        )
        drawn.append(
            marks.encode(
                x="seconds:Q", tooltip=[alt.Tooltip("seconds:Q", title=f"{title} window (s)")]
            )
        )
    return drawn


TIPS = [
    alt.Tooltip("split:N"),
    alt.Tooltip("seconds:Q", title="up to (s)", format=".2f"),
    alt.Tooltip("count:Q", title="recordings in the bin", format=",.0f"),
    alt.Tooltip("share:Q", title="no longer than this", format=".1%"),
]


def windows(root: Path) -> None:
    """Which window to take, and what each would cost on the training recordings."""
    chosen = advice(reports.read_json(root / paths.STATS)).get("reason")
    if isinstance(chosen, str):
        st.info(widgets.plain(f"Recommended: {chosen}"), icon=":material/straighten:")
    columns = [
        "window_seconds",
        "rows_fit",
        "share_fit",
        "padding_share",
        "compute_against_30s",
        "feature_bytes",
        "padded_float32_bytes",
    ]
    found = reports.read_csv(root / paths.WINDOWS, *columns)
    table = pd.DataFrame(
        [{key: figures(row[key], "windows.csv") for key in columns} for row in found],
        columns=columns,
    )
    for key in ("share_fit", "padding_share", "compute_against_30s"):
        table[key] *= 100
    table["epoch"] = [
        formatting.duration_text(epochs(root).get(f"{one:g}")) for one in table["window_seconds"]
    ]
    sizes = ["feature_bytes", "padded_float32_bytes"]
    unit, factor = ("GB", 1e9) if len(table) and table[sizes].max().max() >= 1e10 else ("MB", 1e6)
    table[sizes] /= factor
    shown = {
        key: st.column_config.NumberColumn(title, format=f"%.0f {unit}", help=why)
        for key, (title, why) in SIZE_COLUMNS.items()
    }
    st.dataframe(table, hide_index=True, column_config={**WINDOW_COLUMNS, **shown})
    st.caption(
        "For the training split: a short window computes less, a long one holds more recordings. Features are kept without padding."
    )


def epochs(root: Path) -> dict[str, float | None]:
    """Seconds of an epoch at each window, as a trial told on the machine where `stats` ran; nothing
    where it was not timed.
    """
    try:
        timed = rows_of(
            reports.read_json(root / paths.STATS_TIMING, "windows"), "windows", "timing.json"
        )
    except DataError:
        return {}
    return {window: number(one.get("epoch_seconds")) for window, one in timed.items()}


WINDOW_COLUMNS = {
    "window_seconds": st.column_config.NumberColumn("Window", format="%g s"),
    "rows_fit": st.column_config.NumberColumn("Recordings that fit", format="localized"),
    "share_fit": st.column_config.NumberColumn("Share that fits", format="%.1f %%"),
    "padding_share": st.column_config.NumberColumn(
        "Padding", format="%.0f %%", help="Share of each window that holds no recording"
    ),
    "compute_against_30s": st.column_config.NumberColumn(
        "Compute", format="%.0f %%", help="Of a training row, against a window of 30 s"
    ),
    "epoch": st.column_config.TextColumn(
        "An epoch",
        help="Once through all recordings that fit, by a trial on the machine that measured",
    ),
}
SIZE_COLUMNS = {
    "feature_bytes": ("Features", "As kept: no padding, 12 bits a value"),
    "padded_float32_bytes": ("Padded float32", "What the usual recipe would keep"),
}
