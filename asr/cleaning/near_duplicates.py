"""Recordings of different splits that share their sound, found among fingerprints by way of an
SQLite file.

Each clip leaves at most 64 anchors: frames chosen by a hash of what is heard there, so that a copy
chooses the same ones. Anchors are sorted by what is heard around them, and each is held against the
next 32. Like surroundings lie side by side, so a sound that a hundred thousand clips share costs no
more than any other. It loses nothing: anchors that hear more than the shared sound have few
neighbours, and where it is all that clips hold, each is named with some of the others, if not with
each. Where two anchors agree, one clip is laid over the other, and the signs that differ are
counted in all frames that both hear.

Found are copies that were encoded anew, amplified, trimmed to no less than half, or padded, if they
say something in 25 frames (0.9 s of sound); of those with 14 (0.6 s) most; below that none, which
is the business of digests. Missed are a part 20 dB below the rest, for the longer clip holds it to
be quiet; one in eight of opus at 16 kbit/s cut into silence in mid-word; a short excerpt of a long
clip; another speed or pitch. Told wrongly is a synthetic voice that says most of a clip again,
alike in speed and pitch.

Of unrelated speech, one sign in three is a coin of its own: 14 frames must differ less than in 7.4
standard deviations, 25 in 7.8, 50 in 10.8. Were all 10**11 pairs of 500,000 clips laid over each
other by chance, fewer than one in a hundred such corpora would raise a false alarm, as far as the
normal law holds; what is alike for a reason, the same words, is what the limits are set by.

500,000 clips of 5 s take 70 s to add and 30 s to search, 14 MB of memory (5,000 clips take 7), and
1.1 GB of disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np

from asr.cleaning.audio_fingerprint import words

ANCHORS = 64  # a clip; half a clip keeps half of them, and one in four finds its like in a copy
NEAR, FAR = (
    (0, 3, -3, 6),
    (-6, 9, -9, 12),
)  # frames around an anchor by which anchors are sorted, and others that must agree
FRAMES = 1 << 16  # of a clip in which anchors are looked for: 26 minutes
PARTS = 1024  # in which anchors are kept
MAX_SORTED_LANDMARKS = 1 << 17  # anchors sorted at once
NEIGHBOURS = 32
WAITING = 1 << 15  # anchors held before they are written
AGREE = 0.13  # share of the signs around two anchors that may differ
AGREE_SIGNS = 64  # of 128, that both must have

COMMON, COMMON_LONGER = (
    0.7,
    0.25,
)  # least share of the frames of the shorter clip, and of the longer one
DISTINCT = 14  # different words in common; a tone that begins and ends has fewer
# share of signs that may differ: 0.06 in most copies, 0.15 in few, 0.5 in other speech, 0.2 if it
# says the same
DIFFER = 0.16
STRETCH, DIFFER_STRETCH = (
    8,
    0.32,
)  # and in any eight frames, so that one other word in a sentence is heard
CERTAIN = 1.6  # least (0.5 - share that differs) * sqrt(frames)
EDGE, DIFFER_INSIDE = (
    10,
    0.1,
)  # frames that hear the cut where one of the clips goes on; without them the others must agree the more

ANCHOR = np.dtype(
    [("near", "<u8"), ("far", "<u8"), ("clip", "<u4"), ("split", "<u2"), ("frame", "<u2")]
)
PRAGMAS = ("journal_mode = OFF", "synchronous = OFF", "cache_size = -2000")
SCHEMA = """
CREATE TABLE clips (number INTEGER PRIMARY KEY, split TEXT, id TEXT, fingerprint BLOB);
CREATE TABLE anchors (part INTEGER, found BLOB);
CREATE TABLE agreed (first INTEGER, second INTEGER, shift INTEGER, PRIMARY KEY (first, second, shift)) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class NearDuplicate:
    """Two clips of different splits that hold the same sound; `share` of the shorter one's frames
    that is common to both.
    """

    id: str
    split: str
    other_id: str
    other_split: str
    share: float


