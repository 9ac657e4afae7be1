"""The model that training starts from, as params name it: built from the training texts, or loaded.
Costs 50 ms, or reading the weights.
"""

from __future__ import annotations

from asr.features import FeatureRows
from asr.model import loader, lora, regularization, timestamps, tokenization
from asr.model.loader import Start
from asr.model.window import window_seconds
from asr.params import schema


def start_model(given: schema.Params, train: FeatureRows) -> Start:
    """The model before training: built from the training texts, or loaded; prompt and
    regularisation set.
    """
    chosen = given.model
    if chosen.name == loader.SCRATCH:
        shape = chosen.scratch.model_dump()
        shape["window_seconds"] = window_seconds(chosen, own=None)
        made = tokenization.from_texts(train.column("text"), shape["vocab_size"])
        start = Start(
            loader.build(shape, made, train.num_mel_bins, given.train.seed),
            made,
            loader.SCRATCH,
            None,
        )
    else:
        start = loader.load(chosen.name, chosen.revision, chosen.window_seconds)
    loader.check_mel_bins(start.model, train.num_mel_bins)
    loader.set_prompt(start.model, given.language, chosen.task)
    timestamps.set_return_timestamps(start.model.generation_config, given.train.timestamp_share > 0)
    regularization.configure(start.model.config, chosen)
    regularization.apply(start.model)
    return start


def choose_trained(start: Start, chosen: schema.Model, seed: int) -> None:
    """Which tensors training changes: all, those that are not frozen, or adapters beside them."""
    if chosen.lora.rank is not None:
        lora.add(start.model, chosen.lora, seed)
    regularization.freeze(start.model, chosen.freeze_encoder, chosen.lora.rank)
