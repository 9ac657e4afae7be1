"""When decoding stops without being told to: at a limit by duration, or at a loop of tokens.

Validation, evaluation and transcription stop by the same rules. A loop of words in a finished text
is another thing, see `asr.evaluation.loops`.
"""

from __future__ import annotations

from collections.abc import Sequence

TOKENS_PER_SECOND = 40  # more than the fastest speech, in any script
SPARE_TOKENS = 10  # added to that limit
LOOP_TOKENS = 32  # a phrase that repeats for so many tokens
LOOP_TIMES = 4  # and so many times is a loop
LONGEST_PHRASE = 24  # tokens
LOOP_CHECK = 8  # tokens from one look for a loop to the next


def max_tokens(seconds: float) -> int:
    """The most tokens to decode for `seconds` of audio."""
    return SPARE_TOKENS + int(TOKENS_PER_SECOND * seconds)


def loop_start(ids: Sequence[int], first_timestamp: int) -> int:
    """Where the second of many repetitions begins that tokens end with; 0 if they have none.

    Times between the repetitions differ, and do not count. Looks at every eighth token only: 20 us.

    Args:
        ids: the tokens of a row so far, without the prompt.
        first_timestamp: the token of 0.00 s.
    """
    if len(ids) < LOOP_TOKENS or len(ids) % LOOP_CHECK:
        return 0
    places = [place for place, token in enumerate(ids) if token < first_timestamp]
    words = [ids[place] for place in places]
    for length in range(1, LONGEST_PHRASE + 1):
        needed = max(LOOP_TOKENS, LOOP_TIMES * length)
        if len(words) >= needed and words[-needed:-length] == words[length - needed :]:
            return places[length - needed]
    return 0


def without_loop(ids: list[int], first_timestamp: int) -> list[int]:
    """What a row would have been if it had been stopped at its first loop."""
    for length in range(LOOP_CHECK, len(ids) + 1, LOOP_CHECK):
        if place := loop_start(ids[:length], first_timestamp):
            return ids[:place]
    return ids
