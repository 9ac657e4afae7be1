"""Runs: every training with its scores, one pinned to compare with; curves, speed and size, and the command that repeats one.

The table comes from the index (`asr.runs`), which a process of its own keeps up to date. A pulse looks every other second whether
the index changed, and only then is the page drawn again.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import streamlit as st

from asr import compare, files, params, runs
from asr.faults import Fault
from asr.runs import Row, State
from asr.wer import Difference
from dashboard import charts, parts

STATUS = {"FINISHED": "✓ finished", "RUNNING": "● running", "KILLED": "■ killed", "FAILED": "✕ failed", "SCHEDULED": "○ waiting"}
SCORES = {
    "WER %": ("wer", 100),
    "CER %": ("cer", 100),
    "low %": ("wer_low", 100),
    "high %": ("wer_high", 100),
    "raw WER %": ("wer_raw", 100),
    "RTFx": ("rtfx", 1),
    "Test rows": ("rows", 1),
}
LOGGED = {"Validation WER %": ("validation/wer", 100), "Validation loss": ("validation/loss", 1), "Train loss": ("train/loss", 1)}
FIRST = ("Status", "Run", "Revision", "Started")
DEFAULT = ("WER %", "low %", "high %", "Validation WER %", "Minutes", "Parameters", "RTFx")
DELTA = "Δ WER points"
SHOWN_PARAMS = 5  # that differ, until one chooses
NOT_TOLD = ("download.path", "stats.window_candidates_seconds")
COMPARED = 8  # lines that an eye can tell apart
NEWEST = 4  # compared until one chooses


def page() -> None:
    st.header("Runs")
    try:
        now = runs.state()
        rows = table(str(files.root()), now.generation)[0] if now.made or now.generation else []
    except Fault as error:
        now, rows = State(), []
        parts.fault(error)
    st.fragment(pulse, run_every=1.0 if now.phase or not now.made else 2.0 if now.running else 10.0)(now.mark)
    if now.fault:
        parts.fault(Fault(now.fault))
    if rows:
        body(rows, now)
    elif now.made:
        parts.empty("No training yet. The first takes some minutes, and shows here while it runs.", "make repro")


def pulse(drawn: str) -> None:
    """Have the index refreshed where something changed, say how that goes, and draw the page again once it is."""
    try:
        now = runs.state()
        if runs.is_stale(now):
            runs.ask()
    except Fault:
        runs.ask()
        return
    if now.mark != drawn:
        st.rerun()
    if not now.made or now.phase == "runs":
        st.progress(0.0 if not now.total else min(now.done / now.total, 1.0), f"Reading MLflow's runs for the first time: {now.done:,}")
    elif now.phase and now.total > 20:
        st.progress(min(now.done / now.total, 1.0), f"Reading {now.phase}: {now.done:,} of {now.total:,}")


@st.cache_resource(max_entries=2, show_spinner="Reading the index")
def table(root: str, generation: str) -> tuple[list[Row], pd.DataFrame, list[str]]:  # noqa: ARG001 (they name what is cached)
    """All rows, all their columns, and the params that differ; made once for each state of the index."""
    rows = runs.rows()
    columns: dict[str, list[Any]] = {
        "Status": [status(row) for row in rows],
        "Run": [row.name for row in rows],
        "Revision": [", ".join(one.name for one in row.revisions) for row in rows],
        "Started": pd.to_datetime([row.start for row in rows], unit="s", utc=True, errors="coerce"),
        "Minutes": [number(row.seconds, 1 / 60) for row in rows],
        "Parameters": [number(row.parameters) for row in rows],
    }
    for name, (key, factor) in SCORES.items():
        columns[name] = [number(row.scores.get(key), factor) for row in rows]
    for name, (key, factor) in LOGGED.items():
        columns[name] = [number(row.metrics.get(key), factor) for row in rows]
    keys = dict.fromkeys(key for row in rows for key in row.params)
    columns |= {key: column([row.params.get(key) for row in rows]) for key in keys if key not in columns}
    differing = [key for key in compare.differing(rows) if key not in NOT_TOLD]
    return rows, pd.DataFrame(columns), differing


def number(value: Any, factor: float = 1) -> float:
    """A number, or none: what a damaged report holds in its place is not shown."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value * factor if usable else math.nan


