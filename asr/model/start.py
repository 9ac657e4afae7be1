"""The model that training starts from, as params choose it: built from scratch, or loaded.

Building costs 50 ms; loading costs reading the weights.
"""

from __future__ import annotations

from asr.features import FeatureRows
from asr.model import loader, lora, regularization, timestamps, tokenization
from asr.model.loader import Start
from asr.model.window import window_seconds
from asr.params import schema


def start_model(params: schema.Params, train: FeatureRows) -> Start:
    """The model before training, with its prompt, timestamps and regularization set.

    Args:
        train: the training rows; the tokenizer of a model from scratch is made from their texts.
    """
    settings = params.model
    if settings.name == loader.SCRATCH:
        start = _from_scratch(params, train)
    else:
        start = loader.load(settings.name, settings.revision, settings.window_seconds)
    loader.check_mel_bins(start.model.config.num_mel_bins, train.num_mel_bins)
    loader.set_prompt(start.model, params.language, settings.task)
    has_timestamps = params.train.timestamp_share > 0
    timestamps.set_return_timestamps(start.model.generation_config, has_timestamps)
    regularization.configure(start.model.config, settings)
    regularization.apply(start.model)
    return start


def _from_scratch(params: schema.Params, train: FeatureRows) -> Start:
    shape = params.model.scratch.model_dump()
    shape["window_seconds"] = window_seconds(params.model, own=None)
    tokenizer = tokenization.from_texts(train.column("text"), shape["vocab_size"])
    model = loader.build(shape, tokenizer, train.num_mel_bins, params.train.seed)
    return Start(model, tokenizer, loader.SCRATCH, None)


def choose_trained(start: Start, settings: schema.Model, seed: int) -> None:
    """Set which tensors training changes: all that are not frozen, or LoRA's adapters alone."""
    if settings.lora.rank is not None:
        lora.add(start.model, settings.lora, seed)
    regularization.freeze(start.model, settings.freeze_encoder, settings.lora.rank)
