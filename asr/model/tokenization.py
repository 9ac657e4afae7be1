"""Text to tokens: a byte-level BPE made from texts, or the start model's own; and the prompt, which
has this one home.

Labels and decoding take the prompt from `prompt` below, so they cannot differ;
`decode.generation_prompt` shows that plain `generate()` agrees. Making a tokenizer from 2,400
sentences costs 20 ms; importing this module costs the import of transformers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import WhisperTokenizer

from asr.errors import ModelError
from asr.whisper import ENGLISH_ONLY_VOCABULARY, TIMESTAMPS, WHISPER_LANGUAGES

if TYPE_CHECKING:
    from transformers import GenerationConfig

END, START = "<|endoftext|>", "<|startoftranscript|>"
TASKS = ("translate", "transcribe")


def special_tokens() -> list[str]:
    """Whisper's special tokens after `<|endoftext|>`, in Whisper's order: all languages, or the
    language token is silently wrong.
    """
    return [
        START,
        *(f"<|{language}|>" for language in WHISPER_LANGUAGES),
        *(f"<|{task}|>" for task in TASKS),
        "<|startoflm|>",
        "<|startofprev|>",
        "<|nospeech|>",
        "<|notimestamps|>",
        *(f"<|{index * 0.02:.2f}|>" for index in range(TIMESTAMPS)),
    ]


def from_texts(texts: Iterable[str], vocab_size: int) -> WhisperTokenizer:
    """Make a byte-level BPE from texts; the same texts, in any order, give the same tokenizer. Of
    them, different words alone are held.

    Args:
        vocab_size: 256 bytes, `<|endoftext|>` and the merges; special tokens come on top.
    """
    blank = Tokenizer(models.BPE())
    blank.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    blank.train_from_iterator(texts, trainer)
    made = json.loads(blank.to_str())["model"]
    vocab = {**made["vocab"], END: len(made["vocab"])}
    tokenizer = WhisperTokenizer(vocab=vocab, merges=[tuple(merge) for merge in made["merges"]])
    tokenizer.add_special_tokens({"additional_special_tokens": special_tokens()[:-TIMESTAMPS]})
    tokenizer.add_tokens(special_tokens()[-TIMESTAMPS:])
    return tokenizer


def load(name: str, revision: str | None) -> WhisperTokenizer:
    """The tokenizer of a folder or hub id.

    Raises:
        BadModel: there is none.
    """
    try:
        loaded = WhisperTokenizer.from_pretrained(name, revision=revision)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"model.name: no Whisper tokenizer in {Path(name).name}: {first_line(error)}"
        ) from None
    loaded.clean_up_tokenization_spaces = False  # old folders ask for it, and it is not for BPE
    loaded.add_special_tokens(
        {"additional_special_tokens": loaded.extra_special_tokens}
    )  # old folders name them, and take them for words
    known = loaded.get_vocab()  # asked once: of Whisper's own vocabulary this takes 40 ms
    wanted = [END, START, "<|notimestamps|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    missing = [token for token in wanted if token not in known]
    if missing:
        raise ModelError(
            f"model.name: the tokenizer in {Path(name).name} lacks {len(missing)} tokens, such as {missing[0]}"
        )
    return loaded


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def says_when(generation: GenerationConfig) -> bool:
    """Whether a model gives the time of what it hears, and so is asked for it."""
    return bool(getattr(generation, "return_timestamps", False))


def prompt(generation: GenerationConfig) -> list[int]:
    """The tokens that every transcript starts with: start, language, task, and no timestamps,
    unless the model says when.

    Raises:
        BadModel: the model has no token for the language or the task.
    """
    ids = [generation.decoder_start_token_id]
    if getattr(generation, "is_multilingual", False):
        ids += [
            _id(generation.lang_to_id, f"<|{generation.language}|>"),
            _id(generation.task_to_id, generation.task),
        ]
    return ids if says_when(generation) else [*ids, generation.no_timestamps_token_id]


def _id(table: dict[str, int], token: str) -> int:
    if token not in table:
        raise ModelError(
            f"the model has no token for {token}; set model.language or model.task to one it has"
        )
    return int(table[token])


def text_ids(tokenizer: WhisperTokenizer, texts: list[str]) -> list[list[int]]:
    """Tokens of each text, without prompt or end. A text that spells a special token stays text:
    the BPE alone encodes it.
    """
    return [
        list(encoding.ids)
        for encoding in _bare(tokenizer).encode_batch(texts, add_special_tokens=False)
    ]


@lru_cache(maxsize=2)  # Whisper's own takes 0.3 s
def _bare(tokenizer: WhisperTokenizer) -> Tokenizer:
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    return Tokenizer.from_str(json.dumps({**described, "added_tokens": []}))


def prompt_tokens(vocab_size: int) -> int:
    """Tokens that are given before a text: start, language, task and no timestamps; a model of
    English is told neither of the second.
    """
    return 2 if vocab_size == ENGLISH_ONLY_VOCABULARY else 4
