"""A folder of recordings with their transcripts, in one of three layouts.

1. A table metadata.csv, metadata.tsv (no quoting) or metadata.jsonl, as `audiofolder` of Hugging
   Face has it: `file_name`, the text as `transcription` (else `text`, else `sentence`), where known
   `speaker_id` (or another usual name, see `speakers`) and `split`; other columns are attributes.
   Or one such table in each of train/, validation/ and test/, which then are the splits. Text files
   beside the recordings are ignored.
2. A .txt of the same name beside each recording, at any depth.
3. An .srt or .vtt of the same name beside each long recording: each cue is an utterance, and
   `talk.mp3#00012` is the twelfth.

In 2 and 3 folders train, validation and test on top are the splits (also dev, val, eval and the
like, where no folder on top can be a person's), and the folder on top that holds a recording (below
the split) is its speaker: whether it stands for a person, a show or a book, its recordings belong
in one split. A recording in no folder has no speaker, unless it is cut into cues: then the
recording is the speaker, so that all its cues stay in one split. A voice that subtitles name is the
attribute `voice`, because another recording may give that name to another person.

Nothing outside the folder is read, and hidden files are skipped. Costs a walk through the folder
and three or four passes over its texts, 40 us a row each. File names wait on disk: memory is flat.
"""

from __future__ import annotations

import csv
import os
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from asr.audio.sample_file import SUFFIXES
from asr.errors import DataError
from asr.sources import speakers
from asr.sources.subtitles import cues, cut
from asr.sources.tables import (
    Rows,
    attribute_value,
    printable,
    read_json_lines,
    read_table,
    scratch_database,
)
from asr.sources.utterances import (
    Corpus,
    Utterance,
    UtteranceIterable,
    one_line,
    read_bytes,
    split_named,
)
from asr.storage.shards import SPLITS

TABLES = ("metadata.csv", "metadata.tsv", "metadata.jsonl")
TEXT_COLUMNS = ("transcription", "text", "sentence")
MAX_TEXT = 1 << 20  # bytes of one .txt

# Kinds of files, also in the SQL below.
SOUND = 0
TEXT = 1
SUBTITLES = 2
KINDS = {**dict.fromkeys(SUFFIXES, SOUND), ".txt": TEXT, ".srt": SUBTITLES, ".vtt": SUBTITLES}

SCHEMA = """
    CREATE TABLE files (
        stem BLOB, suffix BLOB, kind INTEGER, named INTEGER, PRIMARY KEY (stem, suffix)
    ) WITHOUT ROWID;
"""
PAIRS = """
    SELECT sound.stem, sound.suffix, words.suffix
    FROM files AS sound JOIN files AS words ON sound.stem = words.stem
    WHERE sound.kind = 0 AND words.kind = ? ORDER BY sound.stem
"""
FOLDERS = """
    SELECT DISTINCT substr(stem, 1, instr(stem, x'2f') - 1) FROM files
    WHERE kind = 0 AND instr(stem, x'2f') > 0
"""
AMBIGUOUS = """
    SELECT stem FROM files WHERE kind IN (0, ?)
    GROUP BY stem HAVING count(*) > 2 AND min(kind) < max(kind) LIMIT 1
"""


def read(path: Path, working: Path) -> Corpus:
    """List the utterances of a folder.

    Args:
        working: an empty folder that the caller throws away once all audio is fetched; subtitles
            need 2 GB in it, and some more.
    Raises:
        DataError: none of the layouts, two of them at once, a table or a text that cannot be read,
            or a name that leads out of the folder.
    """
    if not path.is_dir():
        raise DataError(
            f"{path}: no folder; want one with recordings and their words (download.path)"
        )
    names = working / "files.sqlite"
    tables = _walk(path, names)
    if tables:
        return _read_tables(path, names, tables)
    return _read_pairs(path, names, working)


def _walk(top: Path, names: Path) -> list[Path]:
    """Write the names of all recordings and texts to the database, and return the tables."""
    tables: list[Path] = []
    with scratch_database(names, SCHEMA) as database:
        database.executemany("INSERT INTO files VALUES (?, ?, ?, 0)", _entries(top, tables))
    present = sorted(str(table.relative_to(top)) for table in tables)
    one_on_top = [{name} for name in TABLES]
    one_per_split = [{f"{split}/{name}" for split in SPLITS} for name in TABLES]
    if not any(set(present) <= allowed for allowed in one_on_top + one_per_split):
        raise DataError(
            f"{top}: holds {printable(', '.join(present))}; "
            "want one such table on top, or one in each of train, validation and test"
        )
    if len(tables) > 1:
        tables.sort(key=lambda table: SPLITS.index(table.parent.name))
    return tables


