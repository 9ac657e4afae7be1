"""Errors that are only a matter of how words are written: `937` for `nine three seven`.

Such an error says that a model writes otherwise than the references do, not that it heard wrongly.
A row without errors costs nothing; one with ten words wrong costs 0.5 ms, and each new number that
is to be spelled 0.1 ms more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rapidfuzz.distance import Levenshtein

from asr import wer

WAYS = ("cardinal", "ordinal", "year")  # in which num2words spells a number
LONGEST_NUMBER = 15  # digits; longer ones are spelled digit by digit only
GROUP = re.compile(r"\d{3}")  # what follows a mark of thousands
ENDINGS = "st|nd|rd|th|er|re|e|ème|eme|º|ª|o|a|te|ste"  # of ordinals, as in 3rd and 3e
ENDED_NUMBER = re.compile(rf"(\d{{1,{LONGEST_NUMBER}}})(?:{ENDINGS})")
AND = re.compile(r"(hundred|thousand|million|billion)and")  # many say "one hundred five"
# Where num2words has other codes than Whisper, or several ways to say a number.
SPOKEN_AS = {"kk": ("kz",), "nn": ("no",), "pt": ("pt", "pt_BR"), "fr": ("fr", "fr_BE", "fr_CH")}


@dataclass(frozen=True)
class FormErrors:
    """Word errors of one row by what they are a matter of.

    case_errors, punctuation_errors: of the text as it was written; normalizing undoes them.
    spacing_errors: of the normalized text: compounds, hyphens and apostrophes.
    numeral_errors: of the normalized text: figures for words, or words for figures.
    """

    case_errors: int
    punctuation_errors: int
    spacing_errors: int
    numeral_errors: int


@dataclass(frozen=True)
class _Piece:
    """One way to say some words in a row, without spaces."""

    num_words: int
    said: str
    is_spelled: bool


def count(reference: str, hypothesis: str, language: str) -> FormErrors:
    """The errors of a row that are a matter of form.

    Args:
        reference, hypothesis: as they were written.
        language: Whisper's code, in which numbers are spelled where num2words can.
    """
    as_written = _distance(reference, hypothesis)
    in_lower_case = _distance(reference.lower(), hypothesis.lower())
    normalized = wer.normalize(reference).split(), wer.normalize(hypothesis).split()
    left = Levenshtein.distance(*normalized)
    spacing, numerals = _of_normalized(*normalized, language) if left else (0, 0)
    # Where a mark parts a word, normalizing can add an error.
    punctuation = max(in_lower_case - left, 0)
    return FormErrors(as_written - in_lower_case, punctuation, spacing, numerals)


def _distance(reference: str, hypothesis: str) -> int:
    return Levenshtein.distance(reference.split(), hypothesis.split())


def _of_normalized(
    reference: Sequence[str], hypothesis: Sequence[str], language: str
) -> tuple[int, int]:
    """Errors of spacing and of numerals; each stretch between right words is looked at apart."""
    spacing = numerals = 0
    for said, heard in _stretches(reference, hypothesis):
        all_errors = max(len(said), len(heard))
        left, spelled = _aligned(said, heard, language)
        numerals += spelled
        spacing += all_errors - left - spelled
    return spacing, numerals


def _stretches(
    reference: Sequence[str], hypothesis: Sequence[str]
) -> Iterator[tuple[list[str], list[str]]]:
    """The words of both sides between those that are the same."""
    said: list[str] = []
    heard: list[str] = []
    for block in Levenshtein.opcodes(reference, hypothesis):
        if block.tag == "equal":
            if said and heard:
                yield said, heard
            said, heard = [], []
        else:
            said += reference[block.src_start : block.src_end]
            heard += hypothesis[block.dest_start : block.dest_end]
    if said and heard:
        yield said, heard


def _aligned(said: list[str], heard: list[str], language: str) -> tuple[int, int]:
    """Errors that are left where other forms of the same words count as right, and the errors
    that numerals were.
    """
    pieces_said, pieces_heard = _pieces(said, language), _pieces(heard, language)
    # best[i][j]: errors left, and less numerals, of the first i and j words; the least is best.
    worst = (len(said) + len(heard), 0)
    best = [[worst] * (len(heard) + 1) for _ in range(len(said) + 1)]
    best[0][0] = (0, 0)
    for i in range(len(said) + 1):
        for j in range(len(heard) + 1):
            errors, spelled = best[i][j]
            for k, m in ((1, 1), (1, 0), (0, 1)):
                if i + k <= len(said) and j + m <= len(heard):
                    best[i + k][j + m] = min(best[i + k][j + m], (errors + 1, spelled))
            for k, m, is_spelled in _same(pieces_said, i, pieces_heard, j):
                saved = max(k, m) if is_spelled else 0
                best[i + k][j + m] = min(best[i + k][j + m], (errors, spelled - saved))
    errors, spelled = best[-1][-1]
    return errors, min(-spelled, max(len(said), len(heard)) - errors)


def _same(
    said: list[list[_Piece]], i: int, heard: list[list[_Piece]], j: int
) -> Iterator[tuple[int, int, bool]]:
    """Numbers of words from `i` and `j` on that sound the same, and whether a number is spelled."""
    if i == len(said):
        return
    # What one side says beyond the other, and the words taken of both so far.
    waiting = [(piece.said, "", piece.num_words, 0, piece.is_spelled) for piece in said[i]]
    met = set()  # else "111 111 111" is gone through in each of the ways to part it
    while waiting:
        state = waiting.pop()
        if state in met:
            continue
        met.add(state)
        more_said, more_heard, k, m, is_spelled = state
        if not more_said and not more_heard:
            yield k, m, is_spelled
        elif more_said:
            for piece in heard[j + m] if j + m < len(heard) else []:
                if rests := _rests(more_said, piece.said):
                    waiting.append((*rests, k, m + piece.num_words, is_spelled or piece.is_spelled))
        else:
            for piece in said[i + k] if i + k < len(said) else []:
                if rests := _rests(piece.said, more_heard):
                    waiting.append((*rests, k + piece.num_words, m, is_spelled or piece.is_spelled))


def _rests(said: str, heard: str) -> tuple[str, str] | None:
    """What each of two texts has beyond the other; None if neither begins with the other."""
    if said.startswith(heard):
        return said[len(heard) :], ""
    if heard.startswith(said):
        return "", heard[len(said) :]
    return None


def _pieces(words: list[str], language: str) -> list[list[_Piece]]:
    """The ways to say the words that begin at each place."""
    return [_pieces_at(words, place, language) for place in range(len(words))]


def _pieces_at(words: list[str], place: int, language: str) -> list[_Piece]:
    word = words[place]
    pieces = [_Piece(1, word, False)]
    pieces += [_Piece(1, said, True) for said in spellings(word, language)]
    digits = word
    for count, group in enumerate(words[place + 1 :], 2):
        if not word.isdecimal() or not GROUP.fullmatch(group):
            break
        if len(digits) + len(group) > LONGEST_NUMBER:
            break  # a model in circles writes hundreds
        digits += group  # 1,000 is two words by now
        pieces += [_Piece(count, said, True) for said in spellings(digits, language)]
    return pieces


@lru_cache(maxsize=1 << 14)
def spellings(word: str, language: str) -> tuple[str, ...]:
    """The ways to say a number that was written in figures, normalized and without spaces.

    Returns:
        nothing for what is no number; in a language that num2words does not know, only the figures
        0 to 9 for those of another script.
    """
    said = [one for code in SPOKEN_AS.get(language, (language,)) for one in _said(word, code)]
    if word.isdecimal() and not word.isascii():
        said.append("".join(str(int(digit)) for digit in word))
    if language == "en":
        said += [AND.sub(r"\1", one) for one in said]
    return tuple(dict.fromkeys(filter(None, said)))


def _said(word: str, code: str) -> list[str]:
    """The ways to say a number in a language of num2words; an empty text where it knows none."""
    if ended := ENDED_NUMBER.fullmatch(word):
        return [_spelled(int(ended[1]), code, "ordinal")]
    if not word.isdecimal():
        return []
    digit_by_digit = [_spelled(int(digit), code, "cardinal") for digit in word]
    said = ["".join(digit_by_digit)] if all(digit_by_digit) else []
    if len(word) <= LONGEST_NUMBER:
        said += [_spelled(int(word), code, way) for way in WAYS]
    return said


def _spelled(number: int, code: str, way: str) -> str:
    """A number in words; empty where num2words cannot."""
    from num2words import num2words  # takes 0.1 s

    try:
        words = str(num2words(number, lang=code, to=way))
    except Exception:  # its languages fail each in its own way
        return ""
    return wer.normalize(words).replace(" ", "")
