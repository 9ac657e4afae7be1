"""Data: what the corpus is, how long its recordings are, who speaks, which rows were left out.

Reads reports/stats, reports/chunk and the data folders of the workspace. Each part of the page is
shown even if others are missing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from asr import paths
from asr.errors import UserError
from asr.storage import corpus
from dashboard import diff_html, widgets
from dashboard.data import augmented, durations, outliers, rejects, speakers, windows
from dashboard.data.report_values import number


def page() -> None:
    st.header("Data")
    root = paths.root()
    if not any((root / path).exists() for path in (paths.RAW, paths.CHUNKS, paths.STATS)):
        widgets.empty_state(
            "There is no corpus here yet. The first stages bring one and measure it:",
            "dvc repro chunk stats",
        )
        return
    part("", show_corpus, root)
    part("Durations", durations.show, root)
    part("What a window costs", windows.show, root)
    part("Rows that look wrong", outliers.show, root)
    part("Hours and speakers", speakers.show, root)
    part("Left out", rejects.show, root)
    part("Copies", augmented.show, root)


def part(title: str, show: Callable[[Path], None], root: Path) -> None:
    """Show one part of the page, or an error if its data is missing or damaged."""
    if title:
        st.subheader(title)
    try:
        show(root)
    except UserError as error:
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
