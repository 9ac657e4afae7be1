"""Runs: every training with its scores, one pinned to compare with; curves, speed and size, and the command that repeats one.

The table comes from the index (`asr.runs`), which a process of its own keeps up to date. A pulse looks every other second whether
the index changed, and only then is the page drawn again.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from asr import compare, files, runs
from asr.faults import Fault
from asr.runs import Row, State
from asr.wer import Difference
from dashboard import charts, parts, run_table
from dashboard.run_table import ALWAYS, DEFAULT, DELTA, SHOWN_PARAMS, STATUS, Table, columns, deltas, label

COMPARED = 8  # lines that an eye can tell apart
NEWEST = 4  # compared until one chooses
OFFERED = 300  # runs in the list of baselines
INTERVAL = "95 % interval"


def page() -> None:
    st.header("Runs")
    now, found = State(), None
    try:
        now = runs.state()
        found = run_table.table(str(files.root()), now.generation) if now.generation else None
    except Fault as error:
        parts.fault(error)
    st.fragment(pulse, run_every=1.0 if now.phase or not now.made else 2.0 if now.running else 10.0)(now.mark)
    if now.fault:
        parts.fault(Fault(now.fault))
    if found and found.rows:
        try:
            body(found, now)
        except Fault as error:
            parts.fault(error)
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


def body(found: Table, now: State) -> None:
    rows = found.rows
    summary(found, now)
    places, baseline, names = choose(found)
    if not places:
        parts.empty("No run meets the filter.")
        return
    shown = columns(found, names).iloc[places].reset_index(drop=True)
    if baseline:
        shown.insert(names.index("WER %") + 1 if "WER %" in names else len(names), DELTA, deltas(rows, places, baseline))
    chosen = select([rows[place] for place in places], shown)
    compared = (chosen or [rows[place] for place in places[:NEWEST]])[:COMPARED]
    if not chosen:
        st.caption(f"Select rows to compare them; until then, the newest ({len(compared)}).")
    elif len(chosen) > COMPARED:
        st.caption(f"Compared are the first {COMPARED} of {len(chosen)} selected.")
    verdicts(compared, baseline)
    curves(compared, now)
    trade_offs(found, places, compared)
    differences(compared)
    reproduce(compared)


def summary(found: Table, now: State) -> None:
    """How many there are, and the best."""
    told = [f"{len(found.rows):,} trainings" if len(found.rows) != 1 else "1 training"]
    if now.running:
        told.append(f"{now.running} running")
    if found.scored:
        best = found.rows[int(found.frame["WER %"].idxmin())]
        told.append(f"lowest test WER {parts.percent(best.scores['wer'])} by {parts.plain(label(best))}")
    st.caption(" · ".join(told))


def choose(found: Table) -> tuple[list[int], Row | None, list[str]]:
    """The filter, the baseline and the columns: places of the rows that stay, the pinned row, column names."""
    words, states, pin, more = st.columns([4, 3, 4, 1.4], vertical_alignment="bottom")
    wanted = words.text_input("Filter", placeholder="name, revision, train.seed=2 …", key="runs_filter").lower().split()
    kinds = sorted({row.status for row in found.rows})
    only = states.pills(
        "Status", kinds, selection_mode="multi", format_func=lambda kind: STATUS.get(kind, parts.plain(kind)), key="runs_status"
    )
    places = [
        place
        for place, row in enumerate(found.rows)
        if (not only or row.status in only) and (not wanted or all(word in haystack(row) for word in wanted))
    ]
    with pin:
        baseline = choose_baseline(found, places)
    with more:
        return places, baseline, choose_columns(found)


def choose_baseline(found: Table, places: list[int]) -> Row | None:
    """The pinned run; the list is of what the filter leaves."""
    tested, pinned = set(found.scored), st.session_state.get("runs_pinned")
    offered = {found.rows[place].key: found.rows[place] for place in [place for place in places if place in tested][:OFFERED]}
    kept = next((found.rows[place] for place in found.scored if found.rows[place].key == pinned), None) if pinned else None
    if kept:
        offered.setdefault(kept.key, kept)
    keys = list(offered)
    chosen = st.selectbox(
        "Baseline",
        keys,
        index=keys.index(kept.key) if kept else None,
        format_func=lambda key: label(offered[key]),
        placeholder="Pin a run to compare with",
        help=None if len(keys) < OFFERED else f"The newest {OFFERED} that meet the filter; filter to find others.",
        key="runs_baseline",  # without one, a choice made while a new run arrives is lost
    )
    st.session_state["runs_pinned"] = chosen
    return offered.get(chosen) if chosen else None


def choose_columns(found: Table) -> list[str]:
    """Metrics and params to show; params that are the same everywhere only on request."""
    with st.popover("Columns", icon=":material/view_column:"):
        narrow = st.toggle("Only params that differ", value=True, key="runs_narrow")
        metrics = [name for name in found.frame.columns if name not in ALWAYS and name not in found.differing]
        named = [*metrics, *found.differing, *(() if narrow else found.others)]
        default = [name for name in DEFAULT if found.frame[name].notna().any()] + found.differing[:SHOWN_PARAMS]
        return [*ALWAYS, *st.multiselect("Metrics and params", named, default=default, key=f"runs_columns_{narrow}")]


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
        column_config=run_table.formats(shown),
        height=min(38 + 35 * len(shown), 460),
        placeholder="–",
    )
    chosen = [rows[place] for place in event["selection"]["rows"] if place < len(rows)]
    st.session_state["runs_selected"] = [*(kept - set(keys)), *(row.key for row in chosen)]  # what the filter hides stays selected
    return chosen


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
    st.table(pd.DataFrame(lines).set_index("Run"))


VERDICT = {"better": "▼ better", "worse": "▲ worse", "not distinguishable": "≈ not distinguishable"}


def verdict_line(row: Row, baseline: Row) -> dict[str, str]:
    """Short enough for a table of text, which people hear as well as see."""
    stamp = f"{row.test_hash} {row.scores.get('wer')} {baseline.test_hash} {baseline.scores.get('wer')}"
    found = verdict(row.key, baseline.key, f"{files.root()} {stamp}", (row, baseline))
    line = {"Run": parts.plain(label(row)), "test WER": parts.percent(row.scores.get("wer"), 2)}
    if isinstance(found, str):
        return {**line, DELTA: "–", INTERVAL: "–", "Verdict": parts.plain(found), "Drawn by": "–"}
    points, interval = f"{100 * found.difference:+.2f}", f"{100 * found.low:+.2f} … {100 * found.high:+.2f}"
    return {**line, DELTA: points, INTERVAL: interval, "Verdict": VERDICT.get(found.verdict, found.verdict), "Drawn by": found.unit}


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


def trade_offs(found: Table, places: list[int], compared: list[Row]) -> None:
    """Test WER against what it costs."""
    shown = found.frame.iloc[places]
    tested = shown[shown["WER %"].notna()]
    some = tested[: charts.MOST]
    if some.empty:
        return
    colours = {row.key: colour for row, colour in zip(compared, charts.COLOURS, strict=False)}
    rows = [found.rows[place] for place in some.index]
    points = some[["WER %", "Minutes", "Parameters", "RTFx"]].set_axis(["wer", "minutes", "parameters", "rtfx"], axis=1)
    st.subheader("What it costs")
    charts.trade_offs(points.assign(run=[label(row) for row in rows], colour=[colours.get(row.key, charts.OTHER) for row in rows]))
    if len(tested) > len(some):
        st.caption(f"The {len(some):,} newest of {len(tested):,}.")


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


@st.cache_resource(max_entries=1, show_spinner=False)
def own_params(file: str, changed: int) -> dict[str, Any]:  # noqa: ARG001 (it names what is cached)
    """The workspace's params, flat; reading YAML costs 30 ms, and the import more, which the table does not wait for."""
    from asr import params

    return params.flat(params.load(Path(file)).model_dump())


def reproduce(compared: list[Row]) -> None:
    """The command that repeats one of the compared runs."""
    st.subheader("Run it again")
    names = distinct(compared)
    place = st.selectbox("Of", range(len(compared)), format_func=lambda at: names[at], key="runs_again") if len(compared) > 1 else 0
    try:
        file = files.root() / "params.yaml"
        here = own_params(str(file), file.stat().st_mtime_ns if file.is_file() else 0)
    except Fault as error:
        parts.fault(error)
        return
    told, unknown = compare.commands(compared[place or 0], here)
    st.code(told, language="bash", wrap_lines=True)
    if unknown:
        st.caption(f"Left out, for this workspace does not know them: {parts.plain(', '.join(unknown[:20]))}")
