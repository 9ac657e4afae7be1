"""Errors: what a model heard, utterance by utterance, marked word by word; or two models side by
side.

Only the utterances on the page are aligned, and only their sound is read; a table is taken apart
once and kept by its hash.
"""

from __future__ import annotations

import shlex
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
from asr.runs import reports, revisions
from asr.runs.revisions import Revision
from asr.runtime import formatting
from asr.storage import corpus, hashing
from asr.storage.corpus import Recording
from dashboard import diff_html, widgets
from dashboard.errors import confusions, result_picker
from dashboard.errors.result_picker import ResultSource

PAGE_ROWS = 20
TEXTS = {COUNTED: "As counted", WRITTEN: "As written"}
TEXT_HELP = "As counted: lower case and without punctuation, as WER sees it. As written: every sign counts, here and in the scores."
UTTERANCES, CONFUSIONS = "Utterances", "Confusions"
KEYS: dict[str | type, Callable[[Any], Any]] = {
    ModelResults: lambda one: one.key
}  # what streamlit knows a table by


@dataclass(frozen=True)
class Sifted:
    """What the person asked to see: rows (true where found), which text, in which order."""

    found: np.ndarray
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
        found = taken_apart(first.heard, second.heard if second else None)
    except UserError as error:
        widgets.fault(error)
        return
    explore(found, [first, second] if second else [first])


@st.cache_resource(max_entries=6, show_spinner=False, hash_funcs=KEYS)
def taken_apart(first: ModelResults, second: ModelResults | None) -> Utterances:
    return slices.compared(first, second) if second else slices.of_model(first)


def explore(one: Utterances, sources: list[ResultSource]) -> None:
    sifted = sift(one)
    found = sifted.found
    if not found.any():
        widgets.empty(
            "No utterance matches. Take words out of the search, or values out of the slices."
        )
        return
    st.html(diff_html.STYLE)
    scores(one, sifted, sources)
    view = st.segmented_control(
        "View",
        [UTTERANCES, CONFUSIONS],
        default=UTTERANCES,
        required=True,
        key="errors_view",
        label_visibility="collapsed",
    )
    if view == CONFUSIONS:
        held = confusions.choose(one, found, sifted.text == COUNTED)
        if held is None:
            return
        found = held
    listed(one, slices.ordered(one, found, sifted.order, sifted.text), sources, sifted.text)


