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
from asr.runs import comparison, run_index, run_rows
from asr.runs.run_index import IndexState
from asr.runs.run_rows import RunRow
from asr.runtime import formatting
from asr.wer import Difference
from dashboard import address, widgets
from dashboard.runs import charts, leaderboards, run_table, styles
from dashboard.runs.leaderboards import Test
from dashboard.runs.run_table import DELTA, INTERVAL, WER, RunTable

VERDICTS = {
    "better": "▼ better",
    "worse": "▲ worse",
    "not distinguishable": "≈ not distinguishable",
}
MAX_UNKNOWN = 20  # names of params that are listed
MAX_STEPS = 10**9  # of a training; a damaged store may tell more


def show_faults(compared: list[RunRow], labels: dict[str, str]) -> None:
    """Show of each compared run what it ended of, and the checks that failed."""
    lines = [
        f"**{widgets.plain(labels[row.key])}** {widgets.plain(run_table.state_text(row))}: "
        f"{widgets.plain(run_table.why(row))}"
        for row in compared
        if run_table.why(row)
    ]
    if lines:
        st.markdown("  \n".join(lines))


def show_verdicts(compared: list[RunRow], baseline: RunRow | None, labels: dict[str, str]) -> None:
    """Show the verdict on each compared run against the baseline."""
    if baseline is None:
        return
    st.subheader("Against the baseline")
    baseline_wer = formatting.percent(leaderboards.wer_of(baseline))
    st.caption(f"{widgets.plain(labels[baseline.key])}: test WER {baseline_wer}")
    lines = [verdict_line(row, baseline, labels) for row in compared if row.key != baseline.key]
    if not lines:
        st.caption("Select another run to compare with it.")
        return
    # A table of text rather than a data frame: screen readers can read it.
    st.table(pd.DataFrame(lines).set_index("Run"))


