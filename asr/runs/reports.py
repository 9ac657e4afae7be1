"""What the stages wrote about a run, read back: a file that is missing or damaged is a fault with
its name, never a traceback.

Each function takes the file's path, in the workspace or fetched from a revision
(`asr.runs.revisions`). Importing costs pyarrow.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from asr.errors import DataError
from asr.evaluation.table import CHARACTER_COUNTS, SCHEMA
from asr.storage import files, hashing

UTTERANCE = pa.schema(
    [
        SCHEMA.field(name).with_nullable(name in ("duration", "speaker", "attributes"))
        for name in SCHEMA.names
        if name not in CHARACTER_COUNTS
    ]
)


def read_json(path: Path, *wanted: str) -> dict[str, Any]:
    """A report that is one JSON object.

    Raises:
        BadData: it is not there, is no JSON object, or lacks one of the keys wanted.
    """
    try:
        found = files.read_json(path)
        hashing.hash_of(found)  # half a surrogate cannot be hashed, nor shown
    except FileNotFoundError:
        raise DataError(f"{path.name}: not there; run dvc repro") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path.name}: cannot be read ({type(error).__name__}); run dvc checkout or dvc repro"
        ) from None
    if not isinstance(found, dict):
        raise DataError(f"{path.name}: holds no table of values; run dvc checkout or dvc repro")
    missing = [key for key in wanted if key not in found]
    if missing:
        raise DataError(f"{path.name}: {missing[0]} is missing; run dvc checkout or dvc repro")
    return found


def read_csv(path: Path, *wanted: str) -> list[dict[str, str]]:
    """A report that is a table with a header.

    Raises:
        BadData: it is not there, cannot be read, or lacks one of the columns wanted.
    """
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")), strict=True)
        rows = [
            {key: value or "" for key, value in row.items() if key is not None} for row in reader
        ]
    except FileNotFoundError:
        raise DataError(f"{path.name}: not there; run dvc repro") from None
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path.name}: cannot be read ({type(error).__name__}); run dvc checkout or dvc repro"
        ) from None
    missing = [key for key in wanted if key not in (reader.fieldnames or [])]
    if missing:
        raise DataError(f"{path.name}: no column {missing[0]}; run dvc checkout or dvc repro")
    return rows


def read_parquet(path: Path, *wanted: str) -> pa.Table:
    """A report that is a Parquet table.

    Raises:
        BadData: it is not there, is damaged, or lacks one of the columns wanted.
    """
    try:
        table = pq.read_table(path, memory_map=False)
        table.validate(full=True)
    except FileNotFoundError:
        raise DataError(f"{path.name}: not there; run dvc repro") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{path.name}: cannot be read ({type(error).__name__}); run dvc checkout or dvc repro"
        ) from None
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise DataError(f"{path.name}: no column {missing[0]}; run dvc checkout or dvc repro")
    return table


def read_utterances(path: Path) -> pa.Table:
    """What each model heard in each test recording, with counts that are counts.

    Raises:
        BadData: as `read_parquet`, or a column holds something else.
    """
    table = read_parquet(path, *UTTERANCE.names).select(UTTERANCE.names)
    for field in UTTERANCE:
        column = table[field.name]
        wrong = column.type != field.type or (column.null_count and not field.nullable)
        if wrong or (
            pa.types.is_integer(field.type) and len(column) and pc.min(column).as_py() < 0
        ):
            raise DataError(
                f"{path.name}: column {field.name} holds no {field.name}; run dvc checkout or dvc repro"
            )
    if not len(table):
        raise DataError(f"{path.name}: holds no utterance; run dvc checkout or dvc repro")
    return table
