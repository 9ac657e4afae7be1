"""Charts of runs as Vega-Lite specifications, drawn by the library inside Streamlit.

Rows travel as Arrow; nothing is fetched from elsewhere.
"""

from __future__ import annotations

import html
from typing import Any

import pandas as pd
import streamlit as st

from asr import metrics

MAX_POINTS = 1000  # of a scatter plot
HEIGHT = 260
COLORS = ["#0b8a8a", "#d9662b", "#6a5acd", "#c0392b", "#3f8f3f", "#b8860b", "#c2529b", "#5d7a8c"]
OTHER_COLOR = "#8a9a9c"  # runs that are not compared
PANELS = (
    ("Validation WER, %", (metrics.VALIDATION_WER,)),
    ("Loss: training thin, validation thick", (metrics.TRAIN_LOSS, metrics.VALIDATION_LOSS)),
    ("Learning rate", (metrics.LEARNING_RATE,)),
)
# Column, title, scale and number format of each cost.
COSTS = (
    ("minutes", "Training time, minutes", "log", ",.3~r"),
    ("parameters", "Size, parameters", "log", ".3~s"),
    ("rtfx", "RTFx, seconds of audio in a second", "linear", ",.3~r"),
)


def curves(points: pd.DataFrame) -> None:
    """Draw a line per run over the steps, with a panel for each item of PANELS that has points.

    Args:
        points: columns run, metric, step, value.
    """
    runs = list(dict.fromkeys(points["run"]))
    legend(runs)
    panels = [(title, points[points["metric"].isin(names)]) for title, names in PANELS]
    panels = [(title, part) for title, part in panels if len(part)]
    for box, (title, part) in zip(st.columns(len(panels)), panels, strict=True):
        box.markdown(f"**{title}**")
        box.vega_lite_chart(part, line_spec(runs), width="stretch", height=HEIGHT)


def legend(runs: list[str]) -> None:
    """Draw the legend of all panels: the color and the escaped name of each run."""
    items = "".join(
        '<span style="margin-right:1.2em;white-space:nowrap">'
        f'<span style="color:{color}">⬤</span> {html.escape(name)}</span>'
        for name, color in zip(runs, COLORS, strict=False)
    )
    st.html(f'<div style="font-size:0.85rem;display:flex;flex-wrap:wrap">{items}</div>')


def line_spec(runs: list[str]) -> dict[str, Any]:
    """Lines over the steps, and points with a tooltip that are visible only near the pointer."""
    color = {
        "field": "run",
        "type": "nominal",
        "scale": {"domain": runs, "range": COLORS[: len(runs)]},
        "legend": None,
    }
    x = {
        "field": "step",
        "type": "quantitative",
        "title": "step",
        "axis": {"format": ",d", "tickMinStep": 1},
    }
    y = {"field": "value", "type": "quantitative", "title": None, "scale": {"zero": False}}
    thin = {"test": f"datum.metric === '{metrics.TRAIN_LOSS}'", "value": 1}
    width = {"condition": thin, "value": 2.4}
    lines = {
        "mark": {"type": "line", "interpolate": "linear"},
        "encoding": {"strokeWidth": width},
    }
    return {
        "encoding": {"x": x, "y": y, "color": color, "detail": {"field": "metric"}},
        "layer": [lines, hover_layer()],
    }


def hover_layer() -> dict[str, Any]:
    """Points with a tooltip; only the point nearest to the pointer is visible."""
    hover = {
        "name": "near",
        "select": {"type": "point", "on": "pointerover", "nearest": True, "clear": "pointerout"},
    }
    size = {"condition": {"param": "near", "empty": False, "value": 90}, "value": 0}
    tooltip = [
        {"field": "run", "type": "nominal"},
        {"field": "metric", "type": "nominal"},
        {"field": "step", "type": "quantitative", "format": ",d"},
        {"field": "value", "type": "quantitative", "format": ".4~g"},
    ]
    return {
        "mark": {"type": "point", "filled": True},
        "params": [hover],
        "encoding": {"size": size, "tooltip": tooltip},
    }


def trade_offs(points: pd.DataFrame) -> None:
    """Draw test WER against time, size and speed, where they are known.

    Args:
        points: columns run, wer, colour, and those of `COSTS`.
    """
    costs = [cost for cost in COSTS if points[cost[0]].notna().any()]
    boxes = st.columns(max(len(costs), 1))
    for box, (field, title, scale, number_format) in zip(boxes, costs, strict=False):
        plotted = points[points[field].notna() & (points[field] > 0)]
        spec = scatter_spec(field, title, scale, number_format)
        box.vega_lite_chart(plotted, spec, width="stretch", height=HEIGHT)


def scatter_spec(field: str, title: str, scale: str, number_format: str) -> dict[str, Any]:
    """A dot per run; the dots of compared runs are larger and have the run's color."""
    x = {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": {"type": scale, "zero": False, "nice": True},
        "axis": {"format": number_format, "tickCount": 4, "grid": False},
    }
    y = {
        "field": "wer",
        "type": "quantitative",
        "title": "test WER, %",
        "scale": {"zero": False},
    }
    large = {"test": f"datum.colour !== '{OTHER_COLOR}'", "value": 170}
    tooltip = [
        {"field": "run", "type": "nominal"},
        {"field": "wer", "type": "quantitative", "title": "test WER, %", "format": ".2f"},
        {"field": field, "type": "quantitative", "title": title, "format": ",.4~r"},
    ]
    return {
        "mark": {"type": "circle", "stroke": "#ffffff", "strokeWidth": 0.6},
        "encoding": {
            "x": x,
            "y": y,
            "color": {"field": "colour", "type": "nominal", "scale": None, "legend": None},
            "size": {"condition": large, "value": 60},
            "opacity": {"value": 0.85},
            "tooltip": tooltip,
        },
    }
