"""The language and task that a model is prompted with. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from asr.decoding.options import EACH
from asr.runtime import formatting
from asr.whisper import LANGUAGE_NAMES

SET, OWN, DETECTED, UNHEARD = "set", "own", "detected", "unheard"


@dataclass(frozen=True)
class Prompt:
    """What a model is prompted with.

    language: Whisper's code; EACH; None for a model that knows English only, and where no speech
        tells it.
    source: of the language: SET by who asked, the model's OWN, DETECTED; or UNHEARD, where it was
        to be detected and nothing is spoken.
    probability: of a detected language.
    task: transcribe or translate; None for the model's own.
    doubt: a warning in words where the sound is clearly in another language than the one set.
    """

    language: str | None
    source: str
    probability: float | None = None
    task: str | None = None
    doubt: str | None = None

    @property
    def text(self) -> str:
        """The language in words: "detected: Persian, 98 %" or "set: English"."""
        if self.source == UNHEARD:
            return "no speech found"
        if self.language is None:
            return "set: English, which alone this model knows"
        if self.language == EACH:
            return f"{self.source}: that of each piece"
        name = LANGUAGE_NAMES.get(self.language, self.language)
        if self.source == OWN:
            return f"set: {name}, by the model"
        text = f"{self.source}: {name}"
        known = self.probability is not None
        return f"{text}, {formatting.percent(self.probability, 0)}" if known else text


def language_code(name: str) -> str:
    """Whisper's code of a language as models of the hub name theirs: hi, <|hi|>, or hindi."""
    bare_name = name.strip("<|>").lower()
    codes = {name.lower(): code for code, name in LANGUAGE_NAMES.items()}
    return codes.get(bare_name, bare_name)
