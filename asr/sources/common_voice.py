"""A Common Voice release: its folder, which holds `clips/` and TSVs, one above it, or its .tar.gz.

`dev.tsv` is validation; or all of validated.tsv is taken, to be split anew by speaker. TSVs are
read without quoting, as they are written. `clip_durations.tsv` is optional. An archive is first
unpacked into the working folder (regular files inside it only), so it costs its size once more
while it is read. Names and durations wait on disk: memory is flat, and a row costs 20 us.
"""

from __future__ import annotations

import csv
import lzma
import math
import os
import re
import shutil
import sqlite3
import tarfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from asr.errors import DISK_ERRORS, DataError
from asr.runtime import disk
from asr.sources.tables import Rows, read_table, scratch_database
from asr.sources.utterances import Corpus, Utterance, UtteranceIterable, read_bytes

TSVS: dict[str, dict[str | None, str]] = {
    "official": {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"},
    "validated": {None: "validated.tsv"},
}
ATTRIBUTES = (
    "age",
    "gender",
    "accents",
    "variant",
    "locale",
    "segment",
    "sentence_domain",
    "up_votes",
    "down_votes",
)
# Whisper's language code, where it is not the locale's.
LANGUAGE_CODES = {
    "nb": "no",
    "cmn": "zh",
    "fil": "tl",
    "jv": "jw",
    "iw": "he",
}
LOCALE = re.compile("[a-z]{2,3}(-[A-Za-z]{2,10})?")  # as releases name their folders
SCHEMA = "CREATE TABLE clips (name BLOB PRIMARY KEY, seconds REAL, named INTEGER) WITHOUT ROWID;"

MAX_FILES = 10_000_000
MAX_NAME = 1 << 20  # bytes of a member's name or attributes
MAX_GROWTH = 20  # mp3 does not compress, so an archive that grows more than this is a bomb
BLOCK = 1 << 20  # bytes read at once


def read(path: Path, working: Path, splits: Literal["official", "validated"]) -> Corpus:
    """List the utterances of a release.

    Args:
        path: folder or .tar.gz.
        working: an empty folder that the caller throws away, for what an archive holds.
        splits: `official` for the release's own; `validated` for none, and all that listeners
            found valid.
    Returns:
        `about` has the language as Whisper's code, by the release's locale.
    Raises:
        DataError: nothing there, no release in it, a TSV is missing, an archive that is broken or
            hostile.
    """
    tsvs = TSVS[splits]
    folder = path
    if path.is_file():
        folder = working / "archive"
        folder.mkdir(exist_ok=True)
        # mp3 packs no further, so the archive's size is about what it unpacks to.
        disk.check_free_space(working, path.stat().st_size, f"{path.name}, unpacked,")
        unpack(path, folder)
    elif not path.is_dir():
        raise DataError(f"{path}: not there; want a Common Voice folder or .tar.gz (download.path)")
    release = _find_release(folder, path, tsvs)
    clips = working / "clips.sqlite"
    unnamed, locale = _index_clips(release, tsvs, clips)
    if not locale and LOCALE.fullmatch(release.name):
        locale = release.name
    return Corpus(
        about={
            "name": path.name.removesuffix(".tar.gz"),
            "licence": "CC0-1.0 (Mozilla Common Voice; see the release's own terms)",
            "language": language_of(locale) or None,
            "clips_no_tsv_names": unnamed,
        },
        utterances=UtteranceIterable(partial(_utterances, release, tsvs, clips)),
    )


def language_of(locale: str) -> str:
    """Return Whisper's code for a locale, as far as it has one: sv for sv-SE, rm for rm-sursilv."""
    code = locale.partition("-")[0].lower()
    return LANGUAGE_CODES.get(code, code)


def _find_release(folder: Path, path: Path, tsvs: dict[str | None, str]) -> Path:
    """Find the one folder, at or below `folder`, that holds clips and a TSV.

    Args:
        path: what the user gave, for messages.
    """
    first_tsv = next(iter(tsvs.values()))
    releases = sorted(
        candidate
        for candidate in _folders(folder)
        if (candidate / "clips").is_dir() and (candidate / first_tsv).is_file()
    )
    if len(releases) == 1:
        return releases[0]
    if releases:
        names = ", ".join(release.name for release in releases)
        raise DataError(f"{path}: holds {len(releases)} releases ({names}); name one of them")
    raise DataError(
        f"{path}: no Common Voice release in it; "
        f"want a folder with clips/, {', '.join(tsvs.values())}"
    )


def _folders(top: Path) -> Iterator[Path]:
    """Yield a folder and all below it, without ever listing the files of one."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        yield folder
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(folder / entry.name)


def _index_clips(release: Path, tsvs: dict[str | None, str], clips: Path) -> tuple[int, str]:
    """Write the durations and names of all clips to a database.

    Returns:
        how many clips no TSV names; the locale that the TSVs name, or an empty string.
    """
    locale = ""
    with scratch_database(clips, SCHEMA) as database:
        database.executemany(
            "INSERT OR REPLACE INTO clips VALUES (?, ?, 0)",
            _durations(release / "clip_durations.tsv"),
        )
        for tsv in tsvs.values():
            for _, row in _tsv_rows(release / tsv, "client_id", "path", "sentence"):
                name = _bytes(row["path"] or "")
                database.execute(
                    "INSERT INTO clips VALUES (?, NULL, 1) ON CONFLICT DO UPDATE SET named = 1",
                    [name],
                )
                locale = locale or row.get("locale") or ""
        with os.scandir(release / "clips") as entries:
            unnamed = sum(1 for entry in entries if not _look_up(database, "named", entry.name))
    return unnamed, locale


def _look_up(database: sqlite3.Connection, column: str, clip: str) -> float | None:
    """A column's value for a clip; None where the clip is not in the database."""
    row = database.execute(f"SELECT {column} FROM clips WHERE name = ?", [_bytes(clip)]).fetchone()
    return row[0] if row else None


def _bytes(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _tsv_rows(path: Path, *required: str) -> Rows:
    if not path.is_file():
        raise DataError(
            f"{path}: not there; "
            "a Common Voice release has train.tsv, dev.tsv, test.tsv and validated.tsv"
        )
    return read_table(path, set(required), delimiter="\t", quoting=csv.QUOTE_NONE, restval=None)


def _durations(path: Path) -> Iterator[tuple[bytes, float]]:
    """Yield name and seconds of each clip.

    The column with the name is `clip` or `filename`, by the age of the release.
    """
    if not path.is_file():
        return
    for line, row in _tsv_rows(path):
        try:
            seconds = float(row["duration[ms]"]) / 1000
            name = row["clip" if "clip" in row else "filename"]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}:{line}: want the columns clip and duration[ms], got {error}"
            ) from None
        if not (math.isfinite(seconds) and seconds >= 0):
            raise DataError(f"{path}:{line}: a duration of {seconds} s")
        yield _bytes(name), seconds


