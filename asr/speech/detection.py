"""Where a sound holds speech."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np

from asr.speech import silero
from asr.whisper import SAMPLE_RATE

CHUNK_SECONDS = silero.CHUNK / SAMPLE_RATE

# A run of chunks above POSSIBLE is speech if one of them reaches CERTAIN. Of these thresholds,
# certainty keeps noise out, and doubt keeps weak first and last sounds in.
POSSIBLE = 0.15
CERTAIN = 0.5
PAUSE_CHUNKS = 4  # 0.13 s, longer than the gap before a plosive (p, t, k)
SHORTEST_CHUNKS = 4  # what is shorter is a click


class Stretch(NamedTuple):
    """A part of a sound, in seconds."""

    start: float
    end: float

    @property
    def duration(self) -> float:
        return self.end - self.start


def stretches(blocks: Iterable[np.ndarray], start: float = 0.0) -> Iterator[Stretch]:
    """Find speech, as tightly as the network hears it; silence and most noise hold none.

    Args:
        blocks: (S,) float32 at 16 kHz, of any lengths, that follow each other.
        start: the second at which the first block starts.
    Yields:
        stretches in order with pauses between them, a few seconds after their sound was read.
    """
    for first, end in _runs(chain.from_iterable(silero.probabilities(blocks))):
        yield Stretch(start + first * CHUNK_SECONDS, start + end * CHUNK_SECONDS)


def _runs(probabilities: Iterable[float]) -> Iterator[tuple[int, int]]:
    """The first chunk of each run of speech, and the first after it."""
    first: int | None = None  # of the present run
    end, peak = 0, 0.0
    silence = [0.0] * PAUSE_CHUNKS  # ends the last run
    for index, probability in enumerate(chain(probabilities, silence)):
        if probability >= POSSIBLE:
            if first is None:
                first, peak = index, 0.0
            end, peak = index + 1, max(peak, probability)
        elif first is not None and index + 1 - end >= PAUSE_CHUNKS:
            if peak >= CERTAIN and end - first >= SHORTEST_CHUNKS:
                yield first, end
            first = None
