"""A corpus that lies in a data folder: recordings by id, hours by speaker; read in place, without
touching the sound of any other row.

A look-up passes over the ids of a split, 60 us per record batch (0.3 s in half a million rows). A
folder that is missing or damaged is a fault with its name.
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

MAX_BYTES = 32 << 20  # of one recording that is handed on; an utterance takes a hundredth of that
MAX_SECONDS = 1e6  # of one recording; what is more is damage
READ_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
    pa.ArrowException,
)  # what damaged files make readers raise


@dataclass(frozen=True)
class Recording:
    """A row of a corpus; `sound` is None where there are no bytes, or more than we hand on (`size`
    tells).
    """

    id: str
    sound: bytes | None
    size: int
    text: str
    speaker: str | None
    duration: float | None


def split_hash(split: Path) -> str:
    """What the rows of a split are known by; changes with any of them. Reads the manifest alone.

    Raises:
        BadData: the split is not there or damaged.
    """
    try:
        return shards.data_hash(split)
    except READ_ERRORS as error:
        raise _damaged(split, error) from None


def find(split: Path, ids: Collection[str]) -> dict[str, list[Recording]]:
    """The rows of these ids; more than one where an id repeats.

    Raises:
        BadData: the split is not there or damaged.
    """
    found: dict[str, list[Recording]] = {}
    wanted = pa.array(sorted(ids), pa.string())
    try:
        for batch in _batches(split):
            here = pc.indices_nonzero(
                pc.is_in(_checked(batch, "id").column("id"), wanted)
            ).to_pylist()
            rows = _checked(batch, *shards.ROW.names) if here else batch
            for row in here:
                one = _recording(rows, row)
                found.setdefault(one.id, []).append(one)
    except READ_ERRORS as error:
        raise _damaged(split, error) from None
    return found


def first_ids(split: Path, count: int) -> list[str]:
    """The ids of the first rows of a split, none where it is empty.

    Raises:
        BadData: the split is not there or damaged.
    """
    found: list[str] = []
    try:
        for batch in _batches(split):
            found += _checked(batch.slice(0, count - len(found)), "id")["id"].to_pylist()
            if len(found) >= count:
                break
    except READ_ERRORS as error:
        raise _damaged(split, error) from None
    return found


def _batches(split: Path) -> Iterator[pa.RecordBatch]:
    for path in _paths(split):
        yield from shards.batches(path)


def _checked(batch: pa.RecordBatch, *columns: str) -> pa.RecordBatch:
    """These columns, if they are what the contract says and no offset points elsewhere; the others
    are not touched.
    """
    chosen = batch.select(list(columns))
    if [field.type for field in chosen.schema] != [shards.ROW.field(name).type for name in columns]:
        raise ValueError("other columns")
    chosen.validate(full=True)
    return chosen


def _paths(split: Path) -> list[Path]:
    found = shards.paths(split)
    if any(path.parent != split for path in found):
        raise ValueError("a file outside its folder")
    return found


def _recording(batch: pa.RecordBatch, row: int) -> Recording:
    sound = batch.column("audio")[row].as_buffer()
    size = sound.size if sound is not None else 0
    rest = {name: batch.column(name)[row].as_py() for name in ("id", "text", "speaker", "duration")}
    return Recording(
        sound=sound.to_pybytes() if 0 < size <= MAX_BYTES else None,
        size=size,
        **{**rest, "text": rest["text"] or ""},
    )


def _damaged(split: Path, error: Exception) -> DataError:
    if isinstance(error, DataError):
        return error
    where = "/".join(split.parts[-3:])
    return DataError(
        f"{where}: cannot be read ({type(error).__name__}); run dvc checkout, or dvc pull {where}"
    )


def hours_by_speaker(split: Path) -> list[tuple[str | None, int, float]]:
    """Speaker, recordings and hours of each speaker of a split, the most hours first. Costs 60 us
    per record batch.

    Raises:
        BadData: the split is not there or damaged.
    """
    try:
        batches = [_checked(batch, "speaker", "duration") for batch in _batches(split)]
        if not batches:
            return []
        table = pa.Table.from_batches(batches)
        known = pc.and_(
            pc.greater_equal(table["duration"], 0), pc.less(table["duration"], MAX_SECONDS)
        )
        seconds = pc.if_else(pc.fill_null(known, False), table["duration"], 0.0)
        summed = (
            table.set_column(1, "seconds", seconds)
            .group_by("speaker")
            .aggregate([("seconds", "sum"), ("seconds", "count")])
        )
        summed = summed.sort_by([("seconds_sum", "descending"), ("speaker", "ascending")])
        columns = (summed[name].to_pylist() for name in ("speaker", "seconds_count", "seconds_sum"))
        return [
            (speaker, rows, total / 3600) for speaker, rows, total in zip(*columns, strict=True)
        ]
    except READ_ERRORS as error:
        raise _damaged(split, error) from None


def about(folder: Path) -> dict[str, object]:
    """What the manifest of a data folder tells of the corpus.

    Raises:
        BadData: there is none, or it is damaged.
    """
    try:
        found = shards.manifest(folder)
        splits = found["splits"]
        if not all(
            isinstance(one, dict) and isinstance(one["rows"], int) for one in splits.values()
        ):
            raise TypeError("no rows")
        hashing.hash_of(found)  # a text that is none cannot be hashed, nor shown
        return found
    except READ_ERRORS as error:
        raise _damaged(folder, error) from None


def is_test_of(metrics: dict[str, object], root: Path) -> bool:
    """Whether the recordings in the workspace are those a model was scored on, by the hash in its
    metrics.json.
    """
    try:
        return metrics.get("test_hash") == split_hash(root / paths.FEATURES / "test")
    except DataError:
        return False
