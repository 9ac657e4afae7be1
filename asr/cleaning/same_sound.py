"""Decide whether one clip is another's copy, by their samples and texts: the second look.

Fingerprints are made to find copies, and now and then take other words in a like voice for the
same. So what they find is looked at once more. The two sounds are laid over each other where they
fit best, and correlated in windows of 128 ms. A copy keeps its waveform whatever codec, gain,
telephone or noise it went through: the mean of its windows is 0.7 at the least, of other clips
0.6 at the most, and mostly 0.2. Where one word in a sentence is another, a stretch is below 0.5.

Sound alone does not decide where a part is the same in both: speech that is joined from stored
syllables has the same samples in other sentences, and many clips may begin or end with one jingle.
There the texts are asked as well.

Costs 5 ms for two clips of 3 s, and 1 s and 300 MB for two of five minutes.
"""

from __future__ import annotations

import io
import unicodedata
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
import scipy.fft

from asr.audio import codec
from asr.storage.corpus import Recording
from asr.whisper import SAMPLE_RATE

MAX_SECONDS = 300  # that are compared; fingerprints know no more
LOWEST = 250.0  # Hz; telephones cut what is below
HIGHEST = 2000.0  # Hz; codecs make up what is above
WINDOW = SAMPLE_RATE // 8
HOP = WINDOW // 2

SOUND = 1e-3  # of the loudest window's power: below it codecs and noise decide the waveform
SPEECH = 1e-2  # of the loudest window's power: above it is speech, not the room
STRETCH = 3  # windows, 256 ms: a short word
ALIKE = 0.65  # least mean correlation where the texts are the same
ALIKE_OTHERWISE = 0.75  # where they are not
ALIKE_STRETCH = 0.5  # and of any stretch, for a word may be another
COMMON = 0.6  # least share of the speech of the clip that has less of it
WORD = 0.1  # seconds of speech: no word is shorter
LONG = 2.5  # seconds of speech that no two sentences of joined syllables share by chance

UNSPOKEN = "PZSC"  # categories of marks, spaces, symbols and controls


@dataclass(frozen=True)
class Overlap:
    """Two clips, laid over each other where they fit best.

    correlation: mean of the windows in which both sound; 1 is the same waveform.
    least: the mean of the worst stretch of these windows.
    common: seconds of speech in both.
    alone: seconds of each clip's speech where the other has ended or is silent.
    """

    correlation: float
    least: float
    common: float
    alone: tuple[float, float]


def is_copy(first: Recording, second: Recording) -> bool:
    """Whether two clips are one recording, or one of them a part of the other.

    A clip whose sound is too large to be read at once is not heard again, and counts as a copy.
    """
    if first.sound is None or second.sound is None:
        return True
    overlap = overlay(_beginning(first.sound), _beginning(second.sound))
    if overlap.common < COMMON * (overlap.common + min(overlap.alone)):
        return False
    one, other = _letters(first.text), _letters(second.text)
    if one == other:
        return overlap.correlation >= ALIKE
    return _is_part(overlap, one, other)


def _is_part(overlap: Overlap, one: str, other: str) -> bool:
    """Whether of two clips with other texts one is all or a part of the other.

    If the texts have a part in common, which may be why the sounds have, the part must be long, or
    nothing else may be spoken in the longer clip.
    """
    if overlap.correlation < ALIKE_OTHERWISE or overlap.least < ALIKE_STRETCH:
        return False
    if min(overlap.alone) >= WORD:
        return False
    return max(overlap.alone) < WORD or overlap.common >= LONG or not _share_a_part(one, other)


def _beginning(encoded: bytes) -> np.ndarray:
    """The first minutes of a recording."""
    blocks: list[np.ndarray] = []
    num_samples = 0
    for block in codec.blocks(io.BytesIO(encoded)):
        blocks.append(block)
        num_samples += len(block)
        if num_samples >= MAX_SECONDS * SAMPLE_RATE:
            break
    return np.concatenate(blocks)


