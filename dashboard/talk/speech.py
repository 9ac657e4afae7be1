"""A text spoken by espeak-ng, in a child process: a crash of the C library cannot end the server.

    echo "Hej där" | python -m dashboard.talk.speech sv > speech.flac     # the child

Costs 0.2 s for the process, and a two-hundredth of the duration of the speech.
"""

from __future__ import annotations

import io
import re
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from asr.errors import DataError, ParamsError, exit_with
from asr.runtime.child import run_child
from asr.runtime.limits import limit_self
from asr.sources import synthetic
from asr.sources.synthetic import ESPEAK_NAMES
from asr.whisper import LANGUAGE_NAMES, WHISPER_LANGUAGES

MAX_CHARACTERS = 3000  # some four minutes
MAX_SENTENCE = 400  # characters that are spoken in one piece
LIMIT_SECONDS = 30
LIMIT_BYTES = 512 << 20
WORDS_PER_MINUTE, PITCH = 165, 50
PAUSE_SECONDS = 0.2  # after each sentence
# A sentence ends at its mark and the space behind it, or at a mark of a script that puts no space
# there.
SENTENCE_END = re.compile(r"(?<=[.!?…:;])\s+|(?<=[。！？；।])|\n+")
MARKUP = re.compile(r"[*_`#|~<>{}\[\]\\]+")
PIECE = re.compile(rf".{{1,{MAX_SENTENCE}}}(?:\s|$)|.{{1,{MAX_SENTENCE}}}")  # ends at a space
VOICE_LANGUAGE = re.compile(r"^language\s+(\S+)", re.MULTILINE)  # in espeak-ng's voice files


@cache
def languages() -> list[str]:
    """Whisper's codes of the languages that espeak-ng has a voice for, read from its data."""
    import espeakng_loader

    voices: set[str] = set()
    for path in Path(espeakng_loader.get_data_path(), "lang").rglob("*"):
        if path.is_file():
            voices.update(VOICE_LANGUAGE.findall(path.read_text("utf-8", "replace")))
    return [code for code in WHISPER_LANGUAGES if ESPEAK_NAMES.get(code, code) in voices]


def say(text: str, language: str) -> bytes:
    """Speak a text; one longer than MAX_CHARACTERS is cut at the end of a sentence.

    Returns:
        FLAC bytes: mono, 16 bit, 22,050 Hz.
    Raises:
        ParamsError: a language without a voice.
        DataError: nothing in the text can be spoken, or the process died.
    """
    if language not in languages():
        name = LANGUAGE_NAMES.get(language, language)
        raise ParamsError(f"espeak-ng has no voice for {name}; choose another, or do not listen")
    return run_child(
        "dashboard.talk.speech",
        language,
        seconds=LIMIT_SECONDS,
        late=f"the text could not be said within {LIMIT_SECONDS} s",
        died="the speech process died with exit code {code}; the text stays readable",
        input=text.encode("utf-8", "replace"),
    )


def duration(flac: bytes) -> float:
    """Seconds of the speech that `say` returned."""
    import soundfile

    return float(soundfile.info(io.BytesIO(flac)).duration)


def sentences(text: str) -> Iterator[str]:
    """Split a text into pieces to speak one by one, without markup, up to MAX_CHARACTERS."""
    # Control characters and halves of surrogates: a C library may stop at them.
    clean = "".join(
        " " if unicodedata.category(character) in ("Cc", "Cs") and character != "\n" else character
        for character in text
    )
    left = MAX_CHARACTERS
    for sentence in SENTENCE_END.split(MARKUP.sub(" ", clean)):
        for piece in PIECE.findall(sentence):
            if len(piece) > left:
                return
            left -= len(piece)
            if any(character.isalnum() for character in piece):
                yield piece.strip()


def render(text: str, language: str) -> bytes:
    """Speak a text in this process; returns FLAC bytes."""
    import numpy as np
    import soundfile

    voice = ESPEAK_NAMES.get(language, language)
    rate = 0
    parts: list[np.ndarray] = []
    for sentence in sentences(text):
        try:
            flac = synthetic.speak(sentence, voice, WORDS_PER_MINUTE, PITCH)
        except DataError:  # characters that this language has no sound for
            continue
        samples, rate = soundfile.read(io.BytesIO(flac))
        pause = np.zeros(round(PAUSE_SECONDS * rate))
        parts += [samples, pause]
    if not parts:
        raise DataError("there is nothing in it that can be said")
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(parts), rate, "PCM_16", format="FLAC")
    return file.getvalue()


def main() -> None:
    if len(sys.argv) != 2:
        raise ParamsError("usage: python -m dashboard.talk.speech LANGUAGE < TEXT > SOUND.flac")
    limit_self(cpu_seconds=LIMIT_SECONDS, memory=LIMIT_BYTES)
    text = sys.stdin.buffer.read().decode("utf-8", "replace")
    sys.stdout.buffer.write(render(text, sys.argv[1]))


if __name__ == "__main__":
    exit_with(main)
