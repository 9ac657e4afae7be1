"""Find texts in which a model went round in circles: one short phrase, over and over.

Costs 3 us for a text of ten words that were met before; a new word costs 5 us.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from asr import wer
from asr.stats.writing_systems import UNSPACED, script_of

# A repetition is a loop from so many times on, and from so many units in all: people do say "no"
# six times in a row, and read out "one one one one".
LEAST_TIMES = 4
LEAST_UNITS = 8
LONGEST_PHRASE = 32  # units
LONG_WORD = 12  # letters; a longer word may be a loop in itself, as in "rararararararara"


@dataclass(frozen=True)
class Loop:
    """A phrase, normalized, and how many times in a row the text has it."""

    phrase: str
    times: int


def find(text: str, reference: str = "") -> Loop | None:
    """The loop of a text; None if it has none.

    The longest repetition of a phrase is a loop if it is long enough (see LEAST_TIMES), and at
    least twice as long as what was really said: a speaker may repeat a phrase too.

    Args:
        reference: what was said, where that is known.
    """
    units = _units(text)
    start, length, times = _longest_repetition(units)
    if not _is_loop(length, times):
        return None
    phrase = units[start : start + length]
    if times < 2 * _times_in_a_row(_units(reference), phrase):
        return None
    return Loop("".join(phrase).strip(), times)


def _is_loop(length: int, times: int) -> bool:
    """Whether a repetition is long enough; `length` is that of the phrase, in units."""
    return times >= LEAST_TIMES and times * length >= LEAST_UNITS


def _units(text: str) -> list[str]:
    """The words of a text, each with a space behind; letters, where writing has no spaces."""
    return [unit for word in text.split() for unit in _units_of(word)]


@lru_cache(maxsize=1 << 16)
def _units_of(word: str) -> tuple[str, ...]:
    """The units of one word as it was written; several where it has a hyphen."""
    units: list[str] = []
    for part in wer.normalize(word).split():
        if _is_by_letters(part):
            units += part
        else:
            units.append(f"{part} ")
    return tuple(units)


def _is_by_letters(word: str) -> bool:
    """Whether a word is looked through by its letters: its writing has no spaces, or it loops."""
    if not UNSPACED.isdisjoint(map(script_of, word)):
        return True
    _, length, times = _longest_repetition(word if len(word) > LONG_WORD else "")
    return _is_loop(length, times)


def _longest_repetition(units: Sequence[str]) -> tuple[int, int, int]:
    """Start, length and times of the phrase whose repetition takes most units."""
    best = (0, 0, 0)
    if len(units) - len(set(units)) < LEAST_UNITS - LEAST_UNITS // LEAST_TIMES:
        return best  # too few repeat for a loop, as in nearly all texts
    most = 0
    for length in range(1, min(LONGEST_PHRASE, len(units) // LEAST_TIMES) + 1):
        run = 0  # units up to here that are the same as those one phrase before
        for place in range(length, len(units)):
            run = run + 1 if units[place] == units[place - length] else 0
            if run + length > most and run:
                most = run + length
                best = (place + 1 - most, length, most // length)
    return best


def _times_in_a_row(units: Sequence[str], phrase: Sequence[str]) -> int:
    """How many times in a row a phrase stands in a text, at most."""
    best = 0
    for start in range(len(units)):
        times = 0
        while units[start : start + len(phrase)] == phrase:
            times += 1
            start += len(phrase)
        best = max(best, times)
    return best
