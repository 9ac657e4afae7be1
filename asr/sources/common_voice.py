"""A Common Voice release: the folder that holds `clips/` and the TSVs, a folder above it, or its
.tar.gz.

`dev.tsv` is validation; or all of validated.tsv, to be split anew by speaker. TSVs are read without
quoting, as they are written. `clip_durations.tsv` is optional. An archive is unpacked into the
working folder first (regular files inside it only), so that it costs its size once more while it is
read. Names and durations wait on disk: memory is flat, and a row costs 20 us.
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
from asr.sources.tables import Rows, on_disk, read_table
from asr.sources.utterances import Corpus, Utterance, UtteranceIterable, read_bytes

TSVS: dict[str, dict[str | None, str]] = {
    "official": {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"},
    "validated": {None: "validated.tsv"},
}
KEPT = (
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
CODES = {
    "nb": "no",
    "cmn": "zh",
    "fil": "tl",
    "jv": "jw",
    "iw": "he",
}  # where Whisper's code is another than the locale's
LOCALE = re.compile("[a-z]{2,3}(-[A-Za-z]{2,10})?")  # as releases name their folders
SCHEMA = "CREATE TABLE clips (name BLOB PRIMARY KEY, seconds REAL, named INTEGER) WITHOUT ROWID;"
MAX_FILES = 10_000_000
MAX_NAME = 1 << 20  # bytes of a member's name or attributes
MAX_GROWTH = 20  # mp3 does not compress, so an archive that grows more than this is a bomb


def read(path: Path, working: Path, splits: Literal["official", "validated"]) -> Corpus:
    """List the utterances of a release.

    Args:
        path: folder or .tar.gz.
        working: an empty folder that the caller throws away, for what an archive holds.
        splits: the release's own, or none: all that listeners found valid.
    Returns:
        `about` tells the language as Whisper has it, by the release's locale.
    Raises:
        BadData: nothing there, no release in it, a TSV missing, an archive that is broken or
            hostile.
    """
    tsvs = TSVS[splits]
    if path.is_file():
        (working / "archive").mkdir(exist_ok=True)
        disk.check_free_space(
            working, path.stat().st_size, f"{path.name}, unpacked,"
        )  # mp3 packs no further
        unpack(path, working / "archive")
    elif not path.is_dir():
        raise DataError(f"{path}: not there; want a Common Voice folder or .tar.gz (download.path)")
    release = _release(working / "archive" if path.is_file() else path, path, tsvs)
    clips = working / "clips.sqlite"
    unnamed, locale = _gather(release, tsvs, clips)
    return Corpus(
        about={
            "name": path.name.removesuffix(".tar.gz"),
            "licence": "CC0-1.0 (Mozilla Common Voice; see the release's own terms)",
            "language": language_of(
                locale or (release.name if LOCALE.fullmatch(release.name) else "")
            )
            or None,
            "clips_no_tsv_names": unnamed,
        },
        utterances=UtteranceIterable(partial(_utterances, release, tsvs, clips)),
    )


def language_of(locale: str) -> str:
    """Whisper's code for a locale, as far as it has one: sv for sv-SE, rm for rm-sursilv."""
    code = locale.partition("-")[0].lower()
    return CODES.get(code, code)


def _release(folder: Path, given: Path, tsvs: dict[str | None, str]) -> Path:
    """The one folder at or below the given one that holds clips and a TSV."""
    first = next(iter(tsvs.values()))
    found = sorted(
        one for one in _folders(folder) if (one / "clips").is_dir() and (one / first).is_file()
    )
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{given}: holds {len(found)} releases ({', '.join(one.name for one in found)}); name one of them"
        )
    raise DataError(
        f"{given}: no Common Voice release in it; want a folder with clips/, {', '.join(tsvs.values())}"
    )


def _folders(top: Path) -> Iterator[Path]:
    """A folder and all below it, without a list of what lies in any."""
    waiting = [top]
    while waiting:
        yield (here := waiting.pop())
        with os.scandir(here) as entries:
            waiting += [
                here / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)
            ]


