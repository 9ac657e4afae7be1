"""Corrected transcripts with their sound, kept as a corpus: recordings/metadata.csv and FLAC files,
as `download.source: folder` reads.

Files are named by a hash of their sound, so that saving the same stretch again replaces its text.
Costs one rewrite of the table.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from asr.audio.sample_file import SampleFile, flac
from asr.runtime.locks import locked
from asr.sources.tables import read_table
from asr.sources.utterances import one_line
from asr.storage import files
from asr.storage.hashing import split_of
from asr.storage.shards import SPLITS
from asr.transcribe.formats import Segment

COLUMNS = ("file_name", "transcription", "speaker_id")
TABLE = "metadata.csv"


def save(folder: Path, sound: SampleFile, segments: Iterable[Segment], speaker: str) -> int:
    """Add each segment that has words, with its stretch of the sound; returns how many that were.

    Raises:
        BadData: the table that is there is none of ours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):  # another file in it would count as a recording
        known = list(_rows(folder))
        rows = [
            _row(folder, sound, segment, speaker) for segment in segments if one_line(segment.text)
        ]
        if rows:
            _write(folder / TABLE, [*known, *rows])
    return len(rows)


def splits(folder: Path) -> dict[str, int]:
    """How many recordings training would find in each split: `asr.sources.folder` gives a speaker
    to one, by a hash of the name.
    """
    found = Counter(
        row.get("split") or split_of(row.get("speaker_id") or row["file_name"])
        for row in _rows(folder)
    )
    return {split: found[split] for split in SPLITS}


def _rows(folder: Path) -> Iterator[dict[str, str]]:
    """The table's lines, as the folder source reads them; none where there is no table yet."""
    if (folder / TABLE).is_file():
        yield from (row for _, row in read_table(folder / TABLE, set(COLUMNS[:2]), strict=True))


def _row(folder: Path, sound: SampleFile, segment: Segment, speaker: str) -> dict[str, str]:
    """Keep a segment's sound; returns its line of the table."""
    encoded = flac(sound, segment.start, segment.end)
    name = f"{hashlib.sha256(encoded).hexdigest()[:20]}.flac"
    files.write_bytes(folder / name, encoded)
    return {
        "file_name": name,
        "transcription": one_line(segment.text),
        "speaker_id": one_line(speaker),
    }


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    """The table anew; of rows for the same sound the last one stands, and columns that are not ours
    stay.
    """
    table: dict[str, dict[str, str]] = {}
    for row in rows:
        table[row["file_name"]] = table.get(row["file_name"], {}) | row
    columns = dict.fromkeys([*COLUMNS, *(key for row in rows for key in row)])
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, columns, restval="")
    writer.writeheader()
    writer.writerows(table.values())
    files.write_bytes(path, sheet.getvalue().encode(errors="surrogateescape"))
