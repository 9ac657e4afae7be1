"""The table of runs: its rows and columns, with their units and digits.

Made once for each state of the index; 0.7 s for 5,000 runs.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from asr import metrics
from asr.runs import comparison, run_rows, states
from asr.runs.revisions import PUBLISHED
from asr.runs.run_rows import RunRow
from asr.runtime import formatting
from dashboard.runs import leaderboards, styles
from dashboard.runs.leaderboards import Test

SIGNS = {
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
ENDED_EARLY = (states.STOPPED, states.KILLED)
COLOR, RUN, STATE, WHY, STARTED = "Line", "Run", "Status", "Why", "Started"
WER, INTERVAL, DELTA = "WER %", "95 % interval", "Δ WER points"
BEST_WER, BEST_STEP, TEST = "Validation WER %, best", "Best step", "Test"
LEFT_OUT = "Left out %"
# Columns of test scores and of logged metrics: key of the value, and a factor for it.
SCORES = {
    "CER %": ("cer", 100),
    "raw WER %": ("wer_raw", 100),
    "RTFx": ("rtfx", 1),
    "Test utterances": ("rows", 1),
}
LOGGED = {
    "Validation WER %, last": (metrics.VALIDATION_WER, 100),
    "Validation loss": (metrics.VALIDATION_LOSS, 1),
    "Train loss": (metrics.TRAIN_LOSS, 1),
}
DEFAULT_SHOWN = (
    WER,
    INTERVAL,
    WHY,
    TEST,
    "CER %",
    BEST_WER,
    BEST_STEP,
    LEFT_OUT,
    "Revision",
    STARTED,
    "Minutes",
    "Parameters",
    "RTFx",
)
DEFAULT_PARAMS = 5  # number of params that differ shown by default
HIDDEN_PARAMS = ("download.path", "stats.window_candidates_seconds")
LABEL_DIGITS = 4  # of the fingerprint, where two runs have one name


@dataclass(frozen=True)
class RunTable:
    """All runs, with their columns.

    rows: the runs, newest first.
    labels: the name of each run by its key; no two are the same.
    ids: the runs by what the address calls them, or called them before they trained.
    frame: a row per run, a column per metric and per param that differs.
    filled: the columns in which any run has a value.
    differing: the params that differ between runs.
    constant: the other params, which have no column in `frame`.
    tests: the tests that runs were tested in, that of the most runs first.
    """

    rows: list[RunRow]
    labels: dict[str, str]
    ids: dict[str, RunRow]
    frame: pd.DataFrame
    filled: set[str]
    differing: list[str]
    constant: list[str]
    tests: list[Test]


@st.cache_resource(max_entries=2, show_spinner="Reading the index")
def table(root: str, generation: str) -> RunTable:  # noqa: ARG001 (the cache key)
    """Read all runs; `generation` names the state of the index."""
    return table_of(run_rows.rows())


def table_of(rows: list[RunRow]) -> RunTable:
    labels = labels_of(rows)
    tests = leaderboards.tests_of(rows)
    columns = {RUN: list(labels.values()), **metric_columns(rows)}
    if len(tests) > 1:
        columns[TEST] = leaderboards.test_names(rows, tests)
    differing = [
        key
        for key in comparison.differing_params(rows)
        if key not in HIDDEN_PARAMS and key not in columns
    ]
    columns |= {key: param_column(rows, key) for key in differing}
    constant = [key for key in comparison.param_names(rows) if key not in columns]
    frame = pd.DataFrame(columns)
    filled = {name for name in frame if frame[name].notna().any()}
    oldest_first = rows[::-1]  # of two with one id the newest counts
    ids = {key: row for row in oldest_first for key in row.former_keys}
    ids |= {id_of(row): row for row in oldest_first}
    return RunTable(rows, labels, ids, frame, filled, differing, constant, tests)


def id_of(row: RunRow) -> str:
    """What the address calls a run: it stays when a training gets its run in MLflow."""
    _, slash, test_number = row.key.partition("/")
    return f"{row.fingerprint}{slash}{test_number}" if row.fingerprint else row.key


def labels_of(rows: list[RunRow]) -> dict[str, str]:
    """A name for each run, by its key; none that comes later, or goes, changes it.

    The oldest training of a name has it alone, later ones with digits of their fingerprints.
    """
    owners: dict[str, str | None] = {}  # the fingerprint that has a name alone
    labels: dict[str, str] = {}
    taken: Counter[str] = Counter()
    for row in _oldest_first(rows):
        label = row.name
        owner = owners.setdefault(label, row.elder or row.fingerprint)
        if row.fingerprint and row.fingerprint != owner:
            label = f"{label} {row.fingerprint[:LABEL_DIGITS]}"
        taken[label] += 1  # twice, as a training that was tested twice
        labels[row.key] = f"{label} #{taken[label]}" if taken[label] > 1 else label
    return {row.key: labels[row.key] for row in rows}


def _oldest_first(rows: list[RunRow]) -> list[RunRow]:
    """Runs by what never changes of them; what has no training yet comes last.

    Those of revisions alone, whose begin nobody knows, are listed newest first.
    """

    def age(place: int) -> tuple[bool, bool, float, bool, int]:
        row = rows[place]
        is_second_test = "/" in row.key
        return not row.fingerprint, row.start is None, row.start or 0.0, is_second_test, -place

    return [rows[place] for place in sorted(range(len(rows)), key=age)]


def metric_columns(rows: list[RunRow]) -> dict[str, list[Any]]:
    """The columns that are not params."""
    columns: dict[str, list[Any]] = {
        COLOR: pd.Categorical([styles.swatch(styles.of(row)) for row in rows]),
        STATE: [state_text(row) for row in rows],
        WHY: [why(row) or None for row in rows],
        WER: [number(row.scores.get("wer"), 100) for row in rows],
        INTERVAL: [interval(row) for row in rows],
        BEST_WER: [number(row.best_wer, 100) for row in rows],
        BEST_STEP: [number(row.best_step) for row in rows],
        LEFT_OUT: [number(row.left_out or None, 100) for row in rows],
        "Revision": [", ".join(revision.name for revision in row.revisions) for row in rows],
        STARTED: pd.to_datetime([row.start for row in rows], unit="s", utc=True, errors="coerce"),
        "Minutes": [number(row.seconds, 1 / 60) for row in rows],
        "Parameters": [number(row.parameters) for row in rows],
    }
    for name, (key, factor) in SCORES.items():
        columns[name] = [number(row.scores.get(key), factor) for row in rows]
    for name, (key, factor) in LOGGED.items():
        columns[name] = [number(row.metrics.get(key), factor) for row in rows]
    return columns


def state_text(row: RunRow) -> str:
    """The state in words: how far a training is, where it ended, whether a check failed."""
    state = row.state
    if row.revisions and all(revision.kind == PUBLISHED for revision in row.revisions):
        return "◇ published"
    text = SIGNS[state.kind]
    if state.kind == states.TRAINING and state.step is not None and state.steps:
        share = formatting.percent(state.step / state.steps, 0)
        text += f" {state.step:,} of {state.steps:,} · {share}"
    elif state.kind in ENDED_EARLY and state.stage == states.TRAIN and state.step is not None:
        text += f" at step {state.step:,}"
    elif state.kind in (states.PREPARING, states.FAILED, *ENDED_EARLY) and state.stage:
        text += f" in {state.stage}"
    if row.failed_checks:
        text = text.replace("✓", "✕") + f", {failed_text(len(row.failed_checks))}"
    return text


def failed_text(count: int) -> str:
    return "1 check failed" if count == 1 else f"{count} checks failed"


def why(row: RunRow) -> str:
    """What a run failed of: its last line, and each check that failed."""
    checks = [f"{name}: {text}" if text else name for name, text in row.failed_checks.items()]
    return " · ".join(filter(None, [row.state.line, *checks]))


def interval(row: RunRow) -> str | None:
    """The 95 % interval of the test WER, in percent; without scores why there are none."""
    low = number(row.scores.get("wer_low"), 100)
    high = number(row.scores.get("wer_high"), 100)
    if math.isnan(low) or math.isnan(high):
        return row.untested or None
    return f"{low:.1f}–{high:.1f}"


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


def column_config(shown: pd.DataFrame, zone: str | None) -> dict[str, Any]:
    """Digits and units of each column; the run's name stays visible when the table scrolls.

    Args:
        zone: the reader's time zone; None if the browser does not tell.
    """
    column = st.column_config
    config: dict[str, Any] = {
        COLOR: column.ImageColumn("", width=40, pinned=True, help="its line in the charts"),
        RUN: column.TextColumn(pinned=True, width=140),
        STATE: column.TextColumn(width=180),
        WHY: column.TextColumn(width=260, help="the last line of a failure, checks that failed"),
        "Revision": column.TextColumn(
            width="medium", help="experiments, branches and commits that hold this model"
        ),
        STARTED: column.DatetimeColumn(
            f"Started, {'your time' if zone else 'UTC'}",
            format="YYYY-MM-DD HH:mm",
            timezone=zone,
            help=zone,
        ),
        "Minutes": column.NumberColumn(format="%.1f", help="time of the training"),
        "Parameters": column.NumberColumn(format="compact", help="weights of the model"),
        "RTFx": column.NumberColumn(format="%.0f", help="seconds of audio decoded in one second"),
        "Test utterances": column.NumberColumn(format="%d"),
        BEST_WER: column.NumberColumn(format="%.1f", help="of the weights that are kept"),
        BEST_STEP: column.NumberColumn(format="localized", help="the step of these weights"),
        LEFT_OUT: column.NumberColumn(
            format="%.1f", help="of the training rows, by the training: longer than its window, …"
        ),
        INTERVAL: column.TextColumn(width=120, help="of the test WER, in percent"),
        DELTA: column.NumberColumn(
            format="%+.2f", help="test WER less the baseline's, on the same recordings"
        ),
    }
    percents = [name for name in shown if "%" in name and name not in config]
    return config | {name: column.NumberColumn(format="%.1f") for name in percents}