class NearDuplicateIndex:
    """An index of fingerprints in a new file. It is scratch: nothing is synced, and the caller
    deletes it.
    """

    def __init__(self, path: Path):
        self.database = sqlite3.connect(path, isolation_level=None)
        for pragma in PRAGMAS:
            self.database.execute(f"PRAGMA {pragma}")
        self.database.executescript(f"{SCHEMA} BEGIN")
        self.splits: list[str] = []
        self.num_clips = self.num_waiting = 0
        self.waiting: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, split: str, id: str, fingerprint: bytes) -> None:
        """Add a clip, given what `asr.cleaning.audio_fingerprint` told of it."""
        if split not in self.splits:
            self.splits.append(split)
        self.database.execute(
            "INSERT INTO clips VALUES (?, ?, ?, ?)", (self.num_clips, split, id, fingerprint)
        )
        parts, found = anchors(words(fingerprint))
        found["clip"], found["split"] = self.num_clips, self.splits.index(split)
        if len(parts):
            self.waiting.append((parts, found))
        self.num_clips += 1
        self.num_waiting += len(parts)
        if self.num_waiting >= WAITING:
            self._write()

    def _write(self) -> None:
        """Move the anchors that wait to the parts they belong to."""
        if not self.num_waiting:
            return
        parts, found = (np.concatenate(column) for column in zip(*self.waiting, strict=True))
        order = np.argsort(parts, kind="stable")
        named, starts = np.unique(parts[order], return_index=True)
        pieces = zip(named.tolist(), np.split(found[order], starts[1:]), strict=True)
        self.database.executemany(
            "INSERT INTO anchors VALUES (?, ?)", ((part, piece.tobytes()) for part, piece in pieces)
        )
        self.waiting, self.num_waiting = [], 0

    def found(self) -> Iterator[NearDuplicate]:
        """All leaks, in the order in which their clips were added."""
        self._write()
        self.database.execute("CREATE INDEX IF NOT EXISTS by_part ON anchors (part)")
        for part in range(PARTS):
            for pairs in self._agreeing(part):
                self.database.executemany(
                    "INSERT OR IGNORE INTO agreed VALUES (?, ?, ?)", pairs.tolist()
                )
        agreed = self.database.execute(
            "SELECT first, second, shift FROM agreed ORDER BY first, second, shift"
        )
        for (first, second), rows in groupby(agreed, key=itemgetter(0, 1)):
            leak = self._leak(first, second, [shift for _, _, shift in rows])
            if leak:
                yield leak

    def _agreeing(self, part: int) -> Iterator[np.ndarray]:
        blobs = self.database.execute(
            "SELECT found FROM anchors WHERE part = ? ORDER BY rowid", (part,)
        )
        found = np.frombuffer(b"".join(blob for (blob,) in blobs), ANCHOR)
        pieces = 1 + len(found) // MAX_SORTED_LANDMARKS
        for piece in range(pieces):
            yield from agreeing(found[piece::pieces])

    def _leak(self, first: int, second: int, shifts: list[int]) -> NearDuplicate | None:
        (split, id, one), (other_split, other_id, two) = self._clip(first), self._clip(second)
        share = max(common(one, two, shift) for shift in shifts)
        return NearDuplicate(id, split, other_id, other_split, share) if share else None

    def _clip(self, number: int) -> tuple[str, str, np.ndarray]:
        split, id, fingerprint = self.database.execute(
            "SELECT split, id, fingerprint FROM clips WHERE number = ?", (number,)
        ).fetchone()
        return split, id, words(fingerprint)

    def close(self) -> None:
        self.database.close()


