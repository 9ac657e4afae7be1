"""Whisper models: built small from scratch, or loaded from a folder or the hub; their window cut;
saved so that others load them.

safetensors only, nothing remote is executed. A window of N seconds is a table of 50 N positions;
Whisper's are sinusoids, so a shorter table is a bit-equal cut of the longer one. Importing costs
torch and transformers (3 s); a 2.7 M model builds in 50 ms.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
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
POSITIONS = "model.encoder.embed_positions.weight"  # the one tensor that a window cuts


@dataclass(frozen=True)
class Start:
    """A model before fine-tuning. `name` is never a path; `revision` is the hub's commit."""

    model: WhisperForConditionalGeneration
    tokenizer: WhisperTokenizer
    name: str
    revision: str | None

    def provenance(self) -> dict[str, Any]:
        return {"name": self.name, "revision": self.revision, "sha256": weights_hash(self.model)}


def untrained(config: WhisperConfig, seed: int) -> WhisperForConditionalGeneration:
    """The weights that training from scratch starts from: a pure function of shape and seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return WhisperForConditionalGeneration(config)


def build(
    shape: dict[str, Any], made: WhisperTokenizer, num_mel_bins: int, seed: int
) -> WhisperForConditionalGeneration:
    """A small Whisper from scratch.

    Args:
        shape: params' `model.scratch`.
        made: the tokenizer whose tokens it embeds.
    """
    end, start = made.convert_tokens_to_ids([tokenization.END, tokenization.START])
    sizes = {
        key: value for key, value in shape.items() if key not in ("window_seconds", "vocab_size")
    }
    config = WhisperConfig(
        **sizes,
        vocab_size=len(made),
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
        prev_sot_token_id=made.convert_tokens_to_ids("<|startofprev|>"),
        **prompt_tables(made),
    )
    return model


def prompt_tables(made: WhisperTokenizer) -> dict[str, Any]:
    """The generation config's way from a language or a task to its token."""
    vocab = made.get_vocab()
    languages = [f"<|{code}|>" for code in WHISPER_LANGUAGES]
    return {
        "lang_to_id": {token: vocab[token] for token in languages if token in vocab},
        "task_to_id": {
            task: vocab[f"<|{task}|>"] for task in tokenization.TASKS if f"<|{task}|>" in vocab
        },
        "no_timestamps_token_id": vocab["<|notimestamps|>"],
    }


def resolve_model(name: str) -> str:
    """The folder that `name` means, or the hub id it is.

    Raises:
        BadModel: it looks like a folder and is not there.
    """
    folder = paths.resolve(name)
    if folder.is_dir():
        return str(folder)
    if name.count("/") > 1 or name.startswith((".", "/", "~", "models/")):
        raise ModelError(
            f"model.name: {name} is not there; want scratch, a hub id, or a folder with a saved model"
        )
    return name


def load_config(name: str, revision: str | None) -> WhisperConfig:
    """What a checkpoint says of its shape.

    Raises:
        BadModel: not a Whisper, or no model at all.
        NetworkFault: the hub cannot be reached or does not let us in.
    """
    where = resolve_model(name)
    known_as = Path(where).name if Path(where).is_dir() else name
    if Path(where).is_dir() and not (Path(where) / "config.json").is_file():
        raise ModelError(
            f"model.name: no config.json in {known_as}; want a folder with a saved model"
        )
    config = _from(where, lambda: WhisperConfig.from_pretrained(where, revision=revision))
    if config.model_type != "whisper":
        raise ModelError(f"model.name: {known_as} is a {config.model_type}, want a whisper")
    return config


def load(name: str, revision: str | None, window_seconds: int | None) -> Start:
    """Load a checkpoint, its window cut or stretched to `window_seconds`; None keeps its own.

    Raises:
        BadModel: not a Whisper, damaged, pickled, or tensors that do not fit.
        NetworkFault: the hub cannot be reached or does not let us in.
    """
    where = resolve_model(name)
    known_as = Path(where).name if Path(where).is_dir() else name
    config = load_config(name, revision)
    made = _from(where, lambda: tokenization.load(where, revision))
    if len(made) > config.vocab_size:
        raise ModelError(
            f"model.name: the tokenizer in {known_as} has {len(made)} tokens, the model {config.vocab_size}"
        )
    if window_seconds is not None:
        config.max_source_positions = window_seconds * POSITIONS_PER_SECOND
    model, info = _from(where, lambda: _weights(where, revision, config))
    _check_loaded(known_as, info)
    model.model.encoder.embed_positions.requires_grad_(
        False
    )  # a table that was cut comes back as if it were to be learnt
    with suppress(
        OSError
    ):  # older checkpoints have no such file; in some it calls itself derived, and would lose all of Whisper's own
        model.generation_config = GenerationConfig.from_pretrained(
            where, revision=revision, _from_model_config=False
        )
    settle_generation(model, made)
    return Start(model, made, known_as, getattr(model.config, "_commit_hash", None))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' warnings out, where we check the same and say it in fewer words."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def _weights(where: str, revision: str | None, config: WhisperConfig) -> Any:
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


