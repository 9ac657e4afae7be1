"""Transcribe a recording of any length to segments with times, with any model.

The command line and the dashboard use it. Features and decoding are those of evaluation: for a
recording of up to two minutes the text is the same as in `evaluate`. Memory does not grow with the
recording. Importing costs torch and transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from asr import features, paths
from asr.audio.sample_file import SampleFile, passages
from asr.decoding.language import detect_language
from asr.decoding.segments import timed_texts
from asr.errors import DataError, ParamsError
from asr.model import greedy, loader
from asr.model.loader import Start
from asr.paths import MODEL
from asr.runs import revisions
from asr.transcribe.formats import Segment
from asr.whisper import SAMPLE_RATE

WORKSPACE = "workspace"
DETECT = "detect"
BATCH = 8  # windows decoded together
MAX_NEW_TOKENS = 444


def resolve_model(name: str) -> str:
    """The path or hub id of a model.

    Args:
        name: WORKSPACE, a folder, a DVC experiment or revision (fetched through DVC), or a hub id.
    Raises:
        DataError: the workspace or the revision holds no model.
    """
    if name == WORKSPACE:
        if not paths.resolve(MODEL).is_dir():
            raise DataError(f"{MODEL} is not there; run dvc repro, or choose another model")
        return MODEL
    if paths.resolve(name).is_dir():
        return name
    try:
        return str(revisions.fetch(revisions.find(name), MODEL))
    except ParamsError:
        return name


def load(name: str) -> Start:
    """Load a model on the fastest device; `name` as for `resolve_model`."""
    start = loader.load(resolve_model(name), None, None)
    start.model.to(loader.device()).eval()
    return start


def choose_prompt(
    start: Start,
    language: str | None,
    task: str | None,
    sound: SampleFile,
    begin: float,
    end: float,
) -> str | None:
    """Set the language and task that the model is prompted with; return the language.

    Args:
        language: Whisper's code, DETECT, or None for the model's own.
        task: transcribe, translate, or None for the model's own.
        begin, end: seconds; the language is detected in the first window between them.
    Raises:
        ParamsError: the model knows one language only.
    """
    generation = start.model.generation_config
    if not generation.is_multilingual:
        if language or task == "translate":
            raise ParamsError("this model knows one language and one task; choose neither")
        return None
    if language == DETECT:
        window = sound.read(begin, min(end, begin + loader.window_seconds(start.model)))
        mel = features.stored_log_mel(window, start.model.config.num_mel_bins)
        language, _ = detect_language(start.model, mel)
    language = language or getattr(generation, "language", None) or "en"
    task = task or getattr(generation, "task", None) or "transcribe"
    loader.set_prompt(start.model, language.strip("<|>"), task)
    return language


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
