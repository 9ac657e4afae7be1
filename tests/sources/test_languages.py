"""The embedded corpus in every language that num2words and espeak-ng both know."""

from __future__ import annotations

import pytest

from asr.errors import ParamsError
from asr.sources import synthetic
from asr.whisper import WHISPER_LANGUAGES

NUMBERS = range(11)
SPOKEN = 40  # languages


def sounds(language: str) -> list[bytes]:
    voice = f"{synthetic.ESPEAK_NAMES.get(language, language)}+m3"
    texts = [synthetic._spell(number, language) for number in NUMBERS]
    return [synthetic.speak(text, voice, 300, 50) for text in texts]


def test_numbers_sound_different_from_each_other_in_every_language() -> None:
    different: dict[str, int] = {}
    for language in WHISPER_LANGUAGES:
        try:
            different[language] = len(set(sounds(language)))
        except ParamsError:
            continue
    assert len(different) >= SPOKEN
    assert {language: count for language, count in different.items() if count < len(NUMBERS)} == {}


def test_numbers_that_espeak_cannot_read_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "SPELLINGS", {})
    assert len(set(sounds("ja"))) < len(NUMBERS)
