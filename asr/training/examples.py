"""What fills a model's window while it is taught: one row, neighbours joined until it is full, or
silence.

All of it follows from the rows and the seed, so that nothing about it needs saving. Joining costs
what reading the rows costs; making silence 0.4 ms a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.signal

from asr import features
from asr.features import TAIL, LogMel
from asr.whisper import FRAMES_PER_SECOND, HOP, POSITIONS_PER_SECOND

if TYPE_CHECKING:
    pass

FAINTEST, LOUDEST = (
    1e-6,
    2e-3,
)  # of the noise that a silent window holds, against samples in [-1, 1]

PAIR = 2  # tokens that an utterance's times take


@dataclass(frozen=True)
class TrainingRow:
    """A training row: where it stands, how long it is, its tokens without prompt or end."""

    index: int
    num_frames: int
    text_ids: tuple[int, ...]


@dataclass(frozen=True)
class TrainingExample:
    """What the model is taught at once.

    rows: where they stand, one after the other in the window; none for silence.
    num_frames: of all of them.
    prompt: the tokens that are given.
    text_ids: those after it, times included, without the end.
    number: tells one silence from another.
    """

    rows: tuple[int, ...]
    num_frames: int
    prompt: tuple[int, ...]
    text_ids: tuple[int, ...]
    number: int = 0


def neighbours(
    examples: Sequence[TrainingRow],
    speakers: Sequence[str | None],
    max_frames: int,
    max_tokens: int,
) -> Iterator[tuple[TrainingRow, ...]]:
    """Each speaker's rows, in the corpus's order, joined until the window or the label is full.
    Every row comes once.

    Args:
        speakers: of all rows of the corpus; those unknown count as one.
        max_tokens: of the texts with their times.
    """
    held: list[TrainingRow] = []
    for one in sorted(examples, key=lambda one: speakers[one.index] or ""):
        joined = [*held, one]
        frames = sum(part.num_frames for part in joined)
        tokens = sum(len(part.text_ids) + PAIR for part in joined)
        if held and (
            frames > max_frames
            or tokens > max_tokens
            or speakers[one.index] != speakers[held[0].index]
        ):
            yield tuple(held)
            joined = [one]
        held = joined
    if held:
        yield tuple(held)


def join(clips: Sequence[LogMel]) -> LogMel:
    """Features of clips one after the other: those of the joined sound, but for a frame or two at
    each seam.

    Each clip was clamped to its own range; the joined sound's is that of its loudest part, so what
    lies below is raised to it.
    """
    floor = max(one.floor for one in clips)
    parts = [one.mel[:, :-TAIL] for one in clips[:-1]]
    mel = np.maximum(np.concatenate([*parts, clips[-1].mel], axis=1), np.float32(floor))
    edge = clips[-1].edge
    return LogMel(mel, floor, None if edge is None else np.maximum(edge, np.float32(floor)))


def silence(draw: np.random.Generator, num_frames: int, num_mel_bins: int) -> LogMel:
    """A room in which nobody speaks: noise of any faintness and colour, or nothing at all."""
    if draw.random() < 0.25:
        return features.stored(np.zeros(num_frames * HOP, np.float32), num_mel_bins)
    depth = draw.uniform(0, 0.99)
    noise = scipy.signal.lfilter([1 - depth], [1, -depth], draw.standard_normal(num_frames * HOP))
    level = FAINTEST * (LOUDEST / FAINTEST) ** draw.random()
    return features.stored((noise * level / noise.std()).astype(np.float32), num_mel_bins)


def timed_label(frames: Sequence[int], texts: Sequence[Sequence[int]], zero: int) -> list[int]:
    """Utterances that follow each other, each between its times; one that says nothing is passed
    over.

    Args:
        frames: how long each utterance is.
        texts: its tokens.
        zero: the token of 0.00 s, with which a window without a word starts too.
    """
    ids, start = [], 0
    for length, text in zip(frames, texts, strict=True):
        if text:
            ids += [zero + _steps(start), *text, zero + _steps(start + length)]
        start += length
    return ids or [zero]


def _steps(frames: int) -> int:
    return (frames * POSITIONS_PER_SECOND + FRAMES_PER_SECOND // 2) // FRAMES_PER_SECOND
