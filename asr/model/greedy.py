"""Audio to text by batched greedy decoding, the same for validation, evaluation and transcription.

The texts equal those of plain `generate()`. Recordings are sorted by length, and a row leaves the
batch when its text ends, so short rows do not wait for long ones; the number of tokens is limited
by duration. Recordings longer than the window are cut at the quietest point near its end, and the
texts of the segments are joined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from asr.features import TAIL, LogMel, input_features
from asr.model import loader, timestamps, tokenization
from asr.whisper import FRAMES_PER_POSITION, FRAMES_PER_SECOND

TOKENS_PER_SECOND = 40  # more than the fastest speech, in any script
SPARE_TOKENS = 10  # added to that limit
CUT_SHARE = 0.3  # share of a window, at its end, that is searched for a quiet point to cut at
QUIET_FRAMES = 10  # frames of a pause; the gap before a plosive (p, t, k) is shorter

# Called with groups of recordings or segments and their number; yields each group when it is to be
# decoded, so that it can show progress, or stop by raising an error.
Progress = Callable[[Iterable[list[int]], int], Iterable[list[int]]]


@dataclass(frozen=True)
class AudioSegment:
    """A part of a recording that fits the window; `start` and `duration` in seconds."""

    start: float
    duration: float
    features: LogMel


@dataclass(frozen=True)
class DecodedSegment:
    """Tokens and text of one part of a recording; `start` and `duration` in seconds.

    ids: tokens between prompt and end token, including timestamps if the model predicts them.
    text: the text of `ids`.
    """

    start: float
    duration: float
    ids: tuple[int, ...]
    text: str


def in_groups(indices: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield the indices in groups of `size`; the last group may be smaller."""
    for start in range(0, len(indices), size):
        yield list(indices[start : start + size])


def max_tokens(seconds: float) -> int:
    """The most tokens to decode for `seconds` of audio."""
    return SPARE_TOKENS + int(TOKENS_PER_SECOND * seconds)


# From features to tokens


@torch.inference_mode()
def decode_batch(
    whisper: WhisperForConditionalGeneration,
    features: torch.Tensor,
    prompt: list[int],
    max_new_tokens: Sequence[int],
) -> list[list[int]]:
    """Decode a batch greedily: at each step the likeliest token.

    Args:
        features: (B, M, T), T the frames of the window.
        max_new_tokens: limit for each row.
    Returns:
        the tokens of each row, without prompt and end token.
    """
    return decode_encoded(whisper, encode(whisper, features), prompt, max_new_tokens)


@torch.inference_mode()
def encode(whisper: WhisperForConditionalGeneration, features: torch.Tensor) -> torch.Tensor:
    """The encoder's output (B, T / 2, `d_model`) for features (B, M, T)."""
    encoded: torch.Tensor = whisper.model.encoder(features.to(whisper.dtype)).last_hidden_state
    return encoded


@torch.inference_mode()
def decode_encoded(
    whisper: WhisperForConditionalGeneration,
    encoded: torch.Tensor,
    prompt: list[int],
    max_new_tokens: Sequence[int],
) -> list[list[int]]:
    """Do what `decode_batch` does, from the encoder's output, which several prompts can share."""
    generation, device = whisper.generation_config, encoded.device
    has_timestamps = tokenization.predicts_timestamps(generation)
    suppressed = _token_tensor(generation.suppress_tokens, device)
    suppressed_first = _token_tensor(getattr(generation, "begin_suppress_tokens", None), device)
    cache = EncoderDecoderCache(
        DynamicCache(config=whisper.config), DynamicCache(config=whisper.config)
    )
    limits = torch.tensor(max_new_tokens, device=device)
    limits = limits.clamp(max=whisper.config.max_target_positions - len(prompt))
    rows = torch.arange(len(encoded), device=device)  # numbers of the rows that have not ended
    inputs = torch.tensor([prompt] * len(encoded), device=device)
    decoded: list[list[int]] = [[] for _ in max_new_tokens]
    for step in range(int(limits.max())):
        hidden = whisper.model.decoder(
            input_ids=inputs, encoder_hidden_states=encoded, past_key_values=cache, use_cache=True
        )
        logits = whisper.proj_out(hidden.last_hidden_state[:, -1])  # (B, V)
        logits[:, suppressed] = -torch.inf
        if step == 0:
            logits[:, suppressed_first] = -torch.inf
        if has_timestamps:
            previous = [decoded[row] for row in rows.tolist()]
            timestamps.apply_timestamp_rules(logits, previous, generation)
        inputs = logits.argmax(-1, keepdim=True)  # (B, 1)
        ended = inputs[:, 0] == generation.eos_token_id
        for row, token in zip(rows[~ended].tolist(), inputs[~ended, 0].tolist(), strict=True):
            decoded[row].append(token)
        goes_on = ~ended & (step + 1 < limits[rows])
        if not goes_on.any():
            break
        if not goes_on.all():
            cache.batch_select_indices(goes_on.nonzero()[:, 0])
            inputs, encoded, rows = inputs[goes_on], encoded[goes_on], rows[goes_on]
    return decoded


def _token_tensor(ids: list[int] | None, device: torch.device) -> torch.Tensor:
    return torch.tensor(ids or [], dtype=torch.long, device=device)


