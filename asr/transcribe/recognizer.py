"""A recording of any length to segments with times, by any model: what the command line and the
dashboard share.

Features and decoding are those of evaluation: a recording of up to two minutes gives the text that
`evaluate` would score. Memory does not grow with the recording. Importing costs torch and
transformers.
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
BATCH = 8  # stretches decoded together
MAX_NEW_TOKENS = 444


def resolve_model(name: str) -> str:
    """Where a model lies: the workspace's, a folder, a DVC experiment or revision (fetched through
    DVC), or else a hub id.

    Raises:
        BadData: the workspace or the revision holds no model.
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
    """A model ready to transcribe, by the names of `place`."""
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
    """Set the language and task that the model is asked for; returns the language.

    Args:
        language: Whisper's code, DETECT, or None for the model's own.
        task: transcribe, translate, or None for the model's own.
    """
    generation = start.model.generation_config
    if not generation.is_multilingual:
        if language or task == "translate":
            raise ParamsError("this model knows one language and one task; choose neither")
        return None
    if language == DETECT:
        window = sound.read(begin, min(end, begin + loader.window_seconds(start.model)))
        language, _ = detect_language(
            start.model, features.stored(window, start.model.config.num_mel_bins)
        )
    language = language or getattr(generation, "language", None) or "en"
    loader.set_prompt(
        start.model,
        language.strip("<|>"),
        task or getattr(generation, "task", None) or "transcribe",
    )
    return language


def transcribe(
    start: Start,
    sound: SampleFile,
    begin: float,
    end: float,
    say: Callable[[float], None] = lambda _: None,
) -> Iterator[Segment]:
    """What is said between two moments, segment by segment.

    Args:
        say: is told the moment up to which all is decoded, after each batch; it may raise to stop.
    """
    for offset, samples in passages(sound, begin, end):
        length = len(samples) / SAMPLE_RATE

        def told(
            groups: Iterable[list[int]], total: int, offset: float = offset, length: float = length
        ) -> Iterator[list[int]]:
            for done, group in enumerate(groups):
                say(offset + length * done / total)
                yield group

        clips = [features.stored(samples, start.model.config.num_mel_bins)]
        (heard,) = greedy.decode_clips(
            start.model, start.tokenizer, clips, BATCH, MAX_NEW_TOKENS, told
        )
        for one in heard:
            for first, last, text in timed_texts(start, one):
                yield Segment(round(offset + first, 3), round(min(offset + last, end), 3), text)
        say(offset + length)
