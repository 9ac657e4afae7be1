"""LoRA (Hu et al. 2021): train small matrices that are added to frozen weights.

Checkpoints hold these matrices alone. Decoding, measuring and saving use the plain model with the
matrices added to its weights. Needs peft, the extra `lora`. Importing this module costs nothing;
adding adapters imports peft (4 s).
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from transformers import WhisperForConditionalGeneration

from asr.errors import ParamsError
from asr.params import schema

MARK = ".lora_"  # part of the name of every tensor of an adapter
# Adapters start from zero, and need about this many times the learning rate of full weights.
RATE = 10


def add(whisper: WhisperForConditionalGeneration, params: schema.Lora, seed: int) -> None:
    """Freeze the model and add an adapter, at first without effect, to each target module.

    Raises:
        ParamsError: peft is not installed.
    """
    try:
        import peft
    except ImportError:
        raise ParamsError(
            f"model.lora.rank: got {params.rank}, which needs peft: "
            "pip install -c requirements.txt -e '.[lora]', or set it to null"
        ) from None
    config = peft.LoraConfig(
        r=params.rank,
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        target_modules=list(params.target_modules),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, whisper)


def layers(whisper: torch.nn.Module) -> dict[str, Any]:
    """The modules that have an adapter, by name."""
    return {name: module for name, module in whisper.named_modules() if hasattr(module, "lora_A")}


def trained(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of the adapters, or all tensors if there are no adapters."""
    return {name: value for name, value in weights.items() if MARK in name} or weights


@torch.no_grad()
def merged(whisper: WhisperForConditionalGeneration) -> WhisperForConditionalGeneration:
    """The plain model, with the adapters added to its weights.

    It is a copy that shares all tensors without an adapter, or the model itself if it has none.
    """
    adapted = layers(whisper)
    if not adapted:
        return whisper
    changed = {id(layer.base_layer.weight) for layer in adapted.values()}
    # deepcopy does not copy objects that are in its memo.
    shared = {
        id(tensor): tensor
        for tensor in chain(whisper.parameters(), whisper.buffers())
        if id(tensor) not in changed
    }
    plain = copy.deepcopy(whisper, shared)
    for name, layer in layers(plain).items():
        layer.merge()
        plain.set_submodule(name, layer.base_layer)
    return plain


@torch.no_grad()
def plain_weights(
    whisper: WhisperForConditionalGeneration, weights: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The weights of the plain model after loading the weights of a checkpoint.

    Without adapters they are the checkpoint's own weights. With adapters they are the frozen
    weights plus the adapters, computed independently of `merged`, so that a check can compare the
    two.
    """
    adapted = layers(whisper)
    if not adapted:
        return weights
    plain = {
        name.replace(".base_layer.", "."): value
        for name, value in whisper.state_dict().items()
        if MARK not in name
    }
    for name, layer in adapted.items():
        device = layer.base_layer.weight.device
        down = weights[f"{name}.lora_A.default.weight"].to(device)
        up = weights[f"{name}.lora_B.default.weight"].to(device)
        plain[f"{name}.weight"] = plain[f"{name}.weight"] + (up @ down) * layer.scaling["default"]
    return plain
