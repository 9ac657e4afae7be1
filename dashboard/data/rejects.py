"""How many rows `chunk` and training left out, by reason, with examples to play."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import streamlit as st

from asr import paths
from asr.cleaning.rejects import PLURALS, REASONS
from asr.errors import DataError
from asr.runs import reports
from asr.storage import corpus, hashing
from asr.storage.corpus import Recording
from dashboard import address, diff_html, widgets
from dashboard.data import left_by_training
from dashboard.data.report_values import dict_of, number, rows_of, split_names

REASON, PAGE = "data_reason", "data_page"  # in the address
PAGE_ROWS = 5  # examples on one page
MAX_SHOWN_RECORDINGS = 3  # of one id
Reason = tuple[str, ...]  # split and code

COLUMNS = {
    "split": st.column_config.TextColumn("Split"),
    "rows_in": st.column_config.NumberColumn("Rows in", format="localized"),
    "rows_kept": st.column_config.NumberColumn("Kept", format="localized"),
    "rejected": st.column_config.NumberColumn("Left out", format="localized"),
    "why": st.column_config.TextColumn("Reasons"),
}


def show(root: Path) -> None:
    """Show the counts per split, and examples of the rows that were left out."""
    summary = reports.read_json(root / paths.CHUNK_SUMMARY, "splits", "in_two_splits")
    splits = rows_of(summary, "splits", "summary.json")
    if not splits:
        raise DataError("summary.json: tells of no split; run dvc checkout or dvc repro")
    table = pd.DataFrame([split_line(split, counts) for split, counts in splits.items()])
    st.dataframe(table, hide_index=True, column_config=COLUMNS)
    if (table["rows_in"] != table["rows_kept"] + table["rejected"]).any():
        raise DataError(
            "summary.json: rows in are not rows kept and left out; run dvc checkout or dvc repro"
        )
    shared = dict_of(summary, "in_two_splits")
    counts = [f"{number(shared.get(kind)) or 0:,.0f} {plural}" for kind, plural in PLURALS.items()]
    st.caption(f"In two splits: {', '.join(counts)}.")
    train = table[table["split"] == "train"]
    left_by_training.show(root, int(train["rejected"].sum()), int(train["rows_in"].sum()))
    if table["rejected"].sum():
        show_examples(root, read_rejects(root / paths.REJECTS))


def split_line(split: str, summary: dict[str, Any]) -> dict[str, Any]:
    """The counts of one split, and its reasons, the most frequent first."""
    rejects = dict_of(summary, "rejects").items()
    counts = {str(code): int(number(count) or 0) for code, count in rejects}
    by_count = sorted(counts.items(), key=lambda pair: -pair[1])
    reasons = ", ".join(f"{count:,} {code}" for code, count in by_count)
    return {
        "split": split,
        "rows_in": int(number(summary.get("rows_in")) or 0),
        "rows_kept": int(number(summary.get("rows_kept")) or 0),
        "rejected": sum(counts.values()),
        "why": reasons or "–",
    }


def read_rejects(path: Path) -> pa.Table:
    """Read the table of rows that were left out: id, split, code, detail.

    Raises:
        DataError: it is missing or damaged, or a column holds something other than text.
    """
    try:
        digest = hashing.sha256(path)
    except OSError as error:
        raise DataError(
            f"{path.name}: cannot be read ({type(error).__name__}); run dvc checkout or dvc repro"
        ) from None
    return _read_rejects(path, digest)


@st.cache_resource(max_entries=4, show_spinner=False)
def _read_rejects(path: Path, digest: str) -> pa.Table:  # noqa: ARG001 (part of the cache key)
    columns = ("id", "split", "code", "detail")
    table = reports.read_parquet(path, *columns).select(columns)
    if any(column.type != pa.string() or column.null_count for column in table.columns):
        raise DataError(f"{path.name}: a column that holds no text; run dvc checkout or dvc repro")
    return table


def show_examples(root: Path, rejects: pa.Table) -> None:
    """Show rows that were left out of one split for one reason, a page at a time."""
    counted = (
        rejects.group_by(["split", "code"])
        .aggregate([("id", "count")])
        .sort_by([("id_count", "descending")])
        .to_pylist()
    )
    counts: dict[Reason, int] = {(row["split"], row["code"]): row["id_count"] for row in counted}
    chosen = choose_reason(counts)
    if chosen is None:
        return
    split, code = chosen
    st.caption(widgets.plain(f"{code}: {REASONS.get(code, 'a reason this page does not know')}."))
    matches = rejects.filter(
        pc.and_(pc.equal(rejects["split"], split), pc.equal(rejects["code"], code))
    )
    pages = -(-len(matches) // PAGE_ROWS)
    page = 1
    if pages > 1:
        page = choose_page(hashing.hash_of([split, code]), pages)
    rows = matches.slice((page - 1) * PAGE_ROWS, PAGE_ROWS).to_pylist()
    recordings = find_recordings(root / paths.RAW, split, [row["id"] for row in rows])
    for row in rows:
        show_example(row, recordings.get(row["id"], []))


def choose_reason(counts: dict[Reason, int]) -> Reason | None:
    """Ask for a split and a reason.

    Args:
        counts: how many rows were left out of a split for a reason; the first is shown at first.
    """
    told = tuple(address.values(REASON))
    st.session_state[REASON] = told if told in counts else next(iter(counts))
    return st.selectbox(
        "Examples of",
        list(counts),
        format_func=lambda pair: f"{pair[1]} in {pair[0]} ({counts.get(pair, 0):,})",
        key=REASON,
        on_change=put_reason,
        width=360,
    )


def put_reason() -> None:
    """Write the reason into the address; its examples begin at their first page."""
    address.put(REASON, st.session_state[REASON])
    address.put(PAGE, None)


def choose_page(list_key: str, pages: int) -> int:
    """Ask for a page of the examples."""
    told = "".join(address.values(PAGE))
    first = int(told) if told.isascii() and told.isdigit() else 1
    key = f"{PAGE}_{list_key}"
    return st.pagination(
        pages,
        default=min(max(first, 1), pages),
        key=key,
        on_change=lambda: address.put(PAGE, [str(st.session_state[key])]),
    )


def find_recordings(raw: Path, split: str, ids: list[str]) -> dict[str, list[Recording]]:
    """Find rows of data/raw by their ids; an id may have several.

    Raises:
        DataError: data/raw is not there, is damaged, or has no such split.
    """
    if split not in split_names(corpus.read_manifest(raw)):
        raise DataError(f"{paths.RAW}: no split {split}; run dvc checkout or dvc repro")
    return corpus.find(raw / split, ids)


def show_example(row: dict[str, str], recordings: list[Recording]) -> None:
    """Show a row that was left out, with every recording of its id; a duplicate id has two."""
    with st.container(border=True):
        st.html(diff_html.facts_line(row["id"], row["detail"]))
        shown: list[Recording | None] = [*recordings[:MAX_SHOWN_RECORDINGS]]
        for recording in shown or [None]:
            text_box, play_box = st.columns([6, 2.5], vertical_alignment="center")
            text = recording.text if recording else ""
            text_box.text(text if text.strip() else "(no transcript)")
            with play_box:
                diff_html.player(recording)
