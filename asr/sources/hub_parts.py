"""Parquet files of a data set on the hub, each turned once into Arrow, whose rows can be reached
one at a time through the memory map.

Parquet gives no row without its page, and `datasets` writes pages of 100 rows. Turning a file costs
one read, one write, and its largest page three times in memory (some 90 MB); afterwards a row costs
its bytes, in any process and any order.
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

BATCH = 16  # rows that are turned at once
BUFFER = 1 << 20


def arrow(part: hub.Part) -> Path:
    """The file as Arrow; fetched and turned where that is still to be done.

    Raises:
        NetworkFault: see `asr.sources.hub.fetch`.
        BadData: it is as the hub lists it, and yet no parquet that can be read.
    """
    place = _arrow(part)
    if not place.is_file():
        with locked(hub.lock_path(part.name)):
            if not place.is_file():
                _turn(part, hub.fetch(part), place)
                part.place.unlink()
    return place


def is_here(part: hub.Part) -> bool:
    return _arrow(part).is_file()


def _arrow(part: hub.Part) -> Path:
    return part.place.with_name(f"{part.place.name}.arrow")


def _turn(part: hub.Part, parquet: Path, place: Path) -> None:
    draft = place.with_name(f"{place.name}.part")
    try:
        with (
            pq.ParquetFile(parquet, pre_buffer=False, buffer_size=BUFFER) as source,
            pa.OSFile(str(draft), "wb") as file,
        ):
            writer = None
            for batch in source.iter_batches(BATCH, use_threads=False):
                plain = _plain(batch)
                writer = writer or pa.ipc.new_file(file, plain.schema)
                writer.write_batch(plain)
            (writer or pa.ipc.new_file(file, source.schema_arrow)).close()
    except (pa.ArrowException, ValueError, KeyError, OSError) as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        why = next(iter(str(error).splitlines()), type(error).__name__)[:120]
        raise DataError(
            f"{part.name}: {part.path} cannot be read as parquet ({why}); set download.huggingface.revision to another"
        ) from None
    files.sync(draft)
    draft.rename(place)
    files.sync(place.parent)


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Without dictionaries, which an Arrow file cannot change from batch to batch."""
    plain = [
        one.dictionary_decode() if pa.types.is_dictionary(one.type) else one
        for one in batch.columns
    ]
    fields = [field.with_type(one.type) for field, one in zip(batch.schema, plain, strict=True)]
    return pa.RecordBatch.from_arrays(plain, schema=pa.schema(fields, batch.schema.metadata))


@lru_cache(maxsize=2)
def _open(place: str) -> pa.ipc.RecordBatchFileReader:
    return pa.ipc.open_file(pa.memory_map(place))


@lru_cache(maxsize=2)
def _batch(place: str, number: int) -> pa.RecordBatch:
    return _open(place).get_batch(number)


def forget(name: str) -> None:
    """Drop all that was fetched of a data set; call it when its rows are written elsewhere."""
    _batch.cache_clear()
    _open.cache_clear()
    hub.forget(name)


def schema(part: hub.Part) -> pa.Schema:
    return _open(str(arrow(part))).schema


def count(part: hub.Part) -> int:
    reader = _open(str(arrow(part)))
    return sum(reader.get_batch(number).num_rows for number in range(reader.num_record_batches))


def rows(part: hub.Part, columns: list[str]) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Each row's batch, its place in that, and its values; `audio.path` is what stands beside the
    sound.

    Raises:
        BadData: the file lacks a column that the data set's first file has.
    """
    reader = _open(str(arrow(part)))
    lacking = [name for name in columns if name.partition(".")[0] not in reader.schema.names]
    if lacking:
        raise DataError(
            f"{part.name}: {part.path} has no column {', '.join(lacking)}, unlike its neighbours; set download.huggingface.revision"
        )
    labels = _labels(reader.schema)
    for number in range(reader.num_record_batches):
        batch = reader.get_batch(number)
        values = {name: _values(batch, name, labels.get(name)) for name in columns}
        for at in range(batch.num_rows):
            yield number, at, {name: values[name][at] for name in columns}


def _values(batch: pa.RecordBatch, name: str, labels: list[str] | None) -> list[Any]:
    """One column's values; bytes that are no UTF-8 are carried along, numbers of a class become its
    name.
    """
    outer, _, inner = name.partition(".")
    column = pc.struct_field(batch.column(outer), inner) if inner else batch.column(name)
    if is_text(column.type):
        return [
            one if one is None else one.decode(errors="surrogateescape")
            for one in column.cast(pa.large_binary()).to_pylist()
        ]
    values = column.to_pylist()
    return [
        labels[one] if labels and isinstance(one, int) and 0 <= one < len(labels) else one
        for one in values
    ]


def _labels(schema: pa.Schema) -> dict[str, list[str]]:
    """Names of classes by column, as `datasets` writes them beside the schema."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"][
            "features"
        ]
        return {
            name: one["names"]
            for name, one in features.items()
            if isinstance(one, dict) and isinstance(one.get("names"), list)
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def sound(part: hub.Part, column: str, number: int, at: int) -> bytes | None:
    """A row's encoded recording; None where the data set has but its path."""
    value = _batch(str(arrow(part)), number).column(column)[at].as_py()
    content: bytes | None = value["bytes"] if isinstance(value, dict) else value
    return content


def is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_sound(kind: pa.DataType) -> bool:
    """Bytes, or what `datasets` writes: bytes beside a path."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and is_sound(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def is_scalar(kind: pa.DataType) -> bool:
    return bool(
        is_text(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
    )
