"""Data: what the corpus is, how long its recordings are, who speaks, which rows were left out.

Reads reports/stats, reports/chunk and the data folders of the workspace. Each part of the page is
shown even if others are missing, and only if it is of the corpus that the heading names.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from asr import paths
from asr.errors import UserError
from asr.runs.tested import why_stale
from asr.storage import corpus
from dashboard import address, diff_html, widgets, workspace
from dashboard.data import augmented, durations, outliers, rejects, speakers, windows
from dashboard.data.report_values import number

STATS, CHUNK = "stats", "chunk"  # the stages whose reports are shown
WATCHED = ("dvc.lock", "data/raw/manifest.json", paths.STATS, paths.CHUNK_SUMMARY, paths.SUMMARY)
NOT_MADE = "Not made yet for this corpus."


def page() -> None:
    address.open_page("Data")
    st.header("Data")
    show_data(paths.root())
    workspace.watch(lambda: workspace.stamps(*WATCHED))


def show_data(root: Path) -> None:
    """Show the corpus, and each part of what was measured of it."""
    if not any((root / path).exists() for path in (paths.RAW, paths.CHUNKS, paths.STATS)):
        message = "There is no corpus here yet. The first stages bring one and measure it:"
        workspace.not_made(message, "dvc repro chunk stats")
        return
    part("", show_corpus, root)
    stale = [stage for stage in (STATS, CHUNK) if why_stale(root, stage)]
    if stale:
        message = "What was measured here is of another corpus. To measure this one:"
        workspace.not_made(message, " ".join(["dvc repro", *stale]))
    for title, show, stage in (
        ("Durations", durations.show, STATS),
        ("What a window costs", windows.show, STATS),
        ("Rows that look wrong", outliers.show, STATS),
        ("Hours and speakers", speakers.show, CHUNK),
        ("Left out", rejects.show, CHUNK),
        ("Hear the augmentation", augmented.show, CHUNK),
    ):
        part(title, show, root, is_stale=stage in stale)


def part(title: str, show: Callable[[Path], None], root: Path, is_stale: bool = False) -> None:
    """Show one part of the page, or say why it is not there.

    Args:
        is_stale: what was made is of another corpus.
    """
    if title:
        st.subheader(title)
    if is_stale:
        st.caption(workspace.BEING_MADE if workspace.is_being_made() else NOT_MADE)
        return
    try:
        show(root)
    except UserError as error:
        if workspace.is_being_made():
            st.caption(workspace.BEING_MADE)
        else:
            widgets.show_error(error)


def show_corpus(root: Path) -> None:
    """Show name, licence and size of the corpus."""
    manifest = corpus.read_manifest(root / paths.RAW)
    st.html(diff_html.STYLE)
    name, licence, source = (
        str(manifest.get(key) or "not told") for key in ("name", "licence", "source")
    )
    num_rows = number(manifest.get("rows")) or 0
    line = diff_html.facts_line(
        name, f"source: {source}", f"licence: {licence}", f"{num_rows:,.0f} recordings"
    )
    st.html(line)
