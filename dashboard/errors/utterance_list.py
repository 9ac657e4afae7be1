"""The list of utterances, a page at a time: marked texts, error counts and players.

Only the rows of the page are aligned, and only their sound is read.
"""

from __future__ import annotations

import shlex
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import streamlit as st

from asr import paths
from asr.errors import UserError
from asr.evaluation import slices
from asr.evaluation.loops import Loop
from asr.evaluation.slices import COUNTED, Utterances
from asr.runs import reports, revisions
from asr.runtime import formatting
from asr.storage import corpus, hashing
from asr.storage.corpus import Recording
from dashboard import address, diff_html, widgets, workspace
from dashboard.errors.offers import Offer, is_commit
from dashboard.errors.result_picker import ResultSource

PAGE_ROWS = 20
PAGE, UTTERANCE = "errors_page", "utterance"  # in the address: "2-1a2b3c", page and list; an id
STATE_DIGITS = 6
LINKED = "linked-utterance"
LINK_STYLE = f"""<style>
.st-key-{LINKED} {{ border-left: .3rem solid #1f9a92; }}
.st-key-{LINKED} h3 {{ font-size: 1rem; padding: 0; }}
.marked .about a {{ color: inherit; }}
</style>"""


def show(utterances: Utterances, order: np.ndarray, sources: list[ResultSource], text: str) -> None:
    """Show one page of utterances, with page numbers above and below.

    Args:
        order: indices of all rows of the list, in the order of the list.
        sources: the models, one or two.
        text: COUNTED or WRITTEN, which is the prefix of the columns of counts.
    """
    st.html(diff_html.LEGEND)
    st.html(LINK_STYLE)
    pages = -(-len(order) // PAGE_ROWS)
    linked = linked_place(utterances, order)
    state = hashing.hash_of(order.astype(np.int32).tobytes().hex())[:STATE_DIGITS]
    page = page_of_address(state, pages) or (linked // PAGE_ROWS + 1 if linked is not None else 1)
    keys = page_keys(state, page)
    choose_page(keys, "top", "bottom", pages)
    begin = (page - 1) * PAGE_ROWS
    rows = utterances.rows.iloc[order[begin : begin + PAGE_ROWS]]
    recordings = find_recordings(rows["id"].tolist(), sources[0].offer)
    counts = [
        (slices.errors(rows, prefix), slices.words(rows, prefix))
        for prefix in prefixes(utterances, text)
    ]
    for index, row in enumerate(rows.to_dict("records")):
        tallies = [tally(int(errors[index]), int(words[index])) for errors, words in counts]
        is_linked = linked == begin + index
        show_utterance(row, tallies, sources, text, recordings, is_linked)
    choose_page(keys, "bottom", "top", pages)


def linked_place(utterances: Utterances, order: np.ndarray) -> int | None:
    """The place in the list of the utterance that the address names; None if it is not there."""
    ids = address.values(UTTERANCE)
    if not ids:
        return None
    places = np.flatnonzero(utterances.rows["id"].to_numpy()[order] == ids[-1])
    return int(places[0]) if len(places) else None


def prefixes(utterances: Utterances, text: str) -> list[str]:
    """The prefix of the columns of counts, for each model."""
    return [text, f"other_{text}"] if utterances.two else [text]


def page_of_address(state: str, pages: int) -> int | None:
    """The page in the address, if that is of this list: a new list begins at its first page.

    Args:
        state: names the list, with its order.
    """
    told, _, told_state = "".join(address.values(PAGE)).partition("-")
    is_of_list = told_state == state and told.isascii() and told.isdigit()
    return min(max(int(told), 1), pages) if is_of_list else None


def page_keys(state: str, page: int) -> dict[str, Any]:
    """What the page numbers above and below the list have as keys: `top` and `bottom`, counted.

    Only a new widget takes its page from `default`. So both get new keys when the page was not
    chosen with them, and else the one that was not used: the other keeps the keyboard's focus.
    """
    keys: dict[str, Any] = st.session_state.setdefault("errors_pages", {"top": 0, "bottom": 0})
    if (keys.get("list"), keys.get("page")) != (state, page):
        keys |= {"list": state, "page": page}
        keys["top"] += 1
        keys["bottom"] += 1
    return keys


def choose_page(keys: dict[str, Any], position: str, twin: str, pages: int) -> None:
    """Show page numbers above or below the list.

    Args:
        position, twin: `top` or `bottom`, and the other of the two.
    """
    if pages < 2:
        return
    key = f"errors_{position}_{keys[position]}"

    def on_change() -> None:
        keys["page"] = st.session_state[key]
        keys[twin] += 1
        address.put(PAGE, [f"{keys['page']}-{keys['list']}"])
        address.put(UTTERANCE, None)

    st.pagination(pages, default=keys["page"], key=key, on_change=on_change)


def find_recordings(ids: list[str], offer: Offer) -> dict[str, list[Recording]] | None:
    """Find the recordings of the rows shown, by id.

    None, with the reason on the page, if the workspace does not hold the recordings that these
    results are of.
    """
    root = paths.root()
    try:
        metrics = reports.read_json(revisions.fetch(offer.revision, paths.METRICS), "test_hash")
        if corpus.is_test_of(metrics, root):
            return corpus.find(root / paths.CHUNKS / "test", ids)
    except UserError as error:
        widgets.show_error(error)
        return None
    commands = fetch_commands(offer)
    st.info(
        "The recordings this model was tested on are not in the workspace."
        f"{' To hear them:' if commands else ''}",
        icon=":material/volume_off:",
    )
    if commands:
        st.code("\n".join(commands), language="bash")
    return None


def fetch_commands(offer: Offer) -> list[str]:
    """The commands that put the test recordings of results into the workspace, if any do."""
    revision = offer.revision
    pull = f"dvc pull {paths.CHUNKS} {paths.FEATURES}"
    if revision.kind == revisions.WORKSPACE:
        return [] if offer.stale or workspace.is_being_made() else [pull, "dvc repro"]
    if revision.kind == revisions.EXPERIMENT:
        return [f"dvc exp apply {shlex.quote(revision.name)}", pull]
    if revision.kind in (revisions.BRANCH, revisions.TAG, revisions.COMMIT):
        return [f"git checkout {shlex.quote(revision.name)}", pull]
    return [pull] if is_commit(revision) else []


def show_utterance(
    row: dict[str, Any],
    tallies: list[str],
    sources: list[ResultSource],
    text: str,
    recordings: dict[str, list[Recording]] | None,
    is_linked: bool,
) -> None:
    """Show an utterance: its texts for each model, and a player unless `recordings` is None.

    Args:
        is_linked: it is the one that the address names, and is marked.
    """
    two = len(sources) > 1
    widths = [4.0, 4.0] if two else [6.0]
    if recordings is not None:
        widths.append(2.5)
    with st.container(border=True, key=LINKED if is_linked else None):
        if is_linked:
            st.subheader("This utterance was linked", anchor=UTTERANCE)
        boxes = st.columns(widths, vertical_alignment="top" if two else "center")
        columns = zip(boxes, sources, tallies, ("", "other_"), strict=False)
        for box, source, errors, prefix in columns:
            facts = [] if prefix else row_facts(row)
            marked = diff_html.texts(
                row["reference"],
                row[f"{prefix}hypothesis"],
                text == COUNTED,
                source.name if two else "",
            )
            loop = loop_fact(row[f"{prefix}loop"])
            link = "" if prefix else link_to(row["id"])
            box.html(diff_html.facts_line(errors, loop, *facts, link=link) + marked)
        if recordings is not None:
            matches = recordings.get(row["id"], [])
            with boxes[-1]:
                diff_html.player(matches[0] if matches else None)


def loop_fact(loop: Loop | None) -> str:
    return f"↻ loop: “{loop.phrase}” {loop.times:,} times" if loop else ""


def link_to(id: str) -> str:
    """The address that shows this list and this utterance in it."""
    choices = {name: told for name, told in address.choices("Errors").items() if name != PAGE}
    return f"?{urlencode({**choices, UTTERANCE: [id]}, doseq=True)}#{UTTERANCE}"


def row_facts(row: dict[str, Any]) -> list[str]:
    """Id, duration and speaker of an utterance."""
    duration = None if pd.isna(row["duration"]) else row["duration"]
    speaker = row["speaker"] if isinstance(row["speaker"], str) else ""
    return [row["id"], formatting.duration_text(duration), speaker]


def tally(errors: int, words: int) -> str:
    return f"{errors:,} error{'s' * (errors != 1)} in {words:,} word{'s' * (words != 1)}"
