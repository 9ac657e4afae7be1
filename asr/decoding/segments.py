"""What was said in a recording, and when. Costs nothing to import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from asr.whisper import POSITIONS_PER_SECOND


@dataclass(frozen=True)
class Word:
    """When a word was said, in seconds, and the word with its space and punctuation."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording and what was said; `start` and `end` in seconds.

    Attributes:
        words: the text word by word, where the times of words are known; joined they are the text,
            but for space at its ends.
        words_are_guessed: the model does not tell which of its heads follow the sound.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()
    words_are_guessed: bool = False
    language: str | None = None

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Segment:
        """The segment whose fields, by `asdict`, went through JSON."""
        words = tuple(Word(**word) for word in values.get("words", ()))
        return cls(**{**values, "words": words})

    def with_text(self, text: str) -> Segment:
        """The segment with another text, of which no word times are known."""
        return self if text == self.text else replace(self, text=text, words=())


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
