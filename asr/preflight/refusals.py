"""What a training refuses to start on: another prompt, another model's tokens, damaged features,
rows that are in both splits.

Each looks at what there is, by another way than the one that made it. Costs one reading of the
features, and one token of `generate()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import WhisperForConditionalGeneration

from asr.errors import DataError, ModelError
from asr.features import FeatureRows
from asr.model import greedy, timestamps, tokenization
from asr.model.loader import Start
from asr.storage import hashing, shards

SPELLED = 200  # texts that go to tokens and back


def refuse_other_prompt(start: Start, language: str, task: str) -> None:
    """Refuse to train labels that decoding would not be prompted for.

    Raises:
        BadModel: the prompt of the labels differs from that of plain `generate()`, or names another
            language or task.
    """
    labels, generated = (
        tokenization.prompt(start.model.generation_config),
        greedy.generation_prompt(start.model),
    )
    names = [" ".join(start.tokenizer.convert_ids_to_tokens(ids)) for ids in (labels, generated)]
    if labels != generated:
        raise ModelError(
            f"labels start with {names[0]}, generation with {names[1]}; mend the model's generation_config.json"
        )
    if start.model.generation_config.is_multilingual and not {
        f"<|{language}|>",
        f"<|{task}|>",
    } <= set(names[0].split()):
        raise ModelError(
            f"labels start with {names[0]}, params say {language} and {task}; mend the model's generation_config.json"
        )


def refuse_other_tokens(start: Start, texts: Sequence[str]) -> None:
    """Refuse a tokenizer that does not spell the corpus, or whose tokens the model does not embed.

    Raises:
        BadModel: with the text or token.
    """
    ids = tokenization.text_ids(start.tokenizer, list(texts[:SPELLED]))
    size = start.model.config.vocab_size
    for name, wanted in special_ids(start.model).items():
        if (found := start.tokenizer.convert_tokens_to_ids(name)) != wanted:
            raise ModelError(
                f"{name} is token {found} of the tokenizer and token {wanted} of the model; they belong to different models"
            )
    for text, tokens in zip(texts, ids, strict=False):
        if max(tokens, default=0) >= size:
            raise ModelError(
                f"the tokenizer has token {max(tokens)}, the model {size} tokens; they belong to different models"
            )
        if (back := start.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)) != text:
            raise ModelError(
                f"the tokenizer spells {text!r} as {back!r}; it belongs to another model or is damaged"
            )


def special_ids(whisper: WhisperForConditionalGeneration) -> dict[str, int]:
    """The ids by which the model's generation config knows its special tokens."""
    generation = whisper.generation_config
    known = {
        tokenization.END: generation.eos_token_id,
        tokenization.START: generation.decoder_start_token_id,
    }
    known["<|notimestamps|>"] = generation.no_timestamps_token_id
    if tokenization.says_when(generation):
        known["<|0.00|>"] = timestamps.first_timestamp(generation)
    if generation.is_multilingual:
        known |= {
            **generation.lang_to_id,
            **{f"<|{task}|>": id for task, id in generation.task_to_id.items()},
        }
    return {name: int(id) for name, id in known.items()}


def refuse_damaged_rows(*splits: Path) -> None:
    """Refuse features that are not those of their manifest: a stale or damaged shard.

    Raises:
        BadData: with the file.
    """
    for split in splits:
        for entry in shards.manifest(split)["files"]:
            if hashing.sha256(split / entry["name"]) != entry["sha256"]:
                raise DataError(
                    f"{split.name}/{entry['name']} is not the file its manifest names; run dvc repro -f featurize"
                )


def refuse_shared_rows(train: FeatureRows, validation: FeatureRows) -> None:
    """Refuse a validation that asks what was taught: rows that stand in both splits.

    Raises:
        BadData: with the ids.
    """
    ids, sounds = set(train.column("id")), {train.digest(row) for row in range(len(train))}
    shared = [
        id
        for row, id in enumerate(validation.column("id"))
        if id in ids or validation.digest(row) in sounds
    ]
    if shared:
        wanted = (
            "leave them out of one of the two, for chunk.allow_shared allows them in a test alone"
        )
        raise DataError(
            f"{len(shared)} rows are in training and in validation, such as {', '.join(shared[:3])}; {wanted}"
        )
