"""Parquet files of a data set on the hub, each converted once to Arrow.

Arrow gives one row at a time through the memory map; parquet gives no row without its page, and
`datasets` writes pages of 100 rows. Converting a file costs one read, one write, and three times
its largest page in memory (some 90 MB); afterwards a row costs its bytes, in any process and any
order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from asr.errors import DISK_ERRORS, DataError
from asr.runtime.locks import locked
from asr.sources import hub
from asr.storage import files

ROWS_PER_BATCH = 16  # converted at once
BUFFER = 1 << 20  # bytes
MAX_REASON = 120  # characters of the parquet library's message
CONVERT_ERRORS = (pa.ArrowException, ValueError, KeyError, OSError)


def arrow(part: hub.Part) -> Path:
    """Return the file as Arrow; fetch and convert it if that is still to be done.

    Raises:
        NetworkError: see `asr.sources.hub.fetch`.
        DataError: it is as the hub lists it, and yet no parquet that can be read.
    """
    path = _arrow_path(part)
    if not path.is_file():
        with locked(hub.lock_path(part.name)):
            if not path.is_file():
                _convert(part, hub.fetch(part), path)
                part.local_path.unlink()
    return path


def is_here(part: hub.Part) -> bool:
    return _arrow_path(part).is_file()


def _arrow_path(part: hub.Part) -> Path:
    return part.local_path.with_name(f"{part.local_path.name}.arrow")


def _convert(part: hub.Part, parquet: Path, path: Path) -> None:
    # Of a fixed name, so that the next try overwrites what a killed one left.
    draft = path.with_name(f"{path.name}.part")
    try:
        _write_arrow(parquet, draft)
    except CONVERT_ERRORS as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:MAX_REASON]
        raise DataError(
            f"{part.name}: {part.path} cannot be read as parquet ({reason}); "
            "set download.huggingface.revision to another"
        ) from None
    files.sync(draft)
    draft.rename(path)
    files.sync(path.parent)


def _write_arrow(parquet: Path, path: Path) -> None:
    with (
        pq.ParquetFile(parquet, pre_buffer=False, buffer_size=BUFFER) as source,
        pa.OSFile(str(path), "wb") as file,
    ):
        writer = None
        for batch in source.iter_batches(ROWS_PER_BATCH, use_threads=False):
            plain = _without_dictionaries(batch)
            writer = writer or pa.ipc.new_file(file, plain.schema)
            writer.write_batch(plain)
        writer = writer or pa.ipc.new_file(file, source.schema_arrow)
        writer.close()


def _without_dictionaries(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Decode dictionary columns: an Arrow file cannot change a dictionary between batches."""
    columns = [
        column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        for column in batch.columns
    ]
    fields = [
        field.with_type(column.type) for field, column in zip(batch.schema, columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields, batch.schema.metadata))


@lru_cache(maxsize=2)
def _open(path: str) -> pa.ipc.RecordBatchFileReader:
    return pa.ipc.open_file(pa.memory_map(path))


@lru_cache(maxsize=2)
def _batch(path: str, number: int) -> pa.RecordBatch:
    return _open(path).get_batch(number)


def forget(name: str) -> None:
    """Remove all that was fetched of a data set; call it when its rows are written elsewhere."""
    _batch.cache_clear()
    _open.cache_clear()
    hub.forget(name)


def schema(part: hub.Part) -> pa.Schema:
    return _open(str(arrow(part))).schema


def count(part: hub.Part) -> int:
    """Return the number of rows."""
    reader = _open(str(arrow(part)))
    return sum(reader.get_batch(number).num_rows for number in range(reader.num_record_batches))


def rows(part: hub.Part, columns: list[str]) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield each row's batch, its index in the batch, and its values.

    Args:
        columns: names; `audio.path` is the field `path` in the column `audio`.
    Raises:
        DataError: the file lacks a column that the data set's first file has.
    """
    reader = _open(str(arrow(part)))
    missing = [name for name in columns if name.partition(".")[0] not in reader.schema.names]
    if missing:
        raise DataError(
            f"{part.name}: {part.path} has no column {', '.join(missing)}, unlike its neighbours; "
            "set download.huggingface.revision"
        )
    labels = _class_labels(reader.schema)
    for number in range(reader.num_record_batches):
        batch = reader.get_batch(number)
        values = {name: _values(batch, name, labels.get(name)) for name in columns}
        for index in range(batch.num_rows):
            yield number, index, {name: values[name][index] for name in columns}


def _values(batch: pa.RecordBatch, name: str, labels: list[str] | None) -> list[Any]:
    """One column's values.

    Bytes that are not UTF-8 are carried along; the number of a class becomes its name.
    """
    outer, _, inner = name.partition(".")
    column = pc.struct_field(batch.column(outer), inner) if inner else batch.column(name)
    if is_text(column.type):
        encoded = column.cast(pa.large_binary()).to_pylist()
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


def sound(part: hub.Part, column: str, batch: int, index: int) -> bytes | None:
    """Return a row's encoded recording; None where the data set holds only its path."""
    value = _batch(str(arrow(part)), batch).column(column)[index].as_py()
    content: bytes | None = value["bytes"] if isinstance(value, dict) else value
    return content


def is_text(column_type: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(column_type)
        or pa.types.is_large_string(column_type)
        or pa.types.is_string_view(column_type)
    )


def is_sound(column_type: pa.DataType) -> bool:
    """Whether a column holds bytes, or what `datasets` writes: bytes beside a path."""
    if pa.types.is_struct(column_type):
        return column_type.get_field_index("bytes") >= 0 and is_sound(
            column_type.field("bytes").type
        )
    return bool(pa.types.is_binary(column_type) or pa.types.is_large_binary(column_type))


def is_scalar(column_type: pa.DataType) -> bool:
    return bool(
        is_text(column_type)
        or pa.types.is_integer(column_type)
        or pa.types.is_floating(column_type)
        or pa.types.is_boolean(column_type)
    )
