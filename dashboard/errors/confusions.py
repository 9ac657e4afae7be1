"""Confusions: the most frequent errors of a model, and which rows hold one. A table of 20,000
utterances is aligned once, in 0.4 s.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from asr.evaluation import alignment
from asr.evaluation.alignment import DELETION, INSERTION, SUBSTITUTION, Edits
from asr.evaluation.slices import Utterances

MAX_SHOWN = 100  # of each kind
NAMES = {SUBSTITUTION: "Substitutions", DELETION: "Deletions", INSERTION: "Insertions"}
COLUMNS = {
    SUBSTITUTION: ["Reference", "Hypothesis"],
    DELETION: ["Reference"],
    INSERTION: ["Hypothesis"],
}
CHOSEN = "errors_confusion"
Frequent = list[tuple[str | None, str | None, int, int]]


def choose(one: Utterances, found: np.ndarray, normalised: bool) -> np.ndarray | None:
    """Tables of the first model's errors among the rows found; gives those of them that hold the
    chosen error.
    """
    edits = _edits(one, normalised)
    frequent = {kind: edits.frequent(kind, found, MAX_SHOWN) for kind in alignment.ERRORS}
    if one.two:
        st.caption("Errors of the first model.")
    for box, (kind, listed) in zip(st.columns(3), frequent.items(), strict=True):
        with box:
            _table(kind, listed)
    times = {
        (kind, said, heard): count
        for kind, listed in frequent.items()
        for said, heard, count, _ in listed
    }
    chosen = st.selectbox(
        "Show the utterances with",
        list(times),
        index=None,
        format_func=lambda option: f"{_spelled(*option)} ({times.get(option, 0):,})",
        placeholder="an error chosen here, or a row of a table",
        key=CHOSEN,
    )
    if chosen is None:
        return None
    held = np.zeros(len(one), bool)
    held[edits.holding(*chosen)] = True
    return found & held


def _spelled(kind: str, said: str | None, heard: str | None) -> str:
    return (
        f"{said} → {heard}"
        if kind == SUBSTITUTION
        else f"{said} (left out)"
        if kind == DELETION
        else f"{heard} (put in)"
    )


def _table(kind: str, listed: Frequent) -> None:
    st.subheader(NAMES[kind])
    if not listed:
        st.caption("None in these utterances.")
        return
    table = pd.DataFrame(listed, columns=["Reference", "Hypothesis", "Times", "Utterances"])
    key = f"errors_table_{kind}"

    def follow() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        st.session_state[CHOSEN] = (
            (kind, *listed[rows[0]][:2]) if rows and rows[0] < len(listed) else None
        )

    shown = table[[*COLUMNS[kind], "Times", "Utterances"]]
    st.dataframe(
        shown, hide_index=True, height=300, key=key, on_select=follow, selection_mode="single-row"
    )


@st.cache_resource(max_entries=6, show_spinner=False)
def _kept(key: str, normalised: bool) -> dict[tuple[str, bool], Edits]:  # noqa: ARG001 (what it is kept by)
    """A place for the edits of a table; they are made outside, where their progress can be shown."""
    return {}


def _edits(one: Utterances, normalised: bool) -> Edits:
    kept, name = _kept(one.key, normalised), (one.key, normalised)
    if name not in kept:
        bar = st.progress(0.0, f"Aligning {len(one):,} utterances")
        for step in alignment.edits(
            one.rows["reference"].tolist(), one.rows["hypothesis"].tolist(), normalised
        ):
            if isinstance(step, Edits):
                kept[name] = step
            else:
                bar.progress(step)
        bar.empty()
    return kept[name]
