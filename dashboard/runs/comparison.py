"""A few runs side by side: verdicts against the baseline, curves, costs, params, the command.

The paired bootstrap (`asr.wer.paired`) costs 0.1 s per pair, once. Curves of old runs are read from
MLflow on request, 40 ms each.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from asr import paths
from asr.errors import UserError
from asr.runs import comparison, run_index
from asr.runs.run_index import IndexState, RunRow
from asr.runtime import formatting
from asr.wer import Difference
from dashboard import widgets
from dashboard.runs import charts
from dashboard.runs.run_table import DELTA, INTERVAL, WER, RunTable, label

VERDICTS = {
    "better": "▼ better",
    "worse": "▲ worse",
    "not distinguishable": "≈ not distinguishable",
}
MAX_UNKNOWN = 20  # names of params that are listed


def show_verdicts(compared: list[RunRow], baseline: RunRow | None) -> None:
    """Show the verdict on each compared run against the baseline."""
    if baseline is None:
        return
    st.subheader("Against the baseline")
    baseline_wer = formatting.percent(baseline.scores.get("wer"), 2)
    st.caption(f"{widgets.plain(label(baseline))}: test WER {baseline_wer}")
    lines = [verdict_line(row, baseline) for row in compared if row.key != baseline.key]
    if not lines:
        st.caption("Select another run to compare with it.")
        return
    # A table of text rather than a data frame: screen readers can read it.
    st.table(pd.DataFrame(lines).set_index("Run"))


def verdict_line(row: RunRow, baseline: RunRow) -> dict[str, str]:
    tests = " ".join(f"{run.test_hash} {run.scores.get('wer')}" for run in (row, baseline))
    stamp = f"{paths.root()} {tests}"
    verdict = paired_difference(row.key, baseline.key, stamp, (row, baseline))
    line = {
        "Run": widgets.plain(label(row)),
        "test WER": formatting.percent(row.scores.get("wer"), 2),
    }
    if isinstance(verdict, str):
        reason = widgets.plain(verdict)
        return {**line, DELTA: "–", INTERVAL: "–", "Verdict": reason, "Drawn by": "–"}
    return {
        **line,
        DELTA: f"{100 * verdict.difference:+.2f}",
        INTERVAL: f"{100 * verdict.low:+.2f} … {100 * verdict.high:+.2f}",
        "Verdict": VERDICTS.get(verdict.verdict, verdict.verdict),
        "Drawn by": verdict.unit,
    }


@st.cache_resource(max_entries=1000, show_spinner="Comparing utterance by utterance")
def paired_difference(
    key: str,  # noqa: ARG001 (the first three are the cache key)
    baseline_key: str,  # noqa: ARG001
    stamp: str,  # noqa: ARG001
    _pair: tuple[RunRow, RunRow],
) -> Difference | str:
    """The paired difference of two runs, or the reason why there is none."""
    try:
        return comparison.paired(*_pair)
    except UserError as error:
        return str(error)


def show_curves(compared: list[RunRow], state: IndexState) -> None:
    """Show WER, loss and learning rate over the steps."""
    curves = {row.key: run_index.curves(row) for row in compared}
    missing = tuple(row.run_id for row in compared if curves[row.key] is None and row.run_id)
    is_reading = bool(missing) and not state.fault
    if is_reading:
        run_index.request_refresh(missing)
    points = []
    for row, name in zip(compared, distinct_labels(compared), strict=True):
        points += curve_points(name, curves[row.key] or {})
    st.subheader("While training")
    if points:
        charts.curves(pd.DataFrame(points))
    elif is_reading:
        st.caption("The curves are being read.")
    else:
        st.caption("These runs have no curves.")


def curve_points(
    run: str, curves: dict[str, list[tuple[int, float]]]
) -> list[dict[str, str | float]]:
    """The finite points of one run's curves as rows for a chart; error rates as percent."""
    points: list[dict[str, str | float]] = []
    for metric, curve in curves.items():
        factor = 100 if metric.endswith("wer") else 1
        for step, value in curve:
            if math.isfinite(value):
                points.append({"run": run, "metric": metric, "step": step, "value": value * factor})
    return points


def distinct_labels(rows: list[RunRow]) -> list[str]:
    """The labels of the runs, numbered where two are equal."""
    counts: dict[str, int] = {}
    names = []
    for name in map(label, rows):
        counts[name] = counts.get(name, 0) + 1
        names.append(f"{name} #{counts[name]}" if counts[name] > 1 else name)
    return names


def show_trade_offs(runs: RunTable, indices: list[int], compared: list[RunRow]) -> None:
    """Show test WER against training time, size and speed, of the runs at these indices."""
    shown = runs.frame.iloc[indices]
    tested = shown[shown[WER].notna()]
    newest = tested[: charts.MAX_POINTS]
    if newest.empty:
        return
    colors = {row.key: color for row, color in zip(compared, charts.COLORS, strict=False)}
    rows = [runs.rows[index] for index in newest.index]
    points = newest[[WER, "Minutes", "Parameters", "RTFx"]].set_axis(
        ["wer", "minutes", "parameters", "rtfx"], axis=1
    )
    points = points.assign(
        run=[label(row) for row in rows],
        colour=[colors.get(row.key, charts.OTHER_COLOR) for row in rows],
    )
    st.subheader("What it costs")
    charts.trade_offs(points)
    if len(tested) > len(newest):
        st.caption(f"The {len(newest):,} newest of {len(tested):,}.")


def show_differing_params(compared: list[RunRow]) -> None:
    """Show the params that differ among the compared runs, side by side."""
    if len(compared) < 2:
        return
    st.subheader("Params that differ")
    keys = comparison.differing_params(compared)
    if not keys:
        st.caption("None: these runs have the same params.")
        return
    columns = {
        name: [value_text(row.params.get(key)) for key in keys]
        for name, row in zip(distinct_labels(compared), compared, strict=True)
    }
    st.dataframe(pd.DataFrame({"Param": keys, **columns}), hide_index=True)


def value_text(value: Any) -> str:
    """A param's value; a dash if it is unset, or the run does not have the param."""
    return "–" if value is None or value == "None" else str(value)


def show_command(compared: list[RunRow]) -> None:
    """Show the command that repeats one of the compared runs."""
    st.subheader("Run it again")
    names = distinct_labels(compared)
    chosen = 0
    if len(compared) > 1:
        chosen = st.selectbox(
            "Of", range(len(compared)), format_func=names.__getitem__, key="runs_again"
        )
    path = paths.root() / "params.yaml"
    try:
        params = workspace_params(str(path), path.stat().st_mtime_ns if path.is_file() else 0)
    except UserError as error:
        widgets.show_error(error)
        return
    command, unknown = comparison.reproduce_commands(compared[chosen or 0], params)
    st.code(command, language="bash", wrap_lines=True)
    if unknown:
        names_text = widgets.plain(", ".join(unknown[:MAX_UNKNOWN]))
        st.caption(f"Left out, for this workspace does not know them: {names_text}")


@st.cache_resource(max_entries=1, show_spinner=False)
def workspace_params(path: str, modified: int) -> dict[str, Any]:  # noqa: ARG001 (cache key)
    """The workspace's params, flat; reading them costs 30 ms."""
    from asr.params import reader  # slow to import, and the table of runs does not need it

    return reader.flat(reader.load(Path(path)).model_dump())
