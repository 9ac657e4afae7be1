"""Split decoded tokens at their timestamps into utterances with start and end."""

from __future__ import annotations

from collections.abc import Sequence

from asr.model import timestamps, tokenization
from asr.model.greedy import DecodedSegment
from asr.model.loader import Start
from asr.whisper import POSITIONS_PER_SECOND


def timed_texts(start: Start, decoded: DecodedSegment) -> list[tuple[float, float, str]]:
    """Start, end and text of each utterance in a decoded segment.

    Times are seconds from the start of the recording. A model without timestamps gives one
    utterance, as long as the segment. With timestamps, utterances without text are left out.
    """
    generation = start.model.generation_config
    if not tokenization.predicts_timestamps(generation) or not decoded.text:
        return [(decoded.start, decoded.start + decoded.duration, decoded.text)]
    utterances = split_at_timestamps(
        decoded.ids, timestamps.first_timestamp(generation), decoded.duration
    )
    texts = [
        (
            decoded.start + begin,
            decoded.start + end,
            tokenization.decode(start.tokenizer, ids),
        )
        for begin, end, ids in utterances
    ]
    return [(begin, end, text) for begin, end, text in texts if text]


def split_at_timestamps(
    ids: Sequence[int], first_timestamp: int, duration: float
) -> list[tuple[float, float, list[int]]]:
    """Start and end in seconds, and text tokens, of each utterance in a window.

    Args:
        first_timestamp: the token of 0.00 s.
        duration: of the audio in seconds. Later times are replaced by it, and an utterance without
            a closing timestamp ends there.
    """
    utterances: list[tuple[float, float, list[int]]] = []
    start = 0.0
    text: list[int] = []
    for token in ids:
        if token < first_timestamp:
            text.append(token)
            continue
        time = min((token - first_timestamp) / POSITIONS_PER_SECOND, duration)
        if text:
            utterances.append((start, time, text))
            text = []
        start = time
    if text:
        utterances.append((start, duration, text))
    return utterances
