"""Fingerprints: what copies share, and what says nothing."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from asr.audio import codec
from asr.cleaning import audio_fingerprint
from asr.sources.synthetic import speak
from asr.whisper import SAMPLE_RATE
from support.altered_audio import ALTERED, gain
from support.data import real

FRAME = round(SAMPLE_RATE * audio_fingerprint.HOP / audio_fingerprint.RATE)  # samples at 16 kHz
SENTENCES = (
    "seven thousand four hundred twenty three",
    "nineteen sixty six",
    "five hundred and eight",
    "eleven three ninety",
)


def words(samples: np.ndarray) -> np.ndarray:
    return audio_fingerprint.codes(audio_fingerprint.fingerprint(samples))


@cache
def spoken(index: int) -> np.ndarray:
    return codec.decode(
        speak(SENTENCES[index], ("en+m3", "en+f2")[index % 2], 150 + 10 * index, 40 + 10 * index)
    )


def differ(one: np.ndarray, two: np.ndarray) -> float:
    """Share of the signs that differ where two clips fit best, if they lie over each other by a
    half of the shorter.
    """
    least = min(len(one), len(two)) // 2
    shares = [1.0]
    for shift in range(least - len(two), len(one) - least + 1):
        start, end = max(0, shift), min(len(one), len(two) + shift)
        left, right = one[start:end], two[start - shift : end - shift]
        both = (left > 0) & (right > 0)
        if np.count_nonzero(both) >= min(np.count_nonzero(one), np.count_nonzero(two)) / 2:
            shares.append(float(np.bitwise_count(left[both] ^ right[both]).mean()) / 16)
    return min(shares)


@pytest.mark.parametrize("how", [how for how in ALTERED if "half in" not in how])
def test_a_copy_keeps_nearly_all_signs(how: str) -> None:
    for index in range(len(SENTENCES)):
        share = differ(words(spoken(index)), words(ALTERED[how](spoken(index))))
        assert share <= (0.0 if how == "the same" else 0.12), (how, index, share)


def test_other_sentences_differ_in_a_quarter_at_the_least() -> None:
    clips = [words(spoken(index)) for index in range(len(SENTENCES))]
    assert min(differ(one, two) for place, one in enumerate(clips) for two in clips[:place]) > 0.25


def test_recorded_speech_differs_from_other_speech_of_its_reader() -> None:
    clips = [
        words(codec.decode(path.read_bytes())) for path in sorted(real("clips").glob("LJ*.flac"))
    ]
    assert len(clips) == 8
    assert min(differ(one, two) for place, one in enumerate(clips) for two in clips[:place]) > 0.3


def test_gain_changes_nothing() -> None:
    assert audio_fingerprint.fingerprint(
        gain(spoken(0), -18.0617997)
    ) == audio_fingerprint.fingerprint(spoken(0))  # an eighth, exact in floats


def hum(frequency: float, seconds: float = 3.0) -> np.ndarray:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return sum(
        0.1 / tone * np.sin(2 * np.pi * frequency * tone * time + tone) for tone in range(1, 9)
    ).astype(np.float32)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0, np.float32),
        np.zeros(1, np.float32),
        np.zeros(48_000, np.float32),
        np.full(48_000, 0.2, np.float32),
        hum(440),
        hum(97.3),
        hum(50) + np.random.default_rng(0).normal(0, 0.002, 48_000).astype(np.float32),
        np.random.default_rng(0).normal(0, 1e-6, 48_000).astype(np.float32),
    ],
    ids=[
        "nothing",
        "one sample",
        "silence",
        "offset",
        "tone",
        "hum",
        "hum in noise",
        "hiss at -120 dB",
    ],
)
def test_what_does_not_move_says_nothing(samples: np.ndarray) -> None:
    assert not len(words(samples))


def test_quiet_frames_say_nothing() -> None:
    """Noise 40 dB below the speech does not speak in its pauses, and speaks alone."""
    pause = (
        np.random.default_rng(1).normal(0, 1, SAMPLE_RATE).astype(np.float32)
        * np.abs(spoken(0)).max()
        / 1000
    )
    told = words(np.concatenate([spoken(0), pause, spoken(1)]))
    middle = round(len(spoken(0)) / FRAME)
    assert not told[middle : middle + 30].any()
    assert np.count_nonzero(words(pause)) > 20


def test_silence_around_costs_nothing() -> None:
    alone, padded = (
        audio_fingerprint.fingerprint(samples)
        for samples in (spoken(2), np.pad(spoken(2), 5 * SAMPLE_RATE))
    )
    assert len(padded) <= len(alone) + 30


def test_pieces_of_a_long_recording_join() -> None:
    """Transforming 49 s at a time shows nowhere."""
    noise = np.random.default_rng(2).normal(0, 0.1, 60 * SAMPLE_RATE).astype(np.float32)
    tail = words(noise[1750 * FRAME :])
    assert audio_fingerprint.BLOCK > 1760
    told = words(noise)
    start = 1750
    same = told[start + 5 : start + 500] == tail[5:500]
    assert same.mean() > 0.98


def test_size() -> None:
    """At most 80 bytes a second of unbroken speech."""
    for index in range(len(SENTENCES)):
        assert (
            len(audio_fingerprint.fingerprint(spoken(index)))
            <= 80 * len(spoken(index)) / SAMPLE_RATE + 11
        )


def test_wants_one_channel() -> None:
    with pytest.raises(ValueError, match=r"samples have the shape \(2, 3\), want \(S,\)"):
        audio_fingerprint.fingerprint(np.zeros((2, 3), np.float32))
