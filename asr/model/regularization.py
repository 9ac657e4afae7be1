"""Against overfitting: dropouts, layer drop, SpecAugment's masks, frozen layers.

Layers copy their dropouts from the config when they are built, so each is set twice: in the config,
which is saved with the model, and in the layers.
"""

from __future__ import annotations

import numpy as np
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from asr.model import lora
from asr.params import schema

DROPOUTS = (
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "encoder_layerdrop",
    "decoder_layerdrop",
    "apply_spec_augment",
)
MASKS = (
    "time_prob",
    "time_length",
    "time_min_masks",
    "feature_prob",
    "feature_length",
    "feature_min_masks",
)


def configure(config: WhisperConfig, settings: schema.Model) -> None:
    """Write the params into the model's config."""
    for name in DROPOUTS:
        setattr(config, name, getattr(settings, name))
    for name in MASKS:
        setattr(config, f"mask_{name}", getattr(settings, f"mask_{name}"))


def apply(whisper: WhisperForConditionalGeneration) -> None:
    """Set the dropouts and layer drop of the layers to those of the config."""
    config = whisper.config
    for module in whisper.modules():
        is_attention = hasattr(module, "k_proj")
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = config.attention_dropout if is_attention else config.dropout
        if isinstance(getattr(module, "activation_dropout", None), float):
            module.activation_dropout = config.activation_dropout
    whisper.model.encoder.layerdrop = config.encoder_layerdrop
    whisper.model.decoder.layerdrop = config.decoder_layerdrop


def frozen(
    whisper: WhisperForConditionalGeneration, layers: int | str, rank: int | None
) -> set[str]:
    """Names of the tensors that training does not change.

    Args:
        layers: the number of the encoder's first layers that are frozen, together with the
            convolutions before them; or `all` for the whole encoder.
        rank: the rank of LoRA's adapters, None without adapters. With adapters all other tensors
            are frozen.
    """
    prefixes = _frozen_prefixes(layers)
    return {
        name
        for name, _ in whisper.named_parameters()
        if name.startswith(prefixes) or (rank is not None and lora.MARK not in name)
    }


def _frozen_prefixes(layers: int | str) -> tuple[str, ...]:
    """Prefixes of the names of the encoder's frozen tensors."""
    encoder = "model.encoder."
    if layers == "all":
        return (encoder,)
    if not layers:
        return ()
    first_layers = [f"{encoder}layers.{layer}." for layer in range(int(layers))]
    return (f"{encoder}conv1.", f"{encoder}conv2.", *first_layers)


def freeze(whisper: WhisperForConditionalGeneration, layers: int | str, rank: int | None) -> None:
    """Switch off the gradients of the tensors that `frozen` returns."""
    names = frozen(whisper, layers, rank)
    for name, value in whisper.named_parameters():
        if name in names:
            value.requires_grad_(False)


def seed(number: int, step: int, part: int) -> None:
    """Make dropout and SpecAugment a function of (seed, step, part of the step).

    Dropout draws from torch's global generator, SpecAugment from numpy's.
    """
    words = np.random.SeedSequence([number, step, part]).generate_state(2)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]))