def column(values: list[Any]) -> list[Any]:
    """One param of all runs: numbers stay numbers, so that they sort; in mixed company all become text."""
    given = [value for value in values if value is not None]
    if given and all(isinstance(value, int | float) and not isinstance(value, bool) for value in given):
        return [number(value) for value in values]
    return ["" if value is None else str(value) for value in values]


def status(row: Row) -> str:
    """In words; how far a running one is, where its curve tells."""
    word = STATUS.get(row.status, row.status.lower())
    last = max((step for points in (runs.curves(row) or {}).values() for step, _ in points), default=0) if row.status == runs.RUNNING else 0
    steps = number(row.params.get("train.max_steps"))
    return f"{word} {last / steps:.0%}" if last and steps > 0 else word


def label(row: Row) -> str:
    """A name for lists and legends; revisions tell apart what MLflow calls alike."""
    others = [one.name for one in row.revisions if one.name != row.name]
    return f"{row.name} ({others[0]})" if others else row.name


def body(rows: list[Row], now: State) -> None:
    _, frame, differing = table(str(files.root()), now.generation)
    summary(rows, now)
    places, baseline, names = choose(rows, frame, differing)
    if not places:
        parts.empty("No run meets the filter.")
        return
    shown = frame.iloc[places].reset_index(drop=True)[names]
    if baseline:
        shown.insert(names.index("WER %") + 1 if "WER %" in names else len(names), DELTA, deltas(rows, places, baseline))
    chosen = select([rows[place] for place in places], shown)
    compared = (chosen or [rows[place] for place in places[:NEWEST]])[:COMPARED]
    if not chosen:
        st.caption(f"Select rows to compare; until then, the {len(compared)} newest.")
    elif len(chosen) > COMPARED:
        st.caption(f"Compared are the first {COMPARED} of {len(chosen)} selected.")
    verdicts(compared, baseline)
    curves(compared, now)
    trade_offs([rows[place] for place in places], compared)
    differences(compared)
    reproduce(compared)


def summary(rows: list[Row], now: State) -> None:
    """How many there are, the best, and how old the page is."""
    scored = [row for row in rows if not math.isnan(number(row.scores.get("wer")))]
    told = [f"{len(rows):,} trainings" if len(rows) != 1 else "1 training"]
    if now.running:
        told.append(f"{now.running} running")
    if scored:
        best = min(scored, key=lambda row: row.scores["wer"])
        told.append(f"lowest test WER {parts.percent(best.scores['wer'])} by {parts.plain(label(best))}")
    st.caption(" · ".join(told))


def choose(rows: list[Row], frame: pd.DataFrame, differing: list[str]) -> tuple[list[int], Row | None, list[str]]:
    """The filter, the baseline and the columns: places of the rows that stay, the pinned row, column names."""
    words, states, pin = st.columns([3, 3, 3], vertical_alignment="bottom")
    wanted = words.text_input("Filter", placeholder="name, revision, train.seed=2 …", key="runs_filter").lower().split()
    kinds = sorted({row.status for row in rows}, key=list(STATUS).index if {row.status for row in rows} <= set(STATUS) else str)
    only = states.pills(
        "Status", kinds, selection_mode="multi", format_func=lambda kind: STATUS.get(kind, parts.plain(kind)), key="runs_status"
    )
    scored = {row.key: row for row in rows if not math.isnan(number(row.scores.get("wer")))}
    if st.session_state.get("runs_baseline") not in scored:
        st.session_state.pop("runs_baseline", None)
    pinned = pin.selectbox(
        "Baseline",
        list(scored),
        index=None,
        format_func=lambda key: label(scored[key]),
        placeholder="Pin a run to compare with",
        key="runs_baseline",
    )
    with st.popover("Columns", icon=":material/view_column:"):
        narrow = st.toggle("Only params that differ", value=True, key="runs_narrow")
        found = [name for name in frame.columns if name not in FIRST]
        named = [name for name in found if name not in rows[0].params or not narrow or name in differing]
        default = [name for name in DEFAULT if name in named and frame[name].notna().any()] + [name for name in differing if name in named][
            :SHOWN_PARAMS
        ]
        columns = st.multiselect("Metrics and params", named, default=default, key=f"runs_columns_{narrow}")
    places = [place for place, row in enumerate(rows) if (not only or row.status in only) and all(word in haystack(row) for word in wanted)]
    return places, scored.get(pinned) if pinned else None, [*FIRST, *columns]


