"""Data: what the corpus is, how long its recordings are, who speaks, what was left out and why;
examples and copies to hear.

Reads reports/stats, reports/chunk and the data folders of the workspace. Each part stands by itself
when another is missing. A pass over the speakers of half a million rows takes 0.5 s and is kept by
the manifest's hash.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import streamlit as st

from asr import paths
from asr.cleaning.rejects import PLURALS, REASONS
from asr.errors import DataError, UserError
from asr.runs import reports
from asr.storage import corpus, hashing
from asr.storage.corpus import Recording
from dashboard import diff_html, widgets
from dashboard.data import augmented, durations, outliers
from dashboard.data.durations import number, rows_of

SHOWN_SPEAKERS = 20
SHOWN_EXAMPLES = 5
SHOWN_DOUBLES = 3


def page() -> None:
    st.header("Data")
    root = paths.root()
    if not any((root / path).exists() for path in (paths.RAW, paths.CHUNKS, paths.STATS)):
        widgets.empty(
            "There is no corpus here yet. The first stages bring one and measure it:",
            "dvc repro chunk stats",
        )
        return
    part("", about, root)
    part("Durations", durations.show, root)
    part("What a window costs", durations.windows, root)
    part("Rows that look wrong", outliers.show, root)
    part("Hours and speakers", speakers, root)
    part("Left out", rejects, root)
    part("Copies", augmented.show, root)


def part(title: str, show: Callable[[Path], None], root: Path) -> None:
    """A part of the page; when what it shows is missing or damaged it says so, and the others
    stand.
    """
    if title:
        st.subheader(title)
    try:
        show(root)
    except UserError as error:
        widgets.fault(error)


def about(root: Path) -> None:
    """Name, licence and size of the corpus."""
    told = corpus.about(root / paths.RAW)
    st.html(diff_html.STYLE)
    name, licence, source = (
        str(told.get(key) or "not told") for key in ("name", "licence", "source")
    )
    st.html(
        diff_html.about(
            name,
            f"source: {source}",
            f"licence: {licence}",
            f"{number(told.get('rows')) or 0:,.0f} recordings",
        )
    )


@st.cache_resource(max_entries=8, show_spinner=False)
def speakers_of(split: Path, digest: str) -> list[tuple[str | None, int, float]]:  # noqa: ARG001 (what it is kept by)
    return corpus.hours_by_speaker(split)


def speakers(root: Path) -> None:
    """Hours, recordings and speakers of each split that was kept; the speakers with the most hours."""
    chunks = root / paths.CHUNKS
    by_split = {
        split: speakers_of(chunks / split, corpus.split_hash(chunks / split))
        for split in names(corpus.about(chunks))
    }
    st.dataframe(
        pd.DataFrame([speaker_line(*one) for one in by_split.items()]),
        hide_index=True,
        column_config=SPEAKER_COLUMNS,
    )
    split = st.selectbox("Speakers of", list(by_split), key="data_split", width=240)
    known = [(speaker, rows, hours) for speaker, rows, hours in by_split.get(split, []) if speaker]
    if not known:
        st.caption("No speaker is named in this split.")
        return
    unit, factor = ("hours", 1) if known[0][2] >= 1 else ("minutes", 60)
    table = pd.DataFrame(known[:SHOWN_SPEAKERS], columns=["speaker", "recordings", "time"]).assign(
        time=lambda one: one["time"] * factor
    )
    bars = (
        alt.Chart(table)
        .mark_bar(color=durations.COLOURS[0])
        .encode(
            x=alt.X("time:Q", title=unit, axis=alt.Axis(tickCount=8)),
            y=alt.Y("speaker:N", sort=None, title=None, axis=alt.Axis(labelLimit=160)),
            tooltip=[
                alt.Tooltip("speaker:N"),
                alt.Tooltip("recordings:Q", format=","),
                alt.Tooltip("time:Q", title=unit, format=",.2f"),
            ],
        )
    )
    st.altair_chart(bars.properties(height=max(22 * len(table), 44) + 60), width="stretch")
    if len(known) > SHOWN_SPEAKERS:
        st.caption(f"The {SHOWN_SPEAKERS} speakers with the most hours, of {len(known):,}.")


def names(manifest: dict[str, Any]) -> list[str]:
    """The splits of a data folder; a name that is a path is none."""
    return [
        split
        for split in manifest["splits"]
        if split not in ("", "..") and Path(split).name == split
    ]


def speaker_line(split: str, found: list[tuple[str | None, int, float]]) -> dict[str, Any]:
    hours = [one for speaker, _, one in found if speaker]
    return {
        "split": split,
        "recordings": sum(rows for _, rows, _ in found),
        "hours": sum(one for _, _, one in found),
        "speakers": len(hours),
        "median": float(np.median(hours)) * 60 if hours else None,
        "most": 100 * max(hours) / max(sum(one for _, _, one in found), 1e-9) if hours else None,
        "unnamed": sum(rows for speaker, rows, _ in found if not speaker),
    }


SPEAKER_COLUMNS = {
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


def rejects(root: Path) -> None:
    """Rows in, kept and left out, by reason, with examples to hear."""
    summary = reports.read_json(root / paths.CHUNK_SUMMARY, "splits", "in_two_splits")
    told = rows_of(summary, "splits", "summary.json")
    if not told:
        raise DataError("summary.json: tells of no split; run dvc checkout or dvc repro")
    table = pd.DataFrame([reject_line(split, one) for split, one in told.items()])
    st.dataframe(table, hide_index=True, column_config=REJECT_COLUMNS)
    uncounted = table[table["rows_in"] != table["rows_kept"] + table["rejected"]]
    if len(uncounted):
        raise DataError(
            "summary.json: rows in are not rows kept and left out; run dvc checkout or dvc repro"
        )
    shared = summary["in_two_splits"] if isinstance(summary["in_two_splits"], dict) else {}
    st.caption(
        "In two splits: "
        + ", ".join(
            f"{number(shared.get(kind)) or 0:,.0f} {many}" for kind, many in PLURALS.items()
        )
        + "."
    )
    if not table["rejected"].sum():
        st.success("No row was left out.", icon=":material/check:")
        return
    examples(root, reject_table(root / paths.REJECTS))


def reject_line(split: str, one: dict[str, Any]) -> dict[str, Any]:
    codes = one.get("rejects") if isinstance(one.get("rejects"), dict) else {}
    counts = {str(code): int(number(count) or 0) for code, count in (codes or {}).items()}
    line = {
        "split": split,
        "rows_in": int(number(one.get("rows_in")) or 0),
        "rows_kept": int(number(one.get("rows_kept")) or 0),
    }
    why = ", ".join(
        f"{count:,} {code}" for code, count in sorted(counts.items(), key=lambda pair: -pair[1])
    )
    return {**line, "rejected": sum(counts.values()), "why": why or "–"}


REJECT_COLUMNS = {
    "split": st.column_config.TextColumn("Split"),
    "rows_in": st.column_config.NumberColumn("Rows in", format="localized"),
    "rows_kept": st.column_config.NumberColumn("Kept", format="localized"),
    "rejected": st.column_config.NumberColumn("Left out", format="localized"),
    "why": st.column_config.TextColumn("Reasons"),
}


def reject_table(path: Path) -> pa.Table:
    """The rows that were left out.

    Raises:
        BadData: missing, damaged, or columns that hold something else.
    """
    try:
        return rejects_kept(path, hashing.sha256(path))
    except OSError as error:
        raise DataError(
            f"{path.name}: cannot be read ({type(error).__name__}); run dvc checkout or dvc repro"
        ) from None


@st.cache_resource(max_entries=4, show_spinner=False)
def rejects_kept(path: Path, digest: str) -> pa.Table:  # noqa: ARG001 (what it is kept by)
    columns = ("id", "split", "code", "detail")
    table = reports.read_parquet(path, *columns).select(columns)
    if any(column.type != pa.string() or column.null_count for column in table.columns):
        raise DataError(f"{path.name}: a column that holds no text; run dvc checkout or dvc repro")
    return table


def examples(root: Path, table: pa.Table) -> None:
    """Some rows that were left out for one reason, with what is there of them."""
    counted = (
        table.group_by(["split", "code"])
        .aggregate([("id", "count")])
        .sort_by([("id_count", "descending")])
        .to_pylist()
    )
    times = {(row["split"], row["code"]): row["id_count"] for row in counted}
    chosen = st.selectbox(
        "Examples of",
        list(times),
        format_func=lambda one: f"{one[1]} in {one[0]} ({times.get(one, 0):,})",
        key="data_reason",
        width=360,
    )
    if chosen is None:
        return
    split, code = chosen
    st.caption(widgets.plain(f"{code}: {REASONS.get(code, 'a reason this page does not know')}."))
    here = table.filter(pc.and_(pc.equal(table["split"], split), pc.equal(table["code"], code)))
    pages = -(-len(here) // SHOWN_EXAMPLES)
    at = st.pagination(pages, key=f"data_page_{hashing.hash_of([split, code])}") if pages > 1 else 1
    shown = here.slice((at - 1) * SHOWN_EXAMPLES, SHOWN_EXAMPLES).to_pylist()
    found = recordings(root / paths.RAW, split, [row["id"] for row in shown])
    for row in shown:
        example(row, found.get(row["id"], []))


def recordings(raw: Path, split: str, ids: list[str]) -> dict[str, list[Recording]]:
    """The rows as the corpus delivered them; none where data/raw is not here."""
    if split not in names(corpus.about(raw)):
        raise DataError(f"data/raw: no split {split}; run dvc checkout or dvc repro")
    return corpus.find(raw / split, ids)


def example(row: dict[str, str], found: list[Recording]) -> None:
    """One row that was left out: every recording of its id, for a duplicate has two."""
    with st.container(border=True):
        st.html(diff_html.about(row["id"], row["detail"]))
        several: list[Recording | None] = [*found[:SHOWN_DOUBLES]]
        for one in several or [None]:
            text_box, play_box = st.columns([6, 2.5], vertical_alignment="center")
            text_box.text(one.text if one and one.text.strip() else "(no transcript)")
            with play_box:
                diff_html.player(one)
