"""What a user may ask of decoding, beyond the method that `evaluate` used.

The names are those of openai-whisper's options. Costs nothing to import.
"""

from __future__ import annotations

from dataclasses import dataclass

EACH = "each"  # asks for the language of each piece of a recording


@dataclass(frozen=True)
class Options:
    """Attributes:
    beam_size: hypotheses that are kept at each step at temperature 0; 1 is greedy.
    temperature: the only one to decode at; None leaves it to the method.
    initial_prompt: text that the model takes for what was said before each piece.
    condition_on_previous_text: each piece is decoded after the text of the one before it, which
        forbids to decode them side by side.
    word_timestamps: segments have the times of their words.
    """

    beam_size: int = 1
    temperature: float | None = None
    initial_prompt: str = ""
    condition_on_previous_text: bool = False
    word_timestamps: bool = False


DEFAULT = Options()
