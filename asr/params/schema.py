"""The sections of params.yaml as frozen pydantic models: keys, types and ranges.

The models have no defaults: a default in code is a value that DVC cannot see. Only entries of the
lists `download.where` and `download.mix` may leave keys out. The meaning of each value is explained
in params.yaml. Costs 0.1 s; imports neither numpy nor torch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _integer_as_float(value: Any) -> Any:
    """Convert 1 to 1.0; `true`, which is also an int in Python, is left to fail."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


Float = Annotated[float, BeforeValidator(_integer_as_float), Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[Float, Field(gt=0)]
Fraction = Annotated[Float, Field(ge=0, lt=1)]
Share = Annotated[Float, Field(ge=0, le=1)]
Decibels = Annotated[Float, Field(ge=-60, le=60)]
Weight = Annotated[Float, Field(ge=0, le=10)]
SourceName = Literal[
    "synthetic", "common_voice", "folder", "huggingface", "data_collective", "digits"
]
Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]


class Section(BaseModel):
    """Base of all sections: refuses unknown keys and values of another type; immutable."""

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


class CommonVoice(Section):
    splits: Literal["official", "validated"]


class HuggingFace(Section):
    config: str | None
    revision: str | None
    splits: dict[Annotated[str, Field(pattern="^(train|validation|test)$")], str] | None
    columns: dict[Annotated[str, Field(pattern="^(audio|text|speaker|id)$")], str] | None


class HeldOutSpeakers(Section):
    validation: Annotated[list[str], Field(min_length=1)]
    test: Annotated[list[str], Field(min_length=1)]


class Digits(Section):
    rows: SplitRows
    speakers: HeldOutSpeakers
    min_digits: Count
    max_digits: Count


class Rule(Section):
    """How often a row counts: `weight` times if the rule holds, else `otherwise` times.

    It holds if the row's `field` is one of `any_of`, or lies between `min` and `max`.
    """

    field: Annotated[str, Field(min_length=1)]
    any_of: list[str] | None = None
    min: Float | None = None
    max: Float | None = None
    weight: Weight
    otherwise: Weight


class MixedSource(Section):
    """A further source; keys that are left out have the values of `download`."""

    source: SourceName
    path: str | None = None
    language: Language | None = None
    max_rows_per_split: Count | None = None
    seed: Natural | None = None
    common_voice: CommonVoice | None = None
    huggingface: HuggingFace | None = None
    digits: Digits | None = None
    synthetic: Synthetic | None = None
    share: Annotated[Float, Field(gt=0, le=1)]
    role: Literal["train", "holdout"]

    def own(self) -> dict[str, Any]:
        """The values of `download` that this source replaces, by key."""
        values = {key: getattr(self, key) for key in MixedSource.model_fields}
        return {
            key: value
            for key, value in values.items()
            if key not in ("share", "role") and value is not None
        }


class Download(Section):
    source: SourceName
    path: str | None
    language: Language
    max_rows_per_split: Count | None
    where: list[Rule] | None
    mix: list[MixedSource] | None
    seed: Natural
    common_voice: CommonVoice
    huggingface: HuggingFace
    digits: Digits
    synthetic: Synthetic


class Stats(Section):
    window_candidates_seconds: Annotated[
        list[Annotated[Float, Field(gt=0, le=30)]], Field(min_length=1)
    ]
    min_share_kept: Annotated[Float, Field(gt=0, le=1)]


class ChunkParams(Section):
    rows_per_chunk: Count
    min_seconds: Annotated[Float, Field(ge=0)]
    max_seconds: Positive
    allow_shared: list[Literal["speaker", "clip"]]


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


class Lora(Section):
    rank: Count | None
    alpha: Positive
    dropout: Fraction
    target_modules: Annotated[
        list[Literal["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]], Field(min_length=1)
    ]


class Model(Section):
    name: Annotated[str, Field(min_length=1)]
    revision: str | None
    language: Language | None
    task: Literal["transcribe", "translate"]
    window_seconds: Annotated[int, Field(ge=1, le=30)] | None
    dropout: Fraction
    attention_dropout: Fraction
    activation_dropout: Fraction
    encoder_layerdrop: Fraction
    decoder_layerdrop: Fraction
    apply_spec_augment: bool
    mask_time_prob: Fraction
    mask_time_length: Count
    mask_time_min_masks: Natural
    mask_feature_prob: Fraction
    mask_feature_length: Count
    mask_feature_min_masks: Natural
    freeze_encoder: Natural | Literal["all"]
    lora: Lora
    scratch: Scratch


class Speed(Section):
    probability: Share
    min: Annotated[Float, Field(ge=0.5, le=2)]
    max: Annotated[Float, Field(ge=0.5, le=2)]


class Reverberation(Section):
    probability: Share
    folder: str | None
    min_rt60_seconds: Annotated[Float, Field(gt=0, le=10)]
    max_rt60_seconds: Annotated[Float, Field(gt=0, le=10)]


class Noise(Section):
    probability: Share
    folder: str | None
    babble_voices: Count
    min_snr_db: Decibels
    max_snr_db: Decibels


class Gain(Section):
    probability: Share
    min_db: Decibels
    max_db: Decibels


class Augment(Section):
    copies: Natural
    speed: Speed
    reverberation: Reverberation
    noise: Noise
    gain: Gain
    seed: Natural


class Featurize(Section):
    num_mel_bins: Literal[80, 128]
    augment: Augment


class Train(Section):
    learning_rate: Positive | Literal["auto"]
    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup", "polynomial"]
    warmup_steps: Natural
    max_steps: Count
    per_device_train_batch_size: Count
    per_device_eval_batch_size: Count
    gradient_accumulation_steps: Count
    gradient_checkpointing: bool
    weight_decay: Annotated[Float, Field(ge=0)]
    max_grad_norm: Positive
    label_smoothing_factor: Fraction
    eval_steps: Count
    eval_rows: Count
    early_stopping_patience: Count | None
    average_weights: Literal["none", "last", "best"]
    average_count: Annotated[int, Field(ge=2)]
    save_steps: Count
    logging_steps: Count
    timestamp_share: Share
    pack_to_window: bool
    no_speech_share: Fraction
    precision: Literal["fp32", "bf16", "fp16"]
    seed: Natural


class Evaluate(Section):
    decoding: Literal["greedy", "robust"]
    engine: Literal["openvino", "torch"]
    precision: Literal["fp32", "bf16", "fp16"]
    per_device_eval_batch_size: Count
    max_new_tokens: Count
    baselines: list[str]
    bootstrap_resamples: Annotated[int, Field(ge=100, le=1_000_000)]
    seed: Natural


class Params(Section):
    """The whole of params.yaml."""

    download: Download
    stats: Stats
    chunk: ChunkParams
    featurize: Featurize
    model: Model
    train: Train
    evaluate: Evaluate

    @property
    def language(self) -> str:
        """The language whose token the model is prompted with."""
        return self.model.language or self.download.language
