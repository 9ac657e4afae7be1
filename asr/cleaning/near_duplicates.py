"""Find recordings of different splits that may share their sound, by their fingerprints.

**Method.** Each clip leaves at most 64 landmarks in an SQLite file: frames chosen by a hash of
their codes, so that a copy chooses the same ones. Landmarks are sorted by the codes around them,
and each is compared with the next 32. Like surroundings lie side by side, so a sound that a hundred
thousand clips share costs no more than any other. This costs no recall: landmarks that cover more
than the shared sound have few neighbours; clips that hold nothing else are reported with at least
one partner each. Where two landmarks agree, one clip is laid over the other, and the differing bits
are counted in all frames in which both have a code.

**Found** are copies that were encoded anew, amplified, padded, or trimmed to no less than half, if
25 of their frames have a code (0.9 s of sound); of those with 14 (0.6 s) most; of shorter ones
none, which are left to digests of their bytes.

**Missed** are a part 20 dB below the rest, because in the longer clip it counts as quiet; one in
eight of opus at 16 kbit/s cut into silence in mid-word; a short excerpt of a long clip; another
speed or pitch.

**False alarms** are left to a second look (`asr.cleaning.same_sound`). In natural speech there are
hardly any: of unrelated speech, one bit in three is an independent coin, so 14 frames must differ
less than in 7.4 standard deviations. Synthetic voices are liker: of a million pairs of the embedded
corpus up to four agree, and more where speech is joined from stored syllables, or where clips begin
or end with one jingle.

**Costs**: 500,000 clips of 5 s take 70 s to add and 30 s to search, 14 MB of memory (5,000 clips
take 7), and 1.1 GB of disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np

from asr.cleaning.audio_fingerprint import codes

# Choosing landmarks
MAX_LANDMARKS = 64  # a clip; half a clip keeps half of them, and one in four is found in a copy
NEAR = (0, 3, -3, 6)  # frames around a landmark by which landmarks are sorted
FAR = (-6, 9, -9, 12)  # further frames around it that must agree too
MAX_FRAMES = 1 << 16  # of a clip, in which landmarks are chosen: 26 minutes
CODE_BITS = 16

# Keeping and comparing them
PARTS = 1024  # into which landmarks are divided by hash, so that each part fits into memory
MAX_SORTED_LANDMARKS = 1 << 17  # at once
NEIGHBORS = 32  # next ones in order, with which a landmark is compared
WAITING = 1 << 15  # landmarks held in memory before they are written
AGREE = 0.13  # share of the bits around two landmarks that may differ
AGREE_BITS = 64  # of 128, that both must have

# Laying one clip over another
COMMON_SHORTER = 0.7  # least share of the frames of the shorter clip that both must have
COMMON_LONGER = 0.25  # and of the longer one
DISTINCT = 14  # different codes in common; a tone that begins and ends has fewer
# Share of bits that may differ: 0.06 in most copies, 0.15 in few, 0.5 in other speech, 0.2 if it
# says the same.
DIFFER = 0.16
STRETCH = 8  # frames
DIFFER_STRETCH = 0.32  # in any such stretch, so that one other word in a sentence is noticed
CERTAIN = 1.6  # least (0.5 - share that differs) * sqrt(frames)
# Frames near a cut, if one of the clips goes on there; without them the others must agree better.
EDGE = 10
DIFFER_INSIDE = 0.1

LANDMARK = np.dtype(
    [("near", "<u8"), ("far", "<u8"), ("clip", "<u4"), ("split", "<u2"), ("frame", "<u2")]
)
PRAGMAS = ("journal_mode = OFF", "synchronous = OFF", "cache_size = -2000")
SCHEMA = """
CREATE TABLE clips (number INTEGER PRIMARY KEY, split TEXT, id TEXT, fingerprint BLOB);
CREATE TABLE landmarks (part INTEGER, content BLOB);
CREATE TABLE agreed (
    first INTEGER, second INTEGER, shift INTEGER, PRIMARY KEY (first, second, shift)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class NearDuplicate:
    """Two clips of different splits that hold the same sound.

    share: of the shorter one's frames that is common to both.
    """

    id: str
    split: str
    other_id: str
    other_split: str
    share: float


class NearDuplicateIndex:
    """An index of fingerprints in a new file.

    The file is scratch: nothing is synced, and the caller deletes it.
    """

    def __init__(self, path: Path):
        self.database = sqlite3.connect(path, isolation_level=None)
        for pragma in PRAGMAS:
            self.database.execute(f"PRAGMA {pragma}")
        self.database.executescript(f"{SCHEMA} BEGIN")
        self.splits: list[str] = []
        self.num_clips = 0
        self.waiting: list[tuple[np.ndarray, np.ndarray]] = []  # parts and landmarks of clips
        self.num_waiting = 0  # landmarks

    def add(self, split: str, id: str, fingerprint: bytes) -> None:
        """Add a clip by its `asr.cleaning.audio_fingerprint`."""
        if split not in self.splits:
            self.splits.append(split)
        self.database.execute(
            "INSERT INTO clips VALUES (?, ?, ?, ?)", (self.num_clips, split, id, fingerprint)
        )
        parts, clip_landmarks = landmarks(codes(fingerprint))
        clip_landmarks["clip"] = self.num_clips
        clip_landmarks["split"] = self.splits.index(split)
        if len(parts):
            self.waiting.append((parts, clip_landmarks))
        self.num_clips += 1
        self.num_waiting += len(parts)
        if self.num_waiting >= WAITING:
            self._write()

    def _write(self) -> None:
        """Write the waiting landmarks, a row for each part."""
        if not self.num_waiting:
            return
        parts, waiting = (np.concatenate(column) for column in zip(*self.waiting, strict=True))
        order = np.argsort(parts, kind="stable")
        part_numbers, starts = np.unique(parts[order], return_index=True)
        pieces = np.split(waiting[order], starts[1:])
        rows = zip(part_numbers.tolist(), (piece.tobytes() for piece in pieces), strict=True)
        self.database.executemany("INSERT INTO landmarks VALUES (?, ?)", rows)
        self.waiting = []
        self.num_waiting = 0

    def found(self) -> Iterator[NearDuplicate]:
        """Yield all near duplicates, in the order in which their clips were added."""
        self._write()
        self.database.execute("CREATE INDEX IF NOT EXISTS by_part ON landmarks (part)")
        for part in range(PARTS):
            for pairs in self._agreeing(part):
                self.database.executemany(
                    "INSERT OR IGNORE INTO agreed VALUES (?, ?, ?)", pairs.tolist()
                )
        agreed = self.database.execute(
            "SELECT first, second, shift FROM agreed ORDER BY first, second, shift"
        )
        for (first, second), rows in groupby(agreed, key=itemgetter(0, 1)):
            duplicate = self._compare(first, second, [shift for _, _, shift in rows])
            if duplicate:
                yield duplicate

    def _agreeing(self, part: int) -> Iterator[np.ndarray]:
        """Yield the pairs of one part, as `agreeing` does."""
        rows = self.database.execute(
            "SELECT content FROM landmarks WHERE part = ? ORDER BY rowid", (part,)
        )
        part_landmarks = np.frombuffer(b"".join(content for (content,) in rows), LANDMARK)
        num_pieces = 1 + len(part_landmarks) // MAX_SORTED_LANDMARKS
        for piece in range(num_pieces):
            yield from agreeing(part_landmarks[piece::num_pieces])

    def _compare(self, first: int, second: int, shifts: list[int]) -> NearDuplicate | None:
        """Lay two clips over each other at each shift; None where they never have one sound."""
        split, id, clip_codes = self._clip(first)
        other_split, other_id, other_codes = self._clip(second)
        share = max(common(clip_codes, other_codes, shift) for shift in shifts)
        return NearDuplicate(id, split, other_id, other_split, share) if share else None

    def _clip(self, number: int) -> tuple[str, str, np.ndarray]:
        """Split, id and codes of a clip."""
        split, id, fingerprint = self.database.execute(
            "SELECT split, id, fingerprint FROM clips WHERE number = ?", (number,)
        ).fetchone()
        return split, id, codes(fingerprint)

    def close(self) -> None:
        self.database.close()


def landmarks(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose a clip's landmarks.

    Args:
        codes: (T,) of a fingerprint.
    Returns:
        (A,) the part each belongs to, and (A,) LANDMARK; no two begin with the same 16 bits.
    """
    around = _surroundings(codes[:MAX_FRAMES])  # (T, 8)
    num_bits = np.count_nonzero(around, axis=1) * CODE_BITS
    usable = np.flatnonzero((around[:, 0] > 0) & (around[:, 1] > 0) & (num_bits >= AGREE_BITS))
    near = _sort_key(around[usable, : len(NEAR)])
    far = np.ascontiguousarray(around[usable, len(NEAR) :]).view("<u8")[:, 0]

    # Of the frames that begin with the same 16 bits the first, and of these the least hashes.
    beginnings, first = np.unique(near >> np.uint64(48), return_index=True)
    hashes = scrambled(beginnings)
    least = np.argsort(hashes)[:MAX_LANDMARKS]
    rows = first[least]
    selected = np.zeros(len(rows), LANDMARK)
    selected["near"] = near[rows]
    selected["far"] = far[rows]
    selected["frame"] = usable[rows]
    return hashes[least] % np.uint64(PARTS), selected


def _surroundings(codes: np.ndarray) -> np.ndarray:
    """(T, 8) the codes around each frame, at the offsets of NEAR and FAR; 0 beyond the ends."""
    offsets = NEAR + FAR
    before = -min(offsets)
    padded = np.pad(codes, (before, max(offsets)))
    shifted = [padded[before + offset : before + offset + len(codes)] for offset in offsets]
    return np.stack(shifted, axis=1)


def _sort_key(near: np.ndarray) -> np.ndarray:
    """(N,) uint64 from the codes (N, 4) around landmarks.

    The low bytes of all codes come first: they compare wide bands, so they are the steadiest.
    """
    steadiest_first = np.concatenate([near & 0xFF, near >> 8], axis=1).astype(np.uint8)
    return steadiest_first.view(">u8")[:, 0].astype("<u8")


def scrambled(numbers: np.ndarray) -> np.ndarray:
    """Hash each number, one to one: the finish of splitmix64 (Steele, Lea and Flood 2014)."""
    mixed = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def agreeing(landmarks: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the pairs of neighbouring landmarks that agree and are of different splits.

    Args:
        landmarks: (A,) LANDMARK.
    Yields:
        (P, 3) the clip added first, the other, and the frame of the first at which the other
        begins.
    """
    # Hashing the clips mixes the splits among equal landmarks.
    order = np.lexsort((scrambled(landmarks["clip"]), landmarks["near"]))
    landmarks = landmarks[order]
    clip = landmarks["clip"].astype(np.int64)
    split = landmarks["split"].astype(np.int64)
    frame = landmarks["frame"].astype(np.int64)
    around = np.stack([landmarks["near"], landmarks["far"]])  # (2, A)
    # A byte of 0 is left out: frames without a code agree with nothing.
    counted = np.where(around.view(np.uint8) > 0, np.uint8(255), np.uint8(0)).view(np.uint64)
    for step in range(1, min(NEIGHBORS + 1, len(landmarks))):
        both = counted[:, step:] & counted[:, :-step]
        num_bits = np.bitwise_count(both).sum(axis=0)
        differing = (around[:, step:] ^ around[:, :-step]) & both
        num_differing = np.bitwise_count(differing).sum(axis=0)
        alike = (num_differing <= AGREE * num_bits) & (num_bits >= AGREE_BITS)
        left = np.flatnonzero(alike & (split[step:] != split[:-step]))
        if len(left):
            right = left + step
            is_swapped = clip[left] > clip[right]
            first = np.where(is_swapped, right, left)
            second = np.where(is_swapped, left, right)
            yield np.stack([clip[first], clip[second], frame[first] - frame[second]], axis=1)


def common(first: np.ndarray, second: np.ndarray, shift: int) -> float:
    """Lay two clips over each other and compare them.

    Args:
        first, second: (T,) codes of fingerprints.
        shift: the frame of the first at which the second begins.
    Returns:
        The share of the shorter clip's frames with a code that have one in both; 0.0 if the clips
        are not the same sound.
    """
    shorter, longer = sorted((np.count_nonzero(first), np.count_nonzero(second)))
    cut_before = shift != 0
    cut_after = len(first) != len(second) + shift
    start = max(0, shift)
    end = min(len(first), len(second) + shift)
    first = first[start:end]
    second = second[start - shift : end - shift]

    both = (first > 0) & (second > 0)
    num_common = int(np.count_nonzero(both))
    if num_common < max(COMMON_SHORTER * shorter, COMMON_LONGER * longer):
        return 0.0
    if len(np.unique(first[both])) < DISTINCT:
        return 0.0
    differing = np.bitwise_count(first[both] ^ second[both]) / CODE_BITS
    inside = differing[EDGE * cut_before : num_common - EDGE * cut_after]
    if _same(differing, DIFFER) or _same(inside, DIFFER_INSIDE):
        return num_common / shorter
    return 0.0


def _same(differing: np.ndarray, most: float) -> bool:
    """Whether so few bits differ that two clips must be the same sound.

    Args:
        differing: (F,) share of the bits that differ in each frame.
        most: allowed mean of these shares.
    """
    if len(differing) < STRETCH or differing.mean() > most:
        return False
    if (0.5 - differing.mean()) * len(differing) ** 0.5 < CERTAIN:
        return False
    by_stretch = np.convolve(differing, np.full(STRETCH, 1 / STRETCH), "valid")
    return bool(by_stretch.max() <= DIFFER_STRETCH)
