"""The table of runs: its rows and columns, with their units and digits.

Made once for each state of the index; 0.7 s for 5,000 runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from asr import metrics
from asr.runs import comparison, run_index, states
from asr.runs.run_index import RunRow

STATUS = {
    states.WAITING: "○ waiting",
    states.PREPARING: "● preparing",
    states.TRAINING: "● training",
    states.CHECKING: "● checking",
    states.EVALUATING: "● evaluating",
    states.FINISHED: "✓ finished",
    states.STOPPED: "■ stopped",
    states.FAILED: "✕ failed",
    states.REFUSED: "✕ refused",
    states.KILLED: "■ killed",
}
WER, INTERVAL, DELTA = "WER %", "95 % interval", "Δ WER points"
# Columns of test scores and of logged metrics: key of the value, and a factor for it.
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
ALWAYS_SHOWN = ("Run", "Status")
DEFAULT_SHOWN = (
    WER,
    INTERVAL,
    "CER %",
    "Validation WER %",
    "Revision",
    "Started",
    "Minutes",
    "Parameters",
    "RTFx",
)
DEFAULT_PARAMS = 5  # number of params that differ shown by default
HIDDEN_PARAMS = ("download.path", "stats.window_candidates_seconds")


@dataclass(frozen=True)
class RunTable:
    """All runs, with their columns.

    rows: the runs, newest first.
    frame: a row per run, a column per metric and per param that differs.
    differing: the params that differ between runs.
    constant: the other params, which have no column in `frame`.
    tested: indices of the runs that have a test WER.
    """

    rows: list[RunRow]
    frame: pd.DataFrame
    differing: list[str]
    constant: list[str]
    tested: list[int]


@st.cache_resource(max_entries=2, show_spinner="Reading the index")
def table(root: str, generation: str) -> RunTable:  # noqa: ARG001 (the cache key)
    """Read all runs; `generation` names the state of the index."""
    rows = run_index.rows()
    columns = metric_columns(rows)
    differing = [
        key
        for key in comparison.differing_params(rows)
        if key not in HIDDEN_PARAMS and key not in columns
    ]
    columns |= {key: param_column(rows, key) for key in differing}
    constant = dict.fromkeys(key for row in rows for key in row.params if key not in columns)
    tested = [index for index, wer in enumerate(columns[WER]) if not math.isnan(wer)]
    return RunTable(rows, pd.DataFrame(columns), differing, list(constant), tested)


def metric_columns(rows: list[RunRow]) -> dict[str, list[Any]]:
    """The columns that are not params."""
    columns: dict[str, list[Any]] = {
        "Run": [row.name for row in rows],
        "Status": [status(row) for row in rows],
        WER: [number(row.scores.get("wer"), 100) for row in rows],
        INTERVAL: [interval(row) for row in rows],
        "Revision": [", ".join(revision.name for revision in row.revisions) for row in rows],
        "Started": pd.to_datetime([row.start for row in rows], unit="s", utc=True, errors="coerce"),
        "Minutes": [number(row.seconds, 1 / 60) for row in rows],
        "Parameters": [number(row.parameters) for row in rows],
    }
    for name, (key, factor) in SCORES.items():
        columns[name] = [number(row.scores.get(key), factor) for row in rows]
    for name, (key, factor) in LOGGED.items():
        columns[name] = [number(row.metrics.get(key), factor) for row in rows]
    return columns


def interval(row: RunRow) -> str | None:
    """The 95 % interval of the test WER, in percent."""
    low = number(row.scores.get("wer_low"), 100)
    high = number(row.scores.get("wer_high"), 100)
    if math.isnan(low) or math.isnan(high):
        return None
    return f"{low:.2f} – {high:.2f}"


def number(value: Any, factor: float = 1) -> float:
    """A number times `factor`; NaN for any other value, which a damaged report may hold."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return math.nan
    return value * factor


def param_column(rows: list[RunRow], key: str) -> list[Any]:
    """One param of all runs: as numbers if all values are numbers, so that they sort; else text."""
    values = [row.params.get(key) for row in rows]
    types = {type(value) for value in values if value is not None}
    if types and types <= {int, float}:
        return [number(value) for value in values]
    return ["" if value is None else str(value) for value in values]


def status(row: RunRow) -> str:
    """The state in words; for a training that goes on with the steps done, if known."""
    word = STATUS[row.state.kind]
    if row.state.kind == states.TRAINING and row.state.step is not None and row.state.steps:
        return f"{word} {row.state.step:,} of {row.state.steps:,}"
    return word


def label(row: RunRow) -> str:
    """A name for lists and legends; a revision's name is added, because run names may repeat."""
    others = [revision.name for revision in row.revisions if revision.name != row.name]
    return f"{row.name} ({others[0]})" if others else row.name


def select_columns(runs: RunTable, names: list[str]) -> pd.DataFrame:
    """The columns with these names; columns of params that do not differ are made here."""
    constant = {name: param_column(runs.rows, name) for name in names if name in runs.constant}
    existing = runs.frame[[name for name in names if name in runs.frame]]
    return existing.assign(**constant)[names]


def deltas(rows: list[RunRow], indices: list[int], baseline: RunRow) -> list[float]:
    """WER minus the baseline's, in percentage points, of the runs at these indices.

    NaN for the baseline itself, and for runs that were tested on other recordings.
    """
    baseline_wer = number(baseline.scores.get("wer"), 100)
    result = []
    for row in (rows[index] for index in indices):
        comparable = row.test_hash == baseline.test_hash and row.key != baseline.key
        wer = number(row.scores.get("wer"), 100)
        result.append(wer - baseline_wer if comparable else math.nan)
    return result


def column_config(shown: pd.DataFrame) -> dict[str, Any]:
    """Digits and units of each column; the run's name stays visible when the table scrolls."""
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
    percents = [name for name in shown if name.endswith("%") and name not in config]
    return config | {name: st.column_config.NumberColumn(format="%.2f") for name in percents}
