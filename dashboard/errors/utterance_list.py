"""The list of utterances, a page at a time: marked texts, error counts and players.

Only the rows of the page are aligned, and only their sound is read.
"""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from asr import paths
from asr.errors import UserError
from asr.evaluation import slices
from asr.evaluation.slices import COUNTED, Utterances
from asr.runs import reports, revisions
from asr.runs.revisions import Revision
from asr.runtime import formatting
from asr.storage import corpus, hashing
from asr.storage.corpus import Recording
from dashboard import diff_html, widgets
from dashboard.errors.result_picker import ResultSource

PAGE_ROWS = 20


def show(utterances: Utterances, order: np.ndarray, sources: list[ResultSource], text: str) -> None:
    """Show one page of utterances, with page numbers above and below.

    Args:
        order: indices of all rows of the list, in the order of the list.
        sources: the models, one or two.
        text: COUNTED or WRITTEN, which is the prefix of the columns of counts.
    """
    st.html(diff_html.LEGEND)
    list_key = hashing.hash_of(order.astype(np.int32).tobytes().hex())
    pages = -(-len(order) // PAGE_ROWS)
    state = page_state(list_key)
    choose_page(state, "top", "bottom", pages)
    end = state["page"] * PAGE_ROWS
    rows = utterances.rows.iloc[order[end - PAGE_ROWS : end]]
    recordings = find_recordings(rows["id"].tolist(), sources[0].revision)
    counts = [
        (slices.errors(rows, prefix), slices.words(rows, prefix))
        for prefix in prefixes(utterances, text)
    ]
    for index, row in enumerate(rows.to_dict("records")):
        tallies = [tally(int(errors[index]), int(words[index])) for errors, words in counts]
        show_utterance(row, tallies, sources, text, recordings)
    choose_page(state, "bottom", "top", pages)


def prefixes(utterances: Utterances, text: str) -> list[str]:
    """The prefix of the columns of counts, for each model."""
    return [text, f"other_{text}"] if utterances.two else [text]


def page_state(list_key: str) -> dict[str, Any]:
    """The number of the page that is shown (`page`); a new list begins at its first page.

    `top` and `bottom` count how often the page numbers there got a new key (see `choose_page`).
    """
    state: dict[str, Any] = st.session_state.get("errors_turned", {})
    if state.get("token") != list_key:
        state = {"token": list_key, "page": 1, "top": 0, "bottom": 0}
        st.session_state["errors_turned"] = state
    return state


def choose_page(state: dict[str, Any], position: str, twin: str, pages: int) -> None:
    """Show page numbers above or below the list.

    The widget that was used keeps its key, and so the keyboard's focus. The other one, its twin,
    gets a new key, because only a new widget takes its page from `default`.

    Args:
        position, twin: `top` or `bottom`, and the other of the two.
    """
    if pages < 2:
        return
    key = f"errors_{position}_{state['token']}_{state[position]}"

    def on_change() -> None:
        state["page"] = st.session_state[key]
        state[twin] += 1

    st.pagination(pages, default=state["page"], key=key, on_change=on_change)


def find_recordings(ids: list[str], revision: Revision) -> dict[str, list[Recording]] | None:
    """Find the recordings of the rows shown, by id.

    None, with the reason on the page, if the workspace does not hold the recordings that this
    revision was tested on.
    """
    root = paths.root()
    try:
        metrics = reports.read_json(revisions.fetch(revision, paths.METRICS), "test_hash")
        if corpus.is_test_of(metrics, root):
            return corpus.find(root / paths.CHUNKS / "test", ids)
    except UserError as error:
        widgets.show_error(error)
        return None
    st.info(
        "The recordings this model was tested on are not in the workspace. To hear them:",
        icon=":material/volume_off:",
    )
    st.code("\n".join(fetch_commands(revision)), language="bash")
    return None


def fetch_commands(revision: Revision) -> list[str]:
    """The commands that put a revision's test recordings into the workspace."""
    pull = f"dvc pull {paths.CHUNKS} {paths.FEATURES}"
    if revision.sha is None:
        return [pull, "dvc repro"]
    apply = "dvc exp apply" if revision.kind == revisions.EXPERIMENT else "git checkout"
    return [f"{apply} {shlex.quote(revision.name)}", pull]


def show_utterance(
    row: dict[str, Any],
    tallies: list[str],
    sources: list[ResultSource],
    text: str,
    recordings: dict[str, list[Recording]] | None,
) -> None:
    """Show an utterance: its texts for each model, and a player unless `recordings` is None."""
    two = len(sources) > 1
    widths = [4.0, 4.0] if two else [6.0]
    if recordings is not None:
        widths.append(2.5)
    with st.container(border=True):
        boxes = st.columns(widths, vertical_alignment="top" if two else "center")
        columns = zip(boxes, sources, tallies, ("", "other_"), strict=False)
        for box, source, errors, prefix in columns:
            facts = [errors] if prefix else [errors, *row_facts(row)]
            marked = diff_html.texts(
                row["reference"],
                row[f"{prefix}hypothesis"],
                text == COUNTED,
                source.name if two else "",
            )
            box.html(diff_html.facts_line(*facts) + marked)
        if recordings is not None:
            matches = recordings.get(row["id"], [])
            with boxes[-1]:
                diff_html.player(matches[0] if matches else None)


def row_facts(row: dict[str, Any]) -> list[str]:
    """Id, duration and speaker of an utterance."""
    duration = None if pd.isna(row["duration"]) else row["duration"]
    speaker = row["speaker"] if isinstance(row["speaker"], str) else ""
    return [row["id"], formatting.duration_text(duration), speaker]


def tally(errors: int, words: int) -> str:
    return f"{errors:,} error{'s' * (errors != 1)} in {words:,} word{'s' * (words != 1)}"
