"""What a training refuses to start on.

That is another prompt than that of `generate()`, another model's tokens, damaged features, rows
that are in both splits. Each is looked for by another way than the one that made the thing. A test
that this machine could not decode is refused too. Costs one reading of the features, and one token
of `generate()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import WhisperForConditionalGeneration

from asr.engines import available
from asr.errors import DataError, ModelError
from asr.features import FeatureRows
from asr.model import greedy, timestamps, tokenization
from asr.model.loader import Start
from asr.params import schema
from asr.storage import hashing, shards

NUM_SPELLED = 200  # texts that are turned into tokens and back
MAX_SHOWN = 3  # ids named in an error


def refuse_no_test(evaluate: schema.Evaluate) -> None:
    """Refuse to train what this machine could not test afterwards.

    Raises:
        ParamsError: there is no such engine or precision here.
    """
    available.refuse_absent(evaluate.engine, evaluate.precision)


def refuse_other_prompt(start: Start, language: str, task: str) -> None:
    """Refuse to train with another prompt than the one for decoding.

    Raises:
        ModelError: the prompt of the labels differs from that of plain `generate()`, or names
            another language or task than params.
    """
    generation = start.model.generation_config
    label_ids = tokenization.prompt(generation)
    generation_ids = greedy.generation_prompt(start.model)
    label_prompt = " ".join(start.tokenizer.convert_ids_to_tokens(label_ids))
    if label_ids != generation_ids:
        generation_prompt = " ".join(start.tokenizer.convert_ids_to_tokens(generation_ids))
        raise ModelError(
            f"labels start with {label_prompt}, generation with {generation_prompt}; "
            "mend the model's generation_config.json"
        )
    named = {f"<|{language}|>", f"<|{task}|>"} <= set(label_prompt.split())
    if generation.is_multilingual and not named:
        raise ModelError(
            f"labels start with {label_prompt}, params say {language} and {task}; "
            "mend the model's generation_config.json"
        )


def refuse_other_tokens(start: Start, texts: Sequence[str]) -> None:
    """Refuse a tokenizer that does not fit the model, or does not spell the corpus.

    Raises:
        ModelError: with the text or token.
    """
    tokenizer = start.tokenizer
    for name, model_id in special_ids(start.model).items():
        tokenizer_id = tokenizer.convert_tokens_to_ids(name)
        if tokenizer_id != model_id:
            raise ModelError(
                f"{name} is token {tokenizer_id} of the tokenizer and token {model_id} of the "
                "model; they belong to different models"
            )
    size = start.model.config.vocab_size
    sample = list(texts[:NUM_SPELLED])
    for text, ids in zip(sample, tokenization.text_ids(tokenizer, sample), strict=True):
        if max(ids, default=0) >= size:
            raise ModelError(
                f"the tokenizer has token {max(ids)}, the model {size} tokens; "
                "they belong to different models"
            )
        decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        if decoded != text:
            raise ModelError(
                f"the tokenizer spells {text!r} as {decoded!r}; "
                "it belongs to another model or is damaged"
            )


def special_ids(whisper: WhisperForConditionalGeneration) -> dict[str, int]:
    """The ids that the model's generation config has for special tokens, by their names."""
    generation = whisper.generation_config
    ids = {
        tokenization.END: generation.eos_token_id,
        tokenization.START: generation.decoder_start_token_id,
        "<|notimestamps|>": generation.no_timestamps_token_id,
    }
    if tokenization.predicts_timestamps(generation):
        ids["<|0.00|>"] = timestamps.first_timestamp(generation)
    if generation.is_multilingual:
        ids |= generation.lang_to_id
        ids |= {f"<|{task}|>": id for task, id in generation.task_to_id.items()}
    return {name: int(id) for name, id in ids.items()}


def refuse_damaged_rows(*splits: Path) -> None:
    """Refuse features that are not those of their manifest: a stale or damaged shard.

    Raises:
        DataError: with the file.
    """
    for split in splits:
        for entry in shards.manifest(split)["files"]:
            if hashing.sha256(split / entry["name"]) != entry["sha256"]:
                raise DataError(
                    f"{split.name}/{entry['name']} is not the file its manifest names; "
                    "run dvc repro -f featurize"
                )


def refuse_shared_rows(train: FeatureRows, validation: FeatureRows) -> None:
    """Refuse validation rows that are also training rows, by id or by sound.

    Raises:
        DataError: with the ids.
    """
    ids = set(train.column("id"))
    sounds = {train.digest(row) for row in range(len(train))}
    shared = [
        id
        for row, id in enumerate(validation.column("id"))
        if id in ids or validation.digest(row) in sounds
    ]
    if shared:
        raise DataError(
            f"{len(shared)} rows are in training and in validation, such as "
            f"{', '.join(shared[:MAX_SHOWN])}; leave them out of one of the two, "
            "as chunk does with chunk.allow_shared=[clip]"
        )
