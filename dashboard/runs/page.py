"""Runs: the best of each test, every training with its scores, and a few compared in detail.

The table comes from the index (`asr.runs.run_index`), which a process of its own keeps up to date.
A fragment tests every few seconds whether the index changed, and only then draws the page again.
"""

from __future__ import annotations

from collections import Counter

import pandas as pd
import streamlit as st

from asr import paths
from asr.errors import UserError
from asr.runs import run_index, states
from asr.runs.run_index import IndexState
from asr.runs.run_rows import RunRow
from asr.runtime import formatting
from asr.storage import hashing
from dashboard import address, index, widgets
from dashboard.runs import comparison, controls, run_table
from dashboard.runs.leaderboards import Test
from dashboard.runs.run_table import DELTA, INTERVAL, WER, RunTable

MAX_COMPARED = 8  # more lines could not be distinguished
DEFAULT_COMPARED = 4  # runs that are compared until some are ticked
MAX_TESTS = 3  # whose best run is told
MAX_SHOWN = 40  # characters of the id of a run that is not here
MIN_PROGRESS = 20  # with fewer items no progress bar is shown
BUSY_SECONDS, IDLE_SECONDS = 1.0, 3.0  # between two looks at the index
ROW_PIXELS, HEAD_PIXELS, MAX_PIXELS = 35, 38, 460  # height of the table
NOT_BEGUN = (states.WAITING, states.PREPARING, states.REFUSED)
TOLD = tuple(kind for kind in states.KINDS if kind != states.FINISHED)  # counted in the headline


def page() -> None:
    address.open_page("Runs")
    st.header("Runs")
    state = IndexState()
    runs = None
    is_working = states.is_dvc_working(states.present())
    try:
        state = run_index.state()
        if state.generation:
            runs = run_table.table(str(paths.root()), state.generation)
    except UserError as error:
        widgets.show_error(error)
    st.fragment(watch, run_every=refresh_seconds(state, is_working))(state.mark, is_working)
    if state.fault:
        widgets.show_error(UserError(state.fault))
    if runs and runs.rows:
        try:
            show_runs(runs, state)
        except UserError as error:
            widgets.show_error(error)
    elif state.made:
        show_nothing(is_working)


def show_nothing(is_working: bool) -> None:
    """Say that there is no training, and what will make one, or makes it now."""
    if is_working:
        widgets.empty_state("DVC is at work. The first training shows here as soon as it begins.")
    else:
        widgets.empty_state(
            "No training yet. The first takes some minutes, and shows here while it runs.",
            "make repro",
        )


def refresh_seconds(state: IndexState, is_working: bool) -> float:
    is_busy = is_working or state.phase or not state.made
    return BUSY_SECONDS if is_busy else IDLE_SECONDS


def watch(drawn_mark: str, was_working: bool) -> None:
    """Refresh the index if it is stale, and draw the page again if anything has changed.

    Args:
        drawn_mark: the mark of the index from which the page was drawn.
        was_working: whether DVC was working then.
    """
    state = index.bring_up_to_date()
    if state is None:
        return
    if state.mark != drawn_mark or states.is_dvc_working(states.present()) != was_working:
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
    """Show the best, the table, and the comparison of the ticked runs."""
    follow_runs(runs)
    show_summary(runs)
    indices, test, baseline, names = controls.choose(runs)
    say_what_is_not_here(runs)
    if not indices:
        widgets.empty_state("No run meets the filter.")
        return
    shown = run_table.select_columns(runs, names).iloc[indices].reset_index(drop=True)
    if baseline:
        position = next((names.index(name) + 1 for name in (INTERVAL, WER) if name in names), 3)
        shown.insert(position, DELTA, run_table.deltas(runs.rows, indices, baseline))
    rows = [runs.rows[index] for index in indices]
    ticked = tick(rows, shown)
    compared = ticked[:MAX_COMPARED] if ticked else compared_at_first(rows, test)
    if not ticked:
        st.caption("Tick runs to compare them. Until then: the best, and the newest.")
    elif len(ticked) > MAX_COMPARED:
        st.caption(f"Compared are the first {MAX_COMPARED} of {len(ticked)} ticked.")
    comparison.show_faults(compared, runs.labels)
    comparison.show_verdicts(compared, baseline, runs.labels)
    comparison.show_curves(compared, runs.labels, state)
    comparison.show_trade_offs(runs, indices, compared, test)
    comparison.show_differing_params(compared, runs.labels)
    comparison.show_command(compared, runs.labels, state)


