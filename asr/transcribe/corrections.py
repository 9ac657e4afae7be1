"""Corrected transcripts with their sound, kept as a corpus in a folder.

The folder holds metadata.csv and FLAC files, as `download.source: folder` reads. Files are named by
a hash of their sound, so saving the same stretch again replaces its text. Saving costs one rewrite
of the table.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from asr.audio.sample_file import SampleFile, flac
from asr.decoding.segments import Segment
from asr.runtime.locks import locked
from asr.sources.selection import fill
from asr.sources.tables import read_table
from asr.sources.utterances import one_line
from asr.storage import files
from asr.storage.hashing import split_of
from asr.storage.shards import SPLITS

COLUMNS = ("file_name", "transcription", "speaker_id")
TABLE = "metadata.csv"


def save(folder: Path, sound: SampleFile, segments: Iterable[Segment], speaker: str) -> int:
    """Add each segment that has words, with its stretch of the sound; return how many.

    Raises:
        DataError: there is a metadata.csv already, and it is not one of ours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The folder itself is locked: a lock file in it would count as a recording.
    with locked(folder):
        old_rows = list(_rows(folder))
        new_rows = [
            _save_segment(folder, sound, segment, speaker)
            for segment in segments
            if one_line(segment.text)
        ]
        if new_rows:
            _write(folder / TABLE, [*old_rows, *new_rows])
    return len(new_rows)


def splits(folder: Path) -> dict[str, int]:
    """The number of recordings that training would have in each split.

    As in `asr.sources.folder`, a hash of the speaker's name decides, and few speakers are moved so
    that no split is empty.
    """
    rows = list(_rows(folder))
    speakers = Counter(_speaker(row) for row in rows if not row.get("split"))
    splits = {speaker: split_of(speaker) for speaker in speakers}
    filled = {row.get("split") or splits[_speaker(row)] for row in rows}
    splits |= fill([split for split in SPLITS if split not in filled], speakers)
    counts = Counter(row.get("split") or splits[_speaker(row)] for row in rows)
    return {split: counts[split] for split in SPLITS}


def _speaker(row: dict[str, str]) -> str:
    """What decides the split of a row: its speaker, or the row itself."""
    return row.get("speaker_id") or row["file_name"]


def _rows(folder: Path) -> Iterator[dict[str, str]]:
    """The table's rows, as the folder source reads them; none if there is no table yet."""
    path = folder / TABLE
    if path.is_file():
        for _, row in read_table(path, set(COLUMNS[:2]), strict=True):
            yield row


def _save_segment(
    folder: Path, sound: SampleFile, segment: Segment, speaker: str
) -> dict[str, str]:
    """Write a segment's sound; return its row of the table."""
    encoded = flac(sound, segment.start, segment.end)
    name = f"{hashlib.sha256(encoded).hexdigest()[:20]}.flac"
    files.write_bytes(folder / name, encoded)
    return {
        "file_name": name,
        "transcription": one_line(segment.text),
        "speaker_id": one_line(speaker),
    }


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    """Write the whole table; of rows for the same sound the last wins, and all columns stay."""
    table: dict[str, dict[str, str]] = {}
    for row in rows:
        table[row["file_name"]] = table.get(row["file_name"], {}) | row
    columns = dict.fromkeys([*COLUMNS, *(key for row in rows for key in row)])
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, columns, restval="")
    writer.writeheader()
    writer.writerows(table.values())
    files.write_bytes(path, sheet.getvalue().encode(errors="surrogateescape"))
