"""Speech that is found in real recordings and in what is made of them, and noise that is not taken
for it.

    make harness NAME=speech COUNT=600      # seconds of each recording; half a minute

Reads `../shared/data`; where that is absent, nothing is done and said so. What is spoken counts as
found where a piece holds it, for pieces are what a model decodes. The control is a gate that finds
nothing.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soxr
from scipy.signal import butter, sosfilt

from asr.audio import codec
from asr.speech import detection, pieces
from asr.speech.detection import Stretch
from asr.speech.silero import CHUNK
from asr.whisper import SAMPLE_RATE
from support.repository import ABSENT, SHARED

DATA = SHARED / "data"
WINDOW = 30.0
# Below the loud parts of an utterance: what still may belong to a word, and what surely does.
SPOKEN_DECIBELS = 30
VOICED_DECIBELS = 15
SOUNDS = (".flac", ".mp3", ".ogg")
CLIPS = 80  # of each corpus of short clips
BETWEEN = 1.0  # seconds of silence before each
# Of what is spoken, the share that no piece may hold.
LOST = 0.01
LOST_IN_NOISE = 0.025  # at 5 dB
CUT_IN_WORDS = 0.1  # of the edges of pieces
VOICES = ("cafe",)  # noise that has voices in it
NOISE_SECONDS = 0.6  # of a clip of 6 to 12 s, taken for speech


@dataclass(frozen=True)
class Sound:
    """Samples (S,), and which of their chunks may belong to a word, and surely do (S / CHUNK,)."""

    samples: np.ndarray
    spoken: np.ndarray
    voiced: np.ndarray


def of_one_utterance(samples: np.ndarray) -> Sound:
    return Sound(samples, loud(samples, SPOKEN_DECIBELS), loud(samples, VOICED_DECIBELS))


def joined(sounds: list[Sound]) -> Sound:
    """With silence before each."""
    gap = np.zeros(round(BETWEEN * SAMPLE_RATE) // CHUNK * CHUNK, np.float32)
    silent = np.zeros(len(gap) // CHUNK, bool)
    return Sound(
        np.concatenate([part for sound in sounds for part in (gap, sound.samples)]),
        np.concatenate([part for sound in sounds for part in (silent, sound.spoken)]),
        np.concatenate([part for sound in sounds for part in (silent, sound.voiced)]),
    )


def powers(samples: np.ndarray) -> np.ndarray:
    """(S / CHUNK,) the mean square of each chunk."""
    return np.square(samples[: len(samples) // CHUNK * CHUNK].reshape(-1, CHUNK)).mean(1)


def loud(samples: np.ndarray, below: float) -> np.ndarray:
    """Which chunks of an utterance are at most so many decibels below its loud ones."""
    decibels = 10 * np.log10(powers(samples) + 1e-12)
    return decibels > np.percentile(decibels, 95) - below


def decoded(path: Path) -> np.ndarray:
    samples = codec.decode(path.read_bytes())
    return samples[: len(samples) // CHUNK * CHUNK]


def long_recording(name: str, seconds: int) -> Sound:
    """The start of a recording whose utterances have times."""
    samples = decoded(DATA / f"long-en/{name}.flac")[: seconds * SAMPLE_RATE // CHUNK * CHUNK]
    sound = Sound(samples, *np.zeros((2, len(samples) // CHUNK), bool))
    with (DATA / f"long-en/{name}.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            first, end = (round(float(row[key]) * SAMPLE_RATE) // CHUNK for key in ("start", "end"))
            if end <= len(sound.spoken):
                utterance = of_one_utterance(samples[first * CHUNK : end * CHUNK])
                sound.spoken[first:end] = utterance.spoken
                sound.voiced[first:end] = utterance.voiced
    return sound


def files_of(corpus: str) -> list[Path]:
    return sorted(path for path in (DATA / corpus).rglob("*") if path.suffix in SOUNDS)


def clips(corpus: str, seconds: int) -> Sound:
    """Some clips of a corpus, with silence between them."""
    paths = files_of(corpus)
    chosen = paths[:: max(1, len(paths) // CLIPS)]
    sounds: list[Sound] = []
    for path in chosen:
        sounds.append(of_one_utterance(decoded(path)))
        if sum(len(sound.samples) for sound in sounds) > seconds * SAMPLE_RATE:
            break
    return joined(sounds)


def telephone(samples: np.ndarray) -> np.ndarray:
    """8 kHz, 300 to 3,400 Hz, eight bits by the mu law."""
    narrow = sosfilt(butter(4, (300, 3400), "band", fs=SAMPLE_RATE, output="sos"), samples)
    slow = np.clip(soxr.resample(narrow, SAMPLE_RATE, 8_000), -1, 1)
    coded = np.round(np.sign(slow) * np.log1p(255 * np.abs(slow)) / np.log(256) * 127) / 127
    back = np.sign(coded) * (256 ** np.abs(coded) - 1) / 255
    return soxr.resample(back, 8_000, SAMPLE_RATE)[: len(samples)].astype(np.float32)


def in_noise(sound: Sound, noise: np.ndarray) -> np.ndarray:
    """With noise 5 dB below what is spoken."""
    power = powers(sound.samples)[sound.spoken].mean() / 10**0.5
    added = np.resize(noise, len(sound.samples)) * np.sqrt(power / np.square(noise).mean())
    return (sound.samples + added).astype(np.float32)


def recorded_noise() -> np.ndarray:
    """All noise clips, equally loud."""
    sounds = [decoded(path) for path in files_of("noise")]
    return np.concatenate([sound / (np.sqrt(np.square(sound).mean()) + 1e-3) for sound in sounds])


def speech(seconds: int, seed: int) -> Iterator[tuple[str, Sound, float]]:
    """Sounds with speech, and the share of it that may be lost."""
    pauses = long_recording("pauses", seconds)
    yield "long-en/pauses", pauses, LOST
    yield "long-en/joined", long_recording("joined", seconds), LOST
    white = np.random.default_rng(seed).normal(0, 1, len(pauses.samples))
    for name, samples, lost in (
        ("at -30 dB", np.round(pauses.samples * 10**-1.5 * 32768) / 32768, LOST),
        ("in white noise, 5 dB", in_noise(pauses, white), LOST_IN_NOISE),
        ("in recorded noise, 5 dB", in_noise(pauses, recorded_noise()), LOST_IN_NOISE),
        ("by telephone", telephone(pauses.samples), LOST),
    ):
        yield name, replace(pauses, samples=samples.astype(np.float32)), lost
    for corpus in ("common-voice-fa", "read-de", "prompts-it", "prompts-ru", "digits-en", "clips"):
        yield corpus, clips(corpus, seconds), LOST


def no_speech(seconds: int, seed: int) -> Iterator[tuple[str, np.ndarray, float]]:
    """Sounds without, and the seconds of them that may be taken for speech."""
    count = seconds * SAMPLE_RATE
    draw = np.random.default_rng(seed)
    times = np.arange(count) / SAMPLE_RATE
    change = 1 + (times.astype(int) % 4) / 4
    tones = (np.sin(2 * np.pi * pitch * change * times) for pitch in (220.0, 277.2, 329.6))
    yield "silence", np.zeros(count, np.float32), 0
    yield "noise at -72 dB", draw.normal(0, 10**-3.6, count).astype(np.float32), 0
    yield "noise at -40 dB", draw.normal(0, 10**-2.0, count).astype(np.float32), 0
    yield "chords", (0.1 * sum(tones)).astype(np.float32), 0.005 * seconds
    for path in files_of("noise"):
        if not path.name.startswith(VOICES):
            yield path.stem, decoded(path), NOISE_SECONDS


def held(parts: list[Stretch], count: int) -> np.ndarray:
    """(count,) which chunks the parts hold."""
    middles = (np.arange(count) + 0.5) * detection.CHUNK_SECONDS
    chunks = np.zeros(count, bool)
    for part in parts:
        chunks |= (middles >= part.start) & (middles < part.end)
    return chunks


def cuts_in_words(parts: list[Stretch], voiced: np.ndarray) -> int:
    """The edges of pieces, but for those of the sound, in what surely belongs to a word."""
    edges = [int(edge / detection.CHUNK_SECONDS) for part in parts for edge in part]
    within = [edge for edge in edges if 0 < edge < len(voiced) - 1]
    return sum(bool(voiced[edge - 1 : edge + 2].all()) for edge in within)


def harm_in(found: list[Stretch], sound: Sound, lost: float) -> tuple[str, bool]:
    """What was found of speech, and whether it is too little or cut in words."""
    duration = len(sound.samples) / SAMPLE_RATE

    def quietest(begin: float, end: float) -> float:
        first = int(begin / detection.CHUNK_SECONDS)
        quiet = powers(sound.samples)[first : int(end / detection.CHUNK_SECONDS)].argmin()
        return (first + float(quiet) + 0.5) * detection.CHUNK_SECONDS

    parts = list(pieces.pieces(found, 0.0, duration, WINDOW, quietest))
    missed = 1 - held(parts, len(sound.spoken))[sound.spoken].mean()
    cuts = cuts_in_words(parts, sound.voiced)
    figures = f"{missed:8.2%} lost, {len(parts)} pieces, {cuts} cuts in words"
    return figures, bool(missed > lost or cuts > CUT_IN_WORDS * 2 * len(parts))


def listen(samples: np.ndarray) -> list[Stretch]:
    return list(detection.stretches([samples]))


def deaf(_samples: np.ndarray) -> list[Stretch]:
    return []


def shake(count: int, seed: int, broken: bool) -> bool:
    """Whether speech is found, and noise is not."""
    if not DATA.exists():
        print(f"skipped: {DATA} is not {ABSENT}")
        return True
    gate = deaf if broken else listen
    harmed = 0
    for name, sound, lost in speech(count, seed):
        figures, harm = harm_in(gate(sound.samples), sound, lost)
        harmed += say(name, figures, harm)
    for name, samples, most in no_speech(count, seed):
        taken = sum(one.duration for one in gate(samples))
        harmed += say(name, f"{taken:6.2f} s taken for speech", taken > most)
    print(f"{harmed} harmed; {cost(gate, count):.2f} CPU seconds a minute of sound")
    return not harmed


def say(name: str, figures: str, harm: bool) -> bool:
    print(f"{name:26}{figures}{'  HARM' * harm}", flush=True)
    return harm


def cost(gate: Callable[[np.ndarray], list[Stretch]], seconds: int) -> float:
    samples = long_recording("joined", seconds).samples
    started = time.process_time()
    gate(samples)
    return (time.process_time() - started) / len(samples) * SAMPLE_RATE * 60
