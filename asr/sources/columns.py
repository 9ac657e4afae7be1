"""Which column of a data set on the hub is which: as the params say, else by its name.

The names known are those of Common Voice, FLEURS, MLS and VoxPopuli; of the speaker's `speakers`
knows more. Looking for an id that never repeats costs 16 bytes and 2 us a row, once.
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
from asr.sources import hub, hub_parts, speakers
from asr.sources.hub_layout import listed

# Ours, and the names that others give it, the best first. Text as it was written comes first
# (FLEURS has both), but VoxPopuli's raw_text is late, because a part of its rows has none. FLEURS'
# column id is that of the sentence, so it comes last.
KNOWN_NAMES = {
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
    "id": ("path", "file", "audio_id", "segment_id", "utterance_id", "id"),
    "seconds": ("audio_duration", "duration"),
}
TYPE_CHECKS = {
    "audio": hub_parts.is_sound,
    "text": hub_parts.is_text,
    "seconds": pa.types.is_floating,
}
NEEDED = ("audio", "text")
ROW = "row"  # as column of the id: take the number of the row
PARAM = "download.huggingface.columns"


@dataclass(frozen=True)
class Columns:
    """Names of columns; None where there is none."""

    audio: str
    text: str
    speaker: str | None
    id: str | None
    seconds: str | None


def find_columns(parts: list[hub.Part], requested: dict[str, str]) -> tuple[Columns, str]:
    """Find the columns of a data set.

    The id is the first candidate with a value in each row that never repeats.

    Args:
        parts: the files that are read, fetched.
        requested: their names by ours, of params.
    Returns:
        them, and what a person should know of the speaker's, if any.
    Raises:
        ParamsError: a column is missing, is of the wrong type, or is no id.
    """
    schema = hub_parts.schema(parts[0])
    for ours, theirs in requested.items():
        _check_requested(schema, ours, theirs)
    columns = {
        ours: requested.get(ours) or next(_candidates(schema, ours), None) for ours in KNOWN_NAMES
    }
    for ours in NEEDED:
        if columns[ours] is None:
            raise ParamsError(f"{PARAM}.{ours}: got nothing, {_advice(schema, ours)}")
    speaker = speakers.Choice(requested.get("speaker"))
    if speaker.column is None:
        speaker = speakers.choose(_rows_of_speakers(parts))
    names = Columns(
        audio=str(columns["audio"]),
        text=str(columns["text"]),
        speaker=speaker.column,
        id=None,
        seconds=columns["seconds"],
    )
    return replace(names, id=_id_column(parts, names.audio, requested.get("id"))), speaker.note


def _rows_of_speakers(parts: list[hub.Part]) -> Iterator[dict[str, Any]]:
    """Rows of the columns that have a usual name for the speaker."""
    for part in parts:
        fields = [field for field in hub_parts.schema(part) if speakers.is_usual(field.name)]
        names = [field.name for field in fields if hub_parts.is_scalar(field.type)]
        for _, _, row in hub_parts.rows(part, names) if names else ():
            yield row


def _check_requested(schema: pa.Schema, ours: str, theirs: str) -> None:
    if (ours, theirs) == ("id", ROW) and ROW not in schema.names:
        return
    if theirs not in schema.names:
        raise ParamsError(f"{PARAM}.{ours}: got {theirs}, want one of {listed(schema.names)}")
    if not _fits(schema, ours, theirs):
        column_type = schema.field(theirs).type
        raise ParamsError(f"{PARAM}.{ours}: got {theirs} ({column_type}), {_advice(schema, ours)}")


def _fits(schema: pa.Schema, ours: str, theirs: str) -> bool:
    """Whether a column has the right type."""
    has_type = TYPE_CHECKS.get(ours, hub_parts.is_scalar)
    return bool(has_type(schema.field(theirs).type))


def _candidates(schema: pa.Schema, ours: str) -> Iterator[str]:
    for name in KNOWN_NAMES[ours]:
        if name in schema.names and _fits(schema, ours, name):
            yield name


def _advice(schema: pa.Schema, ours: str) -> str:
    fitting = [name for name in schema.names if _fits(schema, ours, name)]
    if fitting:
        return f"want one of {listed(fitting)}"
    return f"want a column that fits, of which there is none among {listed(schema.names)}"


def _id_column(parts: list[hub.Part], audio: str, requested: str | None) -> str | None:
    """The column of the id; None for the number of the row."""
    schema = hub_parts.schema(parts[0])
    if requested:
        if requested not in schema.names:
            return None
        defect = _id_defect(requested, parts)
        if defect:
            raise ParamsError(
                f"{PARAM}.id: {requested} is no id ({defect}); "
                f"want another, or {ROW} for the row's number"
            )
        return requested
    candidates = list(_candidates(schema, "id"))
    audio_type = schema.field(audio).type
    if pa.types.is_struct(audio_type) and audio_type.get_field_index("path") >= 0:
        candidates.append(f"{audio}.path")
    return next((name for name in candidates if not _id_defect(name, parts)), None)


def _id_defect(column: str, parts: list[hub.Part]) -> str | None:
    """Why a column is no id; None where every row has its own value."""
    hashes = array("Q")
    for value in _ids(column, parts):
        if not value:
            return "a row has none"
        hashes.append(_hash(value))
    ordered = np.sort(np.frombuffer(hashes, np.uint64))
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(repeated):
        return None
    lowest = int(repeated[0])
    value = next(value for value in _ids(column, parts) if _hash(value) == lowest)
    return f"{value} stands twice"


def _ids(column: str, parts: list[hub.Part]) -> Iterator[str]:
    for part in parts:
        for _, _, row in hub_parts.rows(part, [column]):
            yield id_of(row[column])


def id_of(value: Any) -> str:
    """Turn a value into an id; a path on its maker's machine is cut to the file's name."""
    text = "" if value is None else str(value)
    return PurePosixPath(text).name if text.startswith("/") else text


def _hash(value: str) -> int:
    encoded = value.encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "big")
