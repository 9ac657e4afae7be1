"""What keeps a model from learning its corpus by heart: dropouts, layer drop, masks on the input,
frozen layers.

Layers copied their dropouts from the config when they were built, so each is set in the config and
where it is used.
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


def configure(config: WhisperConfig, chosen: schema.Model) -> None:
    """Write the params into the model's config, with which it is saved."""
    for name in DROPOUTS:
        setattr(config, name, getattr(chosen, name))
    for name in MASKS:
        setattr(config, f"mask_{name}", getattr(chosen, f"mask_{name}"))


def apply(whisper: WhisperForConditionalGeneration) -> None:
    """Hand the config's dropouts to the layers."""
    config = whisper.config
    for module in whisper.modules():
        for name, value in (
            ("dropout", config.dropout),
            ("activation_dropout", config.activation_dropout),
        ):
            if isinstance(getattr(module, name, None), float):
                is_attention = hasattr(module, "k_proj")
                setattr(
                    module,
                    name,
                    config.attention_dropout if is_attention and name == "dropout" else value,
                )
    whisper.model.encoder.layerdrop, whisper.model.decoder.layerdrop = (
        config.encoder_layerdrop,
        config.decoder_layerdrop,
    )


def frozen(
    whisper: WhisperForConditionalGeneration, layers: int | str, rank: int | None
) -> set[str]:
    """The tensors that `freeze` keeps as they are: of the encoder's first layers and of what is
    before them, or of all of it.

    With LoRA (its rank is not None) also all that is no adapter.
    """
    encoder = "model.encoder."
    first = [
        f"{encoder}conv1.",
        f"{encoder}conv2.",
        *(f"{encoder}layers.{layer}." for layer in range(0 if layers == "all" else int(layers))),
    ]
    chosen = (encoder,) if layers == "all" else tuple(first) if layers else ()
    names = {name for name, _ in whisper.named_parameters()}
    return {
        name
        for name in names
        if name.startswith(chosen) or (rank is not None and lora.MARK not in name)
    }


def freeze(whisper: WhisperForConditionalGeneration, layers: int | str, rank: int | None) -> None:
    """Keep the encoder's first layers, or `all` of it, as they are."""
    names = frozen(whisper, layers, rank)
    for name, value in whisper.named_parameters():
        if name in names:
            value.requires_grad_(False)


def seed(number: int, step: int, part: int) -> None:
    """Make dropout (torch) and SpecAugment (numpy's global generator) a function of where we stand."""
    words = np.random.SeedSequence([number, step, part]).generate_state(2)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]))