def overlay(first: np.ndarray, second: np.ndarray) -> Overlap:
    """Lay two clips over each other where their waveforms fit best, and compare them.

    Args:
        first, second: (S,) float32, mono, 16 kHz.
    """
    num_both = scipy.fft.next_fast_len(len(first) + len(second), real=True)
    one, other = _spectrum(first, num_both), _spectrum(second, num_both)
    fits = scipy.fft.irfft(one * other.conj(), num_both)
    best = int(np.abs(fits).argmax())
    # Shifts to before the first clip's start stand at the end.
    shift = best if best < len(first) else best - num_both
    one = scipy.fft.irfft(one, num_both)[: len(first)]
    # A recording may have been inverted on its way.
    other = scipy.fft.irfft(other, num_both)[: len(second)] * np.sign(fits[best])

    end = max(len(first), shift + len(second))
    one = np.pad(one, (max(0, -shift), end - len(first)))
    other = np.pad(other, (max(0, shift), end - shift - len(second)))
    start = abs(shift)
    end = min(len(first), shift + len(second)) + max(0, -shift)
    return _compare(one, other, start, end)


def _compare(one: np.ndarray, other: np.ndarray, start: int, end: int) -> Overlap:
    """Compare two clips, padded with silence to one length.

    Windows count by the square root of their amplitude, so that neither one loud vowel decides nor
    what is nearly silent.

    Args:
        start, end: samples between which neither is padded.
    """
    powers = np.stack([_window_sums(one * one), _window_sums(other * other)])  # (2, windows)
    loudest = powers.max(axis=1, keepdims=True)
    sounds = powers > SOUND * loudest
    speaks = powers > SPEECH * loudest
    starts = np.arange(powers.shape[1]) * HOP
    is_compared = sounds.all(axis=0) & (starts >= start) & (starts + WINDOW <= end)
    product = powers.prod(axis=0)[is_compared]
    correlation = _window_sums(one * other)[is_compared] / np.sqrt(product)
    alone = [float(np.count_nonzero(speaks[i] & ~sounds[1 - i])) for i in (0, 1)]
    return Overlap(
        *_mean_and_least(correlation, product**0.125),
        np.count_nonzero(speaks.all(axis=0)) * HOP / SAMPLE_RATE,
        (alone[0] * HOP / SAMPLE_RATE, alone[1] * HOP / SAMPLE_RATE),
    )


def _mean_and_least(correlation: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Weighted mean of all windows, and the least of any stretch; 0 where there is none."""
    if not len(correlation):
        return 0.0, 0.0
    stretch = np.ones(min(STRETCH, len(correlation)))
    sums = np.convolve(correlation * weights, stretch, "valid")
    by_stretch = sums / np.convolve(weights, stretch, "valid")
    return float(np.average(correlation, weights=weights)), float(by_stretch.min())


def _spectrum(samples: np.ndarray, num_samples: int) -> np.ndarray:
    """Spectrum of the band that telephones and codecs keep, made as flat as noise.

    Speech falls by 6 dB an octave, so its spectrum is multiplied by the frequency.
    """
    spectrum = scipy.fft.rfft(samples.astype(np.float32), num_samples)
    frequency = np.arange(len(spectrum)) * (SAMPLE_RATE / num_samples)
    is_kept = (frequency >= LOWEST) & (frequency <= HIGHEST)
    flat: np.ndarray = spectrum * np.where(is_kept, frequency / HIGHEST, 0).astype(np.float32)
    return flat


def _window_sums(values: np.ndarray) -> np.ndarray:
    """The sum of each window; what is shorter than a window is one."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    length = min(WINDOW, len(values))
    starts = np.arange(0, len(values) - length + 1, HOP)
    summed: np.ndarray = sums[starts + length] - sums[starts]
    return summed


def _share_a_part(one: str, other: str) -> bool:
    """Whether two texts have half of the shorter one's letters in one run in common."""
    run = SequenceMatcher(None, one, other, autojunk=False).find_longest_match()
    return run.size >= min(len(one), len(other)) / 2


def _letters(text: str) -> str:
    """A text without case, marks and spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(letter for letter in folded if unicodedata.category(letter)[0] not in UNSPOKEN)
