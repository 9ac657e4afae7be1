"""A Common Voice release: the folder that holds `clips/` and the TSVs, a folder above it, or its .tar.gz.

`dev.tsv` is validation. TSVs are read without quoting, as they are written. `clip_durations.tsv` is optional. An archive is
unpacked into a working folder first (regular files inside it only), so that it costs its size once more while it is read.
"""

from __future__ import annotations

import csv
import lzma
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from asr.faults import DISK_ERRORS, BadData
from asr.sources import Corpus, Listing, Utterance, read_bytes, read_table

TSVS = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
KEPT = ("age", "gender", "accents", "variant", "locale", "segment", "sentence_domain", "up_votes", "down_votes")
MAX_FILES = 10_000_000
MAX_NAME = 1 << 20  # bytes of a member's name or attributes
MAX_GROWTH = 20  # mp3 does not compress, so an archive that grows more than this is a bomb


def read(path: Path, working: Path) -> Corpus:
    """List the utterances of a release.

    Args:
        path: folder or .tar.gz.
        working: an empty folder that the caller throws away, for what an archive holds.
    Raises:
        BadData: nothing there, no release in it, a TSV missing, an archive that is broken or hostile.
    """
    if path.is_file():
        unpack(path, working)
    elif not path.is_dir():
        raise BadData(f"{path}: not there; want a Common Voice folder or .tar.gz (download.path)")
    release = _release(working if path.is_file() else path, path)
    durations = _durations(release / "clip_durations.tsv")
    listing = Listing(lambda: (one for split, tsv in TSVS.items() for one in _utterances(release, split, tsv, durations)))
    named = {utterance.id for utterance in listing}
    return Corpus(
        about={
            "name": path.name.removesuffix(".tar.gz"),
            "licence": "CC0-1.0 (Mozilla Common Voice; see the release's own terms)",
            "clips_no_tsv_names": sum(1 for clip in (release / "clips").iterdir() if clip.name not in named),
        },
        utterances=listing,
    )


def _release(folder: Path, given: Path) -> Path:
    """The one folder at or below the given one that holds clips and a TSV."""
    found = [clips.parent for clips in sorted(folder.rglob("clips")) if clips.is_dir() and (clips.parent / "train.tsv").is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadData(f"{given}: holds {len(found)} releases ({', '.join(one.name for one in found)}); name one of them")
    raise BadData(f"{given}: no Common Voice release in it; want a folder with clips/, train.tsv, dev.tsv and test.tsv")


def _table(path: Path, *wanted: str) -> Iterator[dict[str, str]]:
    if not path.is_file():
        raise BadData(f"{path}: not there; a Common Voice release has train.tsv, dev.tsv and test.tsv")
    return read_table(path, set(wanted), delimiter="\t", quoting=csv.QUOTE_NONE)


def _durations(path: Path) -> dict[str, float]:
    """Seconds per clip; the column with the name is `clip` or `filename`, by age of the release."""
    if not path.is_file():
        return {}
    try:
        return {row["clip" if "clip" in row else "filename"]: float(row["duration[ms]"]) / 1000 for row in _table(path)}
    except (KeyError, ValueError) as error:
        raise BadData(f"{path}: want the columns clip and duration[ms], got {error}") from None


def _utterances(release: Path, split: str, tsv: str, durations: dict[str, float]) -> Iterator[Utterance]:
    return (
        Utterance(
            id=row["path"],
            split=split,
            text=row["sentence"],
            audio=partial(read_bytes, release / "clips" / Path(row["path"]).name),
            speaker=row["client_id"] or None,
            attributes={key: row[key] for key in KEPT if row.get(key)},
            duration=durations.get(row["path"]),
        )
        for row in _table(release / tsv, "client_id", "path", "sentence")
    )


def unpack(archive: Path, target: Path) -> None:
    """Extract regular files inside the target only; refuse anything else that wants to be a file.

    Raises:
        BadData: no archive, a broken one, or one that reaches outside, links, or grows beyond all reason.
    """
    limit = max(archive.stat().st_size, 1 << 20) * MAX_GROWTH
    try:
        with tarfile.open(archive, tarinfo=_Member) as tar:
            for number, member in enumerate(tar):
                limit -= member.size + tarfile.BLOCKSIZE
                if limit < 0 or number > MAX_FILES:
                    raise BadData(f"{archive}: unpacks to more than {MAX_GROWTH} times its size; refused")
                _extract(tar, member, target, archive)
                tar.members.clear()  # type: ignore[attr-defined]  # which would hold a kilobyte for each
            while tar.fileobj and (rest := tar.fileobj.read(1 << 20)):  # to the end, where gzip's checksum stands
                limit -= len(rest)
                if limit < 0 or rest.count(0) < len(rest):  # behind a broken header, which tarfile takes for the end
                    raise tarfile.ReadError("bytes behind its end")
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        raise BadData(f"{archive}: not a whole archive ({str(error).splitlines()[0]}); fetch it again") from None


class _Member(tarfile.TarInfo):
    """A member whose name and attributes, which tarfile reads at once into memory, have a length within reason."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0 or (found.size > MAX_NAME and found.type not in tarfile.REGULAR_TYPES):
            raise tarfile.ReadError(f"a header of {found.size} bytes")
        return found


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, archive: Path) -> None:
    place = (target / member.name).resolve()
    if not place.is_relative_to(target.resolve()) or not (member.isreg() or member.isdir()):
        raise BadData(f"{archive}: {member.name} is not a regular file inside the archive; refused")
    content = tar.extractfile(member)
    if content is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        with content, place.open("wb") as file:
            shutil.copyfileobj(content, file)
