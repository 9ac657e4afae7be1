"""Tables of text, read line by line: CSV, TSV, JSON lines. 5 us a row.

Bytes that are not UTF-8 are carried along (surrogateescape): they cost their row, not the table.
UTF-16, and a line that never ends, are refused. Errors name the file and the line. Also here: a
scratch database, for what is too large to hold in memory.
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
UTF16_STARTS = ("\udcff\udcfe", "\udcfe\udcff")  # its byte order marks, as UTF-8 decodes them

Rows = Iterator[tuple[int, dict[str, Any]]]


def lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, each with its line ending.

    Raises:
        DataError: UTF-16, or a line of MAX_LINE characters or more.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        number = 0
        while line := file.readline(MAX_LINE):
            number += 1
            if number == 1 and ("\0" in line or line.startswith(UTF16_STARTS)):
                raise DataError(f"{path}: not UTF-8 but perhaps UTF-16; save it again as UTF-8")
            if len(line) == MAX_LINE:
                raise DataError(f"{path}:{number}: a line of {MAX_LINE:,} characters or more")
            yield line


def read_table(path: Path, required: set[str], **dialect: Any) -> Rows:
    """Yield the rows of a table with a header, each with the number of its last line.

    Args:
        required: columns that the table must have.
        dialect: options of `csv.DictReader`; `restval` replaces the values that a short row lacks.
    Yields:
        line number, and values by column, as strings.
    Raises:
        DataError: a column is missing or stands twice, a quote is never closed, or a row has more
            values than there are columns.
    """
    csv.field_size_limit(MAX_LINE)
    reader = csv.DictReader(lines(path), **{"restval": "", **dialect})
    try:
        _check_columns(path, list(reader.fieldnames or ["none"]), required)
        for row in reader:
            if row.pop(None, None):
                raise DataError(
                    f"{path}:{reader.line_num}: more values than columns; "
                    "a text that holds the separator wants quotes"
                )
            yield reader.line_num, row
    except csv.Error as error:
        line = reader.reader.line_num
        raise DataError(f"{path}:{line}: {error}; a quote that never closes?") from None


def _check_columns(path: Path, columns: list[str], required: set[str]) -> None:
    present = printable(", ".join(columns))
    if not required <= set(columns):
        missing = ", ".join(sorted(required - set(columns)))
        other_separator = len(columns) == 1 and {";", "\t"} & set(columns[0])
        advice = ""
        if path.suffix == ".csv" and other_separator:
            advice = "; separate them with commas"
        raise DataError(f"{path}: no column {missing}; it has {present}{advice}")
    named = [column for column in columns if column]
    if len(set(named)) < len(named):
        raise DataError(f"{path}: a column stands twice: {present}")


def read_json_lines(path: Path) -> Rows:
    """Yield the JSON object of each line, with the line's number; empty lines are skipped.

    Raises:
        DataError: a line that is no object, or holds what cannot be written again, such as half a
            surrogate or NaN.
    """
    for number, line in enumerate(lines(path), 1):
        if line.strip():
            yield number, _json_object(f"{path}:{number}", line)


def _json_object(where: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
        json.dumps(row, ensure_ascii=False).encode(errors="surrogateescape")
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({printable(str(error))})") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: got {type(row).__name__}, want an object with names and values")
    return row


def _refuse_constant(constant: str) -> NoReturn:
    """Refuse NaN and infinity, which Python's parser takes and JSON does not know."""
    raise ValueError(constant)


def printable(text: str) -> str:
    """Make a text from a corpus fit for a message: short, and without control characters."""
    shown = text[:MAX_SHOWN]
    return "".join(character if character.isprintable() else "\ufffd" for character in shown)


def attribute_value(value: Any) -> str | int | float | bool:
    """Turn a value into what an attribute can hold: lists and objects become their JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    if isinstance(value, str | int | float):
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


@contextmanager
def scratch_database(path: Path, schema: str = "") -> Iterator[sqlite3.Connection]:
    """Open an SQLite file for what outgrows memory; it is thrown away with its folder.

    Nothing is synced, so a crash may leave a broken file.

    Args:
        path: the file.
        schema: SQL that makes the tables; where it is given, an older file is removed first.
    """
    if schema:
        path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    try:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.executescript(schema)
        yield database
        database.commit()
    finally:
        database.close()
