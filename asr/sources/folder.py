"""A folder with metadata.csv: `file_name`, `transcription`, and where known `speaker_id` and `split`; other columns are kept.

Without `split` the speaker decides (without a speaker, the file name): a hash, so a corpus that grows moves nobody.
"""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

from asr.faults import BadData
from asr.shards import SPLITS
from asr.sources import Corpus, Utterance, split_of

KNOWN = ("file_name", "transcription", "speaker_id", "split")


def read(path: Path) -> Corpus:
    """List the utterances of a folder.

    Raises:
        BadData: no metadata.csv, a column or a split we do not know.
    """
    table = path / "metadata.csv"
    if not table.is_file():
        raise BadData(f"{table}: not there; want a CSV with the columns file_name and transcription beside the recordings")
    rows = _rows(table)
    named = {row["file_name"] for row in rows}
    return Corpus(
        about={
            "name": path.name,
            "licence": "as the folder's owner says",
            "recordings_without_text": sum(1 for file in _recordings(path) if file not in named),
        },
        utterances=[_utterance(table, number, row) for number, row in enumerate(rows, start=2)],
    )


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file)
        missing = {"file_name", "transcription"} - set(reader.fieldnames or ())
        if missing:
            raise BadData(f"{table}: no column {', '.join(sorted(missing))}; it has {', '.join(reader.fieldnames or ['none'])}")
        return [{key: value or "" for key, value in row.items() if key is not None} for row in reader]


def _recordings(path: Path) -> list[str]:
    return [str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and file.name != "metadata.csv"]


def _utterance(table: Path, line: int, row: dict[str, str]) -> Utterance:
    name, speaker, split = row["file_name"], row.get("speaker_id") or None, row.get("split", "")
    if split and split not in SPLITS:
        raise BadData(f"{table}:{line}: split {split!r}, want one of {', '.join(SPLITS)}")
    recording = (table.parent / name).resolve()
    if not recording.is_relative_to(table.parent.resolve()):
        raise BadData(f"{table}:{line}: {name} lies outside the folder")
    return Utterance(
        id=name,
        split=split or split_of(speaker or name),
        text=row["transcription"],
        audio=partial(read_bytes, recording),
        speaker=speaker,
        attributes={key: value for key, value in row.items() if key not in KNOWN and value},
    )


def read_bytes(path: Path) -> bytes | None:
    """The file's bytes; None where it is not there."""
    return path.read_bytes() if path.is_file() else None
