"""What the reader chooses on the page Runs: rows, their order, test, baseline and columns.

All of it is kept in the address.
"""

from __future__ import annotations

import math

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from asr.runs import states
from asr.runs.run_rows import RunRow
from dashboard import address, widgets
from dashboard.runs import run_table
from dashboard.runs.leaderboards import Test
from dashboard.runs.run_table import COLOR, RUN, STATE, WER, RunTable

MAX_OFFERED = 300  # runs in the list of baselines
NEWEST, BY_WER, BY_VALIDATION, BY_NAME = "newest", "wer", "validation", "name"
ORDERS = {
    NEWEST: "Newest first",
    BY_WER: "Lowest WER first",
    BY_VALIDATION: "Lowest validation WER first",
    BY_NAME: "By name",
}
FAILED_CHECK = "failed check"  # among the states that can be chosen


def choose(runs: RunTable) -> tuple[list[int], Test | None, RunRow | None, list[str]]:
    """Ask for filter, states, order, test, baseline and columns.

    Returns:
        Indices of the rows that meet the filter, in order; the test; the baseline; names of the
        columns.
    """
    test_width = [4.0] if len(runs.tests) > 1 else []
    filter_box, order_box, *test_box, baseline_box, columns_box = st.columns(
        [4, 2.5, *test_width, 4, 1.6], vertical_alignment="bottom"
    )
    text = filter_box.text_input(
        "Filter",
        placeholder="name, revision, train.seed=2 …",
        max_chars=address.MAX_LENGTH,
        **address.widget("filter", ""),
    )
    order = order_box.selectbox(
        "Order", list(ORDERS), format_func=ORDERS.__getitem__, **address.widget("order", NEWEST)
    )
    test = choose_test(runs, test_box)
    kinds = choose_states(runs)
    words = text.lower().split()
    indices = [
        index for index, row in enumerate(runs.rows) if matches(row, runs.labels, words, kinds)
    ]
    with baseline_box:
        baseline = choose_baseline(runs, indices, test)
    with columns_box:
        names = choose_columns(runs)
    return in_order(runs, indices, order, test), test, baseline, names


def choose_test(runs: RunTable, boxes: list[DeltaGenerator]) -> Test | None:
    """Ask for the test that charts and baselines are of; with one test there is no choice."""
    tests = {test.id: test for test in runs.tests}
    if len(tests) < 2:
        return next(iter(tests.values()), None)
    first = next(iter(tests))
    chosen = boxes[0].selectbox(
        "Test",
        address.options("test", list(tests)),
        format_func=lambda id: tests[id].name if id in tests else f"{id} (not here)",
        help="Charts and differences are of one test at a time.",
        **address.widget("test", first),
    )
    return tests.get(chosen or first)


def choose_states(runs: RunTable) -> list[str]:
    """Ask for states; a failed check is one of them, whatever else the run did."""
    present = {row.state.kind for row in runs.rows}
    offered = [kind for kind in states.KINDS if kind in present]
    if any(row.failed_checks for row in runs.rows):
        offered.append(FAILED_CHECK)
    return st.pills(
        "Status",
        address.options("state", offered),
        selection_mode="multi",
        format_func=lambda kind: run_table.SIGNS.get(kind, widgets.plain(kind)),
        label_visibility="collapsed",
        **address.widget("state", []),
    )


def matches(row: RunRow, labels: dict[str, str], words: list[str], kinds: list[str]) -> bool:
    """Whether a run is in one of these states, and has all words; an empty list matches all."""
    is_failed = FAILED_CHECK in kinds and bool(row.failed_checks)
    if kinds and row.state.kind not in kinds and not is_failed:
        return False
    if not words:
        return True
    text = f"{labels[row.key]} {searched_text(row)}".lower()
    return all(word in text for word in words)


def searched_text(row: RunRow) -> str:
    """What the filter searches: name, ids, revisions, params, and why a run failed."""
    parts = [row.name, row.run_id or "", row.fingerprint or "", run_table.why(row)]
    parts += [revision.name for revision in row.revisions]
    parts += [revision.sha or "" for revision in row.revisions]
    parts += [f"{key}={value}" for key, value in row.params.items()]
    return " ".join(parts)


def in_order(runs: RunTable, indices: list[int], order: str | None, test: Test | None) -> list[int]:
    """The rows at these indices in an order of ORDERS; those without a value come last."""
    if order == BY_NAME:
        return sorted(indices, key=lambda index: runs.labels[runs.rows[index].key].lower())
    if order == BY_VALIDATION:
        column = runs.frame[run_table.BEST_WER].fillna(math.inf)
        return sorted(indices, key=lambda index: column[index])
    if order == BY_WER:
        place = {row.key: number for number, row in enumerate(test.ranking if test else ())}
        column = runs.frame[WER].fillna(math.inf)
        return sorted(
            indices,
            key=lambda index: (place.get(runs.rows[index].key, len(place)), column[index]),
        )
    return indices


def choose_baseline(runs: RunTable, indices: list[int], test: Test | None) -> RunRow | None:
    """Ask for the run to compare with, among those of the test that meet the filter.

    A pinned run stays pinned, and in the list, even if it does not meet the filter.
    """
    meeting = {runs.rows[index].key for index in indices}
    ranking = test.ranking if test else ()
    offered = [run_table.id_of(row) for row in ranking if row.key in meeting]
    help = f"The best {MAX_OFFERED} that meet the filter; filter to find others."
    chosen = st.selectbox(
        "Baseline",
        address.options("baseline", offered[:MAX_OFFERED]),
        index=None,
        format_func=lambda id: baseline_text(runs, id),
        placeholder="Pin a run to compare with",
        help=help if len(offered) > MAX_OFFERED else None,
        **address.widget("baseline"),
    )
    return runs.ids.get(chosen) if chosen else None


def baseline_text(runs: RunTable, id: str) -> str:
    row = runs.ids.get(id)
    return runs.labels[row.key] if row else f"{id} (not here)"


def choose_columns(runs: RunTable) -> list[str]:
    """Ask which metrics and params to show; params that never differ are offered on request.

    Until the reader chooses, a column comes as soon as a run has a value for it.
    """
    with st.popover("Columns"):
        only_differing = st.toggle("Only params that differ", **address.widget("narrow", True))
        hidden = {COLOR, RUN, STATE, *runs.differing}
        offered = [name for name in runs.frame.columns if name not in hidden]
        offered += runs.differing
        if not only_differing:
            offered += runs.constant
        default = [name for name in run_table.DEFAULT_SHOWN if name in runs.filled]
        default += runs.differing[: run_table.DEFAULT_PARAMS]
        chosen = st.multiselect(
            "Metrics and params",
            address.options("columns", offered),
            **address.widget("columns", default),
        )
    known = {*runs.frame.columns, *runs.constant}
    shown = [name for name in chosen if name in known]
    first = [WER] if WER in shown else []  # in sight on a phone, too
    return [COLOR, RUN, *first, STATE, *(name for name in shown if name != WER)]
