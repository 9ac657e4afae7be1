"""The language that a model is prompted with, and where it comes from. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from asr.whisper import LANGUAGE_NAMES

SET, OWN, DETECTED = "set", "own", "detected"


@dataclass(frozen=True)
class Prompt:
    """The language of a prompt.

    language: Whisper's code; None for a model that knows one language only.
    source: SET by who asked, the model's OWN, or DETECTED.
    """

    language: str | None
    source: str

    @property
    def text(self) -> str:
        """The language in words: "detected: Persian" or "set: English"."""
        if self.language is None:
            return "set: the one language that this model knows"
        name = LANGUAGE_NAMES.get(self.language, self.language)
        if self.source == OWN:
            return f"set: {name}, by the model"
        return f"{self.source}: {name}"


def language_code(name: str) -> str:
    """Whisper's code of a language as models of the hub name theirs: hi, <|hi|>, or hindi."""
    bare_name = name.strip("<|>").lower()
    codes = {name.lower(): code for code, name in LANGUAGE_NAMES.items()}
    return codes.get(bare_name, bare_name)
