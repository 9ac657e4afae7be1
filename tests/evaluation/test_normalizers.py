"""Normalizers: each with its name and version, and what a version gives stays so."""

from __future__ import annotations

import pytest

from asr import wer
from asr.evaluation import normalizers

# Texts as `earshot 1` has them; another output needs another version.
EARSHOT_1 = {
    "Don't stop, Mr. O’Neil!": "don t stop mr o neil",
    "Straße, 1.000 €": "straße 1 000",
    "नमस्ते दुनिया।": "नमस्ते दुनिया",
    "می‌خواهم": "میخواهم",
    "ﬁne\t\u00adway": "fine way",
    "東京、日本": "東京 日本",
}
# As OpenAI's own code has them.
WHISPER = {
    ("en", "I can't colour 21 dogs, Mr. Smith!"): "i can not color 21 dogs mister smith",
    ("de", "Straße: Äpfel!"): "straße äpfel",
    ("hi", "दुनिया।"): "द न य",
    ("ja", "東京、日本"): "東 京 日 本",
}


@pytest.mark.parametrize("text", EARSHOT_1)
def test_this_version_normalizes_as_it_always_did(text: str) -> None:
    assert wer.NORMALIZER == "earshot 1"
    assert wer.normalize(text) == EARSHOT_1[text]


@pytest.mark.parametrize(("language", "text"), WHISPER)
def test_whispers_is_its_own(language: str, text: str) -> None:
    found = normalizers.whisper(language)(text)
    assert " ".join(found.split()) == WHISPER[language, text]


def test_the_name_tells_package_version_and_kind() -> None:
    names = [normalizers.whisper_name(language) for language in ("en", "de", "ja")]
    package, version, kind = names[0].split(" ", 2)
    assert (package, kind) == ("whisper-normalizer", "English")
    assert version[0].isdigit()
    assert names[1:] == [f"{package} {version} basic", f"{package} {version} basic, by letters"]


def test_a_number_beyond_what_python_reads_stays_as_it_is() -> None:
    assert normalizers.whisper("en")("A " + "7" * 5000) == "a " + "7" * 5000
