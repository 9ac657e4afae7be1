"""The most frequent errors of a model, and the rows in which one of them occurs.

A table of 20,000 utterances is aligned once, in 0.4 s.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from asr.evaluation import alignment
from asr.evaluation.alignment import DELETION, INSERTION, SUBSTITUTION, Edits
from asr.evaluation.slices import Utterances
from dashboard import address

MAX_SHOWN = 100  # of each kind
NAMES = {SUBSTITUTION: "Wrong words", DELETION: "Missed words", INSERTION: "Added words"}
COLUMNS = {SUBSTITUTION: ["Said", "Heard"], DELETION: ["Said"], INSERTION: ["Heard"]}
CHOSEN = "error"  # in the address: its kind, then the reference's word, the hypothesis's, or both

Error = tuple[str, str | None, str | None]  # kind, the reference's word, the hypothesis's

# Reference word, hypothesis word, times, utterances; None where the error has no such word.
FrequentErrors = list[tuple[str | None, str | None, int, int]]


def choose(utterances: Utterances, mask: np.ndarray, normalized: bool) -> np.ndarray | None:
    """Show tables of the first model's errors and ask for one of them.

    Args:
        mask: (rows,) bool, the rows that are counted.
        normalized: use the texts as WER counts them, not as they were written.
    Returns:
        (rows,) bool, the counted rows in which the chosen error occurs; None until one is chosen.
    """
    edits = _edits(utterances, normalized)
    frequent = {kind: edits.frequent(kind, mask, MAX_SHOWN) for kind in alignment.ERRORS}
    if utterances.two:
        st.caption("Errors of the first model.")
    for box, (kind, errors) in zip(st.columns(3), frequent.items(), strict=True):
        with box:
            _table(kind, errors)
    times: dict[Error, int] = {
        (kind, reference, hypothesis): count
        for kind, errors in frequent.items()
        for reference, hypothesis, count, _ in errors
    }
    told = read_address()
    st.session_state[CHOSEN] = told
    chosen: Error | None = st.selectbox(
        "Show the utterances with",
        list(times) if told is None or told in times else [told, *times],
        index=None,
        format_func=lambda error: f"{_label(*error)} ({times.get(error, 0):,})",
        placeholder="an error chosen here, or a row of a table",
        key=CHOSEN,
        on_change=lambda: write_address(st.session_state[CHOSEN]),
    )
    if chosen is None:
        return None
    has_error = np.zeros(len(utterances), bool)
    has_error[edits.holding(*chosen)] = True
    return mask & has_error


def read_address() -> Error | None:
    """The error that the address names; None if it names none."""
    match address.values(CHOSEN):
        case [kind, said, heard] if kind == SUBSTITUTION:
            return kind, said, heard
        case [kind, said] if kind == DELETION:
            return kind, said, None
        case [kind, heard] if kind == INSERTION:
            return kind, None, heard
    return None


def write_address(error: Error | None) -> None:
    address.put(CHOSEN, error and [part for part in error if part is not None])


def _label(kind: str, reference: str | None, hypothesis: str | None) -> str:
    if kind == SUBSTITUTION:
        return f"{reference} → {hypothesis}"
    if kind == DELETION:
        return f"{reference} (missed)"
    return f"{hypothesis} (added)"


def _table(kind: str, errors: FrequentErrors) -> None:
    """Show the errors of one kind; selecting a row chooses its error."""
    st.subheader(NAMES[kind])
    if not errors:
        st.caption("None in these utterances.")
        return
    table = pd.DataFrame(errors, columns=["Said", "Heard", "Times", "Utterances"])
    key = f"errors_table_{kind}"

    def on_select() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        if rows and rows[0] < len(errors):
            reference, hypothesis, *_ = errors[rows[0]]
            write_address((kind, reference, hypothesis))
        else:
            write_address(None)

    st.dataframe(
        table[[*COLUMNS[kind], "Times", "Utterances"]],
        hide_index=True,
        height=300,
        key=key,
        on_select=on_select,
        selection_mode="single-row",
    )


def _edits(utterances: Utterances, normalized: bool) -> Edits:
    """All errors of the table, computed once."""
    cache = _cache(utterances.key, normalized)
    key = (utterances.key, normalized)
    if key not in cache:
        bar = st.progress(0.0, f"Aligning {len(utterances):,} utterances")
        references = utterances.rows["reference"].tolist()
        hypotheses = utterances.rows["hypothesis"].tolist()
        for step in alignment.edits(references, hypotheses, normalized):
            if isinstance(step, Edits):
                cache[key] = step
            else:
                bar.progress(step)
        bar.empty()
    return cache[key]


@st.cache_resource(max_entries=6, show_spinner=False)
def _cache(key: str, normalized: bool) -> dict[tuple[str, bool], Edits]:  # noqa: ARG001 (the key)
    """An empty dict for the edits of one table.

    They are computed outside this function, because a cached function cannot show its progress.
    """
    return {}
