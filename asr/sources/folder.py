"""A folder of recordings with their words, in one of three layouts; nothing outside it is read, and
hidden files are passed over.

1. metadata.csv, metadata.tsv (no quoting) or metadata.jsonl, as audiofolder has it: `file_name`,
the text as `transcription` (else
   `text`, else `sentence`), where known `speaker_id` and `split`; other columns are attributes. Or
   one such table in each of train/, validation/ and test/, which then are the splits. Text files
   beside the recordings do not matter then.
2. A .txt of the same name beside each recording, at any depth.
3. An .srt or .vtt of the same name beside each, long, recording: each cue is an utterance,
`talk.mp3#00012` the twelfth.

In 2 and 3 the folder on top that holds a recording is its speaker, for it parts people, or shows,
or books, for certain; what lies in no folder has no speaker, but that a recording cut into cues is
its own, so that all of it is in one split. Folders train, validation and test on top are the
splits. A voice that subtitles name is the attribute `voice`: another recording may give its name to
another person. Costs a walk through the folder and two or three passes over its texts, 40 us a row
each; the names wait on disk, so memory is flat.
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
from asr.sources.subtitles import cues, cut
from asr.sources.tables import Rows, on_disk, printable, read_json_lines, read_table, scalar
from asr.sources.utterances import Corpus, Utterance, UtteranceIterable, one_line, read_bytes
from asr.storage.shards import SPLITS

TABLES = ("metadata.csv", "metadata.tsv", "metadata.jsonl")
TEXTS = ("transcription", "text", "sentence")
SOUND, TEXT, SUBTITLES = 0, 1, 2
KINDS = {**dict.fromkeys(SUFFIXES, SOUND), ".txt": TEXT, ".srt": SUBTITLES, ".vtt": SUBTITLES}
SCHEMA = """
    CREATE TABLE files (stem BLOB, suffix BLOB, kind INTEGER, named INTEGER, PRIMARY KEY (stem, suffix)) WITHOUT ROWID;
"""
PAIRS = """
    SELECT sound.stem, sound.suffix, words.suffix FROM files AS sound JOIN files AS words ON sound.stem = words.stem
    WHERE sound.kind = 0 AND words.kind = ? ORDER BY sound.stem