@torch.inference_mode()
def generation_prompt(whisper: WhisperForConditionalGeneration) -> list[int]:
    """The prompt tokens that plain `generate()` passes to the decoder, recorded by a hook."""
    calls: list[torch.Tensor] = []

    def note(_module: object, _args: object, kwargs: dict[str, torch.Tensor]) -> None:
        calls.append(kwargs["input_ids"])

    hook = whisper.model.decoder.register_forward_pre_hook(note, with_kwargs=True)
    num_frames = whisper.config.max_source_positions * FRAMES_PER_POSITION
    shape = (1, whisper.config.num_mel_bins, num_frames)
    try:
        with loader.quiet():
            features = torch.zeros(shape, device=whisper.device, dtype=whisper.dtype)
            whisper.generate(features, max_new_tokens=1)
    finally:
        hook.remove()
    return [int(token) for token in calls[0][0]]


# From recordings to windows


def cut(features: LogMel, window_frames: int) -> list[AudioSegment]:
    """Cut a recording at quiet points into segments that fit the window."""
    loudness = features.mel.mean(axis=0)  # (T,)
    total = features.mel.shape[1] - TAIL
    if total <= window_frames:
        return [_segment(features, 0, total, features.edge)]
    segments: list[AudioSegment] = []
    start = 0
    while total - start > window_frames:
        end = start + _quietest(loudness[start : start + window_frames])
        segments.append(_segment(features, start, end, None))
        start = end
    segments.append(_segment(features, start, total, None))
    return segments


def _quietest(loudness: np.ndarray) -> int:
    """The frame in the middle of the quietest pause in the last part of a window."""
    first = int(len(loudness) * (1 - CUT_SHARE))
    smooth = np.convolve(loudness, np.ones(QUIET_FRAMES) / QUIET_FRAMES, mode="same")
    quiet = first + int(np.argmin(smooth[first : len(loudness) - QUIET_FRAMES // 2]))
    return max(quiet, 1)


def _segment(features: LogMel, start: int, end: int, edge: np.ndarray | None) -> AudioSegment:
    """Frames `start` to `end` of a recording, followed by TAIL frames as in every clip's features.

    The last segment has the recording's own tail; the tail of the others is silence (the floor).
    """
    if end == features.mel.shape[1] - TAIL:
        mel = features.mel[:, start:]
    else:
        mel = features.mel[:, start:end]
        mel = np.pad(mel, ((0, 0), (0, TAIL)), constant_values=features.floor)
    return AudioSegment(
        start / FRAMES_PER_SECOND,
        (end - start) / FRAMES_PER_SECOND,
        LogMel(mel, features.floor, edge),
    )


# From recordings to text


def transcribe(
    whisper: WhisperForConditionalGeneration,
    tokenizer: WhisperTokenizer,
    durations: Sequence[float],
    log_mel: Callable[[int], LogMel],
    batch_size: int,
    max_new_tokens: int,
    progress: Progress = lambda groups, _: groups,
) -> list[str]:
    """Decode recordings of any length.

    Args:
        durations: of each recording, in seconds.
        log_mel: returns the features of a recording, by its index.
        max_new_tokens: limit for each window, besides that of its duration (`max_tokens`).
        progress: called with groups of recordings, see `Progress`.
    Returns:
        the text of each recording.
    """
    longest_first = sorted(range(len(durations)), key=lambda index: (-durations[index], index))
    groups = list(in_groups(longest_first, batch_size))
    texts = [""] * len(durations)
    for group in progress(groups, len(groups)):
        clips = map(log_mel, group)
        decoded = decode_clips(whisper, tokenizer, clips, batch_size, max_new_tokens)
        for index, segments in zip(group, decoded, strict=True):
            texts[index] = " ".join(segment.text for segment in segments if segment.text)
    return texts


def decode_clips(
    whisper: WhisperForConditionalGeneration,
    tokenizer: WhisperTokenizer,
    clips: Iterable[LogMel],
    batch_size: int,
    max_new_tokens: int,
    progress: Progress = lambda groups, _: groups,
) -> list[list[DecodedSegment]]:
    """Decode a few recordings, each cut into segments that fit the window.

    The segments of all recordings are decoded together, `batch_size` at once.

    Args:
        progress: called with groups of segments, see `Progress`.
    Returns:
        the decoded segments of each recording.
    """
    frames = loader.window_seconds(whisper) * FRAMES_PER_SECOND
    prompt = tokenization.prompt(whisper.generation_config)
    cuts = [cut(clip, frames) for clip in clips]
    segments = [segment for parts in cuts for segment in parts]
    groups = list(in_groups(range(len(segments)), batch_size))
    ids: list[list[int]] = []
    was_training = whisper.training
    whisper.eval()
    for group in progress(groups, len(groups)):
        batch = [segments[index] for index in group]
        limits = [min(max_new_tokens, max_tokens(segment.duration)) for segment in batch]
        features = input_features([segment.features for segment in batch], frames)
        ids += decode_batch(whisper, features.to(whisper.device), prompt, limits)
    whisper.train(was_training)
    decoded = (
        DecodedSegment(
            segment.start,
            segment.duration,
            tuple(tokens),
            tokenization.decode(tokenizer, tokens),
        )
        for segment, tokens in zip(segments, ids, strict=True)
    )
    return [[next(decoded) for _ in parts] for parts in cuts]
