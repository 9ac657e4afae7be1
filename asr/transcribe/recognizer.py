"""Transcribe a recording of any length to segments with times, with any model.

The command line and the dashboard use it. Engine, precision and decoding are those that the model
was evaluated with, unless others are asked for (`asr.transcribe.settings`). A model that OpenVINO
runs needs no torch, once it is converted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from asr.audio.sample_file import SampleFile
from asr.decoding import language, loading
from asr.decoding.long_form import Transcription
from asr.decoding.options import DEFAULT, EACH, Options
from asr.decoding.recognizer import Recognizer
from asr.decoding.vocabulary import ENGLISH, Vocabulary
from asr.engines.remembered import Remembered
from asr.errors import ParamsError
from asr.transcribe.prompt import DETECTED, OWN, SET, UNHEARD, Prompt, language_code
from asr.transcribe.settings import Settings

DETECT = "detect"
TRANSLATE = "translate"


def load(folder: Path, settings: Settings) -> Recognizer:
    """Load a model from the folder that `models.resolve` found.

    Raises:
        ModelError: not a Whisper.
        ParamsError: this machine has no such engine or precision.
    """
    loaded = loading.of_folder(folder, settings.engine, settings.precision, settings.decoding)
    return replace(loaded, engine=Remembered(loaded.engine))


def begin(
    recognizer: Recognizer, sound: SampleFile, start: float, end: float, options: Options = DEFAULT
) -> Transcription:
    """The work on a recording between two times, in seconds; its language is to be chosen.

    Raises:
        ModelError: `options` ask for what the model lacks.
    """
    return Transcription(recognizer, sound, None, None, start, end, options)


def choose_prompts(
    works: Sequence[Transcription], language_asked: str | None, task: str | None
) -> list[Prompt]:
    """Choose, and set, the language and task that the model is prompted with.

    Args:
        language_asked: Whisper's code; DETECT; EACH for that of each piece; or None for the model's
            own, which is detected for a model that has none of its own.
        task: transcribe, translate, or None for the model's own.
    Raises:
        ParamsError: the model knows English only, and something else is asked for.
    """
    vocabulary = works[0].recognizer.vocabulary
    prompts = _prompts(works, vocabulary, language_asked, task)
    was_told = prompts[0].source in (SET, OWN)
    if was_told and vocabulary.languages and task != TRANSLATE:
        prompts = _doubted(works, prompts)
    for work, prompt in zip(works, prompts, strict=True):
        work.language, work.task = prompt.language, prompt.task
    return prompts


def _prompts(
    works: Sequence[Transcription],
    vocabulary: Vocabulary,
    language_asked: str | None,
    task: str | None,
) -> list[Prompt]:
    if not vocabulary.languages:
        if language_asked not in (None, ENGLISH) or task == TRANSLATE:
            raise ParamsError("this model knows English only, and cannot translate")
        return [Prompt(None, OWN)] * len(works)
    if language_asked == EACH:
        return [Prompt(EACH, DETECTED, task=task)] * len(works)
    if language_asked and language_asked != DETECT:
        return [Prompt(language_asked, SET, task=task)] * len(works)
    if vocabulary.language and not language_asked:
        return [Prompt(language_code(vocabulary.language), OWN, task=task)] * len(works)
    return _detected(works, task)


def _detected(works: Sequence[Transcription], task: str | None) -> list[Prompt]:
    """Prompts in the likeliest language of each recording."""
    firsts = _first_heard([work for work in works if fits_window(work)])
    prompts = []
    for work in works:
        if work.first_piece() is None:
            prompts.append(Prompt(None, UNHEARD, task=task))
            continue
        likeliest = firsts.get(id(work)) or language.detect(
            work.recognizer, work.sound, work.begin, work.end
        )
        code, share = likeliest[0]
        prompts.append(Prompt(code, DETECTED, share, task))
    return prompts


def _doubted(works: Sequence[Transcription], prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts, with a doubt where the first piece is clearly in another language."""
    firsts = _first_heard(works)
    doubts = [
        language.mismatch(firsts[id(work)], str(prompt.language)) if id(work) in firsts else None
        for work, prompt in zip(works, prompts, strict=True)
    ]
    return [replace(one, doubt=doubt) for one, doubt in zip(prompts, doubts, strict=True)]


def _first_heard(works: Sequence[Transcription]) -> dict[int, language.Likeliest]:
    """The languages of the first piece of each work that has one, by its id.

    The pieces are heard as they are decoded later, together, so that the encoder hears them once.
    """
    begun = [(work, piece) for work in works if (piece := work.first_piece())]
    if not begun:
        return {}
    clips = [work.clip(piece.span) for work, piece in begun]
    shares = language.probabilities(works[0].recognizer, clips)
    ranked = [language.ranked(works[0].recognizer, row) for row in shares]
    return {id(work): likeliest for (work, _), likeliest in zip(begun, ranked, strict=True)}


def fits_window(work: Transcription) -> bool:
    return work.end - work.begin <= work.recognizer.vocabulary.window_seconds
