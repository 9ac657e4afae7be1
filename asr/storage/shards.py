"""Rows on disk: Arrow stream files, called shards, and the manifests that name them.

A folder of shards holds one folder per split; each split has its files and a manifest.json, written
last. Shards memory-map and open with `datasets.Dataset.from_file`. A reader's memory does not grow
with the corpus: rows are read in record batches of at most BATCH_BYTES.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from asr.errors import DataError
from asr.storage import files, hashing

SPLITS = ("train", "validation", "test")
HOLDOUT = "holdout"  # evaluated, never used to train or to select; most corpora have none
ALL_SPLITS = (*SPLITS, HOLDOUT)
MANIFEST = "manifest.json"

PART_BYTES = 256 << 20  # a file of the raw corpus; DVC is faster with fewer, larger files
BATCH_BYTES = 8 << 20
BATCH_ROWS = 100

ROW = pa.schema(
    [
        ("id", pa.string()),
        ("audio", pa.binary()),
        ("text", pa.string()),
        ("speaker", pa.string()),
        ("attributes", pa.string()),
        ("duration", pa.float64()),
    ]
)

BatchPlace = tuple[Path, int, int]  # file, byte at which a record batch begins, its rows
RowPlace = tuple[Path, int, int]  # file, byte at which the record batch begins, row in it


class Shard:
    """One Arrow stream file being written; `close` returns its entry of the manifest."""

    def __init__(self, path: Path, schema: pa.Schema):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.schema = schema
        self.file = pa.OSFile(str(path), "wb")
        self.writer = pa.ipc.new_stream(self.file, schema)
        self.waiting: list[dict[str, Any]] = []
        self.waiting_bytes = 0
        self.rows = 0
        self.bytes = 0

    def add(self, row: dict[str, Any]) -> None:
        size = sum(len(value) for value in row.values() if isinstance(value, bytes))
        self.waiting.append(row)
        self.rows += 1
        self.bytes += size
        self.waiting_bytes += size
        if self.waiting_bytes >= BATCH_BYTES or len(self.waiting) >= BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        """Write the waiting rows as a record batch."""
        if self.waiting:
            self.writer.write_batch(pa.RecordBatch.from_pylist(self.waiting, schema=self.schema))
        self.waiting = []
        self.waiting_bytes = 0

    def close(self) -> dict[str, Any]:
        """Finish the file and return its entry of the manifest."""
        self._flush()
        self.writer.close()
        self.file.close()
        return {"name": self.path.name, "rows": self.rows, "sha256": hashing.sha256(self.path)}

    def __enter__(self) -> Shard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.file.closed:
            self.writer.close()
            self.file.close()


class SplitWriter:
    """Rows of one split being written, `max_rows` rows or PART_BYTES per file."""

    def __init__(self, folder: Path, stem: str, schema: pa.Schema, max_rows: int | None = None):
        self.folder = folder
        self.stem = stem
        self.schema = schema
        self.max_rows = max_rows
        self.files: list[dict[str, Any]] = []
        self.shard: Shard | None = None

    def add(self, row: dict[str, Any]) -> None:
        if self.shard is None:
            name = f"{self.stem}-{len(self.files):05d}.arrow"
            self.shard = Shard(self.folder / name, self.schema)
        self.shard.add(row)
        if self.shard.rows == self.max_rows or self.shard.bytes >= PART_BYTES:
            self.next()

    def next(self) -> None:
        """Finish the present file; the next row begins a new one."""
        if self.shard is not None:
            self.files.append(self.shard.close())
        self.shard = None

    def close(self) -> dict[str, Any]:
        """Write the split's manifest and return it."""
        self.next()
        return write_manifest(self.folder, self.files)


def write_manifest(folder: Path, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the manifest of one split: `{rows, files: [{name, rows, sha256}]}`."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {"rows": sum(entry["rows"] for entry in entries), "files": entries}
    files.write_json(folder / MANIFEST, manifest)
    return manifest


def write_top_manifest(folder: Path, splits: dict[str, dict[str, Any]], **about: Any) -> None:
    """Write the manifest of a data folder: its splits, and what is known of their origin."""
    entries = {
        split: {
            "rows": manifest["rows"],
            "sha256": hashing.hash_of(manifest),
            "files": manifest["files"],
        }
        for split, manifest in splits.items()
    }
    num_rows = sum(entry["rows"] for entry in entries.values())
    files.write_json(folder / MANIFEST, {**about, "rows": num_rows, "splits": entries})


def manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a split or of a data folder.

    Raises:
        DataError: the folder holds none, so it was never finished.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{path}: not there; run the stage that makes it (dvc repro)")
    return dict(files.read_json(path))


def data_hash(*splits: Path) -> str:
    """Hash of all rows in these splits, computed from their manifests: no data is read."""
    return hashing.hash_of([manifest(split) for split in splits])


def paths(split: Path) -> list[Path]:
    """The shards of a split in order."""
    return [split / entry["name"] for entry in manifest(split)["files"]]


def batches(path: Path, columns: Iterable[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Record batches of one shard, memory-mapped: columns that are not asked for are not read."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
        for batch in stream:
            yield batch.select(list(columns)) if columns else batch


def rows(split: Path, columns: Iterable[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a split in order, as Python values."""
    for path in paths(split):
        for batch in batches(path, columns):
            yield from batch.to_pylist()


def splits(folder: Path) -> list[str]:
    """The splits of a data folder, in the order of its manifest."""
    return list(manifest(folder)["splits"])


def read_batch(path: Path, offset: int) -> pa.RecordBatch:
    """Read one record batch of a shard; those before it are not read.

    Args:
        offset: byte at which it begins, as `batch_locations` tells.
    Raises:
        DataError: there is none.
    """
    with pa.memory_map(str(path)) as source:
        try:
            schema = pa.ipc.read_schema(source)
            source.seek(offset)
            return pa.ipc.read_record_batch(pa.ipc.read_message(source), schema)
        except (pa.ArrowInvalid, OSError, EOFError):
            message = f"{path}: no record batch at byte {offset}; the file is not whole"
            raise DataError(message) from None


def batch_locations(split: Path) -> Iterator[BatchPlace]:
    """Where the record batches of a split lie, in order."""
    for path in paths(split):
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            offset = source.tell()
            for batch in stream:
                yield path, offset, len(batch)
                offset = source.tell()
