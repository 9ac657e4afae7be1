"""Read and check values of reports.

A report may be damaged or of an older version. A value of the wrong kind then raises a `DataError`
or is left out on the page; it never causes a traceback.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asr.errors import DataError

MAX_NUMBER = 1e15  # larger numbers count as damaged


def number(value: Any) -> float | None:
    """A value of a JSON report if it is a number; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < MAX_NUMBER else None


def number_from_text(text: str, name: str) -> float:
    """A number of the CSV report called `name`.

    Raises:
        DataError: the text is not a number.
    """
    try:
        value = number(float(text))
    except ValueError:
        value = None
    if value is None:
        raise DataError(f"{name}: a value that is no number; run dvc checkout or dvc repro")
    return value


def rows_of(report: dict[str, Any], key: str, name: str) -> dict[str, dict[str, Any]]:
    """The part `key` of a report, which must be a dict with a dict of values for each row.

    Args:
        name: the report's name for the error.
    Raises:
        DataError: it is something else.
    """
    rows = report[key]
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise DataError(f"{name}: {key} holds no lines of values; run dvc checkout or dvc repro")
    return rows


def dict_of(report: dict[str, Any], key: str) -> dict[str, Any]:
    """The part `key` of a report if it is a dict; else an empty dict."""
    part = report.get(key)
    return part if isinstance(part, dict) else {}


def split_names(manifest: dict[str, Any]) -> list[str]:
    """The splits of a data folder, without names that would lead to another folder."""
    return [
        name for name in manifest["splits"] if name not in ("", "..") and Path(name).name == name
    ]
