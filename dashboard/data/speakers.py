"""Hours, recordings and speakers of each split in data/chunks.

A pass over the speakers of half a million rows takes 0.5 s and is cached by the manifest's hash.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from asr import paths
from asr.storage import corpus
from dashboard import address
from dashboard.data.durations import COLORS
from dashboard.data.report_values import split_names

MAX_SHOWN_SPEAKERS = 20
COLUMNS = {
    "split": st.column_config.TextColumn("Split"),
    "recordings": st.column_config.NumberColumn("Recordings kept", format="localized"),
    "hours": st.column_config.NumberColumn("Hours", format="%.2f h"),
    "speakers": st.column_config.NumberColumn("Speakers", format="localized"),
    "median": st.column_config.NumberColumn("Median per speaker", format="%.1f min"),
    "most": st.column_config.NumberColumn(
        "Top speaker", format="%.1f %%", help="Of the split's hours, by the speaker with the most"
    ),
    "unnamed": st.column_config.NumberColumn("Without a speaker", format="localized"),
}

SpeakerHours = list[tuple[str | None, int, float]]  # speaker, recordings, hours; most hours first


def show(root: Path) -> None:
    """Show a line per split, and the speakers with the most hours in one split."""
    chunks = root / paths.CHUNKS
    by_split = {
        split: hours_by_speaker(chunks / split, corpus.split_hash(chunks / split))
        for split in split_names(corpus.read_manifest(chunks))
    }
    table = pd.DataFrame([split_line(split, rows) for split, rows in by_split.items()])
    st.dataframe(table, hide_index=True, column_config=COLUMNS)
    splits = list(by_split)
    first = splits[0] if splits else None
    split = st.selectbox("Speakers of", splits, width=240, **address.widget("data_split", first))
    named = [row for row in by_split.get(split, []) if row[0]]
    if not named:
        st.caption("No speaker is named in this split.")
        return
    show_chart(named[:MAX_SHOWN_SPEAKERS])
    if len(named) > MAX_SHOWN_SPEAKERS:
        st.caption(f"The {MAX_SHOWN_SPEAKERS} speakers with the most hours, of {len(named):,}.")


@st.cache_resource(max_entries=8, show_spinner=False)
def hours_by_speaker(split: Path, digest: str) -> SpeakerHours:  # noqa: ARG001 (cache key)
    return corpus.hours_by_speaker(split)


def split_line(split: str, rows: SpeakerHours) -> dict[str, Any]:
    named_hours = [hours for speaker, _, hours in rows if speaker]
    total_hours = sum(hours for _, _, hours in rows)
    line = {
        "split": split,
        "recordings": sum(count for _, count, _ in rows),
        "hours": total_hours,
        "speakers": len(named_hours),
        "median": None,
        "most": None,
        "unnamed": sum(count for speaker, count, _ in rows if not speaker),
    }
    if named_hours:
        line["median"] = float(np.median(named_hours)) * 60
        line["most"] = 100 * max(named_hours) / max(total_hours, 1e-9)
    return line


def show_chart(rows: SpeakerHours) -> None:
    """Show a bar per speaker, in minutes if no speaker has an hour."""
    unit, per_hour = ("hours", 1) if rows[0][2] >= 1 else ("minutes", 60)
    table = pd.DataFrame(rows, columns=["speaker", "recordings", "time"])
    table["time"] *= per_hour
    bars = (
        alt.Chart(table)
        .mark_bar(color=COLORS[0])
        .encode(
            x=alt.X("time:Q", title=unit, axis=alt.Axis(tickCount=8)),
            y=alt.Y("speaker:N", sort=None, title=None, axis=alt.Axis(labelLimit=160)),
            tooltip=[
                alt.Tooltip("speaker:N"),
                alt.Tooltip("recordings:Q", format=","),
                alt.Tooltip("time:Q", title=unit, format=",.2f"),
            ],
        )
        .properties(height=max(22 * len(table), 44) + 60)
    )
    st.altair_chart(bars, width="stretch")
