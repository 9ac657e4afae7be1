"""In which script a text is written, by the names that Unicode gives its letters. 3 us a text."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import cache

OWN_SHARE = 0.1  # of a corpus's letters, from which on a script is the corpus's own
TOGETHER = {
    "HIRAGANA": {"KATAKANA", "CJK"},
    "KATAKANA": {"HIRAGANA", "CJK"},
    "HANGUL": {"CJK"},
}  # Japanese and Korean
OTHERWISE = {
    "IDEOGRAPHIC": "CJK",
    "MODIFIER": None,
    "FEMININE": None,
    "MASCULINE": None,
    "": None,
}  # names that do not begin with the script's


@cache
def script_of(character: str) -> str | None:
    """The script of a letter, such as LATIN or CJK; None for what belongs to no script, or to
    several.
    """
    if not character.isalpha():
        return None
    plain = unicodedata.normalize("NFKC", character)[:1]
    first = unicodedata.name(plain, "").replace("-", " ").partition(" ")[0]
    return OTHERWISE.get(first, first)


def count(text: str) -> Counter[str]:
    """Letters by script."""
    if text.isascii():
        return Counter(LATIN=sum(map(str.isalpha, text)))
    found: Counter[str] = Counter()
    for character, times in Counter(text).items():
        if (script := script_of(character)) is not None:
            found[script] += times
    return found


def own(total: Counter[str]) -> set[str]:
    """The scripts in which a corpus is written, from the letters of all its texts: those that hold
    at least a tenth of them.

    Japanese writes in three, and a corpus may use one of them little.
    """
    frequent = {
        script
        for script, letters in total.items()
        if letters and letters >= OWN_SHARE * total.total()
    }
    return frequent.union(*(TOGETHER.get(script, set()) for script in frequent))
