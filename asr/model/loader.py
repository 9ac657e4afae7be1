"""Build, load and save Whisper models, and cut their window.

Only safetensors are read, and no code of a checkpoint is executed. A window of N seconds is a table
of 50 N positions. Whisper's positions are sinusoids, so the table of a shorter window is the
beginning of the longer one, bit for bit. Importing costs torch and transformers (3 s); a model of
2.7 M weights is built in 50 ms.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)
from transformers.utils import logging as transformers_logging

from asr import paths
from asr.errors import ModelError, NetworkError
from asr.model import tokenization
from asr.whisper import ENGLISH_ONLY_VOCABULARY, POSITIONS_PER_SECOND, WHISPER_LANGUAGES

transformers_logging.disable_progress_bar()

SCRATCH = "scratch"
POSITIONS = "model.encoder.embed_positions.weight"  # the only tensor whose shape depends on window
TIED = "proj_out.weight"  # the output layer is the decoder's embedding, so files do not hold it


@dataclass(frozen=True)
class Start:
    """A model before fine-tuning.

    name: a hub id, `scratch`, or the last part of a folder's path; never a whole path.
    revision: the hub's commit; None if it is not from the hub.
    """

    model: WhisperForConditionalGeneration
    tokenizer: WhisperTokenizer
    name: str
    revision: str | None

    def provenance(self) -> dict[str, Any]:
        """What identifies the model in reports and fingerprints."""
        return {"name": self.name, "revision": self.revision, "sha256": weights_hash(self.model)}


def untrained(config: WhisperConfig, seed: int) -> WhisperForConditionalGeneration:
    """A model with random weights, which depend on config and seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return WhisperForConditionalGeneration(config)