def compared_at_first(rows: list[RunRow], test: Test | None) -> list[RunRow]:
    """The best run of the test among these, and the newest that have begun to train."""
    keys = {row.key for row in rows}
    best = [row for row in test.ranking if row.key in keys][:1] if test else []
    begun = [row for row in rows if row.fingerprint and row.state.kind not in NOT_BEGUN]
    chosen = {row.key: row for row in [*best, *(begun or rows)]}
    return list(chosen.values())[:DEFAULT_COMPARED]


def show_summary(runs: RunTable) -> None:
    """Show the best run of each test, and how many runs are in which state."""
    if runs.tests:
        st.markdown("  \n".join(best_text(test, runs.labels) for test in runs.tests[:MAX_TESTS]))
    facts = ["1 training" if len(runs.rows) == 1 else f"{len(runs.rows):,} trainings"]
    counts = Counter(row.state.kind for row in runs.rows)
    facts += [f"{counts[kind]:,} {kind}" for kind in states.KINDS if kind in TOLD and counts[kind]]
    num_failed = sum(bool(row.failed_checks) for row in runs.rows)
    if num_failed:
        facts.append(f"{num_failed:,} with a failed check")
    if len(runs.tests) > MAX_TESTS:
        facts.append(f"{len(runs.tests):,} tests")
    st.caption(" · ".join(facts))


def best_text(test: Test, labels: dict[str, str]) -> str:
    """The best run of a test, with its interval, and how far the next one is behind."""
    best, *others = test.ranking
    text = (
        f"**Best: {widgets.plain(labels[best.key])}, {formatting.percent(best.scores['wer'])} WER**"
    )
    interval = run_table.interval(best)
    if interval:
        text += f" ({widgets.plain(interval)})"
    if best.failed_checks:
        text += f", {run_table.failed_text(len(best.failed_checks))}"
    text += f", on {widgets.plain(test.name)}."
    if others:
        points = 100 * (others[0].scores["wer"] - best.scores["wer"])
        text += f" Next: {widgets.plain(labels[others[0].key])}, {distance_text(points)}."
    return text


def distance_text(points: float) -> str:
    """How far a run is behind the best, by their WER in percentage points."""
    if points == 0:
        return "with the same WER"
    if not round(points, 2):
        return "less than 0.01 points worse"
    return f"{points:.2f} points worse" if points < 1 else f"{points:.1f} points worse"


def follow_runs(runs: RunTable) -> None:
    """Have the address name trainings that it named when they waited or prepared."""
    for name in ("runs", "baseline", "repeat"):
        told = address.values(name)
        now = [run_table.id_of(runs.ids[id]) if id in runs.ids else id for id in told]
        if now != told:
            address.put(name, dict.fromkeys(now))


def say_what_is_not_here(runs: RunTable) -> None:
    """Say which runs of the address are not in the index; they stay in the address."""
    chosen = [*address.values("runs"), *address.values("baseline")]
    missing = [widgets.plain(id[:MAX_SHOWN]) for id in chosen if id not in runs.ids]
    if missing:
        st.caption(f"Not here: {', '.join(missing[:MAX_COMPARED])}")


def tick(rows: list[RunRow], shown: pd.DataFrame) -> list[RunRow]:
    """Show the table; return the ticked runs among its rows.

    Ticks are kept in the address as ids of runs, not as row numbers, so they survive new and
    removed rows, and other filters.
    """
    ids = [run_table.id_of(row) for row in rows]
    ticked = set(address.values("runs"))
    wanted = [index for index, id in enumerate(ids) if id in ticked]
    # Other rows need a new widget, whose ticks are set here.
    widget_key = f"runs_table_{hashing.hash_of(ids)[:12]}"
    if sorted(rows_ticked(widget_key)) != wanted:
        st.session_state[widget_key] = {"selection": {"rows": wanted, "columns": [], "cells": []}}
    st.dataframe(
        shown,
        hide_index=True,
        key=widget_key,
        on_select=lambda: write_ticks(widget_key, ids),
        selection_mode="multi-row",
        column_config=run_table.column_config(shown, st.context.timezone),
        height=min(HEAD_PIXELS + ROW_PIXELS * len(shown), MAX_PIXELS),
        placeholder="–",
    )
    return [rows[index] for index in wanted]


def rows_ticked(widget_key: str) -> list[int]:
    """The rows that are ticked in the browser."""
    event = st.session_state.get(widget_key)
    return list(event["selection"]["rows"]) if event else []


def write_ticks(widget_key: str, ids: list[str]) -> None:
    """Write the ticks into the address; those of rows that the filter hides stay."""
    hidden = [id for id in address.values("runs") if id not in ids]
    ticked = [ids[index] for index in sorted(rows_ticked(widget_key)) if index < len(ids)]
    address.put("runs", [*hidden, *ticked] or None)
