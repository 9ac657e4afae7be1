"""Errors: the hypotheses of a model, or of two side by side, marked word by word.

Only the utterances on the page are aligned, and only their sound is read. A table is prepared for
searching once, and cached by its hash.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from asr import paths, wer
from asr.errors import UserError
from asr.evaluation import slices
from asr.evaluation.slices import COUNTED, WRITTEN, ModelResults, Utterances
from asr.runs import revision_facts
from asr.runs.revisions import Revision
from asr.runtime import formatting
from asr.storage import hashing
from dashboard import diff_html, widgets
from dashboard.errors import confusions, result_picker, utterance_list
from dashboard.errors.result_picker import ResultSource

TEXTS = {COUNTED: "As counted", WRITTEN: "As written"}
TEXT_HELP = (
    "As counted: lower case and without punctuation, as WER sees it. "
    "As written: every sign counts, here and in the scores."
)
UTTERANCES, CONFUSIONS = "Utterances", "Confusions"
HASHES: dict[str | type, Callable[[Any], Any]] = {ModelResults: lambda results: results.key}


@dataclass(frozen=True)
class Query:
    """What the visitor asked to see.

    mask: (rows,) bool, the utterances that match.
    text: prefix of the counts of the text that is meant, COUNTED or WRITTEN.
    order: a name in `slices.ORDERS` or `slices.CHANGES`.
    """

    mask: np.ndarray
    text: str
    order: str


def page() -> None:
    st.header("Errors")
    left, right = st.columns(2)
    with left:
        first = result_picker.choose("Results of", "first", optional=False)
    with right:
        second = result_picker.choose("Compare with", "second", optional=True)
    if first is None:
        return
    try:
        utterances = prepare(first.results, second.results if second else None)
    except UserError as error:
        widgets.show_error(error)
        return
    explore(utterances, [first, second] if second else [first])


@st.cache_resource(max_entries=6, show_spinner=False, hash_funcs=HASHES)
def prepare(first: ModelResults, second: ModelResults | None) -> Utterances:
    """Prepare one model's results, or two models' side by side, for searching."""
    return slices.compare(first, second) if second else slices.of_model(first)


def explore(utterances: Utterances, sources: list[ResultSource]) -> None:
    """Ask what to see, then show its scores and its utterances or confusions."""
    query = choose_query(utterances)
    mask = query.mask
    if not mask.any():
        widgets.empty_state(
            "No utterance matches. Take words out of the search, or values out of the slices."
        )
        return
    st.html(diff_html.STYLE)
    show_scores(utterances, query, sources)
    view = st.segmented_control(
        "View",
        [UTTERANCES, CONFUSIONS],
        default=UTTERANCES,
        required=True,
        key="errors_view",
        label_visibility="collapsed",
    )
    if view == CONFUSIONS:
        with_error = confusions.choose(utterances, mask, query.text == COUNTED)
        if with_error is None:
            return
        mask = with_error
    order = slices.order(utterances, mask, query.order, query.text)
    utterance_list.show(utterances, order, sources, query.text)


def choose_query(utterances: Utterances) -> Query:
    """Ask for search words, slices, order, and which text is meant."""
    search_box, slice_box, order_box, text_box = st.columns([3, 3, 2, 2])
    words = search_box.text_input(
        "Search words", key="errors_search", placeholder="in reference or hypothesis", max_chars=200
    )
    names = slice_box.multiselect(
        "Slice by",
        list(utterances.slices),
        key="errors_slices",
        placeholder="speaker, duration, …",
    )
    orders = [*slices.ORDERS, *(slices.CHANGES if utterances.two else [])]
    order = order_box.selectbox(
        "Sort by", orders, format_func=str.capitalize, key=f"errors_order_{utterances.two}"
    )
    text = text_box.segmented_control(
        "Text",
        list(TEXTS),
        format_func=TEXTS.__getitem__,
        default=COUNTED,
        required=True,
        key="errors_text",
        help=TEXT_HELP,
    )
    boxes = st.columns(max(len(names), 2)) if names else []
    values = {
        name: choose_values(box, name, utterances)
        for box, name in zip(boxes, names, strict=False)  # there are at least two boxes
    }
    return Query(slices.match(utterances, words or "", values), text or COUNTED, order)


def choose_values(box: Any, name: str, utterances: Utterances) -> list[str]:
    """Ask for values of one slice; none means all."""
    offered = utterances.slices[name].categories.tolist()
    label = widgets.plain(name).capitalize()
    key = f"errors_slice_{hashing.hash_of(name)}"
    return list(box.multiselect(label, offered, key=key, placeholder=f"all {len(offered):,}"))


def show_scores(utterances: Utterances, query: Query, sources: list[ResultSource]) -> None:
    """How many utterances match, and the scores of each model on them."""
    rows = utterances.rows[query.mask]
    text = query.text
    key = f"{utterances.key}{hashing.hash_of(np.packbits(query.mask).tobytes().hex())}"
    line = st.container(horizontal=True, gap="medium")
    metric(line, "Utterances", f"{len(rows):,}", f"of {len(utterances):,}")
    num_words = int(slices.words(rows, text).sum())
    duration = formatting.duration_text(float(np.nansum(rows["duration"])))
    metric(line, "Reference words", f"{num_words:,}", f"in {duration}")
    lock = paths.root() / "dvc.lock"
    modified = lock.stat().st_mtime_ns if lock.is_file() else 0
    draws = bootstrap_params(sources[0].revision, modified)
    for source, prefix in zip(sources, ("", "other_"), strict=False):
        wer_share, interval = score(key, rows, f"{prefix}{text}", *draws)
        metric(
            line,
            f"WER of {source.name}",
            formatting.percent(wer_share),
            f"95 %: {100 * interval.low:.1f} to {100 * interval.high:.1f} %",
            f"The 95 % interval is by {interval.unit}.",
        )
    if utterances.two:
        show_difference(difference(key, rows, text, *draws))
    else:
        show_errors(line, rows, text)


def show_errors(box: Any, rows: pd.DataFrame, text: str) -> None:
    """The errors of the one model, by kind."""
    substitutions, deletions, insertions = (
        int(rows[f"{text}{kind}"].sum()) for kind in ("substitutions", "deletions", "insertions")
    )
    total = substitutions + deletions + insertions
    kinds = f"{substitutions:,} sub, {deletions:,} del, {insertions:,} ins"
    metric(box, "Errors", f"{total:,}", kinds)


def show_difference(gap: wer.Difference) -> None:
    """The verdict on the second model against the first."""
    numbers = (
        f"{100 * gap.difference:+.1f} points, "
        f"95 % interval {100 * gap.low:+.1f} to {100 * gap.high:+.1f}, by {gap.unit}"
    )
    st.markdown(
        f"On these utterances the second model is **{gap.verdict}**: {widgets.plain(numbers)}."
    )


def metric(box: Any, label: str, value: str, below: str, help: str | None = None) -> None:
    """A number with a label above and a remark below."""
    box.metric(
        widgets.plain(label),
        value,
        widgets.plain(below),
        delta_color="off",
        delta_arrow="off",
        width="content",
        help=help,
    )


# Streamlit does not hash arguments that begin with an underscore: `key` names the rows.
@st.cache_data(max_entries=200, show_spinner=False)
def score(
    key: str,  # noqa: ARG001
    _rows: pd.DataFrame,
    prefix: str,
    resamples: int,
    seed: int,
) -> tuple[float, wer.Interval]:
    return slices.score(_rows, prefix, resamples, seed)


@st.cache_data(max_entries=200, show_spinner=False)
def difference(
    key: str,  # noqa: ARG001
    _rows: pd.DataFrame,
    text: str,
    resamples: int,
    seed: int,
) -> wer.Difference:
    return slices.difference(_rows, text, resamples, seed)


@st.cache_data(max_entries=50, show_spinner=False)
def bootstrap_params(revision: Revision, modified: int) -> tuple[int, int]:  # noqa: ARG001
    """Resamples and seed of a revision's report; reading them costs 0.1 s."""
    return revision_facts.bootstrap_params(revision)
