"""Why a row is left out: what its recording tells when it is decoded, and what its text tells.
Every reason is a code and a detail.

A validation, test or holdout row is left out only if its sound or its text cannot be decoded, or if
it has no text: what is hard must be scored. Training rows are left out also for what would teach a
model wrongly. In doubt a row stays. Costs one decoding (3.5 ms for 5 s of mp3), 0.5 ms for its
levels, 10 us for a text; memory holds 30 s of sound, however long it is.
"""

from __future__ import annotations

import re
import unicodedata

from asr.cleaning.measurements import Measurement

LEAST_SOUND = 0.1  # seconds that are louder than that
# of the RMS is the mean: 1 in a square wave, 0.9 in a pure tone, 0.7 in speech, 0.95 where it is
# clipped at a hundredth
FULLEST = 0.96
FASTEST = 45.0  # letters a second, which the fastest of people reach for a moment
SYLLABLE = 2.5  # letters that a character which stands for a syllable counts for
SHOWN = 80  # characters of a text in a detail

_NOT_UTF8 = re.compile("[\ufffd\ud800-\udfff]")
_BLANK = re.compile(
    "[\u115f\u1160\u2800\u3164\uffa0]"
)  # letters and a symbol by name, empty to the eye
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SYLLABLES = re.compile(
    "[\u3400-\u9fff\ua000-\ua48f\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff]"
)
_ANNOTATION = re.compile(r"<[^<>]*>|&#?\w+;|\[[\w /-]{1,30}\]")
_TAG = re.compile(
    r"</(a|b|i|u|em|strong|font|span|div|p|h[1-6]|li|ul|ol|td|tr|table|body|html|script|style|c|v)>"
    r"|<(br|hr|img|div|span|font|table|tr|td|iframe|svg|script|style|body|html|!doctype|\?xml)\b[^<>]*>"
    r"|<!--|\d\d:\d\d[.,]\d\d\d --> \d\d:"
    r"|^\s*[\[{]+\"\w+\":",
    re.IGNORECASE,
)
_MOJIBAKE = re.compile("[\u00c2\u00c3\u00e2]|[\u00c0-\u00f4].+[\u00c0-\u00f4]", re.DOTALL)


def reason(
    text: str, sound: Measurement, split: str, limits: tuple[float, float]
) -> tuple[str, str] | None:
    """Why a row is left out, as code and detail; None keeps it.

    Args:
        limits: seconds that a training row must and may have.
    """
    if sound.code:
        return sound.code, sound.detail
    if _NOT_UTF8.search(text):
        return "text_not_utf8", printable(text)
    if not _visible(text):
        return "text_empty", "no transcript"
    return (
        _unfit_sound(sound, limits) or _unfit_text(text, sound.duration)
        if split == "train"
        else None
    )


def _unfit_sound(sound: Measurement, limits: tuple[float, float]) -> tuple[str, str] | None:
    """Why nobody should learn from a recording."""
    if sound.duration < limits[0]:
        return "too_short", f"{sound.duration:.2f} s, want at least {limits[0]} s"
    if sound.duration > limits[1]:
        return "too_long", f"{sound.duration:.2f} s, want at most {limits[1]} s"
    if sound.loud < min(LEAST_SOUND, sound.duration / 2):
        return (
            "audio_silent",
            f"{sound.loud:.2f} s of {sound.duration:.2f} s are louder than -80 dB",
        )
    if sound.fullness > FULLEST:
        return "audio_clipped", f"its mean is {sound.fullness:.2f} of its RMS, as in a square wave"
    return None


def _unfit_text(text: str, duration: float) -> tuple[str, str] | None:
    """Why nobody should learn from a transcript."""
    if _CONTROL.search(text):
        return "text_control", printable(text)
    if _TAG.search(text) or ((bare := _ANNOTATION.sub("", text)) != text and not _has_words(bare)):
        return "text_markup", printable(text)
    if not _has_words(text):
        return "text_wordless", printable(text)
    if _is_mojibake(text):
        return "text_mojibake", printable(text)
    letters = sum(map(str.isalnum, text)) + (SYLLABLE - 1) * len(_SYLLABLES.findall(text))
    if letters > FASTEST * duration + SYLLABLE:
        return (
            "too_fast",
            f"{letters / duration:.0f} letters a second, want at most {FASTEST:.0f}: {printable(text)}",
        )
    return None


def printable(text: str) -> str:
    """The start of a text or an id, fit for a table and a terminal."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[:SHOWN])


def _visible(text: str) -> bool:
    """Whether anything is left without spaces, controls, invisible marks and what looks like
    nothing.
    """
    return any(
        unicodedata.category(one)[0] not in "ZC" or unicodedata.category(one) in ("Co", "Cn")
        for one in _BLANK.sub("", text)
    )


def _has_words(text: str) -> bool:
    """Whether there is a letter or a digit of any script."""
    return any(map(str.isalnum, text))


def _is_mojibake(text: str) -> bool:
    """Whether this is UTF-8 that was read as Windows-1252: turned back, all of it is UTF-8 again,
    which happens to no language.
    """
    if text.isascii() or not _MOJIBAKE.search(text):
        return False
    try:
        return len(text.encode("cp1252").decode("utf-8")) < len(text)
    except UnicodeError:
        return False
