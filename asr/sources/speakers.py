"""Which column of a table tells the voices apart: the one place that decides, for all sources.

`speaker_id` does, whatever it holds. Else the column does that has one of the usual names and tells
something; which one is said. Where none does and the source gives no splits, rows are split by
their ids, so that one voice may stand in training and in the test. Then `warning` says so, and
names what could tell the voices. It is never taken unasked: an accent would pass for a person.

Costs 10 us a row, and 8 bytes of memory for each value under a usual name.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from asr.sources.tables import printable
from asr.sources.utterances import Utterance

OURS = "speaker_id"
# The usual names are these words, alone or followed by one of the endings: an id is nobody else's,
# while `speaker` may hold a count or a gender, and two people may have one name.
WORDS = (
    "speaker",
    "client",
    "spk",
    "reader",
    "participant",
    "user",
    "narrator",
    "talker",
    "contributor",
    "voice",
)
ENDINGS = ("id", "", "name")
NAMES = [word + ending for ending in ENDINGS for word in WORDS]

UNKNOWN = (None, "", "None")  # speakers; the last is how VoxPopuli writes it
NO_PERSONS = {
    *("m", "f", "w", "man", "woman", "male", "female", "masculine", "feminine", "other", "unknown"),
    *("male_masculine", "female_feminine", "nonbinary", "non-binary", "yes", "no", "true", "false"),
}
MAX_VALUES = 10_000  # of a column that could tell the voices, counted
MAX_SHOWN = 5  # columns in a warning
MAX_FOLLOWED = 100_000  # speakers looked at for one that speaks twice


def name_of(value: Any) -> str | None:
    """The speaker that a value of a table names; None where it names nobody."""
    is_hole = isinstance(value, float) and not math.isfinite(value)
    return None if is_hole or value in UNKNOWN else str(value)


@dataclass(frozen=True)
class Choice:
    """The column that tells the voices, or None; and what a person should know of it, if any."""

    column: str | None
    note: str = ""


def choose(rows: Iterable[Mapping[str, Any]]) -> Choice:
    """Choose the column that tells the voices, by the names of the columns and their values.

    Args:
        rows: of all tables of a source; columns without a usual name may be absent.
    """
    values: dict[str, _Values] = defaultdict(_Values)
    default: str | None = None
    for row in rows:
        if name_of(row.get(OURS)):
            return Choice(OURS)
        if OURS in row:
            default = OURS
        for column, value in row.items():
            name = name_of(value)
            if name and is_usual(column):
                values[column].add(name)
    columns = sorted(values, key=lambda column: (_rank(column) or 0, column))
    defects = {column: values[column].defect() for column in columns}
    telling = [column for column in columns if not defects[column]]
    # Numbers may count speakers, so a text goes before.
    telling.sort(key=lambda column: values[column].are_numbers)
    chosen = next(iter(telling), default)
    return Choice(chosen, _note(chosen, values, defects))


def is_usual(column: str) -> bool:
    """Whether a column has a name that is usual for a speaker."""
    return _rank(column) is not None


@cache
def _rank(column: str) -> int | None:
    """The place of a column among the usual names, in whatever case and with whatever between."""
    plain = re.sub(r"[\W_]", "", column).casefold()
    return NAMES.index(plain) if plain in NAMES else None


def _note(column: str | None, values: dict[str, _Values], defects: dict[str, str]) -> str:
    notes = []
    if column in values:
        count = values[column].count()
        notes.append(f"the column {printable(column)} tells the voices apart, {count:,} of them")
    for other, defect in defects.items():
        if defect:
            notes.append(f"the column {printable(other)} tells none: {defect}")
    return "; ".join(notes)


@dataclass
class _Values:
    """What is known of a column's values; 8 bytes a row."""

    hashes: array[int] = field(default_factory=lambda: array("q"))
    are_numbers: bool = True
    are_no_persons: bool = True

    def add(self, value: str) -> None:
        self.hashes.append(hash(value))
        self.are_numbers = self.are_numbers and value.removesuffix(".0").isdecimal()
        self.are_no_persons = self.are_no_persons and value.casefold() in NO_PERSONS

    def count(self) -> int:
        """The number of different values."""
        return len(np.unique(np.frombuffer(self.hashes, np.int64)))

    def defect(self) -> str:
        """Why these values tell no voices; empty where they do, or where one alone is there."""
        if len(self.hashes) < 2:
            return ""
        if self.are_no_persons:
            return "it holds genders, or yes and no"
        count = self.count()
        if count == 1:
            return "it is the same in all rows"
        return "it is another in every row" if count == len(self.hashes) else ""


@dataclass
class Voices:
    """What is known of the voices of rows that we split.

    Attributes:
        rows: how many rows the source leaves to us to split.
        unknown: of these, how many name no speaker.
        repeat: whether a speaker of them speaks twice.
    """

    rows: int = 0
    unknown: int = 0
    repeat: bool = False
    seen: set[int] = field(default_factory=set)

    def add(self, utterance: Utterance) -> None:
        if utterance.split:
            return
        self.rows += 1
        if not utterance.speaker:
            self.unknown += 1
        elif not self.repeat:
            key = hash(utterance.speaker)
            self.repeat = key in self.seen or len(self.seen) == MAX_FOLLOWED
            self.seen.add(key)
            if self.repeat:
                self.seen.clear()


def warning(voices: Voices, utterances: Iterable[Utterance]) -> str:
    """Say that voices cannot be kept apart, and what could tell them; empty where they are.

    Costs another reading of the source's tables where something is wrong.
    """
    if voices.unknown == voices.rows > 0:
        what = "no row names a speaker"
    elif voices.unknown:
        what = f"{voices.unknown:,} of {voices.rows:,} rows name no speaker"
    elif voices.rows > 1 and not voices.repeat:
        what = "each row names a speaker of its own"
    else:
        return ""
    clues = ", ".join(_clues(utterances)) or "nothing that was found"
    return (
        f"voices cannot be kept apart: {what}, and no split is given, so one voice may stand in "
        f"training and in the test, and the error rate come out too low; "
        f"what could tell them: {clues}"
    )


def _clues(utterances: Iterable[Utterance]) -> list[str]:
    """What holds the same value in some rows and another in others, most values first."""
    rows = 0
    values: dict[str, set[str]] = defaultdict(set)
    for utterance in utterances:
        rows += 1
        for clue, value in _traits(utterance):
            if value and len(values[clue]) < MAX_VALUES:
                values[clue].add(value)
    telling = {
        clue: len(found)
        for clue, found in values.items()
        if 1 < len(found) <= rows / 2 and not {one.casefold() for one in found} <= NO_PERSONS
    }
    best = sorted(telling, key=lambda clue: (-telling[clue], clue))[:MAX_SHOWN]
    return [
        f"{printable(clue)} ({telling[clue]:,}, such as {printable(min(values[clue]))})"
        for clue in best
    ]


def _traits(utterance: Utterance) -> Iterator[tuple[str, str]]:
    """Columns of a row, its folder, and how its file's name begins: `m1` of `m1-0.mp3`."""
    for column, value in utterance.attributes.items():
        yield column, name_of(value) or ""
    path = PurePosixPath(utterance.id)
    yield "the folder", str(path.parent)
    beginning, separator, _ = re.split(r"([-_. ]|$)", path.stem, maxsplit=1)
    yield "how the file's name begins", beginning if separator else beginning.rstrip("0123456789")
