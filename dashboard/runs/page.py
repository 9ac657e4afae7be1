"""Runs: every training with its scores, one pinned as baseline, and a few compared in detail.

The table comes from the index (`asr.runs.run_index`), which a process of its own keeps up to date.
A fragment tests every few seconds whether the index changed, and only then draws the page again.
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
from dashboard.runs.run_table import DELTA, STATUS, WER, RunTable, label

MAX_COMPARED = 8  # more lines could not be distinguished
DEFAULT_COMPARED = 4  # newest runs that are compared until some are selected
MAX_OFFERED = 300  # runs in the list of baselines
MIN_PROGRESS = 20  # with fewer items no progress bar is shown
BUSY_SECONDS, TRAINING_SECONDS, IDLE_SECONDS = 1.0, 2.0, 10.0  # between two tests of the index
ROW_PIXELS, HEAD_PIXELS, MAX_PIXELS = 35, 38, 460  # height of the table


def page() -> None:
    st.header("Runs")
    state = IndexState()
    runs = None
    try:
        state = run_index.state()
        if state.generation:
            runs = run_table.table(str(paths.root()), state.generation)
    except UserError as error:
        widgets.show_error(error)
    st.fragment(watch, run_every=refresh_seconds(state))(state.mark)
    if state.fault:
        widgets.show_error(UserError(state.fault))
    if runs and runs.rows:
        try:
            show_runs(runs, state)
        except UserError as error:
            widgets.show_error(error)
    elif state.made:
        widgets.empty_state(
            "No training yet. The first takes some minutes, and shows here while it runs.",
            "make repro",
        )


def refresh_seconds(state: IndexState) -> float:
    if state.phase or not state.made:
        return BUSY_SECONDS
    return TRAINING_SECONDS if state.running else IDLE_SECONDS


def watch(drawn_mark: str) -> None:
    """Refresh the index if it is stale, and draw the page again if it has changed.

    Args:
        drawn_mark: the mark of the index from which the page was drawn.
    """
    try:
        state = run_index.state()
        if run_index.is_stale(state):
            run_index.request_refresh()
    except UserError:
        run_index.request_refresh()
        return
    if state.mark != drawn_mark:
        st.rerun()
    show_progress(state)


def show_progress(state: IndexState) -> None:
    """Show the progress of the refresh of the index, if it takes long."""
    share = min(state.done / state.total, 1.0) if state.total else 0.0
    if not state.made or state.phase == "runs":
        st.progress(share, f"Reading MLflow's runs for the first time: {state.done:,}")
    elif state.phase and state.total > MIN_PROGRESS:
        st.progress(share, f"Reading {state.phase}: {state.done:,} of {state.total:,}")


def show_runs(runs: RunTable, state: IndexState) -> None:
    """Show the table, and the comparison of the selected runs."""
    show_summary(runs, state)
    indices, baseline, names = choose(runs)
    if not indices:
        widgets.empty_state("No run meets the filter.")
        return
    shown = run_table.select_columns(runs, names).iloc[indices].reset_index(drop=True)
    if baseline:
        position = names.index(WER) + 1 if WER in names else len(names)
        shown.insert(position, DELTA, run_table.deltas(runs.rows, indices, baseline))
    rows = [runs.rows[index] for index in indices]
    selected = select(rows, shown)
    compared = selected[:MAX_COMPARED] if selected else rows[:DEFAULT_COMPARED]
    if not selected:
        st.caption(f"Select rows to compare them; until then, the newest ({len(compared)}).")
    elif len(selected) > MAX_COMPARED:
        st.caption(f"Compared are the first {MAX_COMPARED} of {len(selected)} selected.")
    comparison.show_verdicts(compared, baseline)
    comparison.show_curves(compared, state)
    comparison.show_trade_offs(runs, indices, compared)
    comparison.show_differing_params(compared)
    comparison.show_command(compared)


def show_summary(runs: RunTable, state: IndexState) -> None:
    """Show how many trainings there are, and the best of them."""
    facts = ["1 training" if len(runs.rows) == 1 else f"{len(runs.rows):,} trainings"]
    if state.running:
        facts.append(f"{state.running} running")
    if runs.tested:
        best = runs.rows[int(runs.frame[WER].idxmin())]
        best_wer = formatting.percent(best.scores["wer"])
        facts.append(f"lowest test WER {best_wer} by {widgets.plain(label(best))}")
    st.caption(" · ".join(facts))


def choose(runs: RunTable) -> tuple[list[int], RunRow | None, list[str]]:
    """Ask for filter, baseline and columns.

    Returns:
        Indices of the rows that meet the filter, the baseline, names of the columns.
    """
    filter_box, status_box, baseline_box, columns_box = st.columns(
        [4, 3, 4, 1.4], vertical_alignment="bottom"
    )
    text = filter_box.text_input(
        "Filter", placeholder="name, revision, train.seed=2 …", key="runs_filter"
    )
    words = text.lower().split()
    statuses = status_box.pills(
        "Status",
        sorted({row.state.kind for row in runs.rows}),
        selection_mode="multi",
        format_func=lambda status: STATUS.get(status, widgets.plain(status)),
        key="runs_status",
    )
    indices = [index for index, row in enumerate(runs.rows) if matches(row, words, statuses)]
    with baseline_box:
        baseline = choose_baseline(runs, indices)
    with columns_box:
        names = choose_columns(runs)
    return indices, baseline, names


def matches(row: RunRow, words: list[str], statuses: list[str]) -> bool:
    """Whether a run has one of these statuses, and all words; an empty list matches every run."""
    if statuses and row.state.kind not in statuses:
        return False
    if not words:
        return True
    text = searched_text(row)
    return all(word in text for word in words)


def searched_text(row: RunRow) -> str:
    """What the filter searches: name, ids, revisions and params."""
    parts = [row.name, row.run_id or "", row.fingerprint or ""]
    parts += [revision.name for revision in row.revisions]
    parts += [revision.sha or "" for revision in row.revisions]
    parts += [f"{key}={value}" for key, value in row.params.items()]
    return " ".join(parts).lower()


def choose_baseline(runs: RunTable, indices: list[int]) -> RunRow | None:
    """Ask for the run to compare with, among the tested runs that meet the filter.

    A pinned run stays pinned, and in the list, even if it does not meet the filter.
    """
    tested = set(runs.tested)
    offered_indices = [index for index in indices if index in tested][:MAX_OFFERED]
    offered = {runs.rows[index].key: runs.rows[index] for index in offered_indices}
    pinned_key = st.session_state.get("runs_pinned")
    pinned = find_tested(runs, pinned_key) if pinned_key else None
    if pinned:
        offered.setdefault(pinned.key, pinned)
    keys = list(offered)
    help = f"The newest {MAX_OFFERED} that meet the filter; filter to find others."
    chosen = st.selectbox(
        "Baseline",
        keys,
        index=keys.index(pinned.key) if pinned else None,
        format_func=lambda key: label(offered[key]),
        placeholder="Pin a run to compare with",
        help=help if len(keys) >= MAX_OFFERED else None,
        key="runs_baseline",  # without a key, a choice made while a new run arrives is lost
    )
    st.session_state["runs_pinned"] = chosen
    return offered.get(chosen) if chosen else None


def find_tested(runs: RunTable, key: str) -> RunRow | None:
    """The tested run with this key; None if there is none."""
    for index in runs.tested:
        if runs.rows[index].key == key:
            return runs.rows[index]
    return None


def choose_columns(runs: RunTable) -> list[str]:
    """Ask which metrics and params to show; params that never differ are offered on request."""
    always = run_table.ALWAYS_SHOWN
    with st.popover("Columns", icon=":material/view_column:"):
        only_differing = st.toggle("Only params that differ", value=True, key="runs_narrow")
        hidden = {*always, *runs.differing}
        offered = [name for name in runs.frame.columns if name not in hidden]
        offered += runs.differing
        if not only_differing:
            offered += runs.constant
        default = [name for name in run_table.DEFAULT_SHOWN if runs.frame[name].notna().any()]
        default += runs.differing[: run_table.DEFAULT_PARAMS]
        chosen = st.multiselect(
            "Metrics and params", offered, default=default, key=f"runs_columns_{only_differing}"
        )
        return [*always, *chosen]


def select(rows: list[RunRow], shown: pd.DataFrame) -> list[RunRow]:
    """Show the table; return the selected runs.

    The selection is kept as keys of runs, not as row numbers, so it survives new and removed rows.
    """
    keys = [row.key for row in rows]
    before = set(st.session_state.get("runs_selected", ()))
    # Other rows need a new widget, whose selection is set here.
    widget_key = f"runs_table_{hashing.hash_of(keys)[:12]}"
    if widget_key not in st.session_state:
        selected = [index for index, key in enumerate(keys) if key in before]
        st.session_state[widget_key] = {"selection": {"rows": selected, "columns": [], "cells": []}}
    event = st.dataframe(
        shown,
        hide_index=True,
        key=widget_key,
        on_select="rerun",
        selection_mode="multi-row",
        column_config=run_table.column_config(shown),
        height=min(HEAD_PIXELS + ROW_PIXELS * len(shown), MAX_PIXELS),
        placeholder="–",
    )
    selected_rows = [rows[index] for index in event["selection"]["rows"] if index < len(rows)]
    filtered_out = before - set(keys)  # these stay selected
    st.session_state["runs_selected"] = [*filtered_out, *(row.key for row in selected_rows)]
    return selected_rows
