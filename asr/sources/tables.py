"""Tables of text, line by line: CSV, TSV, JSON lines; and tables on disk for what would be too much
to hold. 5 us a row.

Bytes that are not UTF-8 are carried along (surrogateescape), and cost the row, not the table.
UTF-16, and a line that never ends, are refused. A fault names the file and the line.
"""

from __future__ import annotations

import csv
import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from asr.errors import DataError

MAX_LINE = 1 << 24  # characters
MAX_SHOWN = 120  # characters of a corpus in a message
Rows = Iterator[tuple[int, dict[str, Any]]]


def lines(path: Path) -> Iterator[str]:
    """The lines of a text file, each with its ending.

    Raises:
        BadData: UTF-16, or a line of more than MAX_LINE characters.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        number = 0
        while line := file.readline(MAX_LINE):
            number += 1
            if number == 1 and ("\0" in line or line.startswith(("\udcff\udcfe", "\udcfe\udcff"))):
                raise DataError(f"{path}: not UTF-8 but perhaps UTF-16; save it again as UTF-8")
            if len(line) == MAX_LINE:
                raise DataError(f"{path}:{number}: a line of {MAX_LINE:,} characters or more")
            yield line


def read_table(path: Path, wanted: set[str], **dialect: Any) -> Rows:
    """Rows of a table with a header, each with the number of its last line; values are strings.

    Args:
        dialect: of `csv`, and `restval`, which stands for the values that a short row lacks.
    Raises:
        BadData: a column is missing or stands twice, or a row cannot be told from the next, or has
            more values than there are columns.
    """
    csv.field_size_limit(MAX_LINE)
    reader = csv.DictReader(lines(path), **{"restval": "", **dialect})
    try:
        _check_columns(path, list(reader.fieldnames or ["none"]), wanted)
        for row in reader:
            if row.pop(None, None):
                raise DataError(
                    f"{path}:{reader.line_num}: more values than columns; a text that holds the separator wants quotes"
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(
            f"{path}:{reader.reader.line_num}: {error}; a quote that never closes?"
        ) from None


def _check_columns(path: Path, columns: list[str], wanted: set[str]) -> None:
    if not wanted <= set(columns):
        way_out = (
            "; separate them with commas"
            if path.suffix == ".csv" and len(columns) == 1 and {";", "\t"} & set(columns[0])
            else ""
        )
        raise DataError(
            f"{path}: no column {', '.join(sorted(wanted - set(columns)))}; it has {printable(', '.join(columns))}{way_out}"
        )
    named = [one for one in columns if one]
    if len(set(named)) < len(named):
        raise DataError(f"{path}: a column stands twice: {printable(', '.join(columns))}")


def read_json_lines(path: Path) -> Rows:
    """One JSON object a line, with its number; empty lines are passed over.

    Raises:
        BadData: a line that is no object, or holds what cannot be written again, such as half a
            surrogate or NaN.
    """
    for number, line in enumerate(lines(path), 1):
        if line.strip():
            try:
                row = json.loads(line, parse_constant=_refuse)
                json.dumps(row, ensure_ascii=False).encode(errors="surrogateescape")
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}:{number}: not JSON ({printable(str(error))})") from None
            if not isinstance(row, dict):
                raise DataError(
                    f"{path}:{number}: got {type(row).__name__}, want an object with names and values"
                )
            yield number, row


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def printable(text: str) -> str:
    """A text from a corpus as a message shows it: not much of it, on one line, with nothing that a
    terminal obeys.
    """
    return "".join(one if one.isprintable() else "\ufffd" for one in text[:MAX_SHOWN])


def scalar(value: Any) -> str | int | float | bool:
    """A value as an attribute keeps it: lists and objects as their JSON."""
    plain = isinstance(value, str | int | float) and not (
        isinstance(value, float) and not math.isfinite(value)
    )
    return value if plain else json.dumps(value, sort_keys=True, ensure_ascii=False)


@contextmanager
def on_disk(path: Path, schema: str = "") -> Iterator[sqlite3.Connection]:
    """A table that outgrows memory, made anew where a schema is given. It is thrown away with its
    folder, so that nothing is synced.
    """
    if schema:
        path.unlink(missing_ok=True)
    index = sqlite3.connect(path)
    try:
        index.execute("PRAGMA journal_mode = OFF")
        index.execute("PRAGMA synchronous = OFF")
        index.executescript(schema)
        yield index
        index.commit()
    finally:
        index.close()
