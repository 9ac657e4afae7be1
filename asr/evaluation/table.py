"""The table of utterances: its columns, and the errors and words of a row."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

# Names of models in the table: the trained one; the one before training, as it was published; and
# the same with the window that training gave it, where that is another.
FINETUNED, START, START_CUT = "finetuned", "start", "start_cut"
COUNTS = ("hits", "substitutions", "deletions", "insertions")
RAW_COUNTS = tuple(f"raw_{name}" for name in COUNTS)
CHARACTER_COUNTS = ("cer_errors", "cer_chars", "raw_cer_errors", "raw_cer_chars")
# Word errors that are only a matter of form, see `asr.evaluation.form`.
FORM_COUNTS = ("case_errors", "punctuation_errors", "spacing_errors", "numeral_errors")
LOOPED = "looped"  # whether the hypothesis goes round in circles, or was stopped for it
COUNT_COLUMNS = (*COUNTS, *RAW_COUNTS, *CHARACTER_COUNTS, *FORM_COUNTS)
TEXTS = ("id", "model", "reference", "hypothesis")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in TEXTS),
        *((name, pa.int32()) for name in COUNT_COLUMNS),
        (LOOPED, pa.bool_()),
        ("duration", pa.float64()),
        ("speaker", pa.string()),
        ("attributes", pa.string()),
    ]
)


def errors(row: dict[str, Any]) -> int:
    """Word errors of a row, on normalized text."""
    return int(row["substitutions"] + row["deletions"] + row["insertions"])


def words(row: dict[str, Any]) -> int:
    """Words of the reference, on normalized text."""
    return int(row["hits"] + row["substitutions"] + row["deletions"])


def form_errors(row: dict[str, Any]) -> int:
    """Word errors of a row that are a matter of form, on normalized text."""
    return int(row["spacing_errors"] + row["numeral_errors"])
