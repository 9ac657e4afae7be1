"""The parts of an optimizer step: processes, AdamW, its learning rate, and means of tensors."""

from __future__ import annotations

import math

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from transformers import WhisperForConditionalGeneration

from asr.errors import ParamsError
from asr.model import loader, lora
from asr.model.loader import Start

BETAS = (0.9, 0.98)  # Radford et al. 2022, appendix F
LAST_RATE = 1e-7  # where the polynomial schedule ends, by default in transformers

# The rate `auto` takes for whisper-tiny: a fortieth of the rate of its pretraining.
TINY_PARAMETERS = 39e6
TINY_RATE = 1.5e-3 / 40
SCRATCH_RATE = 1e-3


def accelerator_for(precision: str, whisper: WhisperForConditionalGeneration) -> Accelerator:
    """Make an Accelerator for the devices that `accelerate launch` set, or the fastest one.

    Raises:
        ParamsError: fp16 without a GPU.
    """
    on_cpu = loader.device() == "cpu"
    if precision == "fp16" and on_cpu:
        raise ParamsError("train.precision: got fp16, which needs a GPU; want bf16 or fp32")
    # With layer drop some weights have no gradient; by default DDP would wait for it.
    drops_layers = max(whisper.config.encoder_layerdrop, whisper.config.decoder_layerdrop) > 0
    return Accelerator(
        cpu=on_cpu,
        mixed_precision="no" if precision == "fp32" else precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=drops_layers)],
    )


def average_gradients(whisper: torch.nn.parallel.DistributedDataParallel) -> None:
    """Average the gradients over all processes, after each has finished its backward passes.

    By default DDP averages during the last backward pass; if one process ran out of memory there,
    the others would wait for it for ever. Here DDP is triggered by the backward pass of a zero that
    depends on the first value of every weight.
    """
    gradients = [weight for weight in whisper.parameters() if weight.grad is not None]
    zero = torch.stack([weight.flatten()[0] for weight in gradients]).sum() * 0.0
    whisper.reducer.prepare_for_backward([zero])
    zero.backward()


def learning_rate(setting: float | str, start: Start) -> float:
    """The highest learning rate of the schedule.

    Args:
        setting: the rate, or `auto`: 1e-3 from scratch, else 3.75e-5 for whisper-tiny and in
            proportion to 1 / sqrt(parameters) for others; `lora.RATE` times as much for adapters.
    """
    if setting != "auto":
        return float(setting)
    rate = SCRATCH_RATE
    if start.name != loader.SCRATCH:
        rate = float(f"{TINY_RATE * (TINY_PARAMETERS / start.model.num_parameters()) ** 0.5:.2g}")
    return rate * lora.RATE if lora.layers(start.model) else rate


def scheduled_rate(kind: str, peak: float, done: int, warmup_steps: int, max_steps: int) -> float:
    """The rate of the next update after `done` updates, by the formula of its schedule.

    Training takes its rates from transformers; this second computation serves to check them.
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
    """AdamW for the weights that are trained; biases and norms have no weight decay."""
    trained = [weight for weight in whisper.parameters() if weight.requires_grad]
    matrices = [weight for weight in trained if weight.ndim > 1]
    vectors = [weight for weight in trained if weight.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=BETAS, fused=True)


def moments(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's state as tensors, named by the weight's index and the moment, such as `3.exp_avg`."""
    return {
        f"{index}.{key}": torch.as_tensor(value)
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
    }


def load_moments(
    optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], rates: list[float]
) -> None:
    """Restore the state that `moments` returned, and the learning rate of each group."""
    restored = optimizer.state_dict()
    restored["state"] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        restored["state"].setdefault(int(index), {})[key] = tensor
    for group, rate in zip(restored["param_groups"], rates, strict=True):
        group["lr"] = rate
    optimizer.load_state_dict(restored)


def mean_weights(models: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The mean of the weights of several models, computed in double precision."""
    means = {}
    for name, first in models[0].items():
        values = torch.stack([weights[name].double() for weights in models])
        means[name] = values.mean(0).to(first.dtype)
    return means