def _utterances(release: Path, tsvs: dict[str | None, str], clips: Path) -> Iterator[Utterance]:
    with scratch_database(clips) as database:
        for split, tsv in tsvs.items():
            for _, row in _tsv_rows(release / tsv, "client_id", "path", "sentence"):
                name = row["path"] or ""
                yield Utterance(
                    id=name,
                    split=split,
                    text=_sentence(row),
                    audio=partial(read_bytes, release / "clips" / Path(name).name),
                    speaker=row["client_id"] or None,
                    attributes={key: row[key] for key in ATTRIBUTES if row.get(key)},
                    duration=_look_up(database, "seconds", name),
                )


def _sentence(row: dict[str, str | None]) -> str:
    """The sentence of a row; empty if the row is cut short.

    Such a row had a line end in its sentence, of which only the first half is here.
    """
    if None in row.values():
        return ""
    return row["sentence"] or ""


def unpack(archive: Path, target: Path) -> None:
    """Extract an archive's regular files into the target folder.

    Raises:
        DataError: no archive, a broken one, or one that reaches outside, links, or grows beyond all
            reason.
    """
    limit = max(archive.stat().st_size, 1 << 20) * MAX_GROWTH
    try:
        with tarfile.open(archive, tarinfo=_Member) as tar:
            for number, member in enumerate(tar):
                limit -= member.size + tarfile.BLOCKSIZE
                if limit < 0 or number > MAX_FILES:
                    raise DataError(
                        f"{archive}: unpacks to more than {MAX_GROWTH} times its size; refused"
                    )
                _extract(tar, member, target, archive)
                # tarfile would hold a kilobyte for each member.
                tar.members.clear()  # type: ignore[attr-defined]
            _check_end(tar, limit)
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        reason = str(error).splitlines()[0]
        raise DataError(f"{archive}: not a whole archive ({reason}); fetch it again") from None


def _check_end(tar: tarfile.TarFile, limit: int) -> None:
    """Read an archive to its end, where gzip's checksum stands; only zeros may be left.

    What tarfile takes for the end may be a broken header, with more members behind it.
    """
    while tar.fileobj and (rest := tar.fileobj.read(BLOCK)):
        limit -= len(rest)
        if limit < 0 or rest.count(0) < len(rest):
            raise tarfile.ReadError("bytes behind its end")


class _Member(tarfile.TarInfo):
    """A member of an archive whose name and attributes have a reasonable length.

    tarfile reads them into memory at once.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        too_long = member.size > MAX_NAME and member.type not in tarfile.REGULAR_TYPES
        if member.size < 0 or too_long:
            raise tarfile.ReadError(f"a header of {member.size} bytes")
        return member


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, archive: Path) -> None:
    path = (target / member.name).resolve()
    if not path.is_relative_to(target.resolve()) or not (member.isreg() or member.isdir()):
        raise DataError(
            f"{archive}: {member.name} is not a regular file inside the archive; refused"
        )
    content = tar.extractfile(member)
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with content, path.open("wb") as file:
            shutil.copyfileobj(content, file)
