"""Whisper's own way to normalize texts, so that a WER can stand beside published ones.

Ours is `asr.wer.normalize`. Whisper's drops the marks that distinguish words of Hindi or Thai, and
undoes English contractions and British spelling. It is that of the package `whisper-normalizer`,
whose import costs 0.05 s.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import version

PACKAGE = "whisper-normalizer"
BY_LETTERS = ("zh", "ja", "th", "lo", "my", "yue")  # languages whose letters it counts as words


@cache
def whisper(language: str) -> Callable[[str], str]:
    """Whisper's normalizer for texts in a language, by Whisper's code."""
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    basic = BasicTextNormalizer(split_letters=language in BY_LETTERS)
    english = EnglishTextNormalizer() if language == "en" else basic

    def normalizer(text: str) -> str:
        try:
            return str(english(text))
        except AssertionError:  # a number of more digits than Python reads
            return str(basic(text))

    return normalizer


def letters(normalized: str, language: str) -> str:
    """A text for CER: without the spaces that Whisper's normalizer puts between letters."""
    return normalized.replace(" ", "") if language in BY_LETTERS else normalized


def whisper_name(language: str) -> str:
    """Name and version of Whisper's normalizer for a language."""
    kind = "English" if language == "en" else "basic"
    letters = ", by letters" if language in BY_LETTERS else ""
    return f"{PACKAGE} {version(PACKAGE)} {kind}{letters}"
