"""Audio to text by batched greedy decoding in torch, for the validation inside a training.

The texts equal those of plain `generate()`, but that a row which loops is stopped. Recordings are
sorted by length, and a row leaves the batch when its text ends, so short rows do not wait for long
ones; the number of tokens is limited by duration. `asr.decoding` is what evaluation and
transcription use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from asr import stopping, windows
from asr.features import LogMel, input_features
from asr.model import loader, timestamps, tokenization
from asr.whisper import FRAMES_PER_POSITION, FRAMES_PER_SECOND

# Called with groups of recordings and their number; yields each group when it is to be decoded, so
# that it can show progress, or stop by raising an error.
Progress = Callable[[Iterable[list[int]], int], Iterable[list[int]]]


# From features to tokens


@torch.inference_mode()
def decode_batch(
    whisper: WhisperForConditionalGeneration,
    features: torch.Tensor,
    prompt: list[int],
    max_new_tokens: Sequence[int],
) -> list[list[int]]:
    """Decode a batch greedily: at each step the likeliest token, until a row ends or loops.

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
    zero = timestamps.first_timestamp(generation)
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
        looped = [_stopped_at_loop(decoded[row], zero) for row in rows.tolist()]
        goes_on = ~ended & (step + 1 < limits[rows]) & ~torch.tensor(looped, device=device)
        if not goes_on.any():
            break
        if not goes_on.all():
            cache.batch_select_indices(goes_on.nonzero()[:, 0])
            inputs, encoded, rows = inputs[goes_on], encoded[goes_on], rows[goes_on]
    return decoded


def _stopped_at_loop(ids: list[int], first_timestamp: int) -> bool:
    """Whether a row goes round in circles; then the first repetition alone is left of it."""
    place = stopping.loop_start(ids, first_timestamp)
    if place:
        del ids[place:]
    return place > 0


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
        max_new_tokens: limit for each window, besides that of its duration.
        progress: called with groups of recordings, see `Progress`.
    Returns:
        the text of each recording.
    """
    groups = list(windows.in_groups(windows.longest_first(durations), batch_size))
    frames = loader.window_seconds(whisper) * FRAMES_PER_SECOND
    texts = [""] * len(durations)
    was_training = whisper.training
    whisper.eval()
    for group in progress(groups, len(groups)):
        cuts = [windows.cut(log_mel(index), frames) for index in group]
        segments = [segment for parts in cuts for segment in parts]
        decoded = _decode_segments(whisper, segments, batch_size, max_new_tokens)
        for index, parts in zip(group, cuts, strict=True):
            heard = [tokenization.decode(tokenizer, next(decoded)) for _ in parts]
            texts[index] = " ".join(filter(None, heard))
    whisper.train(was_training)
    return texts


def _decode_segments(
    whisper: WhisperForConditionalGeneration,
    segments: Sequence[windows.AudioSegment],
    batch_size: int,
    max_new_tokens: int,
) -> Iterator[list[int]]:
    """The tokens of each segment, decoded `batch_size` at once."""
    frames = loader.window_seconds(whisper) * FRAMES_PER_SECOND
    prompt = tokenization.prompt(whisper.generation_config)
    for group in windows.in_groups(range(len(segments)), batch_size):
        batch = [segments[index] for index in group]
        limits = [min(max_new_tokens, stopping.max_tokens(one.duration)) for one in batch]
        features = input_features([one.features for one in batch], frames)
        yield from decode_batch(whisper, features.to(whisper.device), prompt, limits)
