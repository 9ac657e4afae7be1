"""Read the reports of the stages; a missing or damaged file raises an error that names it.

Each function takes the path of a file, in the workspace or fetched from a revision
(`asr.runs.revisions`). Importing costs pyarrow.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from asr.errors import DataError
from asr.evaluation.table import CHARACTER_COUNTS, FORM_COUNTS, LOOPED, SCHEMA
from asr.storage import files, hashing

NULLABLE = ("duration", "speaker", "attributes")
UNREAD = {*CHARACTER_COUNTS, *FORM_COUNTS, LOOPED}  # older tables lack some of these
UTTERANCE = pa.schema(
    [
        SCHEMA.field(name).with_nullable(name in NULLABLE)
        for name in SCHEMA.names
        if name not in UNREAD
    ]
)
# Errors that reading a damaged file can raise.
READ_ERRORS = (OSError, ValueError, RecursionError, csv.Error, pa.ArrowException)


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """Read a report that is one JSON object.

    Args:
        keys: keys that it must have.
    Raises:
        DataError: it is not there, is no JSON object, or lacks one of the keys.
    """
    with _reading(path):
        report = files.read_json(path)
        hashing.hash_of(report)  # fails on half a surrogate, which no page can show
    if not isinstance(report, dict):
        raise _damaged(path, "holds no table of values")
    for key in keys:
        if key not in report:
            raise _damaged(path, f"{key} is missing")
    return report


def read_csv(path: Path, *columns: str) -> list[dict[str, str]]:
    """Read a report that is a CSV table with a header.

    Args:
        columns: columns that it must have.
    Raises:
        DataError: it is not there, cannot be read, or lacks one of the columns.
    """
    with _reading(path):
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")), strict=True)
        # In lines longer than the header DictReader has the key None, in shorter ones None values.
        rows = [
            {key: value or "" for key, value in row.items() if key is not None} for row in reader
        ]
    _check_columns(path, reader.fieldnames or [], columns)
    return rows


def read_parquet(path: Path, *columns: str) -> pa.Table:
    """Read a report that is a Parquet table.

    Args:
        columns: columns that it must have.
    Raises:
        DataError: it is not there, is damaged, or lacks one of the columns.
    """
    with _reading(path):
        table = pq.read_table(path, memory_map=False)
        table.validate(full=True)
    _check_columns(path, table.column_names, columns)
    return table


def read_utterances(path: Path) -> pa.Table:
    """Read the table of utterances: each model's hypothesis for each test recording.

    Raises:
        DataError: as in `read_parquet`; a column has another type or a negative count; no rows.
    """
    table = read_parquet(path, *UTTERANCE.names).select(UTTERANCE.names)
    for field in UTTERANCE:
        if not _holds(table[field.name], field):
            raise _damaged(path, f"column {field.name} holds no {field.name}")
    if not len(table):
        raise _damaged(path, "holds no utterance")
    return table


def _holds(column: pa.ChunkedArray, field: pa.Field) -> bool:
    if column.type != field.type or (column.null_count and not field.nullable):
        return False
    counts = pa.types.is_integer(field.type) and len(column)
    return not counts or pc.min(column).as_py() >= 0


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn errors of reading a file into a DataError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path.name}: not there; run dvc repro") from None
    except READ_ERRORS as error:
        raise _damaged(path, f"cannot be read ({type(error).__name__})") from None


def _check_columns(path: Path, columns: Collection[str], required: Collection[str]) -> None:
    for name in required:
        if name not in columns:
            raise _damaged(path, f"no column {name}")


def _damaged(path: Path, fault: str) -> DataError:
    return DataError(f"{path.name}: {fault}; run dvc checkout or dvc repro")
