"""Rows of a data set's parquet files, read where they lie.

Parquet gives no row without those before it in its row group, so sounds are read in order: in each
process a group is read once, and takes three times its largest page in memory. `datasets` writes
groups and pages of 100 rows, some 30 MB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from asr.errors import DISK_ERRORS, DataError
from asr.sources import hub

ROWS_AT_ONCE = 16
BUFFER = 1 << 20  # bytes
MAX_REASON = 120  # characters of the parquet library's message


@lru_cache(maxsize=2)
def _open(part: hub.Part) -> pq.ParquetFile:
    """The file, fetched if it is not here.

    Raises:
        NetworkError: see `asr.sources.hub.fetch`.
        DataError: it is as the hub lists it, and yet no parquet that can be read.
    """
    path = hub.fetch(part)
    with _read_errors(part):
        return pq.ParquetFile(path, buffer_size=BUFFER)


@contextmanager
def _read_errors(part: hub.Part) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, ValueError, KeyError, OSError) as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:MAX_REASON]
        raise DataError(
            f"{part.name}: {part.path} cannot be read as parquet ({reason}); "
            "set download.huggingface.revision to another"
        ) from None


def forget(name: str) -> None:
    """Remove all that was fetched of a data set; call it when its rows are written elsewhere."""
    _sounds.cache_clear()
    _open.cache_clear()
    hub.forget(name)


def schema(part: hub.Part) -> pa.Schema:
    return _open(part).schema_arrow


def count(part: hub.Part) -> int:
    """Return the number of rows."""
    return int(_open(part).metadata.num_rows)


def rows(part: hub.Part, columns: list[str]) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield each row's group, its index in the group, and its values.

    Args:
        columns: names; `audio.path` is the field `path` in the column `audio`.
    Raises:
        DataError: the file cannot be read, or lacks a column that the data set's first file has.
    """
    known = schema(part)
    missing = [name for name in columns if name.partition(".")[0] not in known.names]
    if missing:
        raise DataError(
            f"{part.name}: {part.path} has no column {', '.join(missing)}, unlike its neighbours; "
            "set download.huggingface.revision"
        )
    labels = _class_labels(known)
    for number in range(_open(part).num_row_groups):
        with _read_errors(part):
            group = _open(part).read_row_group(number, columns, use_threads=False)
            values = {name: _values(group, name, labels.get(name)) for name in columns}
        for index in range(group.num_rows):
            yield number, index, {name: values[name][index] for name in columns}


def _values(group: pa.Table, name: str, labels: list[str] | None) -> list[Any]:
    """One column's values.

    Bytes that are not UTF-8 are carried along; the number of a class becomes its name.
    """
    outer, _, inner = name.partition(".")
    column = pc.struct_field(group.column(outer), inner) if inner else group.column(name)
    if is_text(column.type):
        encoded = column.cast(_plain(column.type)).cast(pa.large_binary()).to_pylist()
        return [text if text is None else text.decode(errors="surrogateescape") for text in encoded]
    values: list[Any] = column.to_pylist()
    if not labels:
        return values
    return [
        labels[value] if isinstance(value, int) and 0 <= value < len(labels) else value
        for value in values
    ]


def _class_labels(schema: pa.Schema) -> dict[str, list[str]]:
    """Names of classes by column, as `datasets` writes them beside the schema."""
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = metadata["info"]["features"]
        return {
            name: feature["names"]
            for name, feature in features.items()
            if isinstance(feature, dict) and isinstance(feature.get("names"), list)
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def sound(part: hub.Part, column: str, group: int, index: int) -> bytes | None:
    """Return a row's encoded recording; None where the data set holds only its path."""
    value = _sounds(part, column, group)[index]
    content: bytes | None = value["bytes"] if isinstance(value, dict) else value
    return content


@lru_cache(maxsize=1)
def _sounds(part: hub.Part, column: str, group: int) -> _Sounds:
    return _Sounds(part, column, group)


class _Sounds:
    """The sounds of a row group, a few in memory; whoever goes back begins the group again."""

    def __init__(self, part: hub.Part, column: str, group: int):
        self._part = part
        self._read = partial(
            _open(part).iter_batches, ROWS_AT_ONCE, [group], [column], use_threads=False
        )
        self._begin()

    def _begin(self) -> None:
        self._first = 0
        self._sounds: list[Any] = []
        self._batches = self._read()

    def __getitem__(self, index: int) -> Any:
        if index < self._first:
            self._begin()
        while index >= self._first + len(self._sounds):
            with _read_errors(self._part):
                batch = next(self._batches)
            self._first += len(self._sounds)
            self._sounds = batch.column(0)
        return self._sounds[index - self._first].as_py()


def _plain(column_type: pa.DataType) -> pa.DataType:
    """The type of the values, also where each is stored once and then counted by its number."""
    return column_type.value_type if pa.types.is_dictionary(column_type) else column_type


def is_text(column_type: pa.DataType) -> bool:
    plain = _plain(column_type)
    return bool(
        pa.types.is_string(plain)
        or pa.types.is_large_string(plain)
        or pa.types.is_string_view(plain)
    )


def is_sound(column_type: pa.DataType) -> bool:
    """Whether a column holds bytes, or what `datasets` writes: bytes beside a path."""
    if pa.types.is_struct(column_type):
        return column_type.get_field_index("bytes") >= 0 and is_sound(
            column_type.field("bytes").type
        )
    return bool(pa.types.is_binary(column_type) or pa.types.is_large_binary(column_type))


def is_scalar(column_type: pa.DataType) -> bool:
    plain = _plain(column_type)
    return bool(
        is_text(plain)
        or pa.types.is_integer(plain)
        or pa.types.is_floating(plain)
        or pa.types.is_boolean(plain)
    )
