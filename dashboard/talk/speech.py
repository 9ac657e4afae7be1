"""A text said by espeak-ng, for people to hear: in a child process, for a crash of a C library must
not take a server along.

    echo "Hej där" | python -m dashboard.talk.speech sv > said.flac     # the child

Costs 0.2 s for the process, and a two-hundredth of the time it takes to listen.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from asr.errors import DataError, ParamsError, exit_with
from asr.sources.synthetic import ESPEAK_NAMES, speak
from asr.whisper import LANGUAGE_NAMES, WHISPER_LANGUAGES

MAX_CHARACTERS = 3000  # some four minutes
MAX_SENTENCE = 400
LIMIT_SECONDS = 30
LIMIT_BYTES = 512 << 20
WORDS_PER_MINUTE, PITCH = 165, 50
PAUSE_SECONDS = 0.2
# A sentence ends at its mark and the space behind it, or at a mark of a script that puts no space
# there.
END = re.compile(r"(?<=[.!?…:;])\s+|(?<=[。！？；।])|\n+")


@cache
def languages() -> list[str]:
    """Whisper's codes of the languages that espeak-ng has a voice for, read from its data."""
    import espeakng_loader

    files = (
        file for file in Path(espeakng_loader.get_data_path(), "lang").rglob("*") if file.is_file()
    )
    known = {
        name
        for file in files
        for name in re.findall(
            r"^language\s+(\S+)", file.read_text("utf-8", "replace"), re.MULTILINE
        )
    }
    return [code for code in WHISPER_LANGUAGES if ESPEAK_NAMES.get(code, code) in known]


def say(text: str, language: str) -> bytes:
    """A text as sound; what is longer than MAX_CHARACTERS is cut at the end of a sentence.

    Returns:
        FLAC bytes: mono, 16 bit, 22,050 Hz.
    Raises:
        BadParams: a language without a voice.
        BadData: nothing that can be said, or a process that died.
    """
    if language not in languages():
        raise ParamsError(
            f"espeak-ng has no voice for {LANGUAGE_NAMES.get(language, language)}; choose another, or do not listen"
        )
    command = [sys.executable, "-m", "dashboard.talk.speech", language]
    try:
        done = subprocess.run(
            command,
            input=text.encode("utf-8", "replace"),
            capture_output=True,
            timeout=LIMIT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"the text could not be said within {LIMIT_SECONDS} s") from None
    if done.returncode == 0:
        return done.stdout
    last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [""]
    known = last[0].startswith("error ")
    raise DataError(
        last[0].partition(": ")[2]
        if known
        else f"the speech process died with exit code {done.returncode}; the text stays readable"
    )


def duration(said: bytes) -> float:
    """Seconds of what `say` gave."""
    import soundfile

    return float(soundfile.info(io.BytesIO(said)).duration)


def sentences(text: str) -> Iterator[str]:
    """The text in pieces that are said one by one, without the signs of markup, up to
    MAX_CHARACTERS.
    """
    clean = "".join(
        " " if unicodedata.category(sign) in ("Cc", "Cs") and sign != "\n" else sign
        for sign in text
    )
    clean = re.sub(r"[*_`#|~<>{}\[\]\\]+", " ", clean)
    left = MAX_CHARACTERS
    for sentence in END.split(clean):
        for piece in re.findall(rf".{{1,{MAX_SENTENCE}}}(?:\s|$)|.{{1,{MAX_SENTENCE}}}", sentence):
            if len(piece) > left:
                return
            left -= len(piece)
            if any(sign.isalnum() for sign in piece):
                yield piece.strip()


def render(text: str, language: str) -> bytes:
    """Say it in this process."""
    import numpy as np
    import soundfile

    rate, said = 0, list[np.ndarray]()
    for sentence in sentences(text):
        try:
            samples, rate = soundfile.read(
                io.BytesIO(
                    speak(sentence, ESPEAK_NAMES.get(language, language), WORDS_PER_MINUTE, PITCH)
                )
            )
        except DataError:  # signs that this language has no sound for
            continue
        said += [samples, np.zeros(round(PAUSE_SECONDS * rate))]
    if not said:
        raise DataError("there is nothing in it that can be said")
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(said), rate, "PCM_16", format="FLAC")
    return file.getvalue()


def main() -> None:
    import resource

    if len(sys.argv) != 2:
        raise ParamsError("usage: python -m dashboard.talk.speech LANGUAGE < TEXT > SOUND.flac")
    for limit, value in (
        (resource.RLIMIT_CPU, LIMIT_SECONDS),
        (resource.RLIMIT_DATA, LIMIT_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    sys.stdout.buffer.write(render(sys.stdin.buffer.read().decode("utf-8", "replace"), sys.argv[1]))


if __name__ == "__main__":
    exit_with(main)
