"""Which column of a hub's data set is what: as the params say, else by the names that Common Voice,
FLEURS, MLS and VoxPopuli have.

Looking for an id that never repeats costs 16 bytes and 2 us a row, once.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from asr.errors import ParamsError
from asr.sources import hub, hub_parts
from asr.sources.hub_layout import listed

# Text as it was written comes first (FLEURS has both), but for VoxPopuli's raw_text, which is empty
# in a part of its rows.
KNOWN = {
    "audio": ("audio",),
    "text": (
        "sentence",
        "raw_transcription",
        "transcription",
        "transcript",
        "normalized_text",
        "raw_text",
        "text",
    ),
    "speaker": ("client_id", "speaker_id", "speaker", "spk_id", "reader_id"),
    "id": (
        "path",
        "file",
        "audio_id",
        "segment_id",
        "utterance_id",
        "id",
    ),  # FLEURS' own id is that of the sentence
    "seconds": ("audio_duration", "duration"),
}
FITS = {"audio": hub_parts.is_sound, "text": hub_parts.is_text, "seconds": pa.types.is_floating}
NEEDED = ("audio", "text")
ROW = "row"  # asks for the number of the row as its id


@dataclass(frozen=True)
class Columns:
    """Names of columns; None where there is none."""

    audio: str
    text: str
    speaker: str | None
    id: str | None
    seconds: str | None


def find_columns(every: list[hub.Part], wanted: dict[str, str]) -> Columns:
    """The columns of a data set; for the id the first that has a value in each row and never the
    same.

    Args:
        every: the files that are read, fetched.
        wanted: theirs by ours.
    Raises:
        BadParams: a column is not there, is of the wrong kind, or is no id.
    """
    schema = hub_parts.schema(every[0])
    for ours, theirs in wanted.items():
        if theirs not in schema.names and (ours, theirs) != ("id", ROW):
            raise ParamsError(
                f"download.huggingface.columns.{ours}: got {theirs}, want one of {listed(schema.names)}"
            )
        if theirs in schema.names and not _fits(schema, ours, theirs):
            raise ParamsError(
                f"download.huggingface.columns.{ours}: got {theirs} ({schema.field(theirs).type}), {_want(schema, ours)}"
            )
    found = {ours: wanted.get(ours) or next(_known(schema, ours), None) for ours in KNOWN}
    for ours in NEEDED:
        if found[ours] is None:
            raise ParamsError(
                f"download.huggingface.columns.{ours}: got nothing, {_want(schema, ours)}"
            )
    names = Columns(
        str(found["audio"]), str(found["text"]), found["speaker"], None, found["seconds"]
    )
    return replace(names, id=_id_column(every, names.audio, wanted.get("id")))


def _fits(schema: pa.Schema, ours: str, name: str) -> bool:
    return bool(FITS.get(ours, hub_parts.is_scalar)(schema.field(name).type))


def _known(schema: pa.Schema, ours: str) -> Iterator[str]:
    return (name for name in KNOWN[ours] if name in schema.names and _fits(schema, ours, name))


def _want(schema: pa.Schema, ours: str) -> str:
    fitting = listed(name for name in schema.names if _fits(schema, ours, name))
    return (
        f"want one of {fitting}"
        if fitting
        else f"want a column that fits, of which there is none among {listed(schema.names)}"
    )


def _id_column(every: list[hub.Part], audio: str, wanted: str | None) -> str | None:
    schema = hub_parts.schema(every[0])
    if wanted:
        again = _again(wanted, every) if wanted in schema.names else None
        if again:
            raise ParamsError(
                f"download.huggingface.columns.id: {wanted} is no id ({again}); want another, or {ROW} for the row's number"
            )
        return wanted if wanted in schema.names else None
    kind = schema.field(audio).type
    beside = (
        [f"{audio}.path"] if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0 else []
    )
    return next(
        (name for name in [*_known(schema, "id"), *beside] if not _again(name, every)), None
    )


def _again(column: str, every: list[hub.Part]) -> str | None:
    """Why a column is no id; None where every row has its own value."""
    hashes = array("Q")
    for value in _ids(column, every):
        if not value:
            return "a row has none"
        hashes.append(_hash(value))
    ordered = np.sort(np.frombuffer(hashes, np.uint64))
    twice = set(ordered[1:][ordered[1:] == ordered[:-1]][:1].tolist())
    return (
        f"{next(value for value in _ids(column, every) if _hash(value) in twice)} stands twice"
        if twice
        else None
    )


def _ids(column: str, every: list[hub.Part]) -> Iterator[str]:
    return (id_of(row[column]) for part in every for _, _, row in hub_parts.rows(part, [column]))


def id_of(value: Any) -> str:
    """A value as an id; of a path on the machine of who made the data set, the name alone."""
    text = "" if value is None else str(value)
    return PurePosixPath(text).name if text.startswith("/") else text


def _hash(value: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(value.encode(errors="surrogateescape"), digest_size=8).digest(), "big"
    )
