"""What happens to a recording on its way into a second corpus: other codecs, a telephone, gain,
noise, scissors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import soxr

from asr.audio import codec
from asr.whisper import SAMPLE_RATE
from support.data import encoded, encoded_by_av

RATE = SAMPLE_RATE


def by_av(
    samples: np.ndarray, format: str, encoder: str, bit_rate: int, rate: int = RATE
) -> np.ndarray:
    """Encoded by PyAV at a bit rate, and decoded by us."""
    sound = np.clip(soxr.resample(samples, RATE, rate), -1, 1)
    return codec.decode(encoded_by_av(sound, rate, format, encoder, bit_rate))


def telephone(samples: np.ndarray) -> np.ndarray:
    low = np.clip(soxr.resample(samples, RATE, 8000), -1, 1)
    return codec.decode(encoded(low, 8000, subtype="ULAW"))


def ogg(samples: np.ndarray) -> np.ndarray:
    return codec.decode(encoded(np.clip(samples, -1, 1), RATE, "OGG", "VORBIS"))


def gain(samples: np.ndarray, decibels: float) -> np.ndarray:
    return (samples * 10 ** (decibels / 20)).astype(np.float32)


def clipped(samples: np.ndarray) -> np.ndarray:
    """20 dB louder than it was, by which the loudest peaks are cut."""
    return np.clip(gain(samples / (8.5 * np.abs(samples).max()), 20), -1, 1)


def noisy(samples: np.ndarray, decibels: float = 30.0) -> np.ndarray:
    noise = np.random.default_rng(len(samples)).standard_normal(len(samples))
    return (samples + noise * np.sqrt(np.square(samples).mean()) * 10 ** (-decibels / 20)).astype(
        np.float32
    )


def half(samples: np.ndarray) -> np.ndarray:
    """The loudest stretch of half the length, and of 1 s at least."""
    length = max(len(samples) // 2, RATE)
    power = np.cumsum(np.square(samples, dtype=np.float64))
    start = int((power[length:] - power[:-length]).argmax()) if len(samples) > length else 0
    return samples[start : start + length]


def padded(samples: np.ndarray) -> np.ndarray:
    return np.pad(samples, (12_345, 6_789))


ALTERED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the same": lambda samples: samples,
    "mp3 at 32 kbit/s": lambda samples: by_av(samples, "mp3", "libmp3lame", 32_000),
    "mp3 at 64 kbit/s": lambda samples: by_av(samples, "mp3", "libmp3lame", 64_000),
    "opus": lambda samples: by_av(samples, "ogg", "libopus", 24_000, 48_000),
    "ogg": ogg,
    "telephone": telephone,
    "quieter": lambda samples: gain(samples, -20),
    "louder and clipped": clipped,
    "noise": noisy,
    "silence around it": padded,
    "shifted": lambda samples: samples[191:-55],
    "half": half,
    "half in silence": lambda samples: padded(half(samples)),
    "all at once": lambda samples: gain(half(by_av(samples, "mp3", "libmp3lame", 32_000)), -12),
}
