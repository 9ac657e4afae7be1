"""Charts of runs as Vega-Lite specifications, drawn by the library inside Streamlit; rows travel as
Arrow, nothing is fetched.
"""

from __future__ import annotations

import html
from typing import Any

import pandas as pd
import streamlit as st

from asr import metrics

MAX_POINTS = 1000  # points of a scatter
HEIGHT = 260
COLOURS = ["#0b8a8a", "#d9662b", "#6a5acd", "#c0392b", "#3f8f3f", "#b8860b", "#c2529b", "#5d7a8c"]
OTHER = "#8a9a9c"  # runs that are not compared
PANELS = (
    ("Validation WER, %", (metrics.VALIDATION_WER,)),
    ("Loss: training thin, validation thick", (metrics.TRAIN_LOSS, metrics.VALIDATION_LOSS)),
    ("Learning rate", (metrics.LEARNING_RATE,)),
)
COSTS = (
    ("minutes", "Training time, minutes", "log", ",.3~r"),
    ("parameters", "Size, parameters", "log", ".3~s"),
    ("rtfx", "RTFx, seconds of audio in a second", "linear", ",.3~r"),
)


def curves(points: pd.DataFrame) -> None:
    """Lines over the steps, one colour for each run, in as many panels as there are kinds of
    curves.

    Args:
        points: columns run, metric, step, value.
    """
    runs = list(dict.fromkeys(points["run"]))
    legend(runs)
    found = [
        (title, part)
        for title, metrics in PANELS
        if len(part := points[points["metric"].isin(metrics)])
    ]
    for place, (title, part) in zip(st.columns(len(found)), found, strict=True):
        place.markdown(f"**{title}**")
        place.vega_lite_chart(part, lines(runs), width="stretch", height=HEIGHT)


def legend(runs: list[str]) -> None:
    """The colours of the runs, over all panels: as text, whatever the names are."""
    spots = "".join(
        f'<span style="margin-right:1.2em;white-space:nowrap"><span style="color:{colour}">⬤</span> {html.escape(name)}</span>'
        for name, colour in zip(runs, COLOURS, strict=False)
    )
    st.html(f'<div style="font-size:0.85rem;display:flex;flex-wrap:wrap">{spots}</div>')


def lines(runs: list[str]) -> dict[str, Any]:
    colour = {
        "field": "run",
        "type": "nominal",
        "scale": {"domain": runs, "range": COLOURS[: len(runs)]},
        "legend": None,
    }
    x = {
        "field": "step",
        "type": "quantitative",
        "title": "step",
        "axis": {"format": ",d", "tickMinStep": 1},
    }
    y = {"field": "value", "type": "quantitative", "title": None, "scale": {"zero": False}}
    tips = [
        {"field": "run", "type": "nominal"},
        {"field": "metric", "type": "nominal"},
        {"field": "step", "type": "quantitative", "format": ",d"},
        {"field": "value", "type": "quantitative", "format": ".4~g"},
    ]
    width = {"condition": {"test": "datum.metric === 'train/loss'", "value": 1}, "value": 2.4}
    hover = {
        "name": "near",
        "select": {"type": "point", "on": "pointerover", "nearest": True, "clear": "pointerout"},
    }
    seen = {"condition": {"param": "near", "empty": False, "value": 90}, "value": 0}
    return {
        "encoding": {"x": x, "y": y, "color": colour, "detail": {"field": "metric"}},
        "layer": [
            {"mark": {"type": "line", "interpolate": "linear"}, "encoding": {"strokeWidth": width}},
            {
                "mark": {"type": "point", "filled": True},
                "params": [hover],
                "encoding": {"size": seen, "tooltip": tips},
            },
        ],
    }


def trade_offs(points: pd.DataFrame) -> None:
    """Test WER against time, size and speed.

    Args:
        points: columns run, wer, colour, and those of `COSTS`.
    """
    found = [cost for cost in COSTS if points[cost[0]].notna().any()]
    for place, (field, title, scale, digits) in zip(
        st.columns(max(len(found), 1)), found, strict=False
    ):
        some = points[points[field].notna() & (points[field] > 0)]
        place.vega_lite_chart(
            some, dots(field, title, scale, digits), width="stretch", height=HEIGHT
        )


def dots(field: str, title: str, scale: str, digits: str) -> dict[str, Any]:
    tips = [
        {"field": "run", "type": "nominal"},
        {"field": "wer", "type": "quantitative", "title": "test WER, %", "format": ".2f"},
        {"field": field, "type": "quantitative", "title": title, "format": ",.4~r"},
    ]
    return {
        "mark": {"type": "circle", "stroke": "#ffffff", "strokeWidth": 0.6},
        "encoding": {
            "x": {
                "field": field,
                "type": "quantitative",
                "title": title,
                "scale": {"type": scale, "zero": False, "nice": True},
                "axis": {"format": digits, "tickCount": 4, "grid": False},
            },
            "y": {
                "field": "wer",
                "type": "quantitative",
                "title": "test WER, %",
                "scale": {"zero": False},
            },
            "color": {"field": "colour", "type": "nominal", "scale": None, "legend": None},
            "size": {
                "condition": {"test": f"datum.colour !== '{OTHER}'", "value": 170},
                "value": 60,
            },
            "opacity": {"value": 0.85},
            "tooltip": tips,
        },
    }
