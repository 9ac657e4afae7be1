"""Rows that look wrong to `stats`: labels near the limit, much silence, improbable rates of speech,
strange scripts. Costs one small file.

A report of an older version lacks some of them; what is damaged is left out or a fault, never a
traceback.
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
from dashboard.data.durations import number, rows_of

COLUMNS = {
    "why": st.column_config.TextColumn("Why", width="medium"),
    "split": st.column_config.TextColumn("Split"),
    "id": st.column_config.TextColumn("Id"),
    "text": st.column_config.TextColumn("Text", width="large"),
}


def show(root: Path) -> None:
    """How many rows look wrong, and some of them."""
    stats = reports.read_json(root / paths.STATS, "speaking_rate", "scripts", "silence", "labels")
    rate, written, labels = (
        stats[key] if isinstance(stats[key], dict) else {}
        for key in ("speaking_rate", "scripts", "labels")
    )
    silence = rows_of(stats, "silence", "stats.json")
    counts = {
        "labels that the decoder cannot hold": labels.get("over_limit"),
        "labels near its limit": labels.get("near_limit"),
        "improbable rates of speech": rate.get("outliers"),
        "texts in a strange script": written.get("suspects"),
    }
    st.caption(
        " · ".join(f"{number(count) or 0:,.0f} {what}" for what, count in counts.items()) + "."
    )
    silent = {
        split: number(one.get("silent_share"))
        for split, one in silence.items()
        if number(one.get("recordings"))
    }
    if silent:
        shares = ", ".join(
            f"{formatting.percent(share, 0)} of {widgets.plain(split)}"
            for split, share in silent.items()
        )
        st.caption(f"Silent: {shares}, in a sample.")
    found = [
        *(line("label near the limit", "train", one) for one in examples(labels)),
        *(
            line(
                f"{number(one.get('characters_per_second')) or 0:.1f} characters a second",
                one.get("split"),
                one,
            )
            for one in examples(rate)
        ),
        *(
            line(f"written in {one.get('script')}", one.get("split"), one)
            for one in examples(written)
        ),
        *(
            line("mostly silent", split, one)
            for split, told in silence.items()
            for one in examples(told)
        ),
    ]
    if found:
        st.dataframe(pd.DataFrame(found), hide_index=True, column_config=COLUMNS)
    else:
        st.success("No row looks wrong.", icon=":material/check:")


def examples(told: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that a part of the report names."""
    named = told.get("examples")
    return [one for one in named if isinstance(one, dict)] if isinstance(named, list) else []


def line(why: str, split: object, one: dict[str, Any]) -> dict[str, str]:
    return {
        "why": why,
        "split": str(split),
        "id": str(one.get("id")),
        "text": str(one.get("text") or ""),
    }
