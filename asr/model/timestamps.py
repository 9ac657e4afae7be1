"""Timestamps as tokens, one for every 0.02 s of the window, before and after each utterance.

Times are counted from the start of the window. Whisper's rules for decoding keep timestamps in
pairs and in order; they cost one softmax per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import GenerationConfig

# Limit of the first timestamp of a window, 1 s, for models whose config has none.
MAX_INITIAL_TIMESTAMP_INDEX = 50


def set_return_timestamps(generation: GenerationConfig, enabled: bool) -> None:
    """Set whether a model predicts timestamps, in training, in evaluation and as saved."""
    generation.return_timestamps = enabled
    if enabled and getattr(generation, "max_initial_timestamp_index", None) is None:
        generation.max_initial_timestamp_index = MAX_INITIAL_TIMESTAMP_INDEX


def first_timestamp(generation: GenerationConfig) -> int:
    """The token of 0.00 s."""
    return int(generation.no_timestamps_token_id) + 1


def apply_timestamp_rules(
    scores: torch.Tensor, previous: Sequence[Sequence[int]], generation: GenerationConfig
) -> None:
    """Set the scores of tokens that cannot come next to minus infinity, in place.

    A window starts with a timestamp below the model's limit. An opening timestamp is followed by
    text, a closing timestamp by the next opening timestamp or the end. Timestamps never decrease.
    Where all timestamps together are likelier than the likeliest text token, text is excluded.

    Args:
        scores: (B, V) scores of the next token.
        previous: the tokens of each row so far, without the prompt.
    """
    first = first_timestamp(generation)
    scores[:, generation.no_timestamps_token_id] = -torch.inf
    for row, ids in zip(scores, previous, strict=True):
        if ids:
            _keep_pairs_in_order(row, ids, first, generation.eos_token_id)
        else:
            _start_with_timestamp(row, first, generation)
    log_probabilities = scores.float().log_softmax(-1)  # (B, V)
    of_any_timestamp = log_probabilities[:, first:].logsumexp(-1)
    of_likeliest_text = log_probabilities[:, :first].amax(-1)
    needs_timestamp = (of_any_timestamp > of_likeliest_text)[:, None]  # (B, 1)
    scores[:, :first] = scores[:, :first].masked_fill(needs_timestamp, -torch.inf)


def _start_with_timestamp(row: torch.Tensor, first: int, generation: GenerationConfig) -> None:
    """Allow only timestamps, up to the model's limit."""
    row[:first] = -torch.inf
    limit = getattr(generation, "max_initial_timestamp_index", None)
    if limit is not None:
        row[first + limit + 1 :] = -torch.inf


def _keep_pairs_in_order(row: torch.Tensor, ids: Sequence[int], first: int, end: int) -> None:
    """Allow only tokens that may follow `ids`, which is not empty."""
    after_timestamp = ids[-1] >= first
    closes = after_timestamp and len(ids) > 1 and ids[-2] < first
    if closes:
        row[:end] = -torch.inf  # no text: text tokens come before the end token
    elif after_timestamp:
        row[first:] = -torch.inf
    # An utterance may start where the last one ended, but not end where it started.
    earliest = max(ids) if closes else max(ids) + 1
    row[first:earliest] = -torch.inf
