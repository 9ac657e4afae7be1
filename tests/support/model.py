"""Tiny Whispers with random weights, folders as the hub has them, and small splits of features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from transformers import WhisperConfig, WhisperTokenizer

from asr import dvc_hashes, features, paths
from asr.features import FEATURES, LogMel
from asr.model import loader, tokenization
from asr.model.loader import Start
from asr.storage import files, shards
from asr.whisper import SAMPLE_RATE, WHISPER_LANGUAGES

TEXTS = [
    "ett två tre",
    "fyra fem sex",
    "sju åtta nio tio",
    "elva tolv",
    "tretton",
    "ett hundra ett",
]
SHAPE = {
    "window_seconds": 2,
    "vocab_size": 300,
    "d_model": 32,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 64,
    "max_target_positions": 48,
    "init_std": 0.3,
}
Tables = tuple[
    dict[str, int], list[str], dict[str, int]
]  # of vocab.json, merges.txt and added_tokens.json
HUB_LANGUAGES = WHISPER_LANGUAGES[:99]  # whisper-tiny is older than the hundredth
HUB_SIZES = {
    "d_model": 32,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 64,
    "max_target_positions": 64,
    "max_source_positions": 1500,
    "num_mel_bins": 80,
    "init_std": 0.3,
}


def scratch(seed: int = 1, language: str = "sv", task: str = "transcribe", **changes: Any) -> Start:
    """A one-layer Whisper as `train` builds it for `model.name: scratch`."""
    shape = {**SHAPE, **changes}
    made = tokenization.from_texts(TEXTS, shape["vocab_size"])
    start = Start(loader.build(shape, made, 80, seed), made, loader.SCRATCH, None)
    loader.set_prompt(start.model, language, task)
    start.model.eval()
    return start


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """(S,) sound that differs from moment to moment."""
    count = round(seconds * SAMPLE_RATE)
    loudness = np.interp(
        np.arange(count),
        np.linspace(0, count, 9),
        np.random.default_rng([seed, 1]).uniform(0.01, 1, 9),
    )
    return (np.random.default_rng(seed).normal(0, 0.1, count) * loudness).astype(np.float32)


def clip(seconds: float, seed: int = 0) -> LogMel:
    return features.log_mel(noise(seconds, seed), 80)


def write_features(split: Path, rows: list[dict[str, Any]], num_mel_bins: int = 80) -> Path:
    """A split of data/features; rows need `id`, `text` and `seconds`."""
    writer = shards.SplitWriter(split, "chunk", FEATURES, max_rows=4)
    for number, row in enumerate(rows):
        found = features.log_mel(noise(row["seconds"], number), num_mel_bins)
        writer.add(
            {
                "id": row["id"],
                "copy": 0,
                "mel": features.pack(found.mel, found.floor),
                "num_frames": found.mel.shape[1],
                "floor": found.floor,
                "edge": None if found.edge is None else features.pack(found.edge, found.floor),
                "duration": row["seconds"],
                "text": row["text"],
                "speaker": row.get("speaker"),
                "attributes": row.get("attributes", "{}"),
            }
        )
    writer.close()
    return split


def hub_vocabulary() -> Tables:
    """A small vocabulary in the hub's form."""
    made = json.loads(tokenization.from_texts(TEXTS, 300).backend_tokenizer.to_str())["model"]
    vocab = made["vocab"]
    merges = [" ".join(merge) for merge in made["merges"]]
    names = [
        name for name in tokenization.special_tokens() if name != f"<|{WHISPER_LANGUAGES[99]}|>"
    ]
    return vocab, merges, {name: len(vocab) + place for place, name in enumerate(names)}


END = {
    "content": "<|endoftext|>",
    "lstrip": False,
    "normalized": False,
    "rstrip": False,
    "single_word": False,
}
TOKENIZER_CONFIG = {
    "add_prefix_space": False,
    "clean_up_tokenization_spaces": True,
    "errors": "replace",
    "model_max_length": 1024,
    "tokenizer_class": "WhisperTokenizer",
}
PREPROCESSOR_CONFIG = {
    "chunk_length": 30,
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 80,
    "hop_length": 160,
    "n_fft": 400,
    "n_samples": 480000,
    "nb_max_frames": 3000,
    "padding_side": "right",
    "padding_value": 0.0,
    "processor_class": "WhisperProcessor",
    "return_attention_mask": False,
    "sampling_rate": 16000,
}


