"""What the Runs page says of a few runs side by side: verdicts against the pinned one, curves,
costs, params, and the command.

The paired bootstrap costs 0.1 s a pair (`asr.wer.paired`), once; curves of old runs come from
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
from dashboard.runs.run_table import DELTA, Table, label

INTERVAL = "95 % interval"
VERDICT = {"better": "▼ better", "worse": "▲ worse", "not distinguishable": "≈ not distinguishable"}


@st.cache_resource(max_entries=1000, show_spinner="Comparing utterance by utterance")
def verdict(ours: str, theirs: str, stamp: str, _pair: tuple[RunRow, RunRow]) -> Difference | str:  # noqa: ARG001 (they name what is cached)
    """The paired difference, or why there is none."""
    try:
        return comparison.paired(*_pair)
    except UserError as error:
        return str(error)


def verdicts(compared: list[RunRow], baseline: RunRow | None) -> None:
    """Each compared run against the pinned one."""
    if baseline is None:
        return
    st.subheader("Against the baseline")
    st.caption(
        f"{widgets.plain(label(baseline))}: test WER {formatting.percent(baseline.scores.get('wer'), 2)}"
    )
    lines = [
        line
        for row in compared
        if row.key != baseline.key
        for line in [verdict_line(row, baseline)]
    ]
    if not lines:
        st.caption("Select another run to compare with it.")
        return
    st.table(pd.DataFrame(lines).set_index("Run"))


def verdict_line(row: RunRow, baseline: RunRow) -> dict[str, str]:
    """Short enough for a table of text, which people hear as well as see."""
    stamp = (
        f"{row.test_hash} {row.scores.get('wer')} {baseline.test_hash} {baseline.scores.get('wer')}"
    )
    found = verdict(row.key, baseline.key, f"{paths.root()} {stamp}", (row, baseline))
    line = {
        "Run": widgets.plain(label(row)),
        "test WER": formatting.percent(row.scores.get("wer"), 2),
    }
    if isinstance(found, str):
        return {**line, DELTA: "–", INTERVAL: "–", "Verdict": widgets.plain(found), "Drawn by": "–"}
    points, interval = (
        f"{100 * found.difference:+.2f}",
        f"{100 * found.low:+.2f} … {100 * found.high:+.2f}",
    )
    return {
        **line,
        DELTA: points,
        INTERVAL: interval,
        "Verdict": VERDICT.get(found.verdict, found.verdict),
        "Drawn by": found.unit,
    }


def curves(compared: list[RunRow], now: IndexState) -> None:
    """WER, loss and learning rate over the steps."""
    found = {row.key: run_index.curves(row) for row in compared}
    missing = tuple(row.run_id for row in compared if found[row.key] is None and row.run_id)
    if missing and not now.fault:
        run_index.request_refresh(missing)
    lines = [
        {
            "run": name,
            "metric": metric,
            "step": step,
            "value": value * (100 if metric.endswith("wer") else 1),
        }
        for row, name in zip(compared, distinct(compared), strict=True)
        for metric, points in (found[row.key] or {}).items()
        for step, value in points
        if math.isfinite(value)
    ]
    st.subheader("While training")
    if not lines:
        st.caption(
            "The curves are being read."
            if missing and not now.fault
            else "These runs have no curves."
        )
        return
    charts.curves(pd.DataFrame(lines))


def distinct(rows: list[RunRow]) -> list[str]:
    """Labels, numbered where two are alike."""
    seen: dict[str, int] = {}
    names = []
    for name in map(label, rows):
        seen[name] = seen.get(name, 0) + 1
        names.append(f"{name} #{seen[name]}" if seen[name] > 1 else name)
    return names


def trade_offs(found: Table, places: list[int], compared: list[RunRow]) -> None:
    """Test WER against what it costs."""
    shown = found.frame.iloc[places]
    tested = shown[shown["WER %"].notna()]
    some = tested[: charts.MAX_POINTS]
    if some.empty:
        return
    colours = {row.key: colour for row, colour in zip(compared, charts.COLOURS, strict=False)}
    rows = [found.rows[place] for place in some.index]
    points = some[["WER %", "Minutes", "Parameters", "RTFx"]].set_axis(
        ["wer", "minutes", "parameters", "rtfx"], axis=1
    )
    st.subheader("What it costs")
    charts.trade_offs(
        points.assign(
            run=[label(row) for row in rows],
            colour=[colours.get(row.key, charts.OTHER) for row in rows],
        )
    )
    if len(tested) > len(some):
        st.caption(f"The {len(some):,} newest of {len(tested):,}.")


def value_text(value: Any) -> str:
    """A param's value; what is unset, or unknown to the run, is a dash."""
    return "–" if value is None or value == "None" else str(value)


def differences(compared: list[RunRow]) -> None:
    """The params that differ among the compared, side by side."""
    keys = comparison.differing(compared)
    if len(compared) < 2:
        return
    st.subheader("Params that differ")
    if not keys:
        st.caption("None: these runs have the same params.")
        return
    columns = {
        name: [value_text(row.params.get(key)) for key in keys]
        for name, row in zip(distinct(compared), compared, strict=True)
    }
    st.dataframe(pd.DataFrame({"Param": keys, **columns}), hide_index=True)


@st.cache_resource(max_entries=1, show_spinner=False)
def own_params(file: str, changed: int) -> dict[str, Any]:  # noqa: ARG001 (it names what is cached)
    """The workspace's params, flat; reading YAML costs 30 ms, and the import more, which the table
    does not wait for.
    """
    from asr.params import reader

    return reader.flat(reader.load(Path(file)).model_dump())


def reproduce(compared: list[RunRow]) -> None:
    """The command that repeats one of the compared runs."""
    st.subheader("Run it again")
    names = distinct(compared)
    place = (
        st.selectbox("Of", range(len(compared)), format_func=lambda at: names[at], key="runs_again")
        if len(compared) > 1
        else 0
    )
    try:
        file = paths.root() / "params.yaml"
        here = own_params(str(file), file.stat().st_mtime_ns if file.is_file() else 0)
    except UserError as error:
        widgets.fault(error)
        return
    told, unknown = comparison.commands(compared[place or 0], here)
    st.code(told, language="bash", wrap_lines=True)
    if unknown:
        st.caption(
            f"Left out, for this workspace does not know them: {widgets.plain(', '.join(unknown[:20]))}"
        )