def verdict_line(row: RunRow, baseline: RunRow, labels: dict[str, str]) -> dict[str, str]:
    tests = " ".join(f"{run.test_hash} {run.scores.get('wer')}" for run in (row, baseline))
    stamp = f"{paths.root()} {tests}"
    verdict = paired_difference(row.key, baseline.key, stamp, (row, baseline))
    line = {
        "Run": widgets.plain(labels[row.key]),
        "test WER": formatting.percent(leaderboards.wer_of(row)),
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


def show_curves(compared: list[RunRow], labels: dict[str, str], state: IndexState) -> None:
    """Show WER, loss and learning rate over the steps."""
    curves = {row.key: run_rows.curves(row) for row in compared}
    missing = tuple(row.run_id for row in compared if curves[row.key] is None and row.run_id)
    is_reading = bool(missing) and not state.fault
    if is_reading:
        run_index.request_refresh(missing)
    points = []
    for row in compared:
        points += curve_points(labels[row.key], curves[row.key] or {})
    st.subheader("While training")
    if points:
        drawn = dict(
            zip([labels[row.key] for row in compared], styles.of_compared(compared), strict=True)
        )
        begun = [row for row in compared if curves[row.key]]
        charts.curves(pd.DataFrame(points), drawn, last_step(begun, points))
    elif is_reading:
        st.caption("The curves are being read.")
    else:
        st.caption("These runs have no curves.")


def last_step(compared: list[RunRow], points: list[dict[str, Any]]) -> int:
    """The last step of the longest of these trainings, also if it is not there yet."""
    planned = [row.state.steps or row.params.get("train.max_steps") for row in compared]
    steps = [steps for steps in planned if isinstance(steps, int) and steps < MAX_STEPS]
    return max(1, *steps, *(int(point["step"]) for point in points))


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


def show_trade_offs(
    runs: RunTable, indices: list[int], compared: list[RunRow], test: Test | None
) -> None:
    """Show WER in one test against training time, size and speed, of the runs at these indices."""
    tested = [index for index in indices if test and is_tested_in(runs.rows[index], test)]
    drawn = tested[: charts.MAX_POINTS]
    if not drawn or not test:
        return
    colors = {row.key: styles.of(row).color for row in compared}
    rows = [runs.rows[index] for index in drawn]
    points = runs.frame.iloc[drawn][[WER, "Minutes", "Parameters", "RTFx"]].set_axis(
        ["wer", "minutes", "parameters", "rtfx"], axis=1
    )
    points = points.assign(
        run=[runs.labels[row.key] for row in rows],
        colour=[colors.get(row.key, styles.OTHER_COLOR) for row in rows],
    )
    st.subheader("What it costs")
    if len(runs.tests) > 1:
        st.caption(f"Tested on {widgets.plain(test.name)}.")
    charts.trade_offs(points)
    if len(tested) > len(drawn):
        st.caption(f"The first {len(drawn):,} of {len(tested):,}.")


def is_tested_in(row: RunRow, test: Test) -> bool:
    return leaderboards.wer_of(row) is not None and leaderboards.test_id(row) == test.id


def show_differing_params(compared: list[RunRow], labels: dict[str, str]) -> None:
    """Show the params that differ among the compared runs, side by side."""
    if len(compared) < 2:
        return
    st.subheader("Params that differ")
    keys = comparison.differing_params(compared)
    if not keys:
        st.caption("None: these runs have the same params.")
        return
    columns = {
        labels[row.key]: [value_text(row.params.get(key)) for key in keys] for row in compared
    }
    st.dataframe(pd.DataFrame({"Param": keys, **columns}), hide_index=True)


def value_text(value: Any) -> str:
    """A param's value; a dash if it is unset, or the run does not have the param."""
    return "–" if value is None or value == "None" else str(value)


def show_command(compared: list[RunRow], labels: dict[str, str], state: IndexState) -> None:
    """Show the command that repeats one of the compared runs."""
    st.subheader("Run it again")
    row = choose_repeated(compared, labels) if len(compared) > 1 else compared[0]
    if row.fingerprint is None and not row.params and not row.revisions:
        show_what_was_typed(row.command)
        return
    path = paths.root() / "params.yaml"
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    try:
        params = workspace_params(str(path), stamp)
    except UserError as error:
        widgets.show_error(error)
        return
    command, unknown = commands_of(f"{path} {stamp} {state.generation} {row.key}", row, params)
    st.code(command, language="bash", wrap_lines=True)
    if unknown:
        names_text = widgets.plain(", ".join(unknown[:MAX_UNKNOWN]))
        st.caption(f"Left out, for this workspace does not know them: {names_text}")


@st.cache_resource(max_entries=100, show_spinner=False)
def commands_of(
    stamp: str,  # noqa: ARG001 (the cache key)
    _row: RunRow,
    _params: dict[str, Any],
) -> tuple[str, list[str]]:
    """The commands that repeat a run; with 5,000 experiments git takes 0.1 s to find its name."""
    return comparison.reproduce_commands(_row, _params)


def show_what_was_typed(command: str) -> None:
    """Show how DVC was called for a run whose params are not recorded."""
    if command:
        st.code(command, language="bash", wrap_lines=True)
        st.caption("What DVC was called with; the other params were those of params.yaml then.")
    else:
        st.caption("Neither its params nor its command are recorded.")


def choose_repeated(compared: list[RunRow], labels: dict[str, str]) -> RunRow:
    """Ask which of the compared runs to repeat: the first, until the reader chooses."""
    by_id = {run_table.id_of(row): row for row in compared}
    first = next(iter(by_id))
    tied = address.widget("repeat", first)
    if st.session_state["repeat"] not in by_id:  # it is not compared any more
        st.session_state["repeat"] = first
    chosen = st.selectbox("Of", list(by_id), format_func=lambda id: labels[by_id[id].key], **tied)
    return by_id[chosen]


@st.cache_resource(max_entries=1, show_spinner=False)
def workspace_params(path: str, modified: int) -> dict[str, Any]:  # noqa: ARG001 (cache key)
    """The workspace's params, flat; reading them costs 30 ms."""
    from asr.params import reader  # slow to import, and the table of runs does not need it

    return reader.flat(reader.load(Path(path)).model_dump())
