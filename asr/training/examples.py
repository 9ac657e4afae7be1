"""The content of a model's window in training: one row, several rows joined, or silence.

All of it is a function of rows and seed, so a checkpoint need not hold it. Joining rows costs no
more than reading them; making silence costs 0.4 ms per second of sound.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.signal

from asr import features
from asr.features import TAIL, LogMel
from asr.whisper import FRAMES_PER_SECOND, HOP, POSITIONS_PER_SECOND

# The range of noise in a silent window, as a standard deviation of samples in [-1, 1].
FAINTEST = 1e-6
LOUDEST = 2e-3
NO_NOISE_SHARE = 0.25  # share of silent windows that hold zeros only

PAIR = 2  # timestamp tokens of an utterance: its start and its end


@dataclass(frozen=True)
class TrainingRow:
    """One row of the training split.

    index: its number in the split.
    num_frames: its own frames, without the tail.
    text_ids: tokens of its text, without prompt or end.
    """

    index: int
    num_frames: int
    text_ids: tuple[int, ...]


@dataclass(frozen=True)
class TrainingExample:
    """The content of one window, and its label.

    rows: numbers of the rows in it, in order; empty for silence.
    num_frames: frames of all rows together, or of the silence.
    prompt: tokens before the text, which are not learned.
    text_ids: tokens after the prompt, including timestamps, without the end token.
    number: part of the seed of the noise in silence, so that no two silences are alike.
    """

    rows: tuple[int, ...]
    num_frames: int
    prompt: tuple[int, ...]
    text_ids: tuple[int, ...]
    number: int = 0


def pack_neighbors(
    rows: Sequence[TrainingRow],
    speakers: Sequence[str | None],
    max_frames: int,
    max_tokens: int,
) -> Iterator[tuple[TrainingRow, ...]]:
    """Join each speaker's rows, in the corpus's order, until the window or the label is full.

    Args:
        speakers: of all rows of the corpus; rows without a speaker count as one speaker.
        max_frames: length of the window.
        max_tokens: limit for the tokens of a group's texts and timestamps.
    Yields:
        groups of rows. Every row occurs once; a row that is too long by itself is a group.
    """
    group: list[TrainingRow] = []
    for row in sorted(rows, key=lambda row: speakers[row.index] or ""):
        longer = [*group, row]
        num_frames = sum(member.num_frames for member in longer)
        num_tokens = sum(len(member.text_ids) + PAIR for member in longer)
        if group and (
            num_frames > max_frames
            or num_tokens > max_tokens
            or speakers[row.index] != speakers[group[0].index]
        ):
            yield tuple(group)
            longer = [row]
        group = longer
    if group:
        yield tuple(group)


def join(clips: Sequence[LogMel]) -> LogMel:
    """Join the features of clips that follow each other.

    The result equals the features of the joined sound, except for a frame or two at each seam. Each
    clip was clamped to a range below its own loudest value. The joined sound has the range of the
    loudest clip, so lower values are raised to that clip's floor.
    """
    floor = max(clip.floor for clip in clips)
    # Only the last clip keeps its tail: the frames after its end that still overlap it.
    without_tails = [clip.mel[:, :-TAIL] for clip in clips[:-1]]
    mel = np.concatenate([*without_tails, clips[-1].mel], axis=1)
    edge = clips[-1].edge
    if edge is not None:
        edge = np.maximum(edge, np.float32(floor))
    return LogMel(np.maximum(mel, np.float32(floor)), floor, edge)


def silence(draw: np.random.Generator, num_frames: int, num_mel_bins: int) -> LogMel:
    """Features of a recording without speech: zeros, or noise of random loudness and color."""
    num_samples = num_frames * HOP
    if draw.random() < NO_NOISE_SHARE:
        return features.stored_log_mel(np.zeros(num_samples, np.float32), num_mel_bins)
    # A one-pole low-pass filter: at 0 the noise is white, near 1 it is a rumble.
    pole = draw.uniform(0, 0.99)
    noise = scipy.signal.lfilter([1 - pole], [1, -pole], draw.standard_normal(num_samples))
    level = FAINTEST * (LOUDEST / FAINTEST) ** draw.random()
    return features.stored_log_mel((noise * level / noise.std()).astype(np.float32), num_mel_bins)


def timed_label(
    frames: Sequence[int], texts: Sequence[Sequence[int]], first_timestamp: int
) -> list[int]:
    """The label of utterances that follow each other, each text between two timestamps.

    An utterance without text is left out; the label of a window without text is 0.00 s alone.

    Args:
        frames: length of each utterance in frames.
        texts: tokens of each utterance.
        first_timestamp: the token of 0.00 s.
    """
    ids: list[int] = []
    start = 0
    for num_frames, text in zip(frames, texts, strict=True):
        end = start + num_frames
        if text:
            opening = first_timestamp + _timestamp_index(start)
            closing = first_timestamp + _timestamp_index(end)
            ids += [opening, *text, closing]
        start = end
    return ids or [first_timestamp]


def _timestamp_index(frames: int) -> int:
    """The index of the timestamp nearest to a frame, 0 for 0.00 s; halves are rounded up."""
    return (frames * POSITIONS_PER_SECOND + FRAMES_PER_SECOND // 2) // FRAMES_PER_SECOND
