"""The tokens of a Whisper: prompts, times, tokens that are never said, and text.

It is read from JSON, so that transcription needs neither torch nor transformers; `of_model` makes
it from a model of transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from asr.errors import ModelError
from asr.whisper import POSITIONS_PER_SECOND

if TYPE_CHECKING:
    from asr.model.loader import Start

# Limit of the first timestamp of a window, 1 s, for models whose config has none.
MAX_INITIAL_TIMESTAMP = 50
NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")
PREVIOUS = "<|startofprev|>"
ENGLISH = "en"  # the language of a model that has no tokens for languages


@dataclass(frozen=True)
class Vocabulary:
    """What decoding must know of a model's tokens.

    Attributes:
        start, end: tokens before and after every transcript.
        languages, tasks: tokens by Whisper's code and by name; empty for a model of English alone.
        no_timestamps: the token that asks for none; the token behind it is that of 0.00 s.
        size: number of tokens, times included.
        no_speech, previous: tokens, or None where the model has none.
        suppressed, suppressed_first: tokens that are never said, or not as the first.
        language, task: the model's own, by code and by name, or None.
        predicts_timestamps: the model was taught to say times, here or by who published it so.
        max_initial_timestamp: in steps of 0.02 s.
        max_positions: tokens that fit, prompt included.
        window_seconds, num_mel_bins: of the features.
        alignment_heads: (layer, head) whose attention follows the sound; may be empty.
    """

    start: int
    end: int
    languages: dict[str, int]
    tasks: dict[str, int]
    no_timestamps: int
    size: int
    no_speech: int | None
    previous: int | None
    suppressed: tuple[int, ...]
    suppressed_first: tuple[int, ...]
    language: str | None
    task: str | None
    predicts_timestamps: bool
    max_initial_timestamp: int
    max_positions: int
    window_seconds: int
    num_mel_bins: int
    alignment_heads: tuple[tuple[int, int], ...]

    @property
    def first_timestamp(self) -> int:
        """The token of 0.00 s."""
        return self.no_timestamps + 1

    @property
    def has_timestamps(self) -> bool:
        """Whether there are tokens for all times of the window, which it may say."""
        is_whole = self.size > self.first_timestamp + POSITIONS_PER_SECOND * self.window_seconds
        return is_whole and self.first_timestamp not in self.suppressed

    def prompt(self, language: str | None, task: str | None, timestamps: bool) -> list[int]:
        """The tokens before a transcript; None takes the model's own language and task.

        Raises:
            ModelError: the model has no token for the language or the task, or knows English only.
        """
        ids = [self.start]
        if self.languages:
            ids.append(_token(self.languages, language or self.language))
            ids.append(_token(self.tasks, task or self.task or "transcribe"))
        elif language not in (None, ENGLISH) or task == "translate":
            raise ModelError("this model knows English only, and cannot translate")
        return ids if timestamps else [*ids, self.no_timestamps]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def with_window(self, seconds: int) -> Vocabulary:
        return replace(self, window_seconds=seconds)


def _token(table: dict[str, int], name: str | None) -> int:
    if name not in table:
        raise ModelError(
            f"the model has no token for {name}; set model.language or model.task to one it has"
        )
    return table[name]


def from_json(values: dict[str, Any]) -> Vocabulary:
    heads = tuple((layer, head) for layer, head in values["alignment_heads"])
    tokens = {key: tuple(values[key]) for key in ("suppressed", "suppressed_first")}
    return Vocabulary(**{**values, **tokens, "alignment_heads": heads})


def of_model(start: Start) -> Vocabulary:
    """The vocabulary of a model of transformers."""
    config, generation = start.model.config, start.model.generation_config
    known = start.tokenizer.get_vocab()
    is_multilingual = bool(getattr(generation, "is_multilingual", False))
    languages = getattr(generation, "lang_to_id", None) or {} if is_multilingual else {}
    tasks = getattr(generation, "task_to_id", None) or {} if is_multilingual else {}
    limit = getattr(generation, "max_initial_timestamp_index", None)
    heads = getattr(generation, "alignment_heads", None) or []
    return Vocabulary(
        start=generation.decoder_start_token_id,
        end=generation.eos_token_id,
        languages={name.strip("<|>"): token for name, token in languages.items()},
        tasks=dict(tasks),
        no_timestamps=generation.no_timestamps_token_id,
        size=config.vocab_size,
        no_speech=next((known[name] for name in NO_SPEECH if name in known), None),
        previous=known.get(PREVIOUS),
        suppressed=tuple(generation.suppress_tokens or ()),
        suppressed_first=tuple(getattr(generation, "begin_suppress_tokens", None) or ()),
        language=getattr(generation, "language", None),
        task=getattr(generation, "task", None),
        predicts_timestamps=bool(getattr(generation, "return_timestamps", False)),
        max_initial_timestamp=MAX_INITIAL_TIMESTAMP if limit is None else limit,
        max_positions=config.max_target_positions,
        window_seconds=config.max_source_positions // POSITIONS_PER_SECOND,
        num_mel_bins=config.num_mel_bins,
        alignment_heads=tuple((layer, head) for layer, head in heads),
    )


def text_of(tokenizer: Tokenizer, vocabulary: Vocabulary, ids: Sequence[int]) -> str:
    """The text of tokens, without special tokens, times, and space at both ends."""
    words = [token for token in ids if token < vocabulary.first_timestamp]
    text: str = tokenizer.decode(words, skip_special_tokens=True)
    return text.strip()
