"""A folder with metadata.csv: `file_name`, `transcription`, and where known `speaker_id` and `split`; other columns are kept.

Without `split` the speaker decides (without a speaker, the file name).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from asr.faults import BadData
from asr.shards import SPLITS
from asr.sources import Corpus, Listing, Utterance, read_bytes, read_table

KNOWN = ("file_name", "transcription", "speaker_id", "split")


def read(path: Path) -> Corpus:
    """List the utterances of a folder.

    Raises:
        BadData: no metadata.csv, a column or a split we do not know.
    """
    table = path / "metadata.csv"
    if not table.is_file():
        raise BadData(f"{table}: not there; want a CSV with the columns file_name and transcription beside the recordings")
    named = {row["file_name"] for row in _rows(table)}
    return Corpus(
        about={
            "name": path.name,
            "licence": "as the folder's owner says",
            "recordings_without_text": sum(1 for file in _recordings(path) if file not in named),
        },
        utterances=Listing(partial(_utterances, table)),
    )


def _rows(table: Path) -> Iterator[dict[str, str]]:
    return read_table(table, {"file_name", "transcription"})


def _recordings(path: Path) -> list[str]:
    return [str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and file.name != "metadata.csv"]


def _utterances(table: Path) -> Iterator[Utterance]:
    return (_utterance(table, number, row) for number, row in enumerate(_rows(table), start=2))


def _utterance(table: Path, line: int, row: dict[str, str]) -> Utterance:
    name, speaker, split = row["file_name"], row.get("speaker_id") or None, row.get("split", "")
    if split and split not in SPLITS:
        raise BadData(f"{table}:{line}: split {split!r}, want one of {', '.join(SPLITS)}")
    if "\0" in name:
        raise BadData(f"{table}:{line}: NUL in a file name")
    recording = (table.parent / name).resolve()
    if not recording.is_relative_to(table.parent.resolve()):
        raise BadData(f"{table}:{line}: {name} lies outside the folder")
    return Utterance(
        id=name,
        split=split or None,
        text=row["transcription"],
        audio=partial(read_bytes, recording),
        speaker=speaker,
        attributes={key: value for key, value in row.items() if key not in KNOWN and value},
    )
