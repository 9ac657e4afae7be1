"""What keeps a model from learning its corpus by heart: dropouts, layer drop, masks on the input, frozen layers.

Layers copied their dropouts from the config when they were built, so each is set in the config and where it is used.
"""

from __future__ import annotations

import numpy as np
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from asr import params

DROPOUTS = ("dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop", "decoder_layerdrop", "apply_spec_augment")
MASKS = ("time_prob", "time_length", "time_min_masks", "feature_prob", "feature_length", "feature_min_masks")


def configure(config: WhisperConfig, chosen: params.Model) -> None:
    """Write the params into the model's config, with which it is saved."""
    for name in DROPOUTS:
        setattr(config, name, getattr(chosen, name))
    for name in MASKS:
        setattr(config, f"mask_{name}", getattr(chosen, f"mask_{name}"))


def apply(whisper: WhisperForConditionalGeneration) -> None:
    """Hand the config's dropouts to the layers."""
    config = whisper.config
    for module in whisper.modules():
        for name, value in (("dropout", config.dropout), ("activation_dropout", config.activation_dropout)):
            if isinstance(getattr(module, name, None), float):
                is_attention = hasattr(module, "k_proj")
                setattr(module, name, config.attention_dropout if is_attention and name == "dropout" else value)
    whisper.model.encoder.layerdrop, whisper.model.decoder.layerdrop = config.encoder_layerdrop, config.decoder_layerdrop


def freeze(whisper: WhisperForConditionalGeneration, layers: int | str) -> None:
    """Keep the encoder's first layers, with the convolutions before them, or all of it, as they are."""
    encoder = whisper.model.encoder
    if layers == 0:
        return
    frozen = [encoder] if layers == "all" else [encoder.conv1, encoder.conv2, *encoder.layers[: int(layers)]]
    for part in frozen:
        part.requires_grad_(False)


def seed(number: int, step: int, part: int) -> None:
    """Make dropout (torch) and SpecAugment (numpy's global generator) a function of where we stand."""
    words = np.random.SeedSequence([number, step, part]).generate_state(2)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]))
