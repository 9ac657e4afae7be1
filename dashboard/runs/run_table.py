"""The table of runs: its rows and columns, their units and digits; made once for each state of the
index.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from asr import metrics
from asr.runs import comparison, run_index
from asr.runs.run_index import RunRow

STATUS = {
    "FINISHED": "✓ finished",
    "RUNNING": "● running",
    "KILLED": "■ killed",
    "FAILED": "✕ failed",
    "SCHEDULED": "○ waiting",
}
SCORES = {
    "CER %": ("cer", 100),
    "raw WER %": ("wer_raw", 100),
    "RTFx": ("rtfx", 1),
    "Test utterances": ("rows", 1),
}
LOGGED = {
    "Validation WER %": (metrics.VALIDATION_WER, 100),
    "Validation loss": (metrics.VALIDATION_LOSS, 1),
    "Train loss": (metrics.TRAIN_LOSS, 1),
}
INTERVAL = "95 % interval"
ALWAYS = ("Run", "Status")
DEFAULT = (
    "WER %",
    INTERVAL,
    "CER %",
    "Validation WER %",
    "Revision",
    "Started",
    "Minutes",
    "Parameters",
    "RTFx",
)
DELTA = "Δ WER points"
SHOWN_PARAMS = 5  # that differ, until one chooses
NOT_TOLD = ("download.path", "stats.window_candidates_seconds")


@dataclass(frozen=True)
class Table:
    """All rows and their columns; `differing` are the params that do, `others` the rest, `scored`
    the places of tested runs.
    """

    rows: list[RunRow]
    frame: pd.DataFrame
    differing: list[str]
    others: list[str]
    scored: list[int]


@st.cache_resource(max_entries=2, show_spinner="Reading the index")
def table(root: str, generation: str) -> Table:  # noqa: ARG001 (they name what is cached)
    """Made once for each state of the index; 0.7 s for 5,000 runs."""
    rows = run_index.rows()
    columns: dict[str, list[Any]] = {
        "Run": [row.name for row in rows],
        "Status": [status(row) for row in rows],
        "WER %": [number(row.scores.get("wer"), 100) for row in rows],
        INTERVAL: [interval(row) for row in rows],
        "Revision": [", ".join(one.name for one in row.revisions) for row in rows],
        "Started": pd.to_datetime([row.start for row in rows], unit="s", utc=True, errors="coerce"),
        "Minutes": [number(row.seconds, 1 / 60) for row in rows],
        "Parameters": [number(row.parameters) for row in rows],
    }
    for name, (key, factor) in SCORES.items():
        columns[name] = [number(row.scores.get(key), factor) for row in rows]
    for name, (key, factor) in LOGGED.items():
        columns[name] = [number(row.metrics.get(key), factor) for row in rows]
    differing = [
        key for key in comparison.differing(rows) if key not in NOT_TOLD and key not in columns
    ]
    columns |= {key: column(rows, key) for key in differing}
    keys = dict.fromkeys(key for row in rows for key in row.params if key not in columns)
    scored = [place for place, wer in enumerate(columns["WER %"]) if not math.isnan(wer)]
    return Table(rows, pd.DataFrame(columns), differing, list(keys), scored)


def interval(row: RunRow) -> str | None:
    """Between what the test WER lies, in percent."""
    low, high = (number(row.scores.get(key), 100) for key in ("wer_low", "wer_high"))
    return None if math.isnan(low) or math.isnan(high) else f"{low:.2f} – {high:.2f}"


def number(value: Any, factor: float = 1) -> float:
    """A number, or none: what a damaged report holds in its place is not shown."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value * factor if usable else math.nan


def column(rows: list[RunRow], key: str) -> list[Any]:
    """One param of all runs: numbers stay numbers, so that they sort; in mixed company all become
    text.
    """
    values = [row.params.get(key) for row in rows]
    kinds = {type(value) for value in values} - {type(None)}
    if kinds and kinds <= {int, float}:
        return [number(value) for value in values]
    return ["" if value is None else str(value) for value in values]


def status(row: RunRow) -> str:
    """In words; how far a running one is, where its curve tells."""
    word = STATUS.get(row.status, row.status.lower())
    last = (
        max(
            (step for points in (run_index.curves(row) or {}).values() for step, _ in points),
            default=0,
        )
        if row.status == run_index.RUNNING
        else 0
    )
    steps = number(row.params.get("train.max_steps"))
    return f"{word} {last / steps:.0%}" if last and steps > 0 else word


def label(row: RunRow) -> str:
    """A name for lists and legends; revisions tell apart what MLflow calls alike."""
    others = [one.name for one in row.revisions if one.name != row.name]
    return f"{row.name} ({others[0]})" if others else row.name


def columns(found: Table, names: list[str]) -> pd.DataFrame:
    """The chosen columns, those of params that do not differ made now."""
    shown = found.frame[[name for name in names if name in found.frame]]
    return shown.assign(
        **{name: column(found.rows, name) for name in names if name in found.others}
    )[names]


def deltas(rows: list[RunRow], places: list[int], baseline: RunRow) -> list[float]:
    """Points of WER against the baseline; none for itself, and where the test was another."""
    base = number(baseline.scores.get("wer"), 100)
    same = [
        rows[place].test_hash == baseline.test_hash and rows[place].key != baseline.key
        for place in places
    ]
    return [
        number(rows[place].scores.get("wer"), 100) - base if one else math.nan
        for place, one in zip(places, same, strict=True)
    ]


def formats(shown: pd.DataFrame) -> dict[str, Any]:
    """Digits and units of each column; the name stays in sight."""
    config: dict[str, Any] = {
        "Status": st.column_config.TextColumn(width=110),
        "Run": st.column_config.TextColumn(pinned=True, width=150),
        "Revision": st.column_config.TextColumn(
            width="medium", help="experiments, branches and commits that hold this model"
        ),
        "Started": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
        "Minutes": st.column_config.NumberColumn(
            "Minutes", format="%.1f", help="time of the training"
        ),
        "Parameters": st.column_config.NumberColumn(format="compact", help="weights of the model"),
        "RTFx": st.column_config.NumberColumn(
            format="%.0f", help="seconds of audio decoded in one second"
        ),
        "Test utterances": st.column_config.NumberColumn(format="%d"),
        INTERVAL: st.column_config.TextColumn(width=120, help="of the test WER, in percent"),
        DELTA: st.column_config.NumberColumn(
            format="%+.2f", help="test WER less the baseline's, on the same recordings"
        ),
    }
    return config | {
        name: st.column_config.NumberColumn(format="%.2f")
        for name in shown
        if name.endswith("%") and name not in config
    }
