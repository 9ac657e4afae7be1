"""Copies and what is none: clips whose fingerprints agree, and ways to wear a clip down."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from asr.audio import codec
from asr.cleaning.audio_fingerprint import fingerprint
from asr.cleaning.near_duplicates import NearDuplicateIndex
from asr.sources import synthetic
from asr.sources.synthetic import speak
from asr.storage.corpus import Recording
from support.altered_audio import ALTERED, by_av, noisy, padded
from support.data import encoded

RATE = 16_000
NUMBERS = "zero one two three four five six seven eight nine".split()
Clip = tuple[str, np.ndarray]  # text and samples
# Ways in which a copy loses more than in ALTERED.
WORN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mp3 at 8 kbit/s and 8 kHz": lambda samples: by_av(samples, "mp3", "libmp3lame", 8000, 8000),
    "opus at 8 kbit/s": lambda samples: by_av(samples, "ogg", "libopus", 8000, 48_000),
    "noise of 10 dB": lambda samples: noisy(samples, 10),
    "inverted": lambda samples: -samples,
    "50 ms shorter": lambda samples: samples[800:],
    "100 ms shorter at both ends": lambda samples: samples[1600:-1600],
    "trimmed, opus, in silence": lambda samples: padded(
        by_av(samples[3200:-1600], "ogg", "libopus", 16_000, 48_000)
    ),
}
HIDES_WORDS = "noise of 10 dB"  # so that another word could be spoken


def recording(samples: np.ndarray, text: str = "") -> Recording:
    sound = encoded(samples, RATE, "WAV", "FLOAT")
    return Recording("", sound, len(sound), text, None, None)


def heard(text: str, voice: str = "en+m3", rate: int = 170, pitch: int = 50) -> np.ndarray:
    return codec.decode(speak(text, voice, rate, pitch))


def found(clips: list[Clip]) -> list[tuple[Recording, Recording]]:
    """The pairs of clips whose fingerprints agree, each clip in a split of its own."""
    with (
        TemporaryDirectory() as folder,
        closing(NearDuplicateIndex(Path(folder) / "index")) as index,
    ):
        for number, (_, samples) in enumerate(clips):
            index.add(str(number), str(number), fingerprint(samples))
        pairs = [(int(pair.id), int(pair.other_id)) for pair in index.found()]
    told = [recording(samples, text) for text, samples in clips]
    return [(told[one], told[other]) for one, other in pairs]


def joined(count: int, words: tuple[int, int], gap: float) -> list[Clip]:
    """Sentences of words whose samples are the same in each."""
    samples = {word: trimmed(heard(word)) for word in NUMBERS}
    draw = random.Random(f"{words} {gap}")
    texts = {" ".join(draw.choices(NUMBERS, k=draw.randint(*words))) for _ in range(count)}
    pause = np.zeros(round(gap * RATE), np.float32)
    return [
        (text, np.concatenate([part for word in text.split() for part in (samples[word], pause)]))
        for text in sorted(texts)
    ]


def trimmed(samples: np.ndarray) -> np.ndarray:
    sounding = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    return samples[sounding[0] : sounding[-1] + 1]


def told(count: int) -> list[Clip]:
    """Numbers in four voices."""
    draw = random.Random(2)
    texts = [" ".join(draw.choices(NUMBERS, k=2)) for _ in range(count)]
    voices = ("en+m1", "en+f3", "en+m4", "en+f1")
    return [
        (text, heard(text, voices[number % 4], 150 + number))
        for number, text in enumerate(sorted(set(texts)))
    ]


def with_jingle(number: int, samples: np.ndarray) -> np.ndarray:
    jingle = heard("you are listening to radio one", "en+f2")
    return np.concatenate([jingle, samples] if number % 2 else [samples, jingle])


def one_voice() -> list[Clip]:
    draw = random.Random(5)
    numbers = [draw.sample(range(1000), draw.randint(1, 2)) for _ in range(80)]
    texts = {" ".join(synthetic._spell(one, "en") for one in some) for some in numbers}
    return [(text, heard(text)) for text in sorted(texts)]


FAMILY: dict[str, Callable[[], list[Clip]]] = {
    "words of the same samples": lambda: joined(60, (2, 4), 0.0),
    "words of the same samples, with pauses": lambda: joined(60, (2, 4), 0.08),
    "a jingle before or after": lambda: [
        (text, with_jingle(number, samples)) for number, (text, samples) in enumerate(told(20))
    ],
    "one voice, always as fast and high": one_voice,
    "the same by telephone": lambda: [(text, ALTERED["telephone"](x)) for text, x in one_voice()],
}
