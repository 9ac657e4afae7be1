"""How many hypotheses are loops, how many errors they make, and a choice of them or the rest."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from asr.evaluation import slices
from asr.evaluation.slices import Utterances
from dashboard import address, widgets
from dashboard.errors.result_picker import ResultSource

ONLY, WITHOUT = "only", "without"
CHOICES = {ONLY: "Only loops", WITHOUT: "Without loops"}
HELP = "A loop is a phrase that the model wrote over and over, and that nobody said so often."


def choose(
    utterances: Utterances, mask: np.ndarray, text: str, sources: list[ResultSource]
) -> np.ndarray:
    """Tell the loops among the utterances that match, and ask whether to show them.

    Args:
        mask: (rows,) bool, the utterances that match.
        text: COUNTED or WRITTEN, which is the prefix of the columns of counts.
    Returns:
        (rows,) bool, those of them to show.
    """
    has_loop: np.ndarray = slices.has_loop(utterances.rows)
    if not has_loop.any():
        return mask
    line = st.container(horizontal=True, vertical_alignment="center")
    rows = utterances.rows[mask]
    facts = [told(rows, prefix, text) for _, prefix in zip(sources, ("", "other_"), strict=False)]
    if len(sources) > 1:
        facts = [f"{source.name}: {fact}" for source, fact in zip(sources, facts, strict=True)]
    line.caption(widgets.plain(" ".join(f"{fact}." for fact in facts)), help=HELP, width="content")
    choice = line.segmented_control(
        "Loops",
        list(CHOICES),
        format_func=CHOICES.__getitem__,
        label_visibility="collapsed",
        **address.widget("loops"),
    )
    shown = {ONLY: has_loop, WITHOUT: ~has_loop}.get(choice or "", np.True_)
    return np.asarray(mask & shown)


def told(rows: pd.DataFrame, prefix: str, text: str) -> str:
    """How many of these utterances are loops, and how many of the errors are theirs."""
    is_loop = rows[f"{prefix}loop"].notna().to_numpy()
    errors = slices.errors(rows, f"{prefix}{text}")
    loops = int(is_loop.sum())
    are = "is a loop" if loops == 1 else "are loops"
    return (
        f"{loops:,} of {len(rows):,} utterances {are}: "
        f"{int(errors[is_loop].sum()):,} of {int(errors.sum()):,} errors"
    )
