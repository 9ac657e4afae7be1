"""What happens to sound between a mouth and a file: speed, gain, noise, a room. Pure functions on samples at 16 kHz.

For a clip of 5 s on one core: speed 3 ms, a room 2 ms, noise 1 ms.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
import soxr

from asr.whisper import SAMPLE_RATE

FRAME = SAMPLE_RATE // 50  # 20 ms, in which a voice's power stands still
ACTIVE_DB = 25.0  # below the loudest frame somebody still speaks; pauses of clean recordings lie lower


def at_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """(S / factor,) the sound so many times as fast, as a tape would play it: by resampling, so that pitch moves too, as in Kaldi."""
    played: np.ndarray = soxr.resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE)
    return played


def at_gain(samples: np.ndarray, gain_db: float) -> np.ndarray:
    """(S,) louder by so many dB. What passes 1 stays: features know no clipping."""
    return samples * np.float32(10 ** (gain_db / 20))


def speech_power(samples: np.ndarray) -> float:
    """Mean square over the frames in which somebody speaks: those within 25 dB of the loudest.

    Over all samples, a clip with long pauses would count as faint, and the noise mixed into its words would be fainter than asked for.
    """
    whole = samples[: len(samples) // FRAME * FRAME] if len(samples) >= FRAME else samples
    power = np.square(whole.reshape(-1, min(FRAME, len(whole))), dtype=np.float64).mean(1)
    return float(power[power >= power.max() * 10 ** (-ACTIVE_DB / 10)].mean())


def in_noise(samples: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """(S,) with noise (S,) added, so loud that speech has `snr_db` more power than all of the noise; silence stays as it is."""
    speech, power = speech_power(samples), float(np.square(noise, dtype=np.float64).mean())
    if not speech or not power:
        return samples
    return samples + noise * np.float32(np.sqrt(speech / power / 10 ** (snr_db / 10)))


def in_room(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """(S,) as heard in a room, as loud as before. The direct sound, the response's peak, stays where it was; the end is cut."""
    response = response[int(np.abs(response).argmax()) :]
    length = scipy.fft.next_fast_len(len(samples) + len(response) - 1, real=True)
    spectrum = scipy.fft.rfft(samples, length) * scipy.fft.rfft(response.astype(np.float32), length)
    heard = scipy.fft.irfft(spectrum, length)[: len(samples)]
    before, after = speech_power(samples), speech_power(heard)
    return heard * np.float32(np.sqrt(before / after)) if after else samples


def room_response(draw: np.random.Generator, rt60: float) -> np.ndarray:
    """(R,) how a room answers a click: the click, then noise that falls by 60 dB in `rt60` seconds.

    Both have the same energy, as at the room's critical distance. Source: Polack 1988, the statistical model of reverberation.
    """
    time = np.arange(1, max(round(rt60 * SAMPLE_RATE), 2)) / SAMPLE_RATE
    tail = draw.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
    return np.concatenate([[1.0], tail / np.linalg.norm(tail)]).astype(np.float32)


def stretch(draw: np.random.Generator, samples: np.ndarray, length: int) -> np.ndarray:
    """(length,) of a recording from a place that is drawn; a shorter one begins anew at its end."""
    places = len(samples) - length + 1 if len(samples) >= length else len(samples)
    start = int(draw.integers(places))
    return np.take(samples, np.arange(start, start + length), mode="wrap")