def sift(one: Utterances) -> Sifted:
    """Ask for words, order, slices, and which text is meant."""
    search_box, slice_box, order_box, text_box = st.columns([3, 3, 2, 2])
    words = search_box.text_input(
        "Search words", key="errors_search", placeholder="in reference or hypothesis", max_chars=200
    )
    names = slice_box.multiselect(
        "Slice by", list(one.slices), key="errors_slices", placeholder="speaker, duration, …"
    )
    orders = [*slices.ORDERS, *(slices.CHANGES if one.two else [])]
    order = order_box.selectbox(
        "Sort by", orders, format_func=str.capitalize, key=f"errors_order_{one.two}"
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
    chosen = {name: values(box, name, one) for box, name in zip(boxes, names, strict=False)}
    return Sifted(slices.matching(one, words or "", chosen), text or COUNTED, order)


def values(box: Any, name: str, one: Utterances) -> list[str]:
    """The values of one slice that are wanted; none means all."""
    offered = one.slices[name].categories.tolist()
    key = f"errors_slice_{hashing.hash_of(name)}"
    return list(
        box.multiselect(
            widgets.plain(name).capitalize(), offered, key=key, placeholder=f"all {len(offered):,}"
        )
    )


def scores(one: Utterances, sifted: Sifted, sources: list[ResultSource]) -> None:
    """How many utterances these are, and how well each model heard them."""
    rows, text = one.rows[sifted.found], sifted.text
    key = f"{one.key}{hashing.hash_of(np.packbits(sifted.found).tobytes().hex())}"
    line = st.container(horizontal=True, gap="medium")
    metric(line, "Utterances", f"{len(rows):,}", f"of {len(one):,}")
    words = int(slices.words(rows, text).sum())
    metric(
        line,
        "Reference words",
        f"{words:,}",
        f"in {formatting.duration_text(float(np.nansum(rows['duration'])))}",
    )
    for source, prefix in zip(sources, ("", "other_"), strict=False):
        share, interval = score(key, rows, f"{prefix}{text}")
        between = f"95 %: {100 * interval.low:.1f} to {100 * interval.high:.1f} %"
        metric(
            line,
            f"WER of {source.name}",
            formatting.percent(share),
            between,
            f"The 95 % interval is by {interval.unit}.",
        )
    if not one.two:
        counts = [
            int(rows[f"{text}{name}"].sum())
            for name in ("substitutions", "deletions", "insertions")
        ]
        metric(line, "Errors", f"{sum(counts):,}", "{:,} sub, {:,} del, {:,} ins".format(*counts))
        return
    gap = difference(key, rows, text)
    told = f"{100 * gap.difference:+.1f} points, 95 % interval {100 * gap.low:+.1f} to {100 * gap.high:+.1f}, by {gap.unit}"
    st.markdown(
        f"On these utterances the second model is **{gap.verdict}**: {widgets.plain(told)}."
    )


def metric(box: Any, label: str, value: str, below: str, help: str | None = None) -> None:
    box.metric(
        widgets.plain(label),
        value,
        widgets.plain(below),
        delta_color="off",
        delta_arrow="off",
        width="content",
        help=help,
    )


@st.cache_data(max_entries=200, show_spinner=False)
def score(key: str, _rows: pd.DataFrame, prefix: str) -> tuple[float, wer.Interval]:  # noqa: ARG001 (what it is kept by)
    return slices.score(_rows, prefix)


@st.cache_data(max_entries=200, show_spinner=False)
def difference(key: str, _rows: pd.DataFrame, text: str) -> wer.Difference:  # noqa: ARG001 (what it is kept by)
    return slices.difference(_rows, text)


def listed(one: Utterances, places: np.ndarray, sources: list[ResultSource], text: str) -> None:
    """One page of utterances, with the way to the next above and below."""
    st.html(diff_html.LEGEND)
    token = hashing.hash_of(places.astype(np.int32).tobytes().hex())
    pages = -(-len(places) // PAGE_ROWS)
    kept = turned(token)
    turn(kept, "top", "bottom", pages)
    shown = kept["page"]
    here = one.rows.iloc[places[(shown - 1) * PAGE_ROWS : shown * PAGE_ROWS]]
    found = sounds(here["id"].tolist(), sources[0].revision)
    counts = {
        prefix: (slices.errors(here, prefix), slices.words(here, prefix))
        for prefix in prefixes(one, text)
    }
    for place, row in enumerate(here.to_dict("records")):
        told = [tally(int(wrong[place]), int(total[place])) for wrong, total in counts.values()]
        utterance(row, told, sources, text, found)
    turn(kept, "bottom", "top", pages)


def prefixes(one: Utterances, text: str) -> list[str]:
    return [text, f"other_{text}"] if one.two else [text]


def turned(token: str) -> dict[str, Any]:
    """Which page of this list the person is on; another list begins at its first."""
    kept: dict[str, Any] = st.session_state.get("errors_turned", {})
    if kept.get("token") != token:
        kept = st.session_state["errors_turned"] = {
            "token": token,
            "page": 1,
            "top": 0,
            "bottom": 0,
        }
    return kept


def turn(kept: dict[str, Any], place: str, twin: str, pages: int) -> None:
    """Pages to choose from, above or below the list. The one used stays as it is, and keeps the
    keyboard's focus; its twin is made anew.
    """
    if pages < 2:
        return
    key = f"errors_{place}_{kept['token']}_{kept[place]}"

    def follow() -> None:
        kept["page"] = st.session_state[key]
        kept[twin] += 1

    st.pagination(pages, default=kept["page"], key=key, on_change=follow)


def sounds(ids: list[str], revision: Revision) -> dict[str, list[Recording]] | None:
    """The recordings shown; None where the workspace does not have those that this revision was
    tested on.
    """
    root = paths.root()
    try:
        metrics = reports.read_json(revisions.fetch(revision, paths.METRICS), "test_hash")
        if corpus.is_test_of(metrics, root):
            return corpus.find(root / paths.CHUNKS / "test", ids)
    except UserError as error:
        widgets.fault(error)
        return None
    st.info(
        "The recordings this model was tested on are not in the workspace. To hear them:",
        icon=":material/volume_off:",
    )
    st.code("\n".join(bring(revision)), language="bash")
    return None


def bring(revision: Revision) -> list[str]:
    """The commands that put a revision's test recordings into the workspace."""
    pull = "dvc pull data/chunks data/features"
    if revision.sha is None:
        return [pull, "dvc repro"]
    apply = "dvc exp apply" if revision.kind == revisions.EXPERIMENT else "git checkout"
    return [f"{apply} {shlex.quote(revision.name)}", pull]


def utterance(
    row: dict[str, Any],
    told: list[str],
    sources: list[ResultSource],
    text: str,
    found: dict[str, list[Recording]] | None,
) -> None:
    """One utterance: its texts by each model, its player."""
    two = len(sources) > 1
    with st.container(border=True):
        boxes = st.columns(
            [*([4, 4] if two else [6]), *([] if found is None else [2.5])],
            vertical_alignment="top" if two else "center",
        )
        speaker = row["speaker"] if isinstance(row["speaker"], str) else ""
        facts = [
            row["id"],
            formatting.duration_text(None if pd.isna(row["duration"]) else row["duration"]),
            speaker,
        ]
        for box, source, tally, prefix in zip(boxes, sources, told, ("", "other_"), strict=False):
            marks = diff_html.texts(
                row["reference"],
                row[f"{prefix}hypothesis"],
                text == COUNTED,
                source.name if two else "",
            )
            box.html(diff_html.about(tally, *(facts if not prefix else [])) + marks)
        if found is not None:
            with boxes[-1]:
                diff_html.player(next(iter(found.get(row["id"], [])), None))


def tally(wrong: int, total: int) -> str:
    return f"{wrong:,} error{'s' * (wrong != 1)} in {total:,} word{'s' * (total != 1)}"
