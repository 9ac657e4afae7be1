"""params.yaml: read, checked as a whole, handed out as frozen values. Costs 0.1 s; imports neither numpy nor torch.

A model here has no default: a default in code is a value that DVC cannot see. YAML is read as version 1.2, as DVC reads it:
`no` is Norwegian, `1e-5` is a number, a key that stands twice is an error.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from asr.faults import BadParams
from asr.languages import WHISPER_LANGUAGES

STAGE_OUTS = ("data/raw", "data/chunks", "data/features", "models/finetuned", "reports")


def _number(value: Any) -> Any:
    """Let 1 stand for 1.0, but never `true`, which pydantic would take for it."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


Float = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[Float, Field(gt=0)]
Fraction = Annotated[Float, Field(ge=0, lt=1)]
Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SplitRows(Section):
    train: Count
    validation: Count
    test: Count


class Synthetic(Section):
    rows: SplitRows
    voices: SplitRows
    max_number: Annotated[int, Field(ge=9, le=999_999)]
    min_numbers: Count
    max_numbers: Count
    min_words_per_minute: Annotated[int, Field(ge=80, le=450)]
    max_words_per_minute: Annotated[int, Field(ge=80, le=450)]
    min_pitch: Annotated[int, Field(ge=0, le=99)]
    max_pitch: Annotated[int, Field(ge=0, le=99)]

    @model_validator(mode="after")
    def _ordered(self) -> Synthetic:
        for low, high in (("min_numbers", "max_numbers"), ("min_pitch", "max_pitch")):
            _ordered(self, low, high)
        _ordered(self, "min_words_per_minute", "max_words_per_minute")
        return self


class Download(Section):
    source: Literal["synthetic", "common_voice", "folder"]
    path: str | None
    language: Language
    max_rows_per_split: Count | None
    seed: Natural
    synthetic: Synthetic

    @model_validator(mode="after")
    def _path_given(self) -> Download:
        if self.source != "synthetic" and not self.path:
            raise ValueError(f"path: got nothing, want where the {self.source} corpus lies")
        return self


class Stats(Section):
    window_candidates_seconds: Annotated[list[Annotated[Float, Field(gt=0, le=30)]], Field(min_length=1)]


class Chunk(Section):
    rows_per_chunk: Count
    min_seconds: Annotated[Float, Field(ge=0)]
    max_seconds: Positive
    allow_shared: list[Literal["speaker", "clip"]]

    @model_validator(mode="after")
    def _ordered(self) -> Chunk:
        _ordered(self, "min_seconds", "max_seconds")
        return self


class Scratch(Section):
    window_seconds: Annotated[int, Field(ge=1, le=30)]
    vocab_size: Annotated[int, Field(ge=257, le=50_257)]
    d_model: Count
    encoder_layers: Count
    encoder_attention_heads: Count
    encoder_ffn_dim: Count
    decoder_layers: Count
    decoder_attention_heads: Count
    decoder_ffn_dim: Count
    max_target_positions: Annotated[int, Field(ge=8, le=448)]
    init_std: Positive

    @model_validator(mode="after")
    def _divisible(self) -> Scratch:
        for heads in (self.encoder_attention_heads, self.decoder_attention_heads):
            if self.d_model % heads or self.d_model % 2:
                raise ValueError(f"d_model: got {self.d_model}, want an even multiple of the attention heads ({heads})")
        return self


class Model(Section):
    name: Annotated[str, Field(min_length=1)]
    revision: str | None
    language: Language | None
    task: Literal["transcribe", "translate"]
    window_seconds: Annotated[int, Field(ge=1, le=30)] | None
    dropout: Fraction
    attention_dropout: Fraction
    activation_dropout: Fraction
    apply_spec_augment: bool
    mask_time_prob: Fraction
    mask_time_length: Count
    mask_time_min_masks: Natural
    mask_feature_prob: Fraction
    mask_feature_length: Count
    mask_feature_min_masks: Natural
    scratch: Scratch

    @model_validator(mode="after")
    def _outside_stage_outs(self) -> Model:
        name = os.path.normpath(self.name)
        for out in STAGE_OUTS:
            if name == out or f"/{name}".find(f"/{out}/") >= 0 or name.endswith(f"/{out}"):
                raise ValueError(
                    f"name: got {self.name}, which DVC deletes before training; want a copy: make keep NAME=mine, then models/kept/mine"
                )
        return self


class Featurize(Section):
    num_mel_bins: Literal[80, 128]


