"""Fingerprint what a recording sounds like: a code of 16 bits for each 24 ms.

The codes of a copy are nearly the same, however it was encoded, amplified or trimmed. Each bit
tells of two neighbouring frequency bands whether energy moves from the one to the other within 96
ms. Codecs, gain, a telephone, or frames that begin elsewhere leave nine bits in ten as they are.
Frames that are quiet, or in which nothing moves (tones, hum), have the code 0.

Costs 0.6 ms for 5 s on one core, and 75 bytes per second of unbroken speech; 57 in a corpus with
the usual pauses, so 500,000 clips of 5 s take 140 to 190 MB.

Source: Haitsma and Kalker 2002, "A Highly Robust Audio Fingerprinting System", with frames short
enough for speech.
"""

from __future__ import annotations

import zlib
from functools import cache

import numpy as np
import scipy.fft
import soxr

from asr.whisper import SAMPLE_RATE

RATE = 4000  # Hz; every codec and telephone keeps what lies below 2 kHz
WINDOW = 256  # samples at RATE, 64 ms: long enough to tell a voice's overtones apart
HOP = 96  # samples at RATE, 24 ms: a copy's frames lie at most 12 ms from the original's

LOWEST = 250.0  # Hz, lower edge of the first band
HIGHEST = 2000.0  # Hz, upper edge of the last band
WIDE_BANDS = 9
NARROW_BANDS = 4  # in each wide band
NUM_BANDS = WIDE_BANDS * NARROW_BANDS

SMOOTH = 4  # frames summed, so that a shift by half a hop changes few bits
LAG = 4  # frames between the two whose energies are compared

LOUD = 1e-3  # of the loudest frame's power: what is 30 dB below it may be mostly noise
SILENCE = 1e-10  # power of the quietest frame that gets a code; a tone of full scale has 0.7
MOVING = 0.1  # share of the energy that moves; in speech it is 0.2 to 1.5, in a hum with noise 0.01

BLOCK = 2048  # frames transformed at once: 4 MB


def fingerprint(samples: np.ndarray) -> bytes:
    """Compute the fingerprint of a recording.

    Args:
        samples: (S,) float32 in [-1, 1], mono, 16 kHz.
    Returns:
        The compressed codes, to be read by `codes`; their length varies.
    Raises:
        ValueError: samples is not one-dimensional.
    """
    if samples.ndim != 1:
        raise ValueError(f"samples have the shape {samples.shape}, want (S,)")
    frame_codes = _trimmed(_codes(_energy(samples)))
    return zlib.compress(frame_codes.tobytes())


def codes(fingerprint: bytes) -> np.ndarray:
    """Read a fingerprint: (T,) uint16, the code of each frame; 0 for frames without one.

    Neither the first nor the last code is 0.
    """
    return np.frombuffer(zlib.decompress(fingerprint), "<u2")


def _trimmed(frame_codes: np.ndarray) -> np.ndarray:
    """The codes without zeros at both ends."""
    nonzero = np.flatnonzero(frame_codes)
    if not len(nonzero):
        return frame_codes[:0]
    return frame_codes[nonzero[0] : nonzero[-1] + 1]


def _codes(energy: np.ndarray) -> np.ndarray:
    """(T,) uint16 codes from the (T + 4, 36) energies of the bands.

    The low byte compares neighbouring wide bands, the high byte narrow bands inside wide ones.
    """
    wide = energy.reshape(len(energy), WIDE_BANDS, NARROW_BANDS).sum(axis=2)
    between = _change(wide[:, :-1] - wide[:, 1:])  # (T, 8)
    within = _change(energy[:, 1::NARROW_BANDS] - energy[:, 2::NARROW_BANDS])[:, :-1]  # (T, 8)
    bits = np.concatenate([between, within], axis=1) > 0  # (T, 16)
    frame_codes = np.packbits(bits, axis=1).view("<u2")[:, 0]

    power = energy.sum(axis=1)
    power = power[LAG:] + power[:-LAG]
    is_loud = power > max(LOUD * power.max(initial=0), SILENCE)
    is_moving = np.abs(between).sum(axis=1) > MOVING * power
    # 0 means "no code", so a code whose bits are all 0 becomes 1.
    return np.where(is_loud & is_moving, np.maximum(frame_codes, 1), 0).astype("<u2")


def _change(slope: np.ndarray) -> np.ndarray:
    """How much each value changes within LAG frames."""
    change: np.ndarray = slope[LAG:] - slope[:-LAG]
    return change


def _energy(samples: np.ndarray) -> np.ndarray:
    """(T + 4, 36) energy of each band over 4 frames; T is 0 where the recording is too short."""
    resampled = soxr.resample(samples, SAMPLE_RATE, RATE, quality="LQ")
    if len(resampled) < WINDOW + HOP * (SMOOTH + LAG - 1):
        return np.zeros((LAG, NUM_BANDS))
    windows = np.lib.stride_tricks.sliding_window_view(resampled, WINDOW)[::HOP]
    starts = range(0, len(windows), BLOCK)
    power = np.concatenate([_power(windows[start : start + BLOCK]) for start in starts])
    num_sums = len(power) - SMOOTH + 1
    shifted = [power[first : first + num_sums] for first in range(SMOOTH)]
    energy: np.ndarray = np.sum(shifted, axis=0)
    return energy


def _power(windows: np.ndarray) -> np.ndarray:
    """(T, 36) power of each narrow band."""
    spectrum = scipy.fft.rfft(windows * _hann(), axis=1)
    power: np.ndarray = (spectrum.real**2 + spectrum.imag**2) @ _bands()
    return power


@cache
def _hann() -> np.ndarray:
    """(WINDOW,) the weights of a window's samples."""
    return (np.hanning(WINDOW) / WINDOW).astype(np.float32)


@cache
def _bands() -> np.ndarray:
    """(129, 36) share of each frequency bin in each band; like the ear's, they widen by octaves."""
    edges = np.geomspace(LOWEST, HIGHEST, NUM_BANDS + 1) * WINDOW / RATE
    below = np.clip(edges - np.arange(WINDOW // 2 + 1)[:, None] + 0.5, 0, 1)
    return np.diff(below, axis=1).astype(np.float32)
