"""Read a corpus in a data folder: recordings by id, hours by speaker.

Rows are read in place, and no audio but that of the rows asked for. A look-up passes over the ids
of a split, 60 us per record batch (0.3 s in half a million rows). A folder that is missing or
damaged gives a DataError with its name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from asr import paths
from asr.errors import DataError
from asr.storage import hashing, shards

MAX_BYTES = 32 << 20  # of one recording that is returned; an utterance takes a hundredth of that
MAX_SECONDS = 1e6  # of one recording; a longer duration is damage
# What readers raise on damaged files.
READ_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
    pa.ArrowException,
)


@dataclass(frozen=True)
class Recording:
    """A row of a corpus.

    sound: the encoded file; None where it has no bytes, or more than MAX_BYTES.
    size: its bytes in the corpus.
    duration: seconds.
    """

    id: str
    sound: bytes | None
    size: int
    text: str
    speaker: str | None
    duration: float | None


def split_hash(split: Path) -> str:
    """Hash of all rows of a split, from its manifest alone.

    Raises:
        DataError: the split is not there or damaged.
    """
    try:
        return shards.data_hash(split)
    except READ_ERRORS as error:
        raise _damaged(split, error) from None


def find(split: Path, ids: Collection[str]) -> dict[str, list[Recording]]:
    """Return the rows with these ids; more than one where an id repeats.

    Raises:
        DataError: the split is not there or damaged.
    """
    recordings: dict[str, list[Recording]] = {}
    searched = pa.array(sorted(ids), pa.string())
    try:
        for batch in _batches(split):
            is_match = pc.is_in(_checked(batch, "id").column("id"), searched)
            matches = pc.indices_nonzero(is_match).to_pylist()
            if not matches:
                continue
            checked = _checked(batch, *shards.ROW.names)
            for row in matches:
                recording = _recording(checked, row)
                recordings.setdefault(recording.id, []).append(recording)
    except READ_ERRORS as error:
        raise _damaged(split, error) from None
    return recordings


def first_ids(split: Path, count: int) -> list[str]:
    """Return the ids of the first rows of a split.

    Raises:
        DataError: the split is not there or damaged.
    """
    ids: list[str] = []
    try:
        for batch in _batches(split):
            ids += _checked(batch.slice(0, count - len(ids)), "id")["id"].to_pylist()
            if len(ids) >= count:
                break
    except READ_ERRORS as error:
        raise _damaged(split, error) from None
    return ids


def hours_by_speaker(split: Path) -> list[tuple[str | None, int, float]]:
    """Return speaker, recordings and hours of each speaker of a split, the most hours first.

    Costs 60 us per record batch.

    Raises:
        DataError: the split is not there or damaged.
    """
    try:
        batches = [_checked(batch, "speaker", "duration") for batch in _batches(split)]
        if not batches:
            return []
        return _hours_by_speaker(pa.Table.from_batches(batches))
    except READ_ERRORS as error:
        raise _damaged(split, error) from None


def _hours_by_speaker(table: pa.Table) -> list[tuple[str | None, int, float]]:
    """As `hours_by_speaker`, of a table of speakers and durations; unknown durations count 0."""
    duration = table["duration"]
    is_known = pc.and_(pc.greater_equal(duration, 0), pc.less(duration, MAX_SECONDS))
    seconds = pc.if_else(pc.fill_null(is_known, False), duration, 0.0)
    by_speaker = table.set_column(1, "seconds", seconds).group_by("speaker")
    sums = by_speaker.aggregate([("seconds", "sum"), ("seconds", "count")])
    sums = sums.sort_by([("seconds_sum", "descending"), ("speaker", "ascending")])
    columns = (sums[name].to_pylist() for name in ("speaker", "seconds_count", "seconds_sum"))
    return [(speaker, rows, total / 3600) for speaker, rows, total in zip(*columns, strict=True)]


def read_manifest(folder: Path) -> dict[str, object]:
    """Return the manifest of a data folder.

    Raises:
        DataError: there is none, or it is damaged.
    """
    try:
        manifest = shards.manifest(folder)
        for split in manifest["splits"].values():
            if not isinstance(split, dict) or not isinstance(split["rows"], int):
                raise TypeError("no rows")
        # Raises where a text is not valid Unicode, which could not be shown either.
        hashing.hash_of(manifest)
        return manifest
    except READ_ERRORS as error:
        raise _damaged(folder, error) from None


def is_test_of(metrics: dict[str, object], root: Path) -> bool:
    """Whether a model was scored on the recordings in the workspace.

    Args:
        metrics: its metrics.json, which holds the hash of the test split.
        root: top of the repository.
    """
    try:
        return metrics.get("test_hash") == split_hash(root / paths.FEATURES / "test")
    except DataError:
        return False


def _batches(split: Path) -> Iterator[pa.RecordBatch]:
    """The record batches of a split, if its manifest names files in its own folder."""
    shard_paths = shards.paths(split)
    if any(path.parent != split for path in shard_paths):
        raise ValueError("a file outside its folder")
    for path in shard_paths:
        yield from shards.batches(path)


def _checked(batch: pa.RecordBatch, *columns: str) -> pa.RecordBatch:
    """These columns, if they have the types of ROW and no offset points outside their data."""
    selected = batch.select(list(columns))
    types = [field.type for field in selected.schema]
    if types != [shards.ROW.field(name).type for name in columns]:
        raise ValueError("other columns")
    selected.validate(full=True)
    return selected


def _recording(batch: pa.RecordBatch, row: int) -> Recording:
    """One row of a batch."""
    sound = batch.column("audio")[row].as_buffer()
    size = sound.size if sound is not None else 0
    return Recording(
        id=batch.column("id")[row].as_py(),
        sound=sound.to_pybytes() if 0 < size <= MAX_BYTES else None,
        size=size,
        text=batch.column("text")[row].as_py() or "",
        speaker=batch.column("speaker")[row].as_py(),
        duration=batch.column("duration")[row].as_py(),
    )


def _damaged(split: Path, error: Exception) -> DataError:
    """The error for a folder that cannot be read."""
    if isinstance(error, DataError):
        return error
    where = "/".join(split.parts[-3:])
    return DataError(
        f"{where}: cannot be read ({type(error).__name__}); run dvc checkout, or dvc pull {where}"
    )