def _from(where: str, get: Any) -> Any:
    """Name the fault of loading: a folder's is the model's, a hub's is the network's."""
    try:
        return get()
    except ModelError:
        raise
    except Exception as error:  # transformers, safetensors and the hub client share no base class
        line = tokenization.first_line(error).replace(where, Path(where).name)
        if Path(where).is_dir():
            raise ModelError(f"model.name: {Path(where).name} cannot be loaded: {line}") from None
        raise NetworkError(
            f"model.name: {where} cannot be fetched: {line}; want a network, for gated models HF_TOKEN in the environment, or a folder"
        ) from None


def _check_loaded(name: str, info: dict[str, Any]) -> None:
    wrong = {str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"]} - {
        POSITIONS
    }
    missing = set(info["missing_keys"]) - {POSITIONS, "proj_out.weight"}
    unexpected = set(info["unexpected_keys"]) - {"proj_out.weight"}
    for what, keys in (
        ("do not fit", wrong),
        ("are missing", missing),
        ("are unknown", unexpected),
    ):
        if keys:
            raise ModelError(
                f"model.name: {name}: {len(keys)} tensors {what}, such as {sorted(keys)[0]}"
            )


def settle_generation(model: WhisperForConditionalGeneration, made: WhisperTokenizer) -> None:
    """Bring an old checkpoint's generation config to today's form, in which the prompt has one
    home.
    """
    generation = model.generation_config
    generation.forced_decoder_ids = None
    generation._from_model_config = False  # or the prompt we save with it would not be read
    generation.return_timestamps = tokenization.says_when(generation)
    if getattr(generation, "is_multilingual", None) is None:
        generation.is_multilingual = model.config.vocab_size != ENGLISH_ONLY_VOCABULARY
    for key, value in prompt_tables(made).items():
        if getattr(generation, key, None) is None and (
            generation.is_multilingual or not key.endswith("_to_id")
        ):
            setattr(generation, key, value)
    model.config.forced_decoder_ids = None


def set_prompt(model: WhisperForConditionalGeneration, language: str, task: str) -> None:
    """Choose the language and task that the model is trained, evaluated and saved with."""
    if model.generation_config.is_multilingual:
        model.generation_config.language, model.generation_config.task = language, task


def check_mel_bins(model: WhisperForConditionalGeneration, num_mel_bins: int) -> None:
    """Refuse features that the model was not made for.

    Raises:
        BadModel: with the param that mends it.
    """
    wanted = model.config.num_mel_bins
    if wanted != num_mel_bins:
        raise ModelError(
            f"the features have {num_mel_bins} mel bins, the model wants {wanted}: -S featurize.num_mel_bins={wanted}"
        )


def window_seconds(model: WhisperForConditionalGeneration) -> int:
    return int(model.config.max_source_positions) // POSITIONS_PER_SECOND


def device() -> str:
    """Where a model is fastest here."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def weights_hash(model: WhisperForConditionalGeneration) -> str:
    """Hash of all weights by name; the window's position table is left out, for it follows from the
    window.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name != POSITIONS:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save(model: WhisperForConditionalGeneration, made: WhisperTokenizer, folder: Path) -> None:
    """Save weights, processor, feature extractor and generation config, for plain transformers and
    for faster-whisper.
    """
    extractor = WhisperFeatureExtractor(
        feature_size=model.config.num_mel_bins, chunk_length=window_seconds(model)
    )
    generation = model.generation_config
    if generation.is_multilingual:
        made.set_prefix_tokens(
            generation.language, generation.task, tokenization.says_when(generation)
        )
    model.save_pretrained(folder)
    WhisperProcessor(extractor, made).save_pretrained(folder)
    extractor.save_pretrained(
        folder
    )  # preprocessor_config.json, which the processor no longer writes


def load_saved(folder: Path) -> Start:
    """A model that `save` wrote, or any other folder with a Whisper, at its own window."""
    return load(os.fspath(folder.resolve()), None, None)
