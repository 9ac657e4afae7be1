"""Charts of runs as Vega-Lite specifications, drawn by the library inside Streamlit.

Rows travel as Arrow; nothing is fetched from elsewhere.
"""

from __future__ import annotations

import html
from typing import Any

import pandas as pd
import streamlit as st

from asr import metrics
from dashboard.runs import styles
from dashboard.runs.styles import Style

MAX_POINTS = 1000  # of a scatter plot
HEIGHT = 260
MAX_NAME = 80  # characters of a run's name in the legend
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


def curves(points: pd.DataFrame, compared: dict[str, Style], last_step: int) -> None:
    """Draw a line per run over the steps, with a panel for each item of PANELS that has points.

    Args:
        points: columns run, metric, step, value.
        compared: the style of each run, also of those without points yet.
        last_step: where the axis ends.
    """
    legend(compared)
    panels = [(title, points[points["metric"].isin(names)]) for title, names in PANELS]
    panels = [(title, part) for title, part in panels if len(part)]
    for box, (title, part) in zip(st.columns(len(panels)), panels, strict=True):
        box.markdown(f"**{title}**")
        box.vega_lite_chart(part, line_spec(compared, last_step), width="stretch", height=HEIGHT)


def legend(compared: dict[str, Style]) -> None:
    """Draw the legend of all charts: the line and the escaped name of each run."""
    items = "".join(
        '<span style="margin-right:1.2em;overflow-wrap:anywhere">'
        f'<img src="{styles.swatch(style)}" alt="" style="vertical-align:middle"> '
        f"{html.escape(name[:MAX_NAME])}</span>"
        for name, style in compared.items()
    )
    st.html(f'<div style="font-size:0.85rem;display:flex;flex-wrap:wrap">{items}</div>')


def line_spec(compared: dict[str, Style], last_step: int) -> dict[str, Any]:
    """Lines over the steps, and points with a tooltip that are visible only near the pointer."""
    names = list(compared)
    color = {
        "field": "run",
        "type": "nominal",
        "scale": {"domain": names, "range": [style.color for style in compared.values()]},
        "legend": None,
    }
    dash = {
        "field": "run",
        "type": "nominal",
        "scale": {"domain": names, "range": [[*style.dash] for style in compared.values()]},
        "legend": None,
    }
    x = {
        "field": "step",
        "type": "quantitative",
        "title": "step",
        "scale": {"domain": [0, last_step], "nice": False},
        "axis": {"format": ",d", "tickMinStep": 1, "labelBound": True},
    }
    y = {"field": "value", "type": "quantitative", "title": None, "scale": {"zero": False}}
    thin = {"test": f"datum.metric === '{metrics.TRAIN_LOSS}'", "value": 1}
    width = {"condition": thin, "value": 2.4}
    lines = {
        "mark": {"type": "line", "interpolate": "linear"},
        "encoding": {"strokeWidth": width, "strokeDash": dash},
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
    large = {"test": f"datum.colour !== '{styles.OTHER_COLOR}'", "value": 170}
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
