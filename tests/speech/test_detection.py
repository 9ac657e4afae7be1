"""Speech is found where it is, and nowhere else; the network gives what its package gives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from asr.audio import codec
from asr.sources import synthetic
from asr.speech import detection, silero
from asr.speech.detection import Stretch
from asr.whisper import SAMPLE_RATE
from support.imports import imported
from support.repository import REPOSITORY

SECOND = SAMPLE_RATE


@pytest.fixture(scope="module")
def sentence() -> np.ndarray:
    """(S,) three seconds of a voice without silence at its ends."""
    text = "The quick brown fox jumps over the lazy dog again and again"
    spoken = codec.decode(synthetic.speak(text, "en+m3", 170, 50))
    loud = np.abs(spoken).reshape(-1)
    heard = np.flatnonzero(loud > 0.01)
    return spoken[heard[0] : heard[-1]]


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SECOND), np.float32)


def noise(seconds: float, decibels: float) -> np.ndarray:
    draw = np.random.default_rng(0)
    amplitude = 10 ** (decibels / 20)
    return (draw.normal(0, amplitude, round(seconds * SECOND))).astype(np.float32)


def chords(seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * SECOND)) / SECOND
    tones = (np.sin(2 * np.pi * pitch * time) for pitch in (220.0, 277.2, 329.6))
    return (0.1 * sum(tones)).astype(np.float32)


def found(*blocks: np.ndarray) -> list[Stretch]:
    return list(detection.stretches(blocks))


def covered(stretches: list[Stretch], begin: float, end: float) -> float:
    """The share of a part of the sound that is said to be speech."""
    shared = sum(max(0.0, min(one.end, end) - max(one.start, begin)) for one in stretches)
    return shared / (end - begin)


def test_the_graph_gives_what_torchscript_gives(
    sentence: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = np.concatenate([sentence, silence(1), noise(9, -40), sentence])
    heard = np.concatenate(list(silero.probabilities([sound])))
    in_torch = silero._on_torch()
    monkeypatch.setattr(silero, "_network", lambda: in_torch)
    for _ in range(2):  # nothing is remembered from one sound to the next
        again = np.concatenate(list(silero.probabilities([sound])))
        assert np.abs(again - heard).max() < 1e-4
    assert heard.max() > 0.9
    assert heard.min() < 0.1


@pytest.mark.parametrize(
    "sound",
    [silence(60), noise(60, -72), noise(60, -50), noise(20, -20), chords(60), silence(0.01)],
    ids=["silence", "faint noise", "noise", "loud noise", "chords", "a few samples"],
)
def test_what_is_no_speech_has_no_stretch(sound: np.ndarray) -> None:
    assert found(sound) == []


def test_no_sound_has_no_stretch() -> None:
    assert found() == []
    assert found(silence(0)) == []


@pytest.mark.parametrize("decibels", [0, -20, -30])
def test_speech_between_silence_is_found_where_it_is(sentence: np.ndarray, decibels: int) -> None:
    spoken = sentence * 10 ** (decibels / 20)
    stretches = found(silence(4), spoken, silence(5), spoken, silence(3))
    seconds = len(spoken) / SECOND
    for begin in (4.0, 4 + seconds + 5):
        assert covered(stretches, begin, begin + seconds) > 0.9
    inside = sum(one.duration for one in stretches)
    assert inside < 2 * seconds + 0.5


def test_speech_in_noise_is_found(sentence: np.ndarray) -> None:
    sound = np.concatenate([silence(2), sentence, silence(2)])
    power = np.square(sentence).mean() / 10**0.5  # a ratio of 5 dB
    stretches = found(sound + noise(len(sound) / SECOND, 10 * np.log10(power)))
    assert covered(stretches, 2, 2 + len(sentence) / SECOND) > 0.85
    assert covered(stretches, 0, 1.8) == 0


def test_speech_that_the_sound_ends_in_is_found_to_its_end(sentence: np.ndarray) -> None:
    cut = sentence[: 2 * SECOND]
    assert found(silence(1), cut)[-1].end >= 2.9


def test_times_count_from_the_start_that_is_given(sentence: np.ndarray) -> None:
    later = list(detection.stretches([sentence], start=100.0))
    assert later == [Stretch(100 + one.start, 100 + one.end) for one in found(sentence)]


@pytest.mark.parametrize("size", [1_000, 16_001, 131_072, 500_000])
def test_how_a_sound_is_divided_changes_no_bit(sentence: np.ndarray, size: int) -> None:
    sound = np.concatenate([silence(1), *[sentence] * 6])
    blocks = [sound[first : first + size] for first in range(0, len(sound), size)]
    whole = np.concatenate(list(silero.probabilities([sound])))
    assert np.array_equal(np.concatenate(list(silero.probabilities(blocks))), whole)


def test_stretches_come_while_the_sound_is_read(sentence: np.ndarray) -> None:
    read = 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal read
        for _ in range(10):
            read += 1
            yield np.concatenate([sentence, silence(10)])

    stretches = detection.stretches(blocks())
    first = next(stretches)
    assert first.start < 1
    assert read <= 2


@pytest.mark.parametrize(
    ("heard", "runs"),
    [
        ("....ooO#oo....", [(4, 10)]),
        ("....ooOOoo....", []),  # never certain
        ("....ooO#..oo....", [(4, 12)]),  # too short a pause
        ("....#ooo....o#oo....", [(4, 8), (12, 16)]),
        (".....#o......", []),  # a click
        ("#ooo", [(0, 4)]),
        ("", []),
    ],
)
def test_a_run_needs_one_certain_chunk_and_a_pause_to_end(
    heard: str, runs: list[tuple[int, int]]
) -> None:
    probabilities = {".": 0.1, "o": 0.2, "O": 0.49, "#": 0.5}
    assert list(detection._runs(probabilities[one] for one in heard)) == runs


def test_memory_does_not_grow_with_the_sound() -> None:
    code = """
import sys
import numpy as np
from asr.speech import detection
block = np.random.default_rng(0).normal(0, 0.1, 30 * 16_000).astype(np.float32)
list(detection.stretches(block for _ in range(int(sys.argv[1]))))
lines = open("/proc/self/status").read().splitlines()  # ru_maxrss begins with the parent's
print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) >> 10)
"""
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", code, str(blocks)],
                cwd=REPOSITORY,
                capture_output=True,
                check=True,
            ).stdout
        )
        for blocks in (2, 20)
    ]
    assert peaks[1] - peaks[0] < 15  # ten minutes are 37 MB of samples


def test_finding_speech_imports_no_torch() -> None:
    assert imported("import asr.speech.pieces", "torch", "transformers") == []
