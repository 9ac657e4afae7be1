"""Why a row is left out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from asr import audio

TRUNCATED_SHARE = 0.9  # a recording shorter than this share of what its table or header promised is not whole


@dataclass(frozen=True)
class Sound:
    """What decoding a row told: its seconds and digest, or why it has none."""

    duration: float = 0.0
    digest: bytes = b""
    code: str = ""
    detail: str = ""
    fingerprint: bytes = b""


def listen(encoded: bytes | None, promised: float | None) -> Sound:
    if encoded is None:
        return Sound(code="audio_missing", detail="the corpus names a recording that is not there")
    try:
        duration = len(audio.decode(encoded)) / audio.SAMPLE_RATE
    except audio.Undecodable as fault:
        return Sound(code="audio_undecodable", detail=str(fault))
    if promised and duration < TRUNCATED_SHARE * promised:
        return Sound(code="audio_truncated", detail=f"{duration:.2f} s of {promised:.2f} s")
    return Sound(duration, hashlib.blake2b(encoded, digest_size=12).digest())


def reason(text: str, sound: Sound, split: str, limits: tuple[float, float]) -> tuple[str, str] | None:
    if sound.code:
        return sound.code, sound.detail
    if "\ufffd" in text:
        return "text_not_utf8", text[:80]
    if not text.strip():
        return "text_empty", "no transcript"
    if split == "train" and sound.duration < limits[0]:
        return "too_short", f"{sound.duration:.2f} s, want at least {limits[0]} s"
    if split == "train" and sound.duration > limits[1]:
        return "too_long", f"{sound.duration:.2f} s, want at most {limits[1]} s"
    return None
