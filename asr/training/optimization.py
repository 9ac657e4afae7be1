"""What a step of training is made with: devices and processes, AdamW, its rate, the mean of
gradients and of weights.
"""

from __future__ import annotations

import math

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from transformers import (
    WhisperForConditionalGeneration,
)

from asr.errors import ParamsError
from asr.model import loader, lora
from asr.model.loader import Start

BETAS = (0.9, 0.98)  # Radford et al. 2022, appendix F
LAST_RATE = 1e-7  # to which the polynomial schedule falls, by default of transformers

TINY_PARAMETERS, TINY_RATE = 39e6, 1.5e-3 / 40  # whisper-tiny: a fortieth of its pretraining rate
SCRATCH_RATE = 1e-3


def accelerator_for(precision: str, whisper: WhisperForConditionalGeneration) -> Accelerator:
    """Devices and processes as `accelerate launch` set them; alone, the best device there is.

    Raises:
        BadParams: fp16 without a GPU.
    """
    if precision == "fp16" and loader.device() == "cpu":
        raise ParamsError("train.precision: got fp16, which needs a GPU; want bf16 or fp32")
    skipped = max(whisper.config.encoder_layerdrop, whisper.config.decoder_layerdrop) > 0
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=skipped)]
    mixed = "no" if precision == "fp32" else precision
    return Accelerator(
        cpu=loader.device() == "cpu", mixed_precision=mixed, kwargs_handlers=handlers
    )


def average_gradients(whisper: torch.nn.parallel.DistributedDataParallel) -> None:
    """Over all processes, by DDP's own means, which are set off by the backward pass of nothing.

    DDP would do it during the last backward pass; there, processes would wait for ever for one that
    ran out of memory.
    """
    nothing = (
        torch.stack(
            [one.flatten()[0] for one in whisper.parameters() if one.grad is not None]
        ).sum()
        * 0.0
    )
    whisper.reducer.prepare_for_backward([nothing])
    nothing.backward()


def learning_rate(given: float | str, start: Start) -> float:
    """The peak rate; `auto` is 1e-3 for scratch, else falls with the root of the size from
    whisper-tiny's 3.75e-5.

    Adapters take `lora.RATE` times as much.
    """
    if given != "auto":
        return float(given)
    rate = SCRATCH_RATE
    if start.name != loader.SCRATCH:
        rate = float(f"{TINY_RATE * (TINY_PARAMETERS / start.model.num_parameters()) ** 0.5:.2g}")
    return rate * lora.RATE if lora.layers(start.model) else rate


def scheduled_rate(kind: str, peak: float, done: int, warmup_steps: int, max_steps: int) -> float:
    """The rate of the next update after so many, by the formula of its schedule; a second opinion
    on what transformers gives.
    """
    if done < warmup_steps:
        return peak * done / warmup_steps
    past = (done - warmup_steps) / max(max_steps - warmup_steps, 1)
    return {
        "linear": peak * (1 - past),
        "cosine": peak * (1 + math.cos(math.pi * past)) / 2,
        "constant_with_warmup": peak,
        "polynomial": LAST_RATE + (peak - LAST_RATE) * (1 - past),
    }[kind]


def make_optimizer(
    whisper: torch.nn.Module, rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW; weight decay spares biases and norms."""
    named = [(name, value) for name, value in whisper.named_parameters() if value.requires_grad]
    groups = [
        {"params": [value for _, value in named if value.ndim > 1], "weight_decay": weight_decay},
        {"params": [value for _, value in named if value.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=BETAS, fused=True)


def mean_weights(found: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The mean of several weights, tensor by tensor, summed in double precision."""
    return {
        name: torch.stack([one[name].double() for one in found]).mean(0).to(found[0][name].dtype)
        for name in found[0]
    }
