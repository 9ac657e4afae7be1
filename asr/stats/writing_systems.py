"""Find the script of a text by the Unicode names of its letters. Costs 3 us a text."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache

OWN_SHARE = 0.1  # a script is a corpus's own if it has at least this share of the letters
# Scripts that are mixed in one text, in Japanese and Korean.
TOGETHER = {
    "HIRAGANA": {"KATAKANA", "CJK"},
    "KATAKANA": {"HIRAGANA", "CJK"},
    "HANGUL": {"CJK"},
}
# Scripts of languages that put no spaces between words.
UNSPACED = {"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"}
# Letters whose names do not begin with their script: the word they begin with, and the script.
EXCEPTIONS = {
    "IDEOGRAPHIC": "CJK",
    "MODIFIER": None,
    "FEMININE": None,
    "MASCULINE": None,
    "": None,
}


@cache
def script_of(character: str) -> str | None:
    """Return the script of a letter, such as LATIN or CJK.

    None if it is not a letter, or belongs to no single script.
    """
    if not character.isalpha():
        return None
    plain = unicodedata.normalize("NFKC", character)[:1]
    name = unicodedata.name(plain, "").replace("-", " ")
    first_word = name.partition(" ")[0]
    return EXCEPTIONS.get(first_word, first_word)


def count(text: str) -> Counter[str]:
    """Count letters by script."""
    if text.isascii():
        return Counter(LATIN=sum(map(str.isalpha, text)))
    by_script: Counter[str] = Counter()
    for character, times in Counter(text).items():
        script = script_of(character)
        if script is not None:
            by_script[script] += times
    return by_script


def are_unspaced(texts: Iterable[str]) -> bool:
    """Whether texts are written without spaces between words: more than half of their letters."""
    letters: Counter[str] = Counter()
    for text in texts:
        letters.update(count(text))
    return 2 * sum(letters[script] for script in UNSPACED) > letters.total()


def own(letters: Counter[str]) -> set[str]:
    """Return the scripts in which a corpus is written: those of at least a tenth of its letters.

    Scripts that are mixed with these are added: Japanese mixes three, and a corpus may use one of
    them little.

    Args:
        letters: the number of letters of all texts, by script.
    """
    least = OWN_SHARE * letters.total()
    frequent = {script for script, times in letters.items() if times and times >= least}
    return frequent.union(*(TOGETHER.get(script, set()) for script in frequent))
