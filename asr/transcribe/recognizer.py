"""Transcribe a recording of any length to segments with times, with any model.

The command line and the dashboard use it. Features and decoding are those of evaluation: for a
recording of up to two minutes the text is the same as in `evaluate`. Memory does not grow with the
recording. Importing costs torch and transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from asr import features
from asr.audio.sample_file import SampleFile, passages
from asr.decoding.language import detect_language
from asr.decoding.segments import timed_texts
from asr.errors import ParamsError
from asr.model import greedy, loader
from asr.model.loader import Start
from asr.transcribe import models
from asr.transcribe.formats import Segment
from asr.transcribe.prompt import DETECTED, OWN, SET, Prompt, language_code
from asr.whisper import SAMPLE_RATE

DETECT = "detect"
BATCH = 8  # windows decoded together
MAX_NEW_TOKENS = 444
SHOWN_DIGITS = 8  # of a hash that names weights


def load(name: str) -> Start:
    """Load a model on the fastest device; `name` as for `models.resolve`."""
    start = loader.load(models.resolve(name), None, None)
    start.model.to(loader.device()).eval()
    return start


def weights_text(name: str, start: Start) -> str:
    """Which weights a name stands for now, in words; later it may stand for others.

    Costs hashing the weights, 1 s per GB, unless a training or the hub names them.

    Args:
        name: as for `models.resolve`.
    """
    if start.revision:
        return f"revision {start.revision[:SHOWN_DIGITS]}"
    if name == models.WORKSPACE and (fingerprint := models.training()):
        return f"training {fingerprint[:SHOWN_DIGITS]}"
    return f"weights {loader.weights_hash(start.model)[:SHOWN_DIGITS]}"


def choose_prompt(
    start: Start,
    language: str | None,
    task: str | None,
    sound: SampleFile,
    begin: float,
    end: float,
) -> Prompt:
    """Set the language and task that the model is prompted with, and return the language.

    Args:
        language: Whisper's code; DETECT; or None for the model's own, which is detected for a model
            that has none of its own.
        task: transcribe, translate, or None for the model's own.
        begin, end: seconds; the language is detected in the first window between them.
    Raises:
        ParamsError: the model knows one language only.
    """
    generation = start.model.generation_config
    if not generation.is_multilingual:
        if language or task == "translate":
            raise ParamsError("this model knows one language and one task; choose neither")
        return Prompt(None, OWN)
    own_language = getattr(generation, "language", None)
    if language and language != DETECT:
        prompt = Prompt(language, SET)
    elif own_language and not language:
        prompt = Prompt(language_code(own_language), OWN)
    else:
        window = sound.read(begin, min(end, begin + loader.window_seconds(start.model)))
        mel = features.stored_log_mel(window, start.model.config.num_mel_bins)
        prompt = Prompt(detect_language(start.model, mel)[0], DETECTED)
    task = task or getattr(generation, "task", None) or "transcribe"
    loader.set_prompt(start.model, str(prompt.language), task)
    return prompt


def transcribe(
    start: Start,
    sound: SampleFile,
    begin: float,
    end: float,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Iterator[Segment]:
    """Transcribe the sound between two times, segment by segment.

    Args:
        begin, end: the times, in seconds.
        on_progress: called before each batch with the time up to which all is decoded, and at the
            end; it may raise an error to stop.
    """
    for offset, samples in passages(sound, begin, end):
        length = len(samples) / SAMPLE_RATE

        # Default arguments bind the values of this passage.
        def with_progress(
            batches: Iterable[list[int]], total: int, offset: float = offset, length: float = length
        ) -> Iterator[list[int]]:
            for done, batch in enumerate(batches):
                on_progress(offset + length * done / total)
                yield batch

        clips = [features.stored_log_mel(samples, start.model.config.num_mel_bins)]
        (windows,) = greedy.decode_clips(
            start.model, start.tokenizer, clips, BATCH, MAX_NEW_TOKENS, with_progress
        )
        for window in windows:
            for first, last, text in timed_texts(start, window):
                yield Segment(round(offset + first, 3), round(min(offset + last, end), 3), text)
        on_progress(offset + length)
