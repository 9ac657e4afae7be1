"""LoRA (Hu et al. 2021): small matrices beside frozen weights, trained in their place and added to
them when the model is saved.

Checkpoints hold the matrices alone; what is decoded, measured and saved is the plain model with
them merged in. Needs peft, the extra `lora`. Importing this module costs nothing, adding adapters
the 4 s of importing peft.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from transformers import WhisperForConditionalGeneration

from asr.errors import ParamsError
from asr.params import schema

MARK = ".lora_"  # in the name of every tensor of an adapter
# adapters start from nothing, and want about so many times the rate of the weights they stand for
RATE = 10


def add(whisper: WhisperForConditionalGeneration, chosen: schema.Lora, seed: int) -> None:
    """Freeze the model and put an adapter beside each of its target modules; at first they add
    nothing.

    Raises:
        BadParams: peft is not installed.
    """
    try:
        import peft
    except ImportError:
        raise ParamsError(
            f"model.lora.rank: got {chosen.rank}, which needs peft: pip install -c requirements.txt -e '.[lora]', or set it to null"
        ) from None
    config = peft.LoraConfig(
        r=chosen.rank,
        lora_alpha=chosen.alpha,
        lora_dropout=chosen.dropout,
        target_modules=list(chosen.target_modules),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, whisper)


def layers(whisper: torch.nn.Module) -> dict[str, Any]:
    """The adapted modules, by name."""
    return {name: module for name, module in whisper.named_modules() if hasattr(module, "lora_A")}


def trained(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The adapters' tensors, or all where there are no adapters."""
    return {name: value for name, value in weights.items() if MARK in name} or weights


@torch.no_grad()
def merged(whisper: WhisperForConditionalGeneration) -> WhisperForConditionalGeneration:
    """The plain model: a copy that shares every tensor no adapter changes. Without adapters, the
    model itself.
    """
    found = layers(whisper)
    if not found:
        return whisper
    changed = {id(layer.base_layer.weight) for layer in found.values()}
    shared = {
        id(one): one
        for one in chain(whisper.parameters(), whisper.buffers())
        if id(one) not in changed
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
    """What the plain model must hold, given these weights of a checkpoint: they themselves, or
    frozen weights and adapters added up.
    """
    found = layers(whisper)
    if not found:
        return weights
    plain = {
        name.replace(".base_layer.", "."): value
        for name, value in whisper.state_dict().items()
        if MARK not in name
    }
    for name, layer in found.items():
        down, up = (
            weights[f"{name}.lora_{side}.default.weight"].to(layer.base_layer.weight.device)
            for side in "AB"
        )
        plain[f"{name}.weight"] = plain[f"{name}.weight"] + (up @ down) * layer.scaling["default"]
    return plain
