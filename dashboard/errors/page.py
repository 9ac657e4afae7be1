"""Errors: the hypotheses of a model, or of two side by side, marked word by word.

Only the utterances on the page are aligned, and only their sound is read. A table is prepared for
searching once, and cached by its hash.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from asr import paths
from asr.errors import UserError
from asr.evaluation import slices
from asr.evaluation.slices import COUNTED, WRITTEN, ModelResults, Utterances
from dashboard import address, diff_html, index, widgets, workspace
from dashboard.errors import confusions, loop_filter, offers, result_picker, scores, utterance_list
from dashboard.errors.offers import Offers
from dashboard.errors.result_picker import ResultSource

TEXTS = {COUNTED: "Without punctuation", WRITTEN: "With punctuation"}
TEXT_HELP = (
    "Without punctuation, and in lower case: as WER counts words. "
    "With it every sign counts, here and in the scores."
)
UTTERANCES, CONFUSIONS = "Utterances", "Frequent errors"
HASHES: dict[str | type, Callable[[Any], Any]] = {ModelResults: lambda results: results.key}


@dataclass(frozen=True)
class Query:
    """The visitor's choice of utterances to show.

    mask: (rows,) bool, the utterances that match.
    text: COUNTED or WRITTEN, which is the prefix of the columns of counts.
    order: a name in `slices.ORDERS` or `slices.CHANGES`.
    """

    mask: np.ndarray
    text: str
    order: str


def page() -> None:
    address.open_page("Errors")
    st.header("Errors")
    show_results(offers.offers(paths.root()))
    workspace.watch(mark)


def mark() -> object:
    """What the page is drawn from; the index of runs is brought up to date on the way."""
    index.bring_up_to_date()
    return offers.offers(paths.root()), workspace.stamps(paths.UTTERANCES, paths.METRICS)


def show_results(found: Offers) -> None:
    """Ask for the results of one model or two, and show them."""
    if not found.here and not address.is_chosen("results"):
        message = "No results are on this computer yet. A training that is tested has some:"
        workspace.not_made(message, "dvc repro")
        show_absent(found)
        return
    left, right = st.columns(2)
    with left:
        first = result_picker.choose("Run", "results", found, optional=False)
    with right:
        second = result_picker.choose("Compare with", "against", found, optional=True)
    show_absent(found)
    if first is None:
        return
    try:
        utterances = prepare(first.results, second.results if second else None)
    except UserError as error:
        widgets.show_error(error)
        return
    explore(utterances, [first, second] if second else [first])


def show_absent(found: Offers) -> None:
    """Say in one line that there are runs whose results can be fetched."""
    if not found.fetchable:
        return
    (id, *others) = found.fetchable
    which = f"{len(found.fetchable):,} more runs" if others else f"the run {found.absent[id]}"
    st.caption(
        f"The results of {widgets.plain(which)} are not on this computer. "
        "`dvc fetch` brings them if they were pushed."
    )


@st.cache_resource(max_entries=6, show_spinner=False, hash_funcs=HASHES)
def prepare(first: ModelResults, second: ModelResults | None) -> Utterances:
    """Prepare one model's results, or two models' side by side, for searching."""
    return slices.compare(first, second) if second else slices.of_model(first)


def explore(utterances: Utterances, sources: list[ResultSource]) -> None:
    """Ask which utterances to show, then show their scores, and their texts or frequent errors."""
    query = choose_query(utterances)
    above = st.container()
    mask = loop_filter.choose(utterances, query.mask, query.text, sources)
    if not mask.any():
        widgets.empty_state(
            "No utterance matches. Take words out of the search, or values out of the slices."
        )
        return
    st.html(diff_html.STYLE)
    with above:
        scores.show(utterances, mask, query.text, sources)
    view = st.segmented_control(
        "View",
        [UTTERANCES, CONFUSIONS],
        required=True,
        label_visibility="collapsed",
        **address.widget("errors_view", UTTERANCES),
    )
    if view == CONFUSIONS:
        with_error = confusions.choose(utterances, mask, query.text == COUNTED)
        if with_error is None:
            return
        mask = with_error
    order = slices.order(utterances, mask, query.order, query.text)
    utterance_list.show(utterances, order, sources, query.text)


def choose_query(utterances: Utterances) -> Query:
    """Ask for search words, slices, order and text."""
    search_box, slice_box, order_box, text_box = st.columns([3, 3, 2, 3])
    words = search_box.text_input(
        "Search words",
        placeholder="in what was said or heard",
        max_chars=200,
        **address.widget("errors_search", ""),
    )
    names = slice_box.multiselect(
        "Only",
        address.options("errors_slices", list(utterances.slices)),
        placeholder="speaker, duration, …",
        **address.widget("errors_slices", []),
    )
    orders = [*slices.ORDERS, *(slices.CHANGES if utterances.two else [])]
    order = order_box.selectbox(
        "Sort by", orders, format_func=str.capitalize, **address.widget("errors_sort", orders[0])
    )
    text = text_box.segmented_control(
        "Text",
        list(TEXTS),
        format_func=TEXTS.__getitem__,
        required=True,
        help=TEXT_HELP,
        **address.widget("errors_text", COUNTED),
    )
    known = [name for name in names if name in utterances.slices]
    boxes = st.columns(max(len(known), 2)) if known else []
    values = {
        name: choose_values(box, name, utterances)
        for box, name in zip(boxes, known, strict=False)  # there are at least two boxes
    }
    return Query(slices.match(utterances, words or "", values), text or COUNTED, order)


def choose_values(box: Any, name: str, utterances: Utterances) -> list[str]:
    """Ask for values of one slice; an empty list means all."""
    offered = utterances.slices[name].categories.tolist()
    label = widgets.plain(name).capitalize()
    choice = f"slice_{name}"
    return list(
        box.multiselect(
            label,
            address.options(choice, offered),
            placeholder=f"all {len(offered):,}",
            **address.widget(choice, []),
        )
    )