def build(
    shape: dict[str, Any], tokenizer: WhisperTokenizer, num_mel_bins: int, seed: int
) -> WhisperForConditionalGeneration:
    """A small Whisper from scratch.

    Args:
        shape: the values of `model.scratch` in params.yaml, by key.
        tokenizer: defines the model's vocabulary.
    """
    end, start = tokenizer.convert_tokens_to_ids([tokenization.END, tokenization.START])
    not_of_config = ("window_seconds", "vocab_size")
    config = WhisperConfig(
        **{key: value for key, value in shape.items() if key not in not_of_config},
        vocab_size=len(tokenizer),
        num_mel_bins=num_mel_bins,
        max_source_positions=shape["window_seconds"] * POSITIONS_PER_SECOND,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = untrained(config, seed)
    model.generation_config = GenerationConfig(
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        max_length=config.max_target_positions,
        is_multilingual=True,
        return_timestamps=False,
        prev_sot_token_id=tokenizer.convert_tokens_to_ids(tokenization.PREVIOUS),
        **_prompt_tables(tokenizer),
    )
    return model


def _prompt_tables(tokenizer: WhisperTokenizer) -> dict[str, Any]:
    """The entries of a generation config that map languages and tasks to their tokens."""
    vocab = tokenizer.get_vocab()
    languages = [f"<|{code}|>" for code in WHISPER_LANGUAGES]
    tasks = {task: f"<|{task}|>" for task in tokenization.TASKS}
    return {
        "lang_to_id": {token: vocab[token] for token in languages if token in vocab},
        "task_to_id": {task: vocab[token] for task, token in tasks.items() if token in vocab},
        "no_timestamps_token_id": vocab[tokenization.NO_TIMESTAMPS],
    }


def resolve_model(name: str) -> str:
    """The absolute path of the folder `name`; if there is none, `name` itself as a hub id.

    Raises:
        ModelError: `name` looks like a path, and there is no such folder.
    """
    folder = paths.resolve(name)
    if folder.is_dir():
        return str(folder)
    if name.count("/") > 1 or name.startswith((".", "/", "~", "models/")):
        raise ModelError(
            f"model.name: {name} is not there; "
            "want scratch, a hub id, or a folder with a saved model"
        )
    return name


def _display_name(where: str) -> str:
    """The name of a model in messages and reports: its hub id, or the last part of its path."""
    return Path(where).name if Path(where).is_dir() else where


def load_config(name: str, revision: str | None) -> WhisperConfig:
    """The config of a checkpoint, without its weights.

    Raises:
        ModelError: not a Whisper, or no model at all.
        NetworkError: the hub cannot be reached, or refuses access.
    """
    where = resolve_model(name)
    display_name = _display_name(where)
    if Path(where).is_dir() and not (Path(where) / "config.json").is_file():
        raise ModelError(
            f"model.name: no config.json in {display_name}; want a folder with a saved model"
        )
    config = _read(where, lambda: WhisperConfig.from_pretrained(where, revision=revision))
    if config.model_type != "whisper":
        raise ModelError(f"model.name: {display_name} is a {config.model_type}, want a whisper")
    return config


def load(name: str, revision: str | None, window_seconds: int | None) -> Start:
    """Load a checkpoint.

    Args:
        window_seconds: cut or stretch the window to this; None keeps the model's own.
    Raises:
        ModelError: not a Whisper, damaged, pickled, or tensors that do not fit.
        NetworkError: the hub cannot be reached, or refuses access.
    """
    where = resolve_model(name)
    display_name = _display_name(where)
    config = load_config(name, revision)
    tokenizer = _read(where, lambda: tokenization.load(where, revision))
    if len(tokenizer) > config.vocab_size:
        raise ModelError(
            f"model.name: the tokenizer in {display_name} has {len(tokenizer)} tokens, "
            f"the model {config.vocab_size}"
        )
    if window_seconds is not None:
        config.max_source_positions = window_seconds * POSITIONS_PER_SECOND
    model, info = _read(where, lambda: _load_weights(where, revision, config))
    _check_loaded(display_name, info)
    # After a cut transformers would train this table, which Whisper keeps fixed.
    model.model.encoder.embed_positions.requires_grad_(False)
    # Older checkpoints have no generation_config.json. Some files say that they were derived from
    # the config; transformers would then drop the entries that Whisper needs.
    with suppress(OSError):
        model.generation_config = GenerationConfig.from_pretrained(
            where, revision=revision, _from_model_config=False
        )
    _update_generation_config(model, tokenizer)
    return Start(model, tokenizer, display_name, getattr(model.config, "_commit_hash", None))


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings of transformers in the block, where our own checks say the same."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def _load_weights(where: str, revision: str | None, config: WhisperConfig) -> Any:
    """The model, and transformers' report on missing, unknown and mismatched tensors."""
    with quiet():
        return WhisperForConditionalGeneration.from_pretrained(
            where,
            revision=revision,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )


def _read(where: str, read: Callable[[], Any]) -> Any:
    """Call `read`, and turn any error into an error of one line that names the model.

    Raises:
        ModelError: reading a folder failed.
        NetworkError: reading from the hub failed.
    """
    try:
        return read()
    except ModelError:
        raise
    except Exception as error:  # transformers, safetensors and the hub client share no base class
        line = tokenization.first_line(error).replace(where, Path(where).name)
        if Path(where).is_dir():
            raise ModelError(f"model.name: {Path(where).name} cannot be loaded: {line}") from None
        raise NetworkError(
            f"model.name: {where} cannot be fetched: {line}; "
            "want a network, for gated models HF_TOKEN in the environment, or a folder"
        ) from None


def _check_loaded(name: str, info: dict[str, Any]) -> None:
    """Refuse a checkpoint whose tensors are not those of its config.

    Args:
        info: transformers' report on loading.
    Raises:
        ModelError: a tensor is missing, unknown, or has another shape.
    """
    mismatched = {str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"]}
    faults = {
        "do not fit": mismatched - {POSITIONS},
        "are missing": set(info["missing_keys"]) - {POSITIONS, TIED},
        "are unknown": set(info["unexpected_keys"]) - {TIED},
    }
    for what, keys in faults.items():
        if keys:
            raise ModelError(
                f"model.name: {name}: {len(keys)} tensors {what}, such as {sorted(keys)[0]}"
            )


def _update_generation_config(
    model: WhisperForConditionalGeneration, tokenizer: WhisperTokenizer
) -> None:
    """Bring an old checkpoint's generation config to today's form.

    Afterwards language and task alone define the prompt, not `forced_decoder_ids`.
    """
    generation = model.generation_config
    generation.forced_decoder_ids = None
    generation._from_model_config = False  # else transformers would ignore the prompt we save
    generation.return_timestamps = tokenization.predicts_timestamps(generation)
    if getattr(generation, "is_multilingual", None) is None:
        generation.is_multilingual = model.config.vocab_size != ENGLISH_ONLY_VOCABULARY
    for key, value in _prompt_tables(tokenizer).items():
        is_missing = getattr(generation, key, None) is None
        is_used = generation.is_multilingual or not key.endswith("_to_id")
        if is_missing and is_used:
            setattr(generation, key, value)
    model.config.forced_decoder_ids = None


def set_prompt(model: WhisperForConditionalGeneration, language: str, task: str) -> None:
    """Choose the language and task that the model is trained, evaluated and saved with.

    English-only models have one language and one task; they are not changed.
    """
    if model.generation_config.is_multilingual:
        model.generation_config.language = language
        model.generation_config.task = task


def check_mel_bins(expected: int, num_mel_bins: int) -> None:
    """Refuse features with another number of mel bins than a model takes.

    Raises:
        ModelError: the numbers differ; the message names the param to change.
    """
    if expected != num_mel_bins:
        raise ModelError(
            f"the features have {num_mel_bins} mel bins, the model wants {expected}: "
            f"-S featurize.num_mel_bins={expected}"
        )


def window_seconds(model: WhisperForConditionalGeneration) -> int:
    """Length in seconds of the audio that the model takes at once."""
    return int(model.config.max_source_positions) // POSITIONS_PER_SECOND


def device() -> str:
    """The fastest device of this machine, as torch names it."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def weights_hash(model: WhisperForConditionalGeneration) -> str:
    """SHA-256 of all weights and their names, without POSITIONS, which depends on the window."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name != POSITIONS:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save(model: WhisperForConditionalGeneration, tokenizer: WhisperTokenizer, folder: Path) -> None:
    """Save a model with its processor, for plain transformers and for faster-whisper."""
    extractor = WhisperFeatureExtractor(
        feature_size=model.config.num_mel_bins, chunk_length=window_seconds(model)
    )
    generation = model.generation_config
    if generation.is_multilingual:
        tokenizer.set_prefix_tokens(
            generation.language, generation.task, tokenization.predicts_timestamps(generation)
        )
    model.save_pretrained(folder)
    WhisperProcessor(extractor, tokenizer).save_pretrained(folder)
    # preprocessor_config.json: faster-whisper reads it, and the processor no longer writes it.
    extractor.save_pretrained(folder)


def load_saved(folder: Path) -> Start:
    """Load a Whisper from a folder, such as one that `save` wrote, at its own window."""
    return load(os.fspath(folder.resolve()), None, None)
