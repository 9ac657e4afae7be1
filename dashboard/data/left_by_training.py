"""What a training leaves out besides what `chunk` leaves out, from reports/train/summary.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from asr import paths
from asr.errors import DataError
from asr.runs import reports
from asr.runs.tested import why_stale, why_unknown
from asr.runtime import formatting
from dashboard import widgets
from dashboard.data.report_values import dict_of, number

STAGES = ("chunk", "featurize", "train")  # from the corpus to a training
NO_TRAINING = (
    "No training of this corpus is here yet. It leaves out what is longer than its window as well."
)


def show(root: Path, rejected: int, rows_in: int) -> None:
    """Say how many recordings the training of this corpus left out, and why.

    Args:
        rejected: training recordings that `chunk` left out.
        rows_in: training recordings of the corpus.
    """
    if not (root / paths.SUMMARY).is_file() or any(why_stale(root, stage) for stage in STAGES):
        st.caption(NO_TRAINING)
        return
    if reason := why_unknown(root):
        st.caption(widgets.plain(f"Shown is the training that is here; {reason}."))
    summary = reports.read_json(root / paths.SUMMARY, "rows_left_out", "rows_trained")
    left_out = {
        str(reason): int(number(count) or 0)
        for reason, count in dict_of(summary, "rows_left_out").items()
    }
    trained = number(summary["rows_trained"])
    if trained is None:
        raise DataError("summary.json: rows_trained is no number; run dvc checkout or dvc repro")
    st.write(widgets.plain(sentence(summary, left_out, int(trained))))
    if rows_in - rejected == trained + sum(left_out.values()):  # else copies are among them
        total = rejected + sum(left_out.values())
        share = formatting.percent(total / max(rows_in, 1))
        st.write(
            widgets.plain(
                f"In all {total:,} of {rows_in:,} training recordings ({share}) are unused."
            )
        )


def sentence(summary: dict[str, Any], left_out: dict[str, int], trained: int) -> str:
    """How many rows the training left out, with their share and the reasons."""
    total = sum(left_out.values())
    if not total:
        return f"The training left out none of its {trained:,} recordings."
    seconds = number(summary.get("window_seconds"))
    known = {
        "longer_than_window": f"longer than the window{f' of {seconds:g} s' if seconds else ''}",
        "label_too_long": "with a text longer than the model can write",
    }
    by_count = sorted(left_out.items(), key=lambda pair: -pair[1])
    reasons = [f"{count:,} {known.get(reason, reason)}" for reason, count in by_count if count]
    share = formatting.percent(total / max(trained + total, 1))
    return f"The training left out {total:,} more ({share}): {', '.join(reasons)}."
