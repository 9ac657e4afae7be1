"""Read back what the stages wrote; a file that is missing or damaged is an error with its name.

Each function takes the file's path, in the workspace or fetched from a revision
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
from asr.evaluation.table import CHARACTER_COUNTS, SCHEMA
from asr.storage import files, hashing

NULLABLE = ("duration", "speaker", "attributes")
UTTERANCE = pa.schema(
    [
        SCHEMA.field(name).with_nullable(name in NULLABLE)
        for name in SCHEMA.names
        if name not in CHARACTER_COUNTS
    ]
)
# What reading a damaged file can raise.
READ_ERRORS = (OSError, ValueError, RecursionError, csv.Error, pa.ArrowException)


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """A report that is one JSON object.

    Raises:
        DataError: it is not there, is no JSON object, or lacks one of the keys.
    """
    with _reading(path):
        report = files.read_json(path)
        hashing.hash_of(report)  # fails on half a surrogate, which cannot be shown either
    if not isinstance(report, dict):
        raise _damaged(path, "holds no table of values")
    for key in keys:
        if key not in report:
            raise _damaged(path, f"{key} is missing")
    return report


def read_csv(path: Path, *columns: str) -> list[dict[str, str]]:
    """A report that is a table with a header.

    Raises:
        DataError: it is not there, cannot be read, or lacks one of the columns.
    """
    with _reading(path):
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")), strict=True)
        # a line of other length than the header has values under None, or None as values
        rows = [
            {key: value or "" for key, value in row.items() if key is not None} for row in reader
        ]
    _check_columns(path, reader.fieldnames or [], columns)
    return rows


def read_parquet(path: Path, *columns: str) -> pa.Table:
    """A report that is a Parquet table.

    Raises:
        DataError: it is not there, is damaged, or lacks one of the columns.
    """
    with _reading(path):
        table = pq.read_table(path, memory_map=False)
        table.validate(full=True)
    _check_columns(path, table.column_names, columns)
    return table


def read_utterances(path: Path) -> pa.Table:
    """What each model heard in each test recording, with counts that are not negative.

    Raises:
        DataError: as `read_parquet`, or a column holds something else, or there is no row.
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
    """Turn what reading a file raises into a DataError with its name."""
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