def haystack(row: Row) -> str:
    """What the filter searches."""
    found = [
        row.name,
        row.run_id or "",
        row.fingerprint or "",
        *(one.name for one in row.revisions),
        *(one.sha or "" for one in row.revisions),
    ]
    return " ".join([*found, *(f"{key}={value}" for key, value in row.params.items())]).lower()


def deltas(rows: list[Row], places: list[int], baseline: Row) -> list[float]:
    """Points of WER against the baseline; none where the test was another."""
    base = number(baseline.scores.get("wer"), 100)
    return [
        number(rows[place].scores.get("wer"), 100) - base if rows[place].test_hash == baseline.test_hash else math.nan for place in places
    ]


def select(rows: list[Row], shown: pd.DataFrame) -> list[Row]:
    """The table; a selection is of runs, and stays with them when rows come and go."""
    keys = [row.key for row in rows]
    kept = set(st.session_state.get("runs_selected", ()))
    widget = f"runs_table_{files.hash_of(keys)[:12]}"
    if widget not in st.session_state:
        st.session_state[widget] = {
            "selection": {"rows": [place for place, key in enumerate(keys) if key in kept], "columns": [], "cells": []}
        }
    event = st.dataframe(
        shown,
        hide_index=True,
        key=widget,
        on_select="rerun",
        selection_mode="multi-row",
        column_config=formats(shown),
        height=min(38 + 35 * len(shown), 460),
        placeholder="–",
    )
    chosen = [rows[place] for place in event["selection"]["rows"] if place < len(rows)]
    st.session_state["runs_selected"] = [row.key for row in chosen]
    return chosen


def formats(shown: pd.DataFrame) -> dict[str, Any]:
    """Digits and units of each column; the name stays in sight."""
    config: dict[str, Any] = {
        "Status": st.column_config.TextColumn(width=110),
        "Run": st.column_config.TextColumn(pinned=True, width="medium"),
        "Started": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
        "Minutes": st.column_config.NumberColumn("Minutes", format="%.1f", help="time of the training"),
        "Parameters": st.column_config.NumberColumn(format="compact", help="weights of the model"),
        "RTFx": st.column_config.NumberColumn(format="%.0f", help="seconds of audio decoded in one second"),
        "Test rows": st.column_config.NumberColumn(format="%d"),
        "low %": st.column_config.NumberColumn("WER low %", format="%.2f", help="95 % interval of the test WER"),
        "high %": st.column_config.NumberColumn("WER high %", format="%.2f", help="95 % interval of the test WER"),
        DELTA: st.column_config.NumberColumn(format="%+.2f", help="test WER less the baseline's, on the same recordings"),
    }
    return config | {name: st.column_config.NumberColumn(format="%.2f") for name in shown if name.endswith("%") and name not in config}


@st.cache_resource(max_entries=1000, show_spinner="Comparing utterance by utterance")
def verdict(ours: str, theirs: str, stamp: str, _pair: tuple[Row, Row]) -> Difference | str:  # noqa: ARG001 (they name what is cached)
    """The paired difference, or why there is none."""
    try:
        return compare.paired(*_pair)
    except Fault as error:
        return str(error)


def verdicts(compared: list[Row], baseline: Row | None) -> None:
    """Each compared run against the pinned one."""
    if baseline is None:
        return
    st.subheader("Against the baseline")
    st.caption(f"{parts.plain(label(baseline))}: test WER {parts.percent(baseline.scores.get('wer'), 2)}")
    lines = [line for row in compared if row.key != baseline.key for line in [verdict_line(row, baseline)]]
    if not lines:
        st.caption("Select another run to compare with it.")
        return
    st.dataframe(pd.DataFrame(lines), hide_index=True, placeholder="–", column_config=VERDICTS)


