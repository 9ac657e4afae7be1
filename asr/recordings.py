"""Corrected transcripts with their sound, kept as a corpus: recordings/metadata.csv and FLAC files, as `download.source: folder` reads.

Files are named by a hash of their sound, so that saving the same stretch again replaces its text. Costs one rewrite of the table.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

from asr import files
from asr.sound import Sound, flac
from asr.sources import read_table
from asr.transcripts import Segment, one_line

COLUMNS = ("file_name", "transcription", "speaker_id")
TABLE = "metadata.csv"


def save(folder: Path, sound: Sound, segments: Iterable[Segment], speaker: str) -> int:
    """Add each segment that has words, with its stretch of the sound; returns how many that were.

    Raises:
        BadData: the table that is there is none of ours.
    """
    rows = []
    for segment in segments:
        if words := one_line(segment.text):
            encoded = flac(sound, segment.start, segment.end)
            name = f"{hashlib.sha256(encoded).hexdigest()[:20]}.flac"
            files.write_bytes(folder / name, encoded)
            rows.append({"file_name": name, "transcription": words, "speaker_id": one_line(speaker)})
    if rows:
        _add(folder, rows)
    return len(rows)


def _add(folder: Path, rows: list[dict[str, str]]) -> None:
    """Write the table anew with these rows in it; two who save at once wait for each other."""
    with (folder / f".{TABLE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = read_table(folder / TABLE, set(COLUMNS[:2])) if (folder / TABLE).is_file() else []
        table = {row["file_name"]: row for row in [*known, *rows]}
        columns = list(dict.fromkeys([*COLUMNS, *(key for row in known for key in row)]))
        sheet = io.StringIO()
        writer = csv.DictWriter(sheet, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(table.values())
        files.write_bytes(folder / TABLE, sheet.getvalue().encode(errors="surrogateescape"))
