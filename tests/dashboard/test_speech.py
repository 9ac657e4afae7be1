"""What espeak-ng says, in a child process that may die."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import DataError, ParamsError
from dashboard.talk import speech
from support.repository import REPOSITORY


def seconds(sound: bytes) -> float:
    return soundfile.info(io.BytesIO(sound)).duration


@pytest.mark.parametrize(
    ("language", "text"),
    [("sv", "Hej, hur mår du?"), ("zh", "你好。你好吗？"), ("no", "God dag."), ("ar", "مرحبا")],
)
def test_a_text_is_said(language: str, text: str) -> None:
    sound = speech.say(text, language)
    samples, rate = soundfile.read(io.BytesIO(sound))
    assert rate == 22_050
    assert 0.5 < len(samples) / rate < 5
    assert abs(samples).max() > 0.05


def test_more_text_takes_longer() -> None:
    one, three = (
        seconds(speech.say("Ett, två, tre, fyra, fem. " * times, "sv")) for times in (1, 3)
    )
    assert 2.5 < three / one < 3.5


def test_every_language_that_is_offered_has_a_voice() -> None:
    assert {"sv", "en", "de", "no", "zh", "hi", "ar"} <= set(speech.languages())
    assert "haw" not in set(speech.languages()) or speech.say("aloha", "haw")
    code = (
        "import sys; from dashboard.talk import speech; [speech.render('1 2 3', one) for one "
        "in speech.languages()]"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_language_without_a_voice() -> None:
    with pytest.raises(ParamsError, match="no voice for Breton"):
        speech.say("Demat", "br")


@pytest.mark.parametrize("text", ["", "   \n", "…", "***", "\0\0", "🙂🙂"])
def test_nothing_to_say(text: str) -> None:
    with pytest.raises(DataError):
        speech.say(text, "sv")


def test_a_crash_of_the_library_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real child, whose library is broken by a module that stands before it."""
    (tmp_path / "espeakng_loader.py").write_text("import os\nos.abort()\n")
    speech.languages()
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{REPOSITORY}")
    with pytest.raises(DataError, match="exit code -6"):
        speech.say("Hej", "sv")


def test_a_hang_of_the_library_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "espeakng_loader.py").write_text("import time\ntime.sleep(60)\n")
    speech.languages()
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{REPOSITORY}")
    monkeypatch.setattr(speech, "LIMIT_SECONDS", 1)
    began = time.monotonic()
    with pytest.raises(DataError, match="within 1 s"):
        speech.say("Hej", "sv")
    assert time.monotonic() - began < 50  # the library sleeps for 60


@given(st.text(max_size=5000))
def test_pieces_are_short_and_clean_whatever_the_text(text: str) -> None:
    pieces = list(speech.sentences(text))
    assert sum(map(len, pieces)) <= speech.MAX_CHARACTERS
    assert all(0 < len(piece) <= speech.MAX_SENTENCE and "\0" not in piece for piece in pieces)


def test_no_word_is_lost_and_the_order_stays() -> None:
    text = "Ett två. Tre! Fyra? **Fem**\nsex\n\n- sju: åtta " + "nio " * 150
    said = " ".join(speech.sentences(text)).split()
    assert [
        word.strip(".!?:-") for word in said if word.strip(".!?:-")
    ] == "Ett två Tre Fyra Fem sex sju åtta".split() + ["nio"] * 150


def test_a_long_text_is_cut_at_the_end_of_a_sentence() -> None:
    pieces = list(speech.sentences("En mening som tar lite plats här. " * 200))
    assert set(pieces) == {"En mening som tar lite plats här."}
    assert 80 < len(pieces) < 95
