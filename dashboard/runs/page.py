"""Runs: every training with its scores, one pinned to compare with; curves, speed and size, and the
command that repeats one.

The table comes from the index (`asr.runs.run_index`), which a process of its own keeps up to date.
A pulse looks every other second whether the index changed, and only then is the page drawn again.
"""

from __future__ import annotations

import pandas as pd
import streamlit as st

from asr import paths
from asr.errors import UserError
from asr.runs import run_index
from asr.runs.run_index import IndexState, RunRow
from asr.runtime import formatting
from asr.storage import hashing
from dashboard import widgets
from dashboard.runs import comparison, run_table
from dashboard.runs.run_table import (
    ALWAYS,
    DEFAULT,
    DELTA,
    SHOWN_PARAMS,
    STATUS,
    Table,
    columns,
    deltas,
    label,
)

COMPARED = 8  # lines that an eye can tell apart
NEWEST = 4  # compared until one chooses
OFFERED = 300  # runs in the list of baselines


def page() -> None:
    st.header("Runs")
    now, found = IndexState(), None
    try:
        now = run_index.state()
        found = run_table.table(str(paths.root()), now.generation) if now.generation else None
    except UserError as error:
        widgets.fault(error)
    st.fragment(
        pulse, run_every=1.0 if now.phase or not now.made else 2.0 if now.running else 10.0
    )(now.mark)
    if now.fault:
        widgets.fault(UserError(now.fault))
    if found and found.rows:
        try:
            body(found, now)
        except UserError as error:
            widgets.fault(error)
    elif now.made:
        widgets.empty(
            "No training yet. The first takes some minutes, and shows here while it runs.",
            "make repro",
        )


def pulse(drawn: str) -> None:
    """Have the index refreshed where something changed, say how that goes, and draw the page again
    once it is.
    """
    try:
        now = run_index.state()
        if run_index.is_stale(now):
            run_index.request_refresh()
    except UserError:
        run_index.request_refresh()
        return
    if now.mark != drawn:
        st.rerun()
    if not now.made or now.phase == "runs":
        st.progress(
            0.0 if not now.total else min(now.done / now.total, 1.0),
            f"Reading MLflow's runs for the first time: {now.done:,}",
        )
    elif now.phase and now.total > 20:
        st.progress(
            min(now.done / now.total, 1.0), f"Reading {now.phase}: {now.done:,} of {now.total:,}"
        )


def body(found: Table, now: IndexState) -> None:
    rows = found.rows
    summary(found, now)
    places, baseline, names = choose(found)
    if not places:
        widgets.empty("No run meets the filter.")
        return
    shown = columns(found, names).iloc[places].reset_index(drop=True)
    if baseline:
        shown.insert(
            names.index("WER %") + 1 if "WER %" in names else len(names),
            DELTA,
            deltas(rows, places, baseline),
        )
    chosen = select([rows[place] for place in places], shown)
    compared = (chosen or [rows[place] for place in places[:NEWEST]])[:COMPARED]
    if not chosen:
        st.caption(f"Select rows to compare them; until then, the newest ({len(compared)}).")
    elif len(chosen) > COMPARED:
        st.caption(f"Compared are the first {COMPARED} of {len(chosen)} selected.")
    comparison.verdicts(compared, baseline)
    comparison.curves(compared, now)
    comparison.trade_offs(found, places, compared)
    comparison.differences(compared)
    comparison.reproduce(compared)


def summary(found: Table, now: IndexState) -> None:
    """How many there are, and the best."""
    told = [f"{len(found.rows):,} trainings" if len(found.rows) != 1 else "1 training"]
    if now.running:
        told.append(f"{now.running} running")
    if found.scored:
        best = found.rows[int(found.frame["WER %"].idxmin())]
        told.append(
            f"lowest test WER {formatting.percent(best.scores['wer'])} by {widgets.plain(label(best))}"
        )
    st.caption(" · ".join(told))


def choose(found: Table) -> tuple[list[int], RunRow | None, list[str]]:
    """The filter, the baseline and the columns: places of the rows that stay, the pinned row,
    column names.
    """
    words, states, pin, more = st.columns([4, 3, 4, 1.4], vertical_alignment="bottom")
    wanted = (
        words.text_input("Filter", placeholder="name, revision, train.seed=2 …", key="runs_filter")
        .lower()
        .split()
    )
    kinds = sorted({row.status for row in found.rows})
    only = states.pills(
        "Status",
        kinds,
        selection_mode="multi",
        format_func=lambda kind: STATUS.get(kind, widgets.plain(kind)),
        key="runs_status",
    )
    places = [
        place
        for place, row in enumerate(found.rows)
        if (not only or row.status in only)
        and (not wanted or all(word in haystack(row) for word in wanted))
    ]
    with pin:
        baseline = choose_baseline(found, places)
    with more:
        return places, baseline, choose_columns(found)


def choose_baseline(found: Table, places: list[int]) -> RunRow | None:
    """The pinned run; the list is of what the filter leaves."""
    tested, pinned = set(found.scored), st.session_state.get("runs_pinned")
    offered = {
        found.rows[place].key: found.rows[place]
        for place in [place for place in places if place in tested][:OFFERED]
    }
    kept = (
        next((found.rows[place] for place in found.scored if found.rows[place].key == pinned), None)
        if pinned
        else None
    )
    if kept:
        offered.setdefault(kept.key, kept)
    keys = list(offered)
    chosen = st.selectbox(
        "Baseline",
        keys,
        index=keys.index(kept.key) if kept else None,
        format_func=lambda key: label(offered[key]),
        placeholder="Pin a run to compare with",
        help=None
        if len(keys) < OFFERED
        else f"The newest {OFFERED} that meet the filter; filter to find others.",
        key="runs_baseline",  # without one, a choice made while a new run arrives is lost
    )
    st.session_state["runs_pinned"] = chosen
    return offered.get(chosen) if chosen else None


def choose_columns(found: Table) -> list[str]:
    """Metrics and params to show; params that are the same everywhere only on request."""
    with st.popover("Columns", icon=":material/view_column:"):
        narrow = st.toggle("Only params that differ", value=True, key="runs_narrow")
        metrics = [
            name
            for name in found.frame.columns
            if name not in ALWAYS and name not in found.differing
        ]
        named = [*metrics, *found.differing, *(() if narrow else found.others)]
        default = [name for name in DEFAULT if found.frame[name].notna().any()] + found.differing[
            :SHOWN_PARAMS
        ]
        return [
            *ALWAYS,
            *st.multiselect(
                "Metrics and params", named, default=default, key=f"runs_columns_{narrow}"
            ),
        ]


def haystack(row: RunRow) -> str:
    """What the filter searches."""
    found = [
        row.name,
        row.run_id or "",
        row.fingerprint or "",
        *(one.name for one in row.revisions),
        *(one.sha or "" for one in row.revisions),
    ]
    return " ".join([*found, *(f"{key}={value}" for key, value in row.params.items())]).lower()


def select(rows: list[RunRow], shown: pd.DataFrame) -> list[RunRow]:
    """The table; a selection is of runs, and stays with them when rows come and go."""
    keys = [row.key for row in rows]
    kept = set(st.session_state.get("runs_selected", ()))
    widget = f"runs_table_{hashing.hash_of(keys)[:12]}"
    if widget not in st.session_state:
        st.session_state[widget] = {
            "selection": {
                "rows": [place for place, key in enumerate(keys) if key in kept],
                "columns": [],
                "cells": [],
            }
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
    st.session_state["runs_selected"] = [
        *(kept - set(keys)),
        *(row.key for row in chosen),
    ]  # what the filter hides stays selected
    return chosen
