"""When it was said: a time before and after each utterance, as tokens 0.02 s apart, in labels and
in what a model says.

Times are counted from the window's start. Whisper's rules keep them in pairs and in order; they
cost one softmax a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import GenerationConfig

PER_SECOND = 50
FIRST_BY = 50  # the first utterance starts within so many steps of the window's start, 1 s


def set_return_timestamps(generation: GenerationConfig, wanted: bool) -> None:
    """Choose whether a model says when; it is trained, evaluated and saved so."""
    generation.return_timestamps = wanted
    if wanted and getattr(generation, "max_initial_timestamp_index", None) is None:
        generation.max_initial_timestamp_index = FIRST_BY


def first_timestamp(generation: GenerationConfig) -> int:
    """The token of 0.00 s."""
    return int(generation.no_timestamps_token_id) + 1


def segments(
    ids: Sequence[int], zero: int, duration: float
) -> list[tuple[float, float, list[int]]]:
    """What a model said, utterance by utterance: start and end in seconds, tokens.

    Args:
        duration: of the sound; no time is later, and what was not closed ends there.
    """
    found: list[tuple[float, float, list[int]]] = []
    start, words = 0.0, list[int]()
    for one in ids:
        moment = min((one - zero) / PER_SECOND, duration)
        if one < zero:
            words.append(one)
        elif words:
            found.append((start, moment, words))
            start, words = moment, []
        else:
            start = moment
    return [*found, (start, duration, words)] if words else found


def apply_timestamp_rules(
    scores: torch.Tensor, said: Sequence[Sequence[int]], generation: GenerationConfig
) -> None:
    """Rule out, in place, what cannot come next where times are asked for.

    A window starts with a time, soon; a time that opens is followed by words, one that closes by
    the next that opens or by the end; times never go back; and where some time is likelier than any
    one word, it is a time.

    Args:
        scores: (B, V) of the next token.
        said: each row's tokens after the prompt.
    """
    zero, latest = (
        first_timestamp(generation),
        getattr(generation, "max_initial_timestamp_index", None),
    )
    scores[:, zero - 1] = -torch.inf
    for row, ids in zip(scores, said, strict=True):
        if not ids:
            row[:zero] = -torch.inf
            if latest is not None:
                row[zero + latest + 1 :] = -torch.inf
            continue
        closes = ids[-1] >= zero and len(ids) > 1 and ids[-2] < zero
        if closes:
            row[: generation.eos_token_id] = -torch.inf
        elif ids[-1] >= zero:
            row[zero:] = -torch.inf
        row[zero : max(ids) + (not closes)] = -torch.inf
    chances = scores.float().log_softmax(-1)
    timed = chances[:, zero:].logsumexp(-1) > chances[:, :zero].amax(-1)
    scores[:, :zero] = scores[:, :zero].masked_fill(timed[:, None], -torch.inf)