"""
TWICE = "SELECT stem FROM files WHERE kind IN (0, ?) GROUP BY stem HAVING count(*) > 2 AND min(kind) < max(kind) LIMIT 1"
MAX_TEXT = 1 << 20  # bytes of one .txt


def read(path: Path, working: Path) -> Corpus:
    """List the utterances of a folder.

    Args:
        working: an empty folder that the caller throws away once all sound is fetched; subtitles
            want 2 GB in it, and some more.
    Raises:
        BadData: none of the layouts, two of them at once, a table or a text that cannot be told
            apart, or what leads out of the folder.
    """
    if not path.is_dir():
        raise DataError(
            f"{path}: no folder; want one with recordings and their words (download.path)"
        )
    names = working / "files.sqlite"
    tables = _walk(path, names)
    about: dict[str, Any] = {"name": path.name, "licence": "as the folder's owner says"}
    if tables:
        about |= {
            "layout": tables[0].name,
            "recordings_without_text": _without_text(path, names, tables),
        }
        return Corpus(
            about,
            UtteranceIterable(lambda: (one for table in tables for one in _tabled(path, table))),
        )
    kind, pairs, sounds, texts = _pairs(path, names)
    about |= {
        "layout": ("", ".txt", "subtitles")[kind],
        "recordings_without_text": sounds - pairs,
        "texts_without_recording": texts - pairs,
    }
    return Corpus(about, UtteranceIterable(partial(_paired, path, names, kind, working)))


def _walk(top: Path, names: Path) -> list[Path]:
    """Put every recording and text into a table on disk, and give the metadata tables."""
    found: list[Path] = []
    with on_disk(names, SCHEMA) as index:
        index.executemany("INSERT INTO files VALUES (?, ?, ?, 0)", _entries(top, found))
    allowed = [[name] for name in TABLES] + [
        [f"{split}/{name}" for split in SPLITS] for name in TABLES
    ]
    inside = sorted(str(table.relative_to(top)) for table in found)
    if not any(set(inside) <= set(one) for one in allowed):
        raise DataError(
            f"{top}: holds {printable(', '.join(inside))}; want one such table on top, or one in each of train, validation and test"
        )
    return sorted(
        found, key=lambda table: SPLITS.index(table.parent.name) if table.parent != top else 0
    )


def _entries(top: Path, tables: list[Path]) -> Iterator[tuple[bytes, bytes, int]]:
    """Name without and with suffix, and kind, of the files below a folder, in no order; metadata
    tables go into the list instead.
    """
    folders, inside = [""], top.resolve()
    while folders:
        here = folders.pop()
        with os.scandir(top / here) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)
                kind = KINDS.get(suffix.lower())
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(
                    inside
                ):
                    raise DataError(
                        f"{top}: {printable(here + entry.name)} leads out of the folder; copy what it names into it"
                    )
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{here}{entry.name}/")
                elif entry.name in TABLES and os.path.isfile(entry.path):
                    tables.append(top / here / entry.name)
                elif kind is not None and os.path.isfile(entry.path):
                    yield _bytes(here + stem), _bytes(suffix), kind


def _bytes(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _str(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


# with a table


def _rows(table: Path) -> Rows:
    if table.suffix == ".jsonl":
        return read_json_lines(table)
    if table.suffix == ".tsv":
        return read_table(table, {"file_name"}, delimiter="\t", quoting=csv.QUOTE_NONE)
    return read_table(table, {"file_name"}, strict=True)


def _tabled(top: Path, table: Path) -> Iterator[Utterance]:
    inside = top.resolve()
    return (_utterance(top, inside, table, line, row) for line, row in _rows(table))


def _utterance(top: Path, inside: Path, table: Path, line: int, row: dict[str, Any]) -> Utterance:
    where = f"{table}:{line}"
    name, speaker = _string(where, row, "file_name"), row.get("speaker_id")
    column = next((one for one in TEXTS if one in row), TEXTS[0])
    if missing := [one for one in ("file_name", column) if one not in row]:
        raise DataError(f"{where}: no column {missing[0]}; it has {printable(', '.join(row))}")
    given = table.parent.name if table.parent != top else None
    split = row.get("split") or given
    if split is not None and (split not in SPLITS or given not in (None, split)):
        raise DataError(
            f"{where}: split {printable(str(split))}, want {given or 'one of ' + ', '.join(SPLITS)}"
        )
    if "\0" in name:
        raise DataError(f"{where}: NUL in a file name")
    recording = os.path.realpath(table.parent / name)
    if not f"{recording}/".startswith(f"{inside}/"):
        raise DataError(f"{where}: {printable(name)} lies outside the folder")
    return Utterance(
        id=f"{given}/{name}" if given else name,
        split=split,
        text=_string(where, row, column),
        audio=partial(read_bytes, Path(recording)),
        speaker=None if speaker in (None, "") else str(speaker),
        attributes={
            key: scalar(value)
            for key, value in row.items()
            if key not in ("", "file_name", column, "speaker_id", "split")
            and value not in (None, "")
        },
    )


def _string(where: str, row: dict[str, Any], column: str) -> str:
    """A value of a row; a text that is null is empty, as it would be in a CSV."""
    value = row.get(column) or ""
    if not isinstance(value, str):
        raise DataError(f"{where}: {column} {printable(str(value))}, want a text")
    return value


def _without_text(top: Path, names: Path, tables: list[Path]) -> int:
    """How many recordings no row names. The pass over the tables finds what is wrong with them
    before any work.
    """
    with on_disk(names) as index:
        for table in tables:
            for one in _tabled(top, table):
                stem, suffix = os.path.splitext(os.path.normpath(one.id))
                index.execute(
                    "UPDATE files SET named = 1 WHERE stem = ? AND suffix = ?",
                    (_bytes(stem), _bytes(suffix)),
                )
        return _count(index, "kind = 0 AND NOT named")


def _count(index: sqlite3.Connection, which: str) -> int:
    return int(index.execute(f"SELECT count(*) FROM files WHERE {which}").fetchone()[0])


# with texts or subtitles


def _pairs(top: Path, names: Path) -> tuple[int, int, int, int]:
    """Whether texts or subtitles lie beside the recordings; how many pairs, recordings and such
    texts there are.
    """
    with on_disk(names) as index:
        found = {kind: sum(1 for _ in index.execute(PAIRS, [kind])) for kind in (TEXT, SUBTITLES)}
        if not any(found.values()):
            raise DataError(
                f"{top}: no {', '.join(TABLES)}, and no recording with a .txt, .srt or .vtt of its name beside it"
            )
        if all(found.values()):
            raise DataError(
                f"{top}: recordings have .txt beside them, and .srt or .vtt too; move the ones that are not meant elsewhere"
            )
        kind = max(found, key=lambda one: found[one])
        for (stem,) in index.execute(TWICE, [kind]):
            raise DataError(
                f"{top}: {printable(_str(stem))}: two recordings or two texts of this name; keep one of each"
            )
        return kind, found[kind], _count(index, "kind = 0"), _count(index, f"kind = {kind}")


def _paired(top: Path, names: Path, kind: int, working: Path) -> Iterator[Utterance]:
    with on_disk(names) as index:
        for row in index.execute(PAIRS, [kind]):
            stem, sound, words = map(_str, row)
            yield from (_whole if kind == TEXT else _cut)(
                top, stem + sound, top / (stem + words), working
            )


def _whole(top: Path, name: str, text: Path, _: Path) -> Iterator[Utterance]:
    split, speaker = _belonging(name)
    yield Utterance(name, split, one_line(_text(text)), partial(read_bytes, top / name), speaker)


def _cut(top: Path, name: str, subtitles: Path, working: Path) -> Iterator[Utterance]:
    split, speaker = _belonging(name)
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


def _belonging(name: str) -> tuple[str | None, str | None]:
    """Split and speaker of a recording, by the folders it lies in."""
    *folders, _ = name.split("/")
    split = folders.pop(0) if folders and folders[0] in SPLITS else None
    return split, folders[0] if folders else None


def _text(path: Path) -> str:
    """A file's text; NUL, by which UTF-16 shows, becomes U+FFFD, which costs the row."""
    with path.open("rb") as file:
        content = file.read(MAX_TEXT + 1)
    if len(content) > MAX_TEXT:
        raise DataError(
            f"{path}: a text of more than {MAX_TEXT:,} bytes; want the words of one recording"
        )
    return content.decode("utf-8-sig", errors="surrogateescape").replace("\0", "\ufffd")