def _gather(release: Path, tsvs: dict[str | None, str], clips: Path) -> tuple[int, str]:
    """Put durations and names into a table on disk; gives how many clips no TSV names, and the
    locale.
    """
    locale = ""
    with on_disk(clips, SCHEMA) as index:
        index.executemany(
            "INSERT OR REPLACE INTO clips VALUES (?, ?, 0)",
            _durations(release / "clip_durations.tsv"),
        )
        for tsv in tsvs.values():
            for _, row in _table(release / tsv, "client_id", "path", "sentence"):
                name = _bytes(row["path"] or "")
                index.execute(
                    "INSERT INTO clips VALUES (?, NULL, 1) ON CONFLICT DO UPDATE SET named = 1",
                    [name],
                )
                locale = locale or row.get("locale") or ""
        with os.scandir(release / "clips") as entries:
            return sum(1 for entry in entries if not _known(index, "named", entry.name)), locale


def _known(index: sqlite3.Connection, what: str, clip: str) -> float | None:
    """What stands about a clip, in a column."""
    found = index.execute(f"SELECT {what} FROM clips WHERE name = ?", [_bytes(clip)]).fetchone()
    return found[0] if found else None


def _bytes(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _table(path: Path, *wanted: str) -> Rows:
    if not path.is_file():
        raise DataError(
            f"{path}: not there; a Common Voice release has train.tsv, dev.tsv, test.tsv and validated.tsv"
        )
    return read_table(path, set(wanted), delimiter="\t", quoting=csv.QUOTE_NONE, restval=None)


def _durations(path: Path) -> Iterator[tuple[bytes, float]]:
    """Seconds per clip; the column with the name is `clip` or `filename`, by age of the release."""
    if path.is_file():
        for line, row in _table(path):
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
    with on_disk(clips) as index:
        for split, tsv in tsvs.items():
            for _, row in _table(release / tsv, "client_id", "path", "sentence"):
                name = row["path"] or ""
                yield Utterance(
                    id=name,
                    split=split,
                    text=_sentence(row),
                    audio=partial(read_bytes, release / "clips" / Path(name).name),
                    speaker=row["client_id"] or None,
                    attributes={key: row[key] for key in KEPT if row.get(key)},
                    duration=_known(index, "seconds", name),
                )


def _sentence(row: dict[str, str | None]) -> str:
    """What was said; nothing in a row that ends too soon, for a line end stood in it, and half a
    sentence is none.
    """
    return "" if None in row.values() else row["sentence"] or ""


def unpack(archive: Path, target: Path) -> None:
    """Extract regular files inside the target only; refuse anything else that wants to be a file.

    Raises:
        BadData: no archive, a broken one, or one that reaches outside, links, or grows beyond all
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
                tar.members.clear()  # type: ignore[attr-defined]  # which would hold a kilobyte for each
            while tar.fileobj and (
                rest := tar.fileobj.read(1 << 20)
            ):  # to the end, where gzip's checksum stands
                limit -= len(rest)
                if limit < 0 or rest.count(0) < len(
                    rest
                ):  # behind a broken header, which tarfile takes for the end
                    raise tarfile.ReadError("bytes behind its end")
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        raise DataError(
            f"{archive}: not a whole archive ({str(error).splitlines()[0]}); fetch it again"
        ) from None


class _Member(tarfile.TarInfo):
    """A member whose name and attributes, which tarfile reads at once into memory, have a length
    within reason.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0 or (found.size > MAX_NAME and found.type not in tarfile.REGULAR_TYPES):
            raise tarfile.ReadError(f"a header of {found.size} bytes")
        return found


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, archive: Path) -> None:
    place = (target / member.name).resolve()
    if not place.is_relative_to(target.resolve()) or not (member.isreg() or member.isdir()):
        raise DataError(
            f"{archive}: {member.name} is not a regular file inside the archive; refused"
        )
    content = tar.extractfile(member)
    if content is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        with content, place.open("wb") as file:
            shutil.copyfileobj(content, file)