def hub_folder(
    folder: Path,
    multilingual: bool = True,
    tables: Tables | None = None,
    suppressed: list[int] | None = None,
    **changes: Any,
) -> Path:
    """The files of openai/whisper-tiny as the hub has them, with tiny random weights."""
    vocab, merges, added = tables or hub_vocabulary()
    end, start = vocab["<|endoftext|>"], added["<|startoftranscript|>"]
    ids = {
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end),
        "decoder_start_token_id": start,
    }
    sizes = {**HUB_SIZES, "vocab_size": len(vocab) + len(added), **ids, **changes}
    decoding = {
        "begin_suppress_tokens": [220, end],
        "suppress_tokens": suppressed or _suppressed(added),
        "max_length": sizes["max_target_positions"],
    }
    files.write_json(
        folder / "config.json", {**sizes, **decoding, **_of_config(added, multilingual)}
    )
    files.write_json(
        folder / "generation_config.json",
        {**ids, **decoding, **_of_generation(added, multilingual)},
    )
    _write_tokenizer(folder, vocab, merges, added)
    files.write_json(folder / "preprocessor_config.json", PREPROCESSOR_CONFIG)
    weights = loader.untrained(WhisperConfig(**sizes), 3).state_dict()
    save_file(
        {name: value.contiguous() for name, value in weights.items() if name != "proj_out.weight"},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    return folder


def _suppressed(added: dict[str, int]) -> list[int]:
    names = ("startoflm", "startofprev", "nospeech")
    return [1, 2, 7, *(added[f"<|{name}|>"] for name in names)]


def _of_config(added: dict[str, int], multilingual: bool) -> dict[str, Any]:
    """What config.json says besides sizes, ids and the limits of decoding."""
    bare = added["<|notimestamps|>"]
    prompt = [[1, added["<|en|>"]], [2, added["<|transcribe|>"]], [3, bare]]
    return {
        "_name_or_path": "openai/whisper-tiny",
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "forced_decoder_ids": prompt if multilingual else [[1, bare]],
        "torch_dtype": "float32",
        "transformers_version": "4.27.0.dev0",
    }


def _of_generation(added: dict[str, int], multilingual: bool) -> dict[str, Any]:
    """The same of generation_config.json."""
    bare = added["<|notimestamps|>"]
    of_languages = {
        "_from_model_config": True,
        "is_multilingual": True,
        "forced_decoder_ids": [[1, None], [2, added["<|transcribe|>"]]],
        "lang_to_id": {f"<|{code}|>": added[f"<|{code}|>"] for code in HUB_LANGUAGES},
        "task_to_id": {name: added[f"<|{name}|>"] for name in tokenization.TASKS},
    }
    of_english = {"is_multilingual": False, "forced_decoder_ids": [[1, bare]]}
    return {
        **(of_languages if multilingual else of_english),
        "alignment_heads": [[0, 0]],
        "max_initial_timestamp_index": 50,
        "no_timestamps_token_id": bare,
        "prev_sot_token_id": added["<|startofprev|>"],
        "return_timestamps": False,
        "transformers_version": "4.31.0.dev0",
    }


def _write_tokenizer(
    folder: Path, vocab: dict[str, int], merges: list[str], added: dict[str, int]
) -> None:
    special = [name for name in added if added[name] <= added["<|notimestamps|>"]]
    roles = {f"{role}_token": END for role in ("bos", "eos", "unk")}
    files.write_json(folder / "vocab.json", vocab)
    files.write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *merges]) + "\n")
    files.write_json(folder / "added_tokens.json", added)
    files.write_json(
        folder / "special_tokens_map.json",
        {"additional_special_tokens": special, **roles, "pad_token": END["content"]},
    )
    files.write_json(folder / "tokenizer_config.json", TOKENIZER_CONFIG)


def hub_tokenizer(folder: Path) -> WhisperTokenizer:
    return tokenization.load(str(folder), None)


def hush_timestamps(start: Start) -> Start:
    """Keep random weights from saying timestamps, which no model says after `<|notimestamps|>` once
    it is trained.
    """
    generation = start.model.generation_config
    generation.suppress_tokens = list(
        range(generation.no_timestamps_token_id + 1, start.model.config.vocab_size)
    )
    return start


def lock_model(root: Path, fingerprint: str) -> None:
    """Write run.json and dvc.lock as the training of this fingerprint does that made the model."""
    files.write_json(root / paths.RUN, {"fingerprint": fingerprint})
    hashes = {
        paths.MODEL: dvc_hashes.of_folder(root / paths.MODEL),
        paths.RUN: dvc_hashes.of_file(root / paths.RUN),
    }
    outs = [{"path": path, "md5": md5} for path, md5 in hashes.items()]
    (root / "dvc.lock").write_text(json.dumps({"stages": {"train": {"outs": outs}}}))
