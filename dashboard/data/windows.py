"""The recommended window, and what each window would cost, from reports/stats."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from asr import paths
from asr.errors import DataError
from asr.runs import reports
from asr.runtime import formatting
from dashboard import widgets
from dashboard.data.report_values import dict_of, number, number_from_text, rows_of

PERCENT_COLUMNS = ("share_fit", "padding_share", "compute_against_30s")
COLUMNS = {
    "window_seconds": st.column_config.NumberColumn("Window", format="%g s"),
    "rows_fit": st.column_config.NumberColumn("Recordings that fit", format="localized"),
    "share_fit": st.column_config.NumberColumn("Share that fits", format="%.1f %%"),
    "padding_share": st.column_config.NumberColumn(
        "Padding", format="%.0f %%", help="Share of each window that holds no recording"
    ),
    "compute_against_30s": st.column_config.NumberColumn(
        "Compute", format="%.0f %%", help="Of a training row, against a window of 30 s"
    ),
    "epoch": st.column_config.TextColumn(
        "An epoch",
        help="Once through all recordings that fit, by a trial on the machine that measured",
    ),
}
SIZE_COLUMNS = {  # title and help; the unit depends on the sizes
    "feature_bytes": ("Features", "As kept: no padding, 12 bits a value"),
    "padded_float32_bytes": ("Padded float32", "What the usual recipe would keep"),
}
CSV_COLUMNS = (*(name for name in COLUMNS if name != "epoch"), *SIZE_COLUMNS)


def show(root: Path) -> None:
    """Show the recommended window with its reason, and the costs of each window."""
    stats = reports.read_json(root / paths.STATS)
    reason = dict_of(stats, "recommended").get("reason")
    if isinstance(reason, str):
        st.info(widgets.plain(f"Recommended: {reason}"), icon=":material/straighten:")
    table = window_table(root)
    sizes = list(SIZE_COLUMNS)
    is_large = len(table) and table[sizes].max().max() >= 1e10
    unit, unit_bytes = ("GB", 1e9) if is_large else ("MB", 1e6)
    table[sizes] /= unit_bytes
    size_columns = {
        name: st.column_config.NumberColumn(title, format=f"%.0f {unit}", help=help)
        for name, (title, help) in SIZE_COLUMNS.items()
    }
    st.dataframe(table, hide_index=True, column_config={**COLUMNS, **size_columns})
    st.caption(
        "For the training split: a short window computes less, a long one holds more recordings. "
        "Features are kept without padding."
    )


def window_table(root: Path) -> pd.DataFrame:
    """The rows of windows.csv as numbers, shares as percent, with the duration of an epoch."""
    rows = reports.read_csv(root / paths.WINDOWS, *CSV_COLUMNS)
    numbers = [
        {name: number_from_text(row[name], "windows.csv") for name in CSV_COLUMNS} for row in rows
    ]
    table = pd.DataFrame(numbers, columns=list(CSV_COLUMNS))
    for name in PERCENT_COLUMNS:
        table[name] *= 100
    seconds = epoch_seconds(root)
    table["epoch"] = [
        formatting.duration_text(seconds.get(f"{window:g}")) for window in table["window_seconds"]
    ]
    return table


def epoch_seconds(root: Path) -> dict[str, float | None]:
    """Seconds of an epoch at each window, on the machine where `stats` ran; empty if not timed."""
    try:
        timing = reports.read_json(root / paths.STATS_TIMING, "windows")
        windows = rows_of(timing, "windows", "timing.json")
    except DataError:
        return {}
    return {window: number(values.get("epoch_seconds")) for window, values in windows.items()}
