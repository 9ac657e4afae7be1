"""Speed, gain, SNR and RT60 are those that were asked for, measured in other ways than they were
made.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr import augmentation
from asr.audio import codec
from asr.whisper import SAMPLE_RATE
from support.data import real, voice

RATE = SAMPLE_RATE


def db(ratio: float) -> float:
    return float(10 * np.log10(ratio))


def power(samples: np.ndarray) -> float:
    return float(np.mean(np.square(samples.astype(np.float64))))


def pitch(samples: np.ndarray) -> float:
    """Hz of the strongest tone."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * RATE / len(samples))


@pytest.mark.parametrize("factor", [0.9, 0.953, 1.0, 1.1])
def test_speed_moves_duration_and_pitch(factor: float) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE).astype(np.float32)
    heard = augmentation.at_speed(tone, factor)
    assert heard.dtype == np.float32
    assert len(heard) == pytest.approx(3 * RATE / factor, abs=1)
    assert pitch(heard) == pytest.approx(440 * factor, abs=1)


@given(st.integers(1, 800), st.floats(0.5, 2))
@settings(max_examples=50)
def test_the_shortest_sound_stays_one(length: int, factor: float) -> None:
    changed = augmentation.at_speed(voice(0.05)[:length], factor)
    assert len(changed) >= 1
    changed = augmentation.in_room(
        changed, augmentation.room_response(np.random.default_rng(1), 0.01)
    )
    assert np.isfinite(augmentation.in_noise(changed, np.ones_like(changed), 10.0)).all()


@pytest.mark.parametrize("gain", [-10.0, 0.0, 6.0])
def test_gain_is_in_decibels(gain: float) -> None:
    clip = voice(0.5)
    assert db(power(augmentation.at_gain(clip, gain)) / power(clip)) == pytest.approx(
        gain, abs=1e-4
    )


@pytest.mark.parametrize("snr", [-5.0, 5.0, 20.0])
@pytest.mark.parametrize("pause", [0.0, 9.0])
def test_speech_has_the_snr_that_was_asked_for_whatever_the_pauses(
    snr: float, pause: float
) -> None:
    words, silence = voice(2.0), np.zeros(round(pause * RATE), np.float32)
    clip = np.concatenate([silence, words, silence])
    noise = np.random.default_rng(3).standard_normal(len(clip)).astype(np.float32)
    added = augmentation.in_noise(clip, noise, snr) - clip
    assert db(power(words) / power(added)) == pytest.approx(snr, abs=0.2)
    if pause:
        assert db(power(clip) / power(added)) < snr - 5, (
            "the control: over all samples, pauses would count as speech"
        )


def test_real_speech_has_the_snr_that_was_asked_for() -> None:
    """Where somebody speaks is told by another way: of 50 ms each, the loudest that hold 95 % of
    the energy.
    """
    recorded = sorted(
        path
        for path in real("clips").rglob("*")
        if path.suffix in (".flac", ".mp3", ".ogg", ".wav")
    )[:6]
    assert recorded
    for path in recorded:
        clip = codec.decode(path.read_bytes())[: 20 * RATE]
        frames = np.sort(
            np.square(clip[: len(clip) // 800 * 800].astype(np.float64)).reshape(-1, 800).mean(1)
        )[::-1]
        spoken = frames[: int(np.searchsorted(np.cumsum(frames), 0.95 * frames.sum())) + 1].mean()
        found = []
        for pause in (0, 10 * RATE):
            padded = np.concatenate([clip, np.zeros(pause, np.float32)])
            noise = np.random.default_rng(4).standard_normal(len(padded)).astype(np.float32)
            found.append(db(spoken / power(augmentation.in_noise(padded, noise, 10.0) - padded)))
        assert found[0] == pytest.approx(10.0, abs=2.5), path.name
        assert found[1] == pytest.approx(found[0], abs=0.05), path.name


def test_silence_gets_no_noise_and_no_noise_changes_nothing() -> None:
    silence, clip = np.zeros(800, np.float32), voice(0.05)
    assert not augmentation.in_noise(silence, clip, 5.0).any()
    assert np.array_equal(augmentation.in_noise(clip, silence, 5.0), clip)
    assert not augmentation.in_room(silence, np.ones(1, np.float32)).any()


@pytest.mark.parametrize("rt60", [0.2, 0.5, 1.2])
def test_a_room_dies_away_in_its_time(rt60: float) -> None:
    """By Schroeder's backward integral: from -5 to -25 dB, three times as long for 60."""
    response = augmentation.room_response(np.random.default_rng(7), rt60)
    assert power(response[1:]) * (len(response) - 1) == pytest.approx(response[0] ** 2, rel=1e-3)
    left = np.cumsum(np.square(response[1:].astype(np.float64))[::-1])[::-1]
    decay = 10 * np.log10(left / left[0])
    start, end = (int(np.argmax(decay <= level)) for level in (-5, -25))
    assert 3 * (end - start) / RATE == pytest.approx(rt60, rel=0.1)


def test_a_room_moves_nothing_and_keeps_the_level() -> None:
    clip = np.concatenate([np.zeros(1600, np.float32), voice(1.0)])
    click = np.zeros(500, np.float32)
    click[300] = 1  # a recorded response begins before its direct sound
    assert np.abs(augmentation.in_room(clip, click) - clip).max() < 1e-5
    response = augmentation.room_response(np.random.default_rng(7), 0.4)
    heard = augmentation.in_room(clip, response)
    assert heard.shape == clip.shape
    assert heard.dtype == np.float32
    assert augmentation.speech_power(heard) == pytest.approx(
        augmentation.speech_power(clip), rel=1e-3
    )
    assert np.abs(heard[:1600]).max() < 1e-5, "nothing is heard before it is said"
    wanted = np.convolve(clip.astype(np.float64), response)[: len(clip)]
    assert np.abs(heard / np.linalg.norm(heard) - wanted / np.linalg.norm(wanted)).max() < 1e-6


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 99))
@settings(max_examples=100)
def test_a_stretch_is_cut_or_begins_anew(has: int, wants: int, seed: int) -> None:
    found = augmentation.stretch(np.random.default_rng(seed), np.arange(has), wants)
    assert len(found) == wants
    steps = np.diff(found)
    assert ((steps == 1) | (found[:-1] == has - 1)).all()
    assert wants > has or (steps == 1).all(), "one that is long enough has no seam"
