"""The durations of the recordings as a table and as curves, from reports/stats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from asr import paths
from asr.runs import reports
from dashboard.data.report_values import dict_of, number, number_from_text, rows_of

# Of train, validation, test, holdout; distinguishable on white and on black.
COLORS = ["#1f9a92", "#d97f1d", "#6f83dd", "#b0568f"]
COLUMNS = {
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
TOOLTIPS = [
    alt.Tooltip("split:N"),
    alt.Tooltip("seconds:Q", title="up to (s)", format=".2f"),
    alt.Tooltip("count:Q", title="recordings in the bin", format=",.0f"),
    alt.Tooltip("share:Q", title="no longer than this", format=".1%"),
]


def show(root: Path) -> None:
    """Show quartiles per split, a histogram, and a cumulative curve."""
    stats = reports.read_json(root / paths.STATS, "durations", "labels", "windows")
    show_table(rows_of(stats, "durations", "stats.json"))
    bins = reports.read_csv(root / paths.DURATIONS, "seconds", "split", "count", "share")
    windows = rows_of(stats, "windows", "stats.json").values()
    candidates = [
        seconds for window in windows if (seconds := number(window.get("window_seconds")))
    ]
    recommended = number(dict_of(stats, "recommended").get("window_seconds"))
    left, right = st.columns(2)
    with left:
        st.altair_chart(curve(bins, "density", candidates, recommended), width="stretch")
    with right:
        st.altair_chart(curve(bins, "share", candidates, recommended), width="stretch")
    show_label_lengths(dict_of(stats, "labels"))


def show_table(durations: dict[str, dict[str, Any]]) -> None:
    """Show one line per split; columns without a value are left out."""
    keys = [key for key in COLUMNS if key != "split"]
    table = pd.DataFrame(
        [
            {"split": split, **{key: number(values.get(key)) for key in keys}}
            for split, values in durations.items()
        ]
    )
    shown = table.dropna(axis="columns", how="all")
    st.dataframe(shown, hide_index=True, column_config=COLUMNS)


def show_label_lengths(labels: dict[str, Any]) -> None:
    """Show how many tokens the training labels have, if all three numbers are known."""
    median, q95, longest = (number(labels.get(f"{key}_tokens")) for key in ("median", "q95", "max"))
    if median is None or q95 is None or longest is None:
        return
    st.caption(
        f"Training labels in the model's tokens: median {median:,.0f}, "
        f"95 % have at most {q95:,.0f}, longest {longest:,.0f}."
    )


def curve(
    bins: list[dict[str, str]], what: str, candidates: list[float], recommended: float | None
) -> alt.LayerChart | alt.FacetChart:
    """A chart with a line per split over the seconds; hovering shows the values.

    Args:
        bins: the rows of durations.csv.
        what: "density" for the share of the split in each bin, "share" for the cumulative share.
        candidates: windows in seconds, drawn as dotted lines.
        recommended: the recommended window in seconds, drawn as a full line.
    """
    table = bin_table(bins)
    splits = table["split"].unique().tolist()
    title = "share of the split" if what == "density" else "share no longer than this"
    y = alt.Y(f"{what}:Q", title=title, axis=alt.Axis(format="%"))
    x = alt.X(
        "seconds:Q", title="duration (s)", scale=alt.Scale(domainMin=0), axis=alt.Axis(tickCount=8)
    )
    color = alt.Color(
        "split:N",
        title=None,
        sort=splits,
        scale=alt.Scale(range=COLORS),
        legend=alt.Legend(orient="top", symbolType="stroke", symbolStrokeWidth=3),
    )
    dash = alt.StrokeDash("split:N", sort=splits, legend=None)
    lines = (
        alt.Chart(table)
        .mark_line(interpolate="step-before" if what == "density" else "linear", strokeWidth=2)
        .encode(x=x, y=y, color=color, strokeDash=dash)
    )
    right_edge = float(table["seconds"].max()) * 1.2 if len(table) else 0.0
    inside = [seconds for seconds in candidates if seconds <= right_edge]
    points = hover_points(table, x, y, color)
    return alt.layer(*window_rules(inside, recommended), lines, points).properties(height=320)


def bin_table(bins: list[dict[str, str]]) -> pd.DataFrame:
    """The rows of durations.csv as numbers, with the share of its split in each bin (`density`)."""
    table = pd.DataFrame(
        {
            "seconds": [number_from_text(row["seconds"], "durations.csv") for row in bins],
            "split": [row["split"] for row in bins],
            "count": [number_from_text(row["count"], "durations.csv") for row in bins],
            "share": [number_from_text(row["share"], "durations.csv") for row in bins],
        }
    )
    split_counts = table.groupby("split")["count"].transform("sum").clip(lower=1)
    table["density"] = table["count"] / split_counts
    return table


def hover_points(table: pd.DataFrame, x: alt.X, y: alt.Y, color: alt.Color) -> alt.Chart:
    """Points with a tooltip, visible only near the pointer."""
    near = alt.selection_point(
        nearest=True, on="pointerover", fields=["seconds"], empty=False, clear="pointerout"
    )
    opacity = alt.when(near).then(alt.value(1)).otherwise(alt.value(0))
    chart: alt.Chart = (
        alt.Chart(table)
        .mark_point(filled=True, size=60)
        .encode(x=x, y=y, color=color, opacity=opacity, tooltip=TOOLTIPS)
        .add_params(near)
    )
    return chart


def window_rules(candidates: list[float], recommended: float | None) -> list[alt.Chart]:
    """Vertical lines: dotted for the candidate windows, full for the recommended one."""
    full = [] if recommended is None else [recommended]
    return [window_rule("candidate", [2, 4], candidates), window_rule("recommended", [1, 0], full)]


def window_rule(name: str, dash: list[int], seconds: list[float]) -> alt.Chart:
    tooltip = [alt.Tooltip("seconds:Q", title=f"{name} window (s)")]
    chart: alt.Chart = (
        alt.Chart(pd.DataFrame({"seconds": seconds}, dtype=float))
        .mark_rule(strokeDash=dash, color="gray", strokeWidth=1.5)
        .encode(x="seconds:Q", tooltip=tooltip)
    )
    return chart
