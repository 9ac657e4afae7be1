"""Decode many recordings from their stored features, as `evaluate` does.

Recordings of like length are decoded together, and those that are longer than the window are cut at
quiet points. Memory holds the features of one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from asr import windows
from asr.decoding.recognizer import Recognizer
from asr.decoding.search import Hypothesis
from asr.features import LogMel
from asr.whisper import FRAMES_PER_SECOND
from asr.windows import AudioSegment

# Called with groups of recordings and their number; yields each group when it is to be decoded, so
# that it can show progress.
Progress = Callable[[Iterable[list[int]], int], Iterable[list[int]]]


@dataclass(frozen=True)
class Heard:
    """What was heard in a recording.

    Attributes:
        text: the texts of its windows, joined.
        fell_back: a window was decoded at a temperature above 0.
        silent: no window gave a token.
        looped: a window went round in circles, in what was chosen of it.
        capped: a window was cut off at its most tokens.
    """

    text: str
    fell_back: bool
    silent: bool
    looped: bool
    capped: bool


def decode(
    recognizer: Recognizer,
    durations: Sequence[float],
    log_mel: Callable[[int], LogMel],
    language: str | None,
    batch_size: int,
    max_new_tokens: int,
    progress: Progress = lambda groups, _: groups,
) -> list[Heard]:
    """Decode recordings of any length, all in one language.

    Args:
        durations: of each recording, in seconds.
        log_mel: returns the features of a recording, by its index.
        language: Whisper's code; None takes the model's own.
        max_new_tokens: limit for each window, besides that of its duration.
        progress: called with groups of recordings, see `Progress`.
    """
    vocabulary = recognizer.vocabulary
    frames = vocabulary.window_seconds * FRAMES_PER_SECOND
    prompt = vocabulary.prompt(language, None, vocabulary.predicts_timestamps)
    heard: dict[int, Heard] = {}
    groups = list(windows.in_groups(windows.longest_first(durations), batch_size))
    for group in progress(groups, len(groups)):
        cuts = [windows.cut(log_mel(index), frames) for index in group]
        segments = [segment for parts in cuts for segment in parts]
        decoded = iter(_decode(recognizer, segments, prompt, batch_size, max_new_tokens))
        for index, parts in zip(group, cuts, strict=True):
            heard[index] = _joined(recognizer, [next(decoded) for _ in parts])
    return [heard[index] for index in range(len(durations))]


def _decode(
    recognizer: Recognizer,
    segments: Sequence[AudioSegment],
    prompt: list[int],
    batch_size: int,
    max_new_tokens: int,
) -> list[Hypothesis]:
    hypotheses: list[Hypothesis] = []
    for group in windows.in_groups(range(len(segments)), batch_size):
        batch = [segments[index] for index in group]
        hypotheses += recognizer.hypotheses(
            [segment.features for segment in batch],
            [segment.duration for segment in batch],
            [prompt] * len(batch),
            max_new_tokens,
        )
    return hypotheses


def _joined(recognizer: Recognizer, hypotheses: Sequence[Hypothesis]) -> Heard:
    texts = [recognizer.text(one.ids) for one in hypotheses]
    return Heard(
        " ".join(filter(None, texts)),
        any(one.temperature > 0 for one in hypotheses),
        not any(one.ids for one in hypotheses),
        any(one.looped for one in hypotheses),
        any(one.capped for one in hypotheses),
    )
