"""Why a row is left out: what its recording tells when it is decoded, and what its text tells. Every reason is a code and a detail.

A validation, test or holdout row is left out only if its sound or its text cannot be decoded, or if it has no text: what is hard
must be scored. Training rows are left out also for what would teach a model wrongly. In doubt a row stays.
Costs one decoding (3.5 ms for 5 s of mp3), 0.5 ms for its levels, 10 us for a text; memory holds 30 s of sound, however long it is.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from asr.audio import codec
from asr.cleaning.audio_fingerprint import fingerprint
from asr.whisper import SAMPLE_RATE

TRUNCATED_SHARE = 0.9  # a recording shorter than this share of what its table or header promised is not whole
SECONDS_PER_MEGABYTE = 5.0  # of work: an hour of mp3 has 14 MB and takes 3 s, three hours of the thinnest opus 8 MB and 15 s
FRAME = SAMPLE_RATE // 50  # samples
SILENCE = 1e-4  # RMS of a frame, -80 dB: three steps of 16 bits, of which no speech is made
LEAST_SOUND = 0.1  # seconds that are louder than that
FULLEST = 0.96  # of the RMS is the mean: 1 in a square wave, 0.9 in a pure tone, 0.7 in speech, 0.95 where it is clipped at a hundredth
FASTEST = 45.0  # letters a second, which the fastest of people reach for a moment
SYLLABLE = 2.5  # letters that a character which stands for a syllable counts for
KNOWN_BY = 10  # pieces of 30 s from which a fingerprint is taken
SHOWN = 80  # characters of a text in a detail

_NOT_UTF8 = re.compile("[\ufffd\ud800-\udfff]")
_BLANK = re.compile("[\u115f\u1160\u2800\u3164\uffa0]")  # letters and a symbol by name, empty to the eye
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SYLLABLES = re.compile("[\u3400-\u9fff\ua000-\ua48f\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff]")
_ANNOTATION = re.compile(r"<[^<>]*>|&#?\w+;|\[[\w /-]{1,30}\]")
_TAG = re.compile(
    r"</(a|b|i|u|em|strong|font|span|div|p|h[1-6]|li|ul|ol|td|tr|table|body|html|script|style|c|v)>"
    r"|<(br|hr|img|div|span|font|table|tr|td|iframe|svg|script|style|body|html|!doctype|\?xml)\b[^<>]*>"
    r"|<!--|\d\d:\d\d[.,]\d\d\d --> \d\d:"
    r"|^\s*[\[{]+\"\w+\":",
    re.IGNORECASE,
)
_MOJIBAKE = re.compile("[\u00c2\u00c3\u00e2]|[\u00c0-\u00f4].+[\u00c0-\u00f4]", re.DOTALL)


@dataclass(frozen=True)
class Sound:
    """What decoding a recording told, or in `code` and `detail` why it told nothing.

    duration: seconds.
    digest: of the encoded bytes.
    fingerprint: of what is heard in the first minutes (asr.cleaning.audio_fingerprint).
    loud: seconds in which there is any sound.
    fullness: its mean (of absolute values, about the offset) as a share of its RMS.
    """

    duration: float = 0.0
    digest: bytes = b""
    code: str = ""
    detail: str = ""
    fingerprint: bytes = b""
    loud: float = math.inf
    fullness: float = 0.0


def listen(encoded: bytes | None, promised: float | None) -> Sound:
    """Decode a recording and measure it.

    Args:
        encoded: the file's bytes; None where the corpus names a file that is not there.
        promised: seconds by a table or a header.
    """
    if encoded is None:
        return Sound(code="audio_missing", detail="the corpus names a recording that is not there")
    start: list[np.ndarray] = []
    try:
        duration, loud, fullness = _measure(_noted(_pieces(encoded), start))
    except codec.Undecodable as fault:
        return Sound(code="audio_undecodable", detail=str(fault))
    if promised and duration < TRUNCATED_SHARE * promised:
        return Sound(code="audio_truncated", detail=f"{duration:.2f} s of {promised:.2f} s")
    digest = hashlib.blake2b(encoded, digest_size=12).digest()
    return Sound(duration, digest, fingerprint=fingerprint(np.concatenate(start)), loud=loud, fullness=fullness)


def died(reason: str) -> Sound:
    """What is told of a recording that ended the process in which it was decoded."""
    return Sound(code="audio_undecodable", detail=f"decoding stopped: {reason}")


def patience(encoded: bytes | None) -> float:
    """Seconds of work that decoding may take."""
    return SECONDS_PER_MEGABYTE * max(1.0, len(encoded or b"") / 1e6)


def _pieces(encoded: bytes) -> Iterator[np.ndarray]:
    """The sound in pieces of 30 s or a little more; only the last may be shorter."""
    if not encoded:
        raise codec.Undecodable("no bytes")
    waiting: list[np.ndarray] = []
    length = 0
    for block in codec.blocks(io.BytesIO(encoded)):
        waiting.append(block)
        length += len(block)
        if length >= codec.BLOCK_SECONDS * SAMPLE_RATE:
            yield np.concatenate(waiting)
            waiting, length = [], 0
    if waiting:
        yield np.concatenate(waiting)


def _noted(pieces: Iterator[np.ndarray], start: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The same pieces; those of the first minutes are noted, by which a recording is known."""
    for piece in pieces:
        if len(start) < KNOWN_BY:
            start.append(piece)
        yield piece


