"""Rows that look wrong to `stats`, from stats.json.

They have labels near the decoder's limit, much silence, improbable rates of speech, or an
unexpected script. A report of an older version lacks some of these; damaged values are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from asr import paths
from asr.runs import reports
from asr.runtime import formatting
from dashboard import widgets
from dashboard.data.report_values import dict_of, number, rows_of

COLUMNS = {
    "why": st.column_config.TextColumn("Why", width="medium"),
    "split": st.column_config.TextColumn("Split"),
    "id": st.column_config.TextColumn("Id"),
    "text": st.column_config.TextColumn("Text", width="large"),
}


def show(root: Path) -> None:
    """Show how many rows look wrong, and examples of them."""
    stats = reports.read_json(root / paths.STATS, "speaking_rate", "scripts", "silence", "labels")
    silence = rows_of(stats, "silence", "stats.json")
    show_counts(stats)
    show_silence(silence)
    lines = outlier_lines(stats, silence)
    if lines:
        st.dataframe(pd.DataFrame(lines), hide_index=True, column_config=COLUMNS)
    else:
        st.success("No row looks wrong.", icon=":material/check:")


def show_counts(stats: dict[str, Any]) -> None:
    labels = dict_of(stats, "labels")
    counts = {
        "labels that the decoder cannot hold": labels.get("over_limit"),
        "labels near its limit": labels.get("near_limit"),
        "improbable rates of speech": dict_of(stats, "speaking_rate").get("outliers"),
        "texts in a strange script": dict_of(stats, "scripts").get("suspects"),
    }
    texts = [f"{number(count) or 0:,.0f} {what}" for what, count in counts.items()]
    st.caption(" · ".join(texts) + ".")


def show_silence(silence: dict[str, dict[str, Any]]) -> None:
    """Show the share of silence in each split of which recordings were measured."""
    shares = {
        split: number(values.get("silent_share"))
        for split, values in silence.items()
        if number(values.get("recordings"))
    }
    if not shares:
        return
    texts = [
        f"{formatting.percent(share, 0)} of {widgets.plain(split)}"
        for split, share in shares.items()
    ]
    st.caption(f"Silent: {', '.join(texts)}, in a sample.")


def outlier_lines(
    stats: dict[str, Any], silence: dict[str, dict[str, Any]]
) -> list[dict[str, str]]:
    """A line for each example in the report, with the reason why it looks wrong."""
    lines = [
        table_line("label near the limit", "train", row)
        for row in examples(dict_of(stats, "labels"))
    ]
    for row in examples(dict_of(stats, "speaking_rate")):
        rate = number(row.get("characters_per_second")) or 0
        lines.append(table_line(f"{rate:.1f} characters a second", row.get("split"), row))
    for row in examples(dict_of(stats, "scripts")):
        lines.append(table_line(f"written in {row.get('script')}", row.get("split"), row))
    for split, values in silence.items():
        lines += [table_line("mostly silent", split, row) for row in examples(values)]
    return lines


def examples(part: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that a part of the report lists as examples."""
    rows = part.get("examples")
    if not isinstance(rows, list):
        return []
    return [row for row in rows if isinstance(row, dict)]


def table_line(why: str, split: object, row: dict[str, Any]) -> dict[str, str]:
    return {
        "why": why,
        "split": str(split),
        "id": str(row.get("id")),
        "text": str(row.get("text") or ""),
    }
