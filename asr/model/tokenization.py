"""Text to tokens and back, and the prompt before every transcript.

A tokenizer is a byte-level BPE made from texts, or the start model's own. Labels and decoding both
take the prompt from `prompt` below, so they cannot differ; a check compares this prompt with that
of plain `generate()` (`greedy.generation_prompt`). Making a tokenizer from 2,400 sentences costs
20 ms; importing this module costs the import of transformers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import WhisperTokenizer

from asr.errors import ModelError
from asr.whisper import (
    ENGLISH_ONLY_VOCABULARY,
    POSITIONS_PER_SECOND,
    TIMESTAMPS,
    WHISPER_LANGUAGES,
)

if TYPE_CHECKING:
    from transformers import GenerationConfig

END = "<|endoftext|>"
START = "<|startoftranscript|>"
NO_TIMESTAMPS = "<|notimestamps|>"
PREVIOUS = "<|startofprev|>"
TASKS = ("translate", "transcribe")


def special_tokens() -> list[str]:
    """Whisper's special tokens after `<|endoftext|>`, in Whisper's order.

    All languages are included, whatever the corpus: transformers computes a language's token from
    its index in this list, so a shorter list would give wrong tokens without an error.
    """
    return [
        START,
        *(f"<|{language}|>" for language in WHISPER_LANGUAGES),
        *(f"<|{task}|>" for task in TASKS),
        "<|startoflm|>",
        PREVIOUS,
        "<|nospeech|>",
        NO_TIMESTAMPS,
        *(f"<|{index / POSITIONS_PER_SECOND:.2f}|>" for index in range(TIMESTAMPS)),
    ]


def from_texts(texts: Iterable[str], vocab_size: int) -> WhisperTokenizer:
    """Make a byte-level BPE from texts.

    The same texts in any order give the same tokenizer. Memory holds each distinct word once.

    Args:
        vocab_size: 256 bytes, `<|endoftext|>` and the merges; special tokens come on top.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    trained = json.loads(bpe.to_str())["model"]
    tokenizer = WhisperTokenizer(
        vocab={**trained["vocab"], END: len(trained["vocab"])},
        merges=[tuple(merge) for merge in trained["merges"]],
    )
    added = special_tokens()
    # As in Whisper's own tokenizer, timestamps are added tokens but not special ones.
    tokenizer.add_special_tokens({"additional_special_tokens": added[:-TIMESTAMPS]})
    tokenizer.add_tokens(added[-TIMESTAMPS:])
    return tokenizer


def load(name: str, revision: str | None) -> WhisperTokenizer:
    """The tokenizer of a folder or hub id.

    Raises:
        ModelError: there is none, or it lacks tokens that training needs.
    """
    folder = Path(name).name
    try:
        tokenizer = WhisperTokenizer.from_pretrained(name, revision=revision)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"model.name: no Whisper tokenizer in {folder}: {first_line(error)}"
        ) from None
    # Two faults of old folders: they switch on a clean-up of spaces that is wrong for BPE, and do
    # not mark their special tokens as special.
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.add_special_tokens({"additional_special_tokens": tokenizer.extra_special_tokens})
    _check_vocabulary(tokenizer, folder)
    return tokenizer


def _check_vocabulary(tokenizer: WhisperTokenizer, folder: str) -> None:
    vocabulary = tokenizer.get_vocab()  # called once: it takes 40 ms with Whisper's own tokenizer
    needed = [END, START, NO_TIMESTAMPS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    missing = [token for token in needed if token not in vocabulary]
    if missing:
        raise ModelError(
            f"model.name: the tokenizer in {folder} lacks {len(missing)} tokens, "
            f"such as {missing[0]}"
        )


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def predicts_timestamps(generation: GenerationConfig) -> bool:
    """Whether a model predicts timestamps."""
    return bool(getattr(generation, "return_timestamps", False))


def prompt(generation: GenerationConfig) -> list[int]:
    """The tokens before every transcript: start, language, task, and no timestamps.

    English-only models have no tokens for language and task; models that predict timestamps leave
    out the last token.

    Raises:
        ModelError: the model has no token for the language or the task.
    """
    ids = [generation.decoder_start_token_id]
    if getattr(generation, "is_multilingual", False):
        ids.append(_token_id(generation.lang_to_id, f"<|{generation.language}|>"))
        ids.append(_token_id(generation.task_to_id, generation.task))
    if not predicts_timestamps(generation):
        ids.append(generation.no_timestamps_token_id)
    return ids


def _token_id(table: dict[str, int], token: str) -> int:
    if token not in table:
        raise ModelError(
            f"the model has no token for {token}; set model.language or model.task to one it has"
        )
    return int(table[token])


def prompt_tokens(vocab_size: int) -> int:
    """Length of the prompt without timestamps: 4 tokens, or 2 for English-only models."""
    return 2 if vocab_size == ENGLISH_ONLY_VOCABULARY else 4


def text_ids(tokenizer: WhisperTokenizer, texts: list[str]) -> list[list[int]]:
    """Tokens of each text, without prompt or end.

    Only the BPE encodes the texts, so a text that spells a special token is still encoded as text.
    """
    encodings = _without_added_tokens(tokenizer).encode_batch(texts, add_special_tokens=False)
    return [list(encoding.ids) for encoding in encodings]


@lru_cache(maxsize=2)  # takes 0.3 s with Whisper's own tokenizer
def _without_added_tokens(tokenizer: WhisperTokenizer) -> Tokenizer:
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    return Tokenizer.from_str(json.dumps({**description, "added_tokens": []}))


def decode(tokenizer: WhisperTokenizer, ids: Sequence[int]) -> str:
    """The text of tokens, without special tokens, timestamps, and space at both ends."""
    text: str = tokenizer.decode(ids, skip_special_tokens=True)
    return text.strip()