class Train(Section):
    learning_rate: Positive | Literal["auto"]
    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup", "polynomial"]
    warmup_steps: Natural
    max_steps: Count
    per_device_train_batch_size: Count
    per_device_eval_batch_size: Count
    gradient_accumulation_steps: Count
    weight_decay: Annotated[Float, Field(ge=0)]
    max_grad_norm: Positive
    eval_steps: Count
    eval_rows: Count
    save_steps: Count
    logging_steps: Count
    precision: Literal["fp32", "bf16", "fp16"]
    seed: Natural

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Train:
        if self.warmup_steps >= self.max_steps:
            raise ValueError(f"warmup_steps: got {self.warmup_steps}, want fewer than max_steps ({self.max_steps})")
        return self


class Evaluate(Section):
    per_device_eval_batch_size: Count
    max_new_tokens: Count
    baselines: list[str]
    bootstrap_resamples: Annotated[int, Field(ge=100, le=1_000_000)]
    seed: Natural


class Params(Section):
    """The whole of params.yaml."""

    download: Download
    stats: Stats
    chunk: Chunk
    featurize: Featurize
    model: Model
    train: Train
    evaluate: Evaluate

    @model_validator(mode="after")
    def _language_known(self) -> Params:
        if self.language not in WHISPER_LANGUAGES:
            key = "model.language" if self.model.language else "download.language"
            raise ValueError(
                f"{key}: got {self.language}, which Whisper has no token for; "
                "want model.language set to the nearest of its languages (asr/languages.py)"
            )
        return self

    @property
    def language(self) -> str:
        """The language whose token the model is prompted with."""
        return self.model.language or self.download.language


def _ordered(section: Section, low: str, high: str) -> None:
    if getattr(section, low) > getattr(section, high):
        raise ValueError(f"{low}: got {getattr(section, low)}, want at most {high} ({getattr(section, high)})")


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check the whole file.

    Raises:
        BadParams: all that is wrong with it, one line each: file, line, dotted key, what we got, what we want.
    """
    text = _read(path)
    try:
        return Params.model_validate(_yaml(path, text))
    except ValidationError as error:
        lines = [_explain(path, text, dict(fault)) for fault in error.errors()]
        raise BadParams("\n".join(lines)) from None


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested params as dotted keys, as DVC and MLflow show them."""
    rows: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, dict)
        rows.update(flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value})
    return rows


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadParams(f"{path}: not there; run from the top of the repository") from None
    except UnicodeDecodeError as error:
        raise BadParams(f"{path}: not UTF-8 at byte {error.start}") from None


def _yaml(path: Path, text: str) -> Any:
    try:
        values = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{path}:{mark.line + 1}" if mark else str(path)
        raise BadParams(f"{line}: {getattr(error, 'problem', None) or error}".splitlines()[0]) from None
    if not isinstance(values, dict):
        raise BadParams(f"{path}: want one section per stage, got {type(values).__name__}")
    return values


def _explain(path: Path, text: str, fault: dict[str, Any]) -> str:
    """One fault as `params.yaml:12: train.warmup_steps: got 900, want fewer than max_steps (800)`."""
    keys = [str(key) for key in fault["loc"] if _is_key(key)]
    message = fault["msg"].removeprefix("Value error, ")
    named, _, rest = message.partition(": ")
    if fault["type"] == "value_error" and re.fullmatch(r"[a-z_.]+", named):
        keys, message = [*keys, *named.split(".")], rest
    elif fault["type"] == "extra_forbidden":
        message = f"unknown key{_did_you_mean(keys)}"
    elif fault["type"] == "missing":
        message = "missing; every value stands in this file"
    else:
        message = f"got {_shown(fault['input'])}, want: {message}"
    return f"{path}:{_line(text, keys)}: {'.'.join(keys)}: {message}"


def _is_key(part: Any) -> bool:
    """Pydantic also puts the tried branch of a union into the location; no key of ours looks like one."""
    return isinstance(part, int) or (re.fullmatch(r"[a-z_]+", part) is not None and part not in ("float", "int", "str"))


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value) if not isinstance(value, float) or math.isfinite(value) else str(value)


def _did_you_mean(keys: list[str]) -> str:
    section: Any = Params
    for key in keys[:-1]:
        field = getattr(section, "model_fields", {}).get(key)
        section = field.annotation if field else None
    known = list(getattr(section, "model_fields", {}))
    near = difflib.get_close_matches(keys[-1], known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _line(text: str, keys: list[str]) -> int:
    """Line of the deepest of these keys that stands in the file."""
    node: Any = YAML().load(text)
    line = 1
    for key in keys:
        if hasattr(node, "append"):
            line, node = node.lc.item(int(key))[0] + 1, node[int(key)]
        elif hasattr(node, "keys") and key in node:
            line, node = node.lc.key(key)[0] + 1, node[key]
        else:
            break
    return line
