"""Decide why a row is left out, from the measurements of its recording and from its text.

Every reason is a code and a detail. A validation, test or holdout row is left out only if its sound
or its text cannot be decoded, or if it has no text, because hard rows must be scored. Training rows
are left out also where a model would learn something wrong from them. In doubt a row stays. Costs
10 us for a text; the measurements cost one decoding (`asr.cleaning.measurements`).
"""

from __future__ import annotations

import re
import unicodedata

from asr.cleaning.measurements import Measurement

Reason = tuple[str, str]  # code and detail

LEAST_SOUND = 0.1  # seconds of a recording that must be louder than -80 dB
# Mean of the samples as a share of their RMS: 1 in a square wave, 0.9 in a pure tone, 0.7 in
# speech, 0.95 where speech is clipped at a hundredth.
FULLEST = 0.96
FASTEST = 45.0  # letters a second, which the fastest of people reach for a moment
SYLLABLE = 2.5  # letters that a character which stands for a syllable counts for
MAX_SHOWN_CHARACTERS = 80  # of a text in a detail
MAX_DIGITS = 6  # of a number in a detail; a sample lasts longer than that

_NOT_UTF8 = re.compile("[\ufffd\ud800-\udfff]")
# letters and a symbol by their category, but nothing to be seen
_BLANK = re.compile("[\u115f\u1160\u2800\u3164\uffa0]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SYLLABLES = re.compile(
    "[\u3400-\u9fff\ua000-\ua48f\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff]"
)
_ANNOTATION = re.compile(r"<[^<>]*>|&#?\w+;|\[[\w /-]{1,30}\]")
_TAG = re.compile(
    r"</(a|b|i|u|em|strong|font|span|div|p|h[1-6]|li|ul|ol|td|tr|table|body|html|script|style|c|v)>"
    r"|<(br|hr|img|div|span|font|table|tr|td|iframe|svg|script|style|body|html|!doctype|\?xml)"
    r"\b[^<>]*>"
    r"|<!--|\d\d:\d\d[.,]\d\d\d --> \d\d:"
    r"|^\s*[\[{]+\"\w+\":",
    re.IGNORECASE,
)
_MOJIBAKE = re.compile("[\u00c2\u00c3\u00e2]|[\u00c0-\u00f4].+[\u00c0-\u00f4]", re.DOTALL)


def reason(text: str, sound: Measurement, split: str, limits: tuple[float, float]) -> Reason | None:
    """Return why a row is left out; None keeps it.

    Args:
        limits: the least and the most seconds of a training row.
    """
    if sound.code:
        return sound.code, sound.detail
    if _NOT_UTF8.search(text):
        return "text_not_utf8", printable(text)
    if not _is_visible(text):
        return "text_empty", "no transcript"
    if split != "train":
        return None
    return _unfit_sound(sound, limits) or _unfit_text(text, sound.duration)


def _unfit_sound(sound: Measurement, limits: tuple[float, float]) -> Reason | None:
    """Why a recording is unfit for training."""
    shortest, longest = limits
    if sound.duration < shortest:
        return "too_short", f"{_apart(sound.duration, shortest)} s, want at least {shortest} s"
    if sound.duration > longest:
        return "too_long", f"{_apart(sound.duration, longest)} s, want at most {longest} s"
    if sound.loud < min(LEAST_SOUND, sound.duration / 2):
        detail = f"{sound.loud:.2f} s of {sound.duration:.2f} s are louder than -80 dB"
        return "audio_silent", detail
    if sound.fullness > FULLEST:
        return "audio_clipped", f"its mean is {sound.fullness:.2f} of its RMS, as in a square wave"
    return None


def _unfit_text(text: str, duration: float) -> Reason | None:
    """Why a transcript is unfit for training."""
    if _CONTROL.search(text):
        return "text_control", printable(text)
    if _is_markup(text):
        return "text_markup", printable(text)
    if not _has_words(text):
        return "text_wordless", printable(text)
    if _is_mojibake(text):
        return "text_mojibake", printable(text)
    letters = _count_letters(text)
    if letters > FASTEST * duration + SYLLABLE:
        rate = _apart(letters / duration, FASTEST, digits=0)
        rate = f"{rate} letters a second, want at most {FASTEST:.0f}"
        return "too_fast", f"{rate}: {printable(text)}"
    return None


def _apart(value: float, limit: float, digits: int = 2) -> str:
    """A value beyond a limit, with these digits or as many as it takes to see that it is beyond."""
    while digits < MAX_DIGITS and float(f"{value:.{digits}f}") == limit:
        digits += 1
    return f"{value:.{digits}f}"


def printable(text: str) -> str:
    """The start of a text or an id, safe to print in a table and a terminal."""
    start = text[:MAX_SHOWN_CHARACTERS]
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in start
    )


def _is_visible(text: str) -> bool:
    """Whether a text holds more than spaces, controls and characters that look like nothing."""
    categories = (unicodedata.category(character) for character in _BLANK.sub("", text))
    # Private and unassigned characters (Co, Cn) may be letters of a font or of a newer Unicode.
    return any(category[0] not in "ZC" or category in ("Co", "Cn") for category in categories)


def _is_markup(text: str) -> bool:
    """Whether a text holds tags or is nothing but annotations, such as [noise]."""
    if _TAG.search(text):
        return True
    without = _ANNOTATION.sub("", text)
    return without != text and not _has_words(without)


def _has_words(text: str) -> bool:
    """Whether there is a letter or a digit of any script."""
    return any(map(str.isalnum, text))


def _count_letters(text: str) -> float:
    """Letters and digits; a character that stands for a syllable counts SYLLABLE times."""
    return sum(map(str.isalnum, text)) + (SYLLABLE - 1) * len(_SYLLABLES.findall(text))


def _is_mojibake(text: str) -> bool:
    """Whether a text is UTF-8 that was decoded as Windows-1252.

    Encoded back, all of it is valid UTF-8 again, which happens to text of no language.
    """
    if text.isascii() or not _MOJIBAKE.search(text):
        return False
    try:
        return len(text.encode("cp1252").decode("utf-8")) < len(text)
    except UnicodeError:
        return False
