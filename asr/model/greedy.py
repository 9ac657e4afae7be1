"""Sound to text: batched greedy decoding, the same for validation, evaluation and transcription,
and as `generate()` decodes.

Rows are sorted by length and leave the batch when they end, so that none waits for a row that
loops; tokens are capped by duration. Recordings longer than the window are cut at the quietest
point near its end, decoded apart, and joined.
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
from asr.whisper import FRAMES_PER_SECOND

TOKENS_PER_SECOND = 40  # nobody speaks faster, in any script
SPARE_TOKENS = 10
CUT_SHARE = 0.3  # the last part of a window in which a quiet point is looked for
QUIET_FRAMES = 10  # a pause must be this wide, or a plosive's gap would do


@dataclass(frozen=True)
class AudioSegment:
    """A stretch of a recording that fits the window; `start` and `duration` in seconds."""

    start: float
    duration: float
    features: LogMel


@dataclass(frozen=True)
class DecodedSegment:
    """What was said in one stretch; `start` and `duration` in seconds.

    segments: start, end and text of each utterance in it, from the recording's start; one where the
        model does not say when.
    """

    start: float
    duration: float
    text: str
    segments: tuple[tuple[float, float, str], ...]


@torch.inference_mode()
def decode_batch(
    whisper: WhisperForConditionalGeneration,
    features: torch.Tensor,
    prompt: list[int],
    max_new_tokens: Sequence[int],
) -> list[list[int]]:
    """Decode a batch, the likeliest token each time.

    Args:
        features: (B, M, T), T the window's frames.
        max_new_tokens: for each row.
    Returns:
        the tokens of each row after the prompt, without the end.
    """
    return decode_encoded(whisper, encode(whisper, features), prompt, max_new_tokens)


@torch.inference_mode()
def encode(whisper: WhisperForConditionalGeneration, features: torch.Tensor) -> torch.Tensor:
    """(B, M, T) features to the (B, T / 2, D) that the decoder listens to."""
    encoded: torch.Tensor = whisper.model.encoder(features.to(whisper.dtype)).last_hidden_state
    return encoded


@torch.inference_mode()
def decode_encoded(
    whisper: WhisperForConditionalGeneration,
    encoded: torch.Tensor,
    prompt: list[int],
    max_new_tokens: Sequence[int],
) -> list[list[int]]:
    """The same from what was encoded, so that several prompts can share it."""
    generation = whisper.generation_config
    cache = EncoderDecoderCache(
        DynamicCache(config=whisper.config), DynamicCache(config=whisper.config)
    )
    tokens = torch.tensor([prompt] * len(encoded), device=encoded.device)
    alive = torch.arange(len(encoded), device=encoded.device)
    limits = torch.tensor(max_new_tokens, device=encoded.device).clamp(
        max=whisper.config.max_target_positions - len(prompt)
    )
    found: list[list[int]] = [[] for _ in max_new_tokens]
    never = torch.tensor(generation.suppress_tokens or [], dtype=torch.long, device=encoded.device)
    not_first = torch.tensor(
        getattr(generation, "begin_suppress_tokens", None) or [],
        dtype=torch.long,
        device=encoded.device,
    )
    for step in range(int(limits.max())):
        hidden = whisper.model.decoder(
            input_ids=tokens, encoder_hidden_states=encoded, past_key_values=cache, use_cache=True
        )
        logits = whisper.proj_out(hidden.last_hidden_state[:, -1])  # (B, V)
        logits[:, never] = -torch.inf
        if step == 0:
            logits[:, not_first] = -torch.inf
        if tokenization.says_when(generation):
            timestamps.apply_timestamp_rules(
                logits, [found[row] for row in alive.tolist()], generation
            )
        tokens = logits.argmax(-1, keepdim=True)
        ended = tokens[:, 0] == generation.eos_token_id
        for row, token in zip(alive[~ended].tolist(), tokens[~ended, 0].tolist(), strict=True):
            found[row].append(token)
        keep = ~ended & (step + 1 < limits[alive])
        if not keep.any():
            break
        if not keep.all():
            cache.batch_select_indices(keep.nonzero()[:, 0])
            tokens, encoded, alive = tokens[keep], encoded[keep], alive[keep]
    return found


def max_tokens(seconds: float) -> int:
    """More than anybody says in so many seconds."""
    return SPARE_TOKENS + int(TOKENS_PER_SECOND * seconds)


@torch.inference_mode()
def generation_prompt(whisper: WhisperForConditionalGeneration) -> list[int]:
    """The prompt that plain `generate()` really gives the decoder, caught on its way in."""
    seen: list[torch.Tensor] = []
    hook = whisper.model.decoder.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["input_ids"]), with_kwargs=True
    )
    shape = (1, whisper.config.num_mel_bins, whisper.config.max_source_positions * 2)
    try:
        with loader.quiet():
            whisper.generate(
                torch.zeros(shape, device=whisper.device, dtype=whisper.dtype), max_new_tokens=1
            )
    finally:
        hook.remove()
    return [int(token) for token in seen[0][0]]


def cut(features: LogMel, window_frames: int) -> list[AudioSegment]:
    """Cut a recording into stretches that fit the window, each at the quietest point near the
    window's end.
    """
    loudness = features.mel.mean(axis=0)
    total = features.mel.shape[1] - TAIL
    if total <= window_frames:
        return [_stretch(features, 0, total, features.edge)]
    stretches, start = [], 0
    while total - start > window_frames:
        end = start + _quietest(loudness[start : start + window_frames])
        stretches.append(_stretch(features, start, end, None))
        start = end
    return [*stretches, _stretch(features, start, total, None)]


def _quietest(loudness: np.ndarray) -> int:
    """The middle of the quietest stretch in the last part of a window."""
    first = int(len(loudness) * (1 - CUT_SHARE))
    smooth = np.convolve(loudness, np.ones(QUIET_FRAMES) / QUIET_FRAMES, mode="same")
    quiet = first + int(np.argmin(smooth[first : len(loudness) - QUIET_FRAMES // 2]))
    return max(quiet, 1)


def _stretch(features: LogMel, start: int, end: int, edge: np.ndarray | None) -> AudioSegment:
    """Frames of one stretch with the extractor's tail; cut sound ends in the floor, as if silence
    followed.
    """
    last = features.mel.shape[1] if end == features.mel.shape[1] - TAIL else end
    mel = features.mel[:, start:last]
    if last == end:
        mel = np.pad(mel, ((0, 0), (0, TAIL)), constant_values=features.floor)
    return AudioSegment(
        start / FRAMES_PER_SECOND,
        (end - start) / FRAMES_PER_SECOND,
        LogMel(mel, features.floor, edge),
    )


def transcribe(
    whisper: WhisperForConditionalGeneration,
    made: WhisperTokenizer,
    durations: Sequence[float],
    log_mel: Callable[[int], LogMel],
    batch_size: int,
    max_new_tokens: int,
    progress: Callable[[Iterable[list[int]], int], Iterable[list[int]]] = lambda groups, _: groups,
) -> list[str]:
    """Decode recordings of any length.

    Args:
        durations: seconds of each recording.
        log_mel: gives the features of recording number i.
        progress: wraps the groups of recordings as they are decoded.
    Returns:
        the text of each recording.
    """
    order = sorted(range(len(durations)), key=lambda index: (-durations[index], index))
    groups = list(in_groups(order, batch_size))
    texts = [""] * len(durations)
    for group in progress(groups, len(groups)):
        heard = decode_clips(whisper, made, map(log_mel, group), batch_size, max_new_tokens)
        for index, parts in zip(group, heard, strict=True):
            texts[index] = " ".join(part.text for part in parts if part.text)
    return texts


def decode_clips(
    whisper: WhisperForConditionalGeneration,
    made: WhisperTokenizer,
    clips: Iterable[LogMel],
    batch_size: int,
    max_new_tokens: int,
    progress: Callable[[Iterable[list[int]], int], Iterable[list[int]]] = lambda groups, _: groups,
) -> list[list[DecodedSegment]]:
    """Decode a few recordings: each cut into stretches that fit the window, all stretches decoded
    together.

    Args:
        progress: wraps the groups of stretches as they are decoded.
    Returns:
        what was said in each stretch of each recording.
    """
    frames = loader.window_seconds(whisper) * FRAMES_PER_SECOND
    prompt = tokenization.prompt(whisper.generation_config)
    cuts = [cut(clip, frames) for clip in clips]
    stretches = [stretch for parts in cuts for stretch in parts]
    groups = list(in_groups(range(len(stretches)), batch_size))
    found: list[list[int]] = []
    was_training = whisper.training
    whisper.eval()
    for group in progress(groups, len(groups)):
        chosen = [stretches[index] for index in group]
        limits = [min(max_new_tokens, max_tokens(one.duration)) for one in chosen]
        inputs = input_features([one.features for one in chosen], frames).to(whisper.device)
        found += decode_batch(whisper, inputs, prompt, limits)
    whisper.train(was_training)
    said = iter(found)
    return [[_heard(one, next(said), whisper, made) for one in parts] for parts in cuts]


def _heard(
    one: AudioSegment,
    ids: list[int],
    whisper: WhisperForConditionalGeneration,
    made: WhisperTokenizer,
) -> DecodedSegment:
    """Tokens of a stretch as text, and as utterances with times."""
    text = made.decode(ids, skip_special_tokens=True).strip()
    parts = [(one.start, one.start + one.duration, text)]
    if tokenization.says_when(whisper.generation_config) and text:
        told = timestamps.segments(
            ids, timestamps.first_timestamp(whisper.generation_config), one.duration
        )
        spelt = [
            (
                one.start + begin,
                one.start + end,
                made.decode(words, skip_special_tokens=True).strip(),
            )
            for begin, end, words in told
        ]
        parts = [part for part in spelt if part[2]]
    return DecodedSegment(one.start, one.duration, text, tuple(parts))


def in_groups(indices: Sequence[int], size: int) -> Iterator[list[int]]:
    for at in range(0, len(indices), size):
        yield list(indices[at : at + size])