def anchors(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose a clip's anchors.

    Args:
        words: (T,) of a fingerprint.
    Returns:
        (A,) the part each belongs to, and (A,) ANCHOR; no two begin with the same signs.
    """
    words = words[:FRAMES]
    offsets = NEAR + FAR
    before, after = -min(offsets), max(offsets)
    padded = np.pad(words, (before, after))
    heard = np.stack(
        [padded[before + offset : before + offset + len(words)] for offset in offsets], axis=1
    )  # (T, 8)
    signs = np.count_nonzero(heard, axis=1) * 16
    usable = np.flatnonzero((heard[:, 0] > 0) & (heard[:, 1] > 0) & (signs >= AGREE_SIGNS))
    near, far = heard[usable, : len(NEAR)], heard[usable, len(NEAR) :]
    sorted_by = (
        np.concatenate([near & 0xFF, near >> 8], axis=1)
        .astype(np.uint8)
        .view(">u8")[:, 0]
        .astype("<u8")
    )  # steadiest first
    key, first = np.unique(sorted_by >> np.uint64(48), return_index=True)
    hashes = scrambled(key)
    least = np.argsort(hashes)[:ANCHORS]
    found = np.zeros(len(least), ANCHOR)
    found["near"], found["far"] = (
        sorted_by[first[least]],
        np.ascontiguousarray(far).view("<u8")[first[least], 0],
    )
    found["frame"] = usable[first[least]]
    return hashes[least] % np.uint64(PARTS), found


def scrambled(numbers: np.ndarray) -> np.ndarray:
    """A hash of each number, one to one (the finish of splitmix64; Steele, Lea and Flood 2014)."""
    mixed = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def agreeing(found: np.ndarray) -> Iterator[np.ndarray]:
    """Neighbouring anchors that agree and are of different splits.

    Args:
        found: (A,) ANCHOR.
    Yields:
        (P, 3) the clip added first, the other, and the frame of the first at which the other
        begins.
    """
    found = found[
        np.lexsort((scrambled(found["clip"]), found["near"]))
    ]  # among equals, splits stand mixed
    clip, split, frame = (found[name].astype(np.int64) for name in ("clip", "split", "frame"))
    heard = np.stack([found["near"], found["far"]])  # (2, A)
    told = np.where(heard.view(np.uint8) > 0, np.uint8(255), np.uint8(0)).view(
        np.uint64
    )  # a mask: silence agrees with nothing
    for step in range(1, min(NEIGHBOURS + 1, len(found))):
        both = told[:, step:] & told[:, :-step]
        signs = np.bitwise_count(both).sum(axis=0)
        differ = np.bitwise_count((heard[:, step:] ^ heard[:, :-step]) & both).sum(axis=0)
        one = np.flatnonzero(
            (differ <= AGREE * signs) & (signs >= AGREE_SIGNS) & (split[step:] != split[:-step])
        )
        if len(one):
            swap = clip[one] > clip[one + step]
            one, two = one + step * swap, one + step * ~swap
            yield np.stack([clip[one], clip[two], frame[one] - frame[two]], axis=1)


def common(one: np.ndarray, two: np.ndarray, shift: int) -> float:
    """Lay two clips over each other.

    Args:
        one, two: (T,) words of fingerprints.
        shift: the frame of the first at which the second begins.
    Returns:
        The share of the shorter clip's frames that both hear; 0.0 if they are not the same sound.
    """
    shorter, longer = sorted((np.count_nonzero(one), np.count_nonzero(two)))
    cut_before, cut_after = shift != 0, len(one) != len(two) + shift
    start, end = max(0, shift), min(len(one), len(two) + shift)
    one, two = one[start:end], two[start - shift : end - shift]
    both = (one > 0) & (two > 0)
    num_common = int(np.count_nonzero(both))
    if (
        num_common < max(COMMON * shorter, COMMON_LONGER * longer)
        or len(np.unique(one[both])) < DISTINCT
    ):
        return 0.0
    differ = np.bitwise_count(one[both] ^ two[both]) / 16
    inside = differ[EDGE * cut_before : num_common - EDGE * cut_after]
    return num_common / shorter if _same(differ, DIFFER) or _same(inside, DIFFER_INSIDE) else 0.0


def _same(differ: np.ndarray, most: float) -> bool:
    """Whether so few signs differ, given their share in each frame, that two recordings must be
    one.
    """
    if len(differ) < STRETCH or differ.mean() > most:
        return False
    certain = (0.5 - differ.mean()) * len(differ) ** 0.5 >= CERTAIN
    return bool(
        certain
        and np.convolve(differ, np.full(STRETCH, 1 / STRETCH), "valid").max() <= DIFFER_STRETCH
    )