def _entries(top: Path, tables: list[Path]) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield stem, suffix and kind of the files below a folder, in no order.

    Args:
        tables: metadata tables are added to this list, and not yielded.
    """
    inside = top.resolve()
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(top / folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    _check_link(top, inside, folder, entry)
                stem, suffix = os.path.splitext(entry.name)
                kind = KINDS.get(suffix.lower())
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{folder}{entry.name}/")
                elif entry.name in TABLES and os.path.isfile(entry.path):
                    tables.append(top / folder / entry.name)
                elif kind is not None and os.path.isfile(entry.path):
                    yield _bytes(folder + stem), _bytes(suffix), kind


def _check_link(top: Path, inside: Path, folder: str, entry: os.DirEntry[str]) -> None:
    if not Path(os.path.realpath(entry.path)).is_relative_to(inside):
        raise DataError(
            f"{top}: {printable(folder + entry.name)} leads out of the folder; "
            "copy what it names into it"
        )


def _bytes(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _str(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


def _count(database: sqlite3.Connection, condition: str) -> int:
    (count,) = database.execute(f"SELECT count(*) FROM files WHERE {condition}").fetchone()
    return int(count)


# Layout 1: a table, or one for each split.


def _read_tables(top: Path, names: Path, tables: list[Path]) -> Corpus:
    speaker = speakers.choose(row for table in tables for _, row in _rows(table))

    def utterances() -> Iterator[Utterance]:
        for table in tables:
            yield from _table_utterances(top, table, speaker.column)

    about = {
        "name": top.name,
        "licence": "as the folder's owner says",
        "layout": tables[0].name,
        "recordings_without_text": _count_unnamed(names, utterances()),
    }
    if speaker.column not in (None, speakers.OURS):
        about["speaker_column"] = speaker.column
    return Corpus(about, UtteranceIterable(utterances), speaker.note)


def _count_unnamed(names: Path, utterances: Iterator[Utterance]) -> int:
    """Count the recordings that no row names.

    This pass over the tables also finds their errors before any other work is done.
    """
    with scratch_database(names) as database:
        for utterance in utterances:
            stem, suffix = os.path.splitext(os.path.normpath(utterance.id))
            database.execute(
                "UPDATE files SET named = 1 WHERE stem = ? AND suffix = ?",
                (_bytes(stem), _bytes(suffix)),
            )
        return _count(database, "kind = 0 AND NOT named")


def _table_utterances(top: Path, table: Path, speaker: str | None) -> Iterator[Utterance]:
    """The utterances of one table; `speaker` is its column of the speaker."""
    inside = top.resolve()
    for line, row in _rows(table):
        yield _utterance(top, inside, table, line, row, speaker)


def _rows(table: Path) -> Rows:
    if table.suffix == ".jsonl":
        return read_json_lines(table)
    if table.suffix == ".tsv":
        return read_table(table, {"file_name"}, delimiter="\t", quoting=csv.QUOTE_NONE)
    return read_table(table, {"file_name"}, strict=True)


def _utterance(
    top: Path, inside: Path, table: Path, line: int, row: dict[str, Any], speaker: str | None
) -> Utterance:
    where = f"{table}:{line}"
    name = _string(where, row, "file_name")
    text_column = next((column for column in TEXT_COLUMNS if column in row), TEXT_COLUMNS[0])
    for column in ("file_name", text_column):
        if column not in row:
            raise DataError(f"{where}: no column {column}; it has {printable(', '.join(row))}")
    folder = table.parent.name if table.parent != top else None
    split = _split(where, row, folder)
    recording = _recording(where, inside, table.parent, name)
    ours = ("", "file_name", text_column, speaker or speakers.OURS, "split")
    return Utterance(
        id=f"{folder}/{name}" if folder else name,
        split=split,
        text=_string(where, row, text_column),
        audio=partial(read_bytes, recording),
        speaker=speakers.name_of(row.get(speaker or speakers.OURS)),
        attributes={
            key: attribute_value(value)
            for key, value in row.items()
            if key not in ours and value not in (None, "")
        },
    )


def _string(where: str, row: dict[str, Any], column: str) -> str:
    """A value of a row; a text that is null is empty, as it would be in a CSV."""
    value = row.get(column) or ""
    if not isinstance(value, str):
        raise DataError(f"{where}: {column} {printable(str(value))}, want a text")
    return value


def _split(where: str, row: dict[str, Any], folder: str | None) -> str | None:
    """The split that a row names, or whose folder its table is in; both must agree."""
    split = row.get("split") or folder
    if split is None:
        return None
    if split not in SPLITS or folder not in (None, split):
        allowed = folder or "one of " + ", ".join(SPLITS)
        raise DataError(f"{where}: split {printable(str(split))}, want {allowed}")
    return str(split)


def _recording(where: str, inside: Path, folder: Path, name: str) -> Path:
    """The path of a recording that a row names, which must lie inside the corpus."""
    if "\0" in name:
        raise DataError(f"{where}: NUL in a file name")
    recording = os.path.realpath(folder / name)
    if not f"{recording}/".startswith(f"{inside}/"):
        raise DataError(f"{where}: {printable(name)} lies outside the folder")
    return Path(recording)


# Layouts 2 and 3: a text, or subtitles, beside each recording.


def _read_pairs(top: Path, names: Path, working: Path) -> Corpus:
    with scratch_database(names) as database:
        kind = _kind_of_pairs(top, database)
        pairs = _count_pairs(database, kind)
        recordings = _count(database, f"kind = {SOUND}")
        texts = _count(database, f"kind = {kind}")
        splits = _split_folders(database)
    others = ", ".join(f"{ours} ({theirs})" for theirs, ours in splits.items() if theirs != ours)
    return Corpus(
        about={
            "name": top.name,
            "licence": "as the folder's owner says",
            "layout": ".txt" if kind == TEXT else "subtitles",
            "recordings_without_text": recordings - pairs,
            "texts_without_recording": texts - pairs,
        },
        utterances=UtteranceIterable(partial(_pair_utterances, top, names, kind, working, splits)),
        note=f"folders on top that are taken for splits: {printable(others)}" if others else "",
    )


def _split_folders(database: sqlite3.Connection) -> dict[str, str]:
    """Folders on top that are splits, by the names they have.

    A person may be called Dev or Val, so other names than ours count only beside a folder for
    training, or where all folders have such names.
    """
    folders = [_str(folder) for (folder,) in database.execute(FOLDERS)]
    splits = {folder: split_named(folder) for folder in sorted(folders)}
    all_count = all(splits.values()) or "train" in splits.values()
    return {
        folder: split
        for folder, split in splits.items()
        if split and (all_count or folder == split)
    }


def _kind_of_pairs(top: Path, database: sqlite3.Connection) -> int:
    """Whether texts or subtitles lie beside the recordings.

    Raises:
        DataError: neither or both do, or a name has two recordings or two texts.
    """
    present = [kind for kind in (TEXT, SUBTITLES) if _count_pairs(database, kind)]
    if not present:
        raise DataError(
            f"{top}: no {', '.join(TABLES)}, "
            "and no recording with a .txt, .srt or .vtt of its name beside it"
        )
    if len(present) > 1:
        raise DataError(
            f"{top}: recordings have .txt beside them, and .srt or .vtt too; "
            "move the ones that are not meant elsewhere"
        )
    (kind,) = present
    for (stem,) in database.execute(AMBIGUOUS, [kind]):
        raise DataError(
            f"{top}: {printable(_str(stem))}: two recordings or two texts of this name; "
            "keep one of each"
        )
    return kind


def _count_pairs(database: sqlite3.Connection, kind: int) -> int:
    return sum(1 for _ in database.execute(PAIRS, [kind]))


def _pair_utterances(
    top: Path, names: Path, kind: int, working: Path, splits: dict[str, str]
) -> Iterator[Utterance]:
    with scratch_database(names) as database:
        for row in database.execute(PAIRS, [kind]):
            stem, sound_suffix, text_suffix = map(_str, row)
            recording = stem + sound_suffix
            words = top / (stem + text_suffix)
            if kind == TEXT:
                yield _transcribed(top, recording, words, splits)
            else:
                yield from _subtitled(top, recording, words, working, splits)


def _transcribed(top: Path, name: str, text: Path, splits: dict[str, str]) -> Utterance:
    split, speaker = _split_and_speaker(name, splits)
    return Utterance(
        id=name,
        split=split,
        text=one_line(_read_text(text)),
        audio=partial(read_bytes, top / name),
        speaker=speaker,
    )


def _subtitled(
    top: Path, name: str, subtitles: Path, working: Path, splits: dict[str, str]
) -> Iterator[Utterance]:
    split, speaker = _split_and_speaker(name, splits)
    for number, cue in enumerate(cues(subtitles), 1):
        yield Utterance(
            id=f"{name}#{number:05d}",
            split=split,
            text=cue.text,
            audio=partial(cut, top / name, working, cue.start, cue.end),
            speaker=speaker or name,
            attributes={"voice": cue.voice} if cue.voice else {},
            duration=round(max(cue.end - cue.start, 0.0), 3),
        )


def _split_and_speaker(name: str, splits: dict[str, str]) -> tuple[str | None, str | None]:
    """Split and speaker of a recording, by the folders it lies in."""
    *folders, _ = name.split("/")
    split = splits[folders.pop(0)] if folders and folders[0] in splits else None
    speaker = folders[0] if folders else None
    return split, speaker


def _read_text(path: Path) -> str:
    """Read a .txt; NUL, a sign of UTF-16, becomes U+FFFD, for which `chunk` rejects the row."""
    with path.open("rb") as file:
        content = file.read(MAX_TEXT + 1)
    if len(content) > MAX_TEXT:
        raise DataError(
            f"{path}: a text of more than {MAX_TEXT:,} bytes; want the words of one recording"
        )
    return content.decode("utf-8-sig", errors="surrogateescape").replace("\0", "\ufffd")
