"""Where a corpus can come from: one small module each, with one function `read`.

`read(...)` returns a `Corpus`: what is known about it, and its utterances. An utterance is light; its sound is fetched by
`audio()` when its turn comes, and no source holds a list of its rows, so a corpus of any size passes through in the memory of
one recording.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr.faults import BadData

MAX_FIELD = 1 << 24  # characters in one field of a table


@dataclass(frozen=True)
class Utterance:
    """One recording with its transcript.

    split: None where the source gives none, so that we split by speaker.
    audio: gives the encoded bytes, or None where the recording is missing.
    """

    id: str
    split: str | None
    text: str
    audio: Callable[[], bytes | None]
    speaker: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    duration: float | None = None


@dataclass(frozen=True)
class Listing:
    """Utterances in the corpus's own order, read anew each time one goes through them."""

    read: Callable[[], Iterator[Utterance]]

    def __iter__(self) -> Iterator[Utterance]:
        return self.read()


@dataclass(frozen=True)
class Corpus:
    """`about` goes into the manifest: name, licence, counts that a person should see."""

    about: dict[str, Any]
    utterances: Listing


def read_bytes(path: Path) -> bytes | None:
    """The file's bytes; None where it is not there."""
    return path.read_bytes() if path.is_file() else None


def read_table(path: Path, wanted: set[str], **dialect: Any) -> Iterator[dict[str, str]]:
    """Rows of a table with a header; bytes that are not UTF-8 are carried along.

    Raises:
        BadData: a column is missing, or a row cannot be told from the next.
    """
    csv.field_size_limit(MAX_FIELD)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file, **dialect)
        try:
            columns = list(reader.fieldnames or ["none"])
            if not wanted <= set(columns):
                raise BadData(f"{path}: no column {', '.join(sorted(wanted - set(columns)))}; it has {', '.join(columns)}")
            for row in reader:
                yield {key: value or "" for key, value in row.items() if key is not None}
        except csv.Error as error:
            raise BadData(f"{path}:{reader.line_num}: {error}; a quote that never closes?") from None