def _measure(pieces: Iterator[np.ndarray]) -> tuple[float, float, float]:
    """Seconds, seconds in which there is any sound, and its mean as a share of its RMS; an offset is no sound."""
    count, loud, total, power = 0, 0, 0.0, 0.0
    for piece in pieces:
        frames = piece[: len(piece) // FRAME * FRAME].reshape(-1, FRAME) if len(piece) >= FRAME else piece[None]
        loud += int((frames.std(axis=1) >= SILENCE).sum()) * frames.shape[1]
        moved = np.abs(piece - piece.mean())
        count += len(piece)
        total += float(moved.sum(dtype=np.float64))
        power += float(np.square(moved).sum(dtype=np.float64))
    return count / SAMPLE_RATE, loud / SAMPLE_RATE, total / math.sqrt(count * power) if power else 0.0


def reason(text: str, sound: Sound, split: str, limits: tuple[float, float]) -> tuple[str, str] | None:
    """Why a row is left out, as code and detail; None keeps it.

    Args:
        limits: seconds that a training row must and may have.
    """
    if sound.code:
        return sound.code, sound.detail
    if _NOT_UTF8.search(text):
        return "text_not_utf8", shown(text)
    if not _visible(text):
        return "text_empty", "no transcript"
    return _unfit_sound(sound, limits) or _unfit_text(text, sound.duration) if split == "train" else None


def _unfit_sound(sound: Sound, limits: tuple[float, float]) -> tuple[str, str] | None:
    """Why nobody should learn from a recording."""
    if sound.duration < limits[0]:
        return "too_short", f"{sound.duration:.2f} s, want at least {limits[0]} s"
    if sound.duration > limits[1]:
        return "too_long", f"{sound.duration:.2f} s, want at most {limits[1]} s"
    if sound.loud < min(LEAST_SOUND, sound.duration / 2):
        return "audio_silent", f"{sound.loud:.2f} s of {sound.duration:.2f} s are louder than -80 dB"
    if sound.fullness > FULLEST:
        return "audio_clipped", f"its mean is {sound.fullness:.2f} of its RMS, as in a square wave"
    return None


def _unfit_text(text: str, duration: float) -> tuple[str, str] | None:
    """Why nobody should learn from a transcript."""
    if _CONTROL.search(text):
        return "text_control", shown(text)
    if _TAG.search(text) or ((bare := _ANNOTATION.sub("", text)) != text and not _has_words(bare)):
        return "text_markup", shown(text)
    if not _has_words(text):
        return "text_wordless", shown(text)
    if _is_mojibake(text):
        return "text_mojibake", shown(text)
    letters = sum(map(str.isalnum, text)) + (SYLLABLE - 1) * len(_SYLLABLES.findall(text))
    if letters > FASTEST * duration + SYLLABLE:
        return "too_fast", f"{letters / duration:.0f} letters a second, want at most {FASTEST:.0f}: {shown(text)}"
    return None


def shown(text: str) -> str:
    """The start of a text or an id, fit for a table and a terminal."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[:SHOWN])


def _visible(text: str) -> bool:
    """Whether anything is left without spaces, controls, invisible marks and what looks like nothing."""
    return any(unicodedata.category(one)[0] not in "ZC" or unicodedata.category(one) in ("Co", "Cn") for one in _BLANK.sub("", text))


def _has_words(text: str) -> bool:
    """Whether there is a letter or a digit of any script."""
    return any(map(str.isalnum, text))


def _is_mojibake(text: str) -> bool:
    """Whether this is UTF-8 that was read as Windows-1252: turned back, all of it is UTF-8 again, which happens to no language."""
    if text.isascii() or not _MOJIBAKE.search(text):
        return False
    try:
        return len(text.encode("cp1252").decode("utf-8")) < len(text)
    except UnicodeError:
        return False