VERDICTS = {
    "WER %": st.column_config.NumberColumn(format="%.2f"),
    DELTA: st.column_config.NumberColumn(format="%+.2f"),
    "from": st.column_config.NumberColumn(format="%+.2f", help="95 % interval of the difference, by paired bootstrap"),
    "to": st.column_config.NumberColumn(format="%+.2f", help="95 % interval of the difference, by paired bootstrap"),
}


def verdict_line(row: Row, baseline: Row) -> dict[str, Any]:
    stamp = f"{row.test_hash} {row.scores.get('wer')} {baseline.test_hash} {baseline.scores.get('wer')}"
    found = verdict(row.key, baseline.key, f"{files.root()} {stamp}", (row, baseline))
    line: dict[str, Any] = {"Run": label(row), "WER %": number(row.scores.get("wer"), 100)}
    if isinstance(found, str):
        return line | {DELTA: math.nan, "from": math.nan, "to": math.nan, "Verdict": found, "Drawn by": ""}
    interval = {"from": 100 * found.low, "to": 100 * found.high}
    return line | {DELTA: 100 * found.difference, **interval, "Verdict": found.verdict, "Drawn by": found.unit}


def curves(compared: list[Row], now: State) -> None:
    """WER, loss and learning rate over the steps."""
    found = {row.key: runs.curves(row) for row in compared}
    missing = tuple(row.run_id for row in compared if found[row.key] is None and row.run_id)
    if missing and not now.fault:
        runs.ask(missing)
    lines = [
        {"run": name, "metric": metric, "step": step, "value": value * (100 if metric.endswith("wer") else 1)}
        for row, name in zip(compared, distinct(compared), strict=True)
        for metric, points in (found[row.key] or {}).items()
        for step, value in points
        if math.isfinite(value)
    ]
    st.subheader("While training")
    if not lines:
        st.caption("The curves are being read." if missing and not now.fault else "These runs have no curves.")
        return
    charts.curves(pd.DataFrame(lines))


def distinct(rows: list[Row]) -> list[str]:
    """Labels, numbered where two are alike."""
    seen: dict[str, int] = {}
    names = []
    for name in map(label, rows):
        seen[name] = seen.get(name, 0) + 1
        names.append(f"{name} #{seen[name]}" if seen[name] > 1 else name)
    return names


def trade_offs(rows: list[Row], compared: list[Row]) -> None:
    """Test WER against what it costs."""
    marked = {row.key for row in compared}
    points = [
        {
            "run": label(row),
            "wer": number(row.scores.get("wer"), 100),
            "minutes": number(row.seconds, 1 / 60),
            "parameters": number(row.parameters),
            "rtfx": number(row.scores.get("rtfx")),
            "compared": row.key in marked,
        }
        for row in rows
        if not math.isnan(number(row.scores.get("wer")))
    ]
    if not points:
        return
    st.subheader("What it costs")
    charts.trade_offs(pd.DataFrame(points[: charts.MOST]))
    if len(points) > charts.MOST:
        st.caption(f"The {charts.MOST:,} newest of {len(points):,}.")


def differences(compared: list[Row]) -> None:
    """The params that differ among the compared, side by side."""
    keys = compare.differing(compared)
    if len(compared) < 2:
        return
    st.subheader("Params that differ")
    if not keys:
        st.caption("None: these runs have the same params.")
        return
    columns = {name: [str(row.params.get(key, "–")) for key in keys] for name, row in zip(distinct(compared), compared, strict=True)}
    st.dataframe(pd.DataFrame({"Param": keys, **columns}), hide_index=True)


def reproduce(compared: list[Row]) -> None:
    """The command that repeats one of the compared runs."""
    st.subheader("Run it again")
    names = distinct(compared)
    place = st.selectbox("Of", range(len(compared)), format_func=lambda at: names[at], key="runs_again") if len(compared) > 1 else 0
    try:
        here = params.flat(params.load(files.root() / "params.yaml").model_dump())
    except Fault as error:
        parts.fault(error)
        return
    told, unknown = compare.commands(compared[place or 0], here)
    st.code(told, language="bash", wrap_lines=True)
    if unknown:
        st.caption(f"Left out, for this workspace does not know them: {parts.plain(', '.join(unknown[:20]))}")
