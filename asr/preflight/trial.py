"""How long a training row takes on this machine at each window.

Measured by a real forward and backward pass over a few recordings. The model has the shape that
params name, and random weights: their values change no time, so none are fetched. A window takes a
second or two at most, and all of them a few; windows not measured are estimated from the nearest
measured one, in proportion to their FLOPs. Costs the import of torch and transformers (3 s)
besides, and the memory of one step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizer

from asr.features import LogMel
from asr.model import loader
from asr.model.loader import Start
from asr.model.start import choose_trained
from asr.params import schema
from asr.training import batches, memory
from asr.whisper import POSITIONS_PER_SECOND

CLIPS = 20  # recordings that are tried, at most
PROMPT = 4  # tokens before a text
ROUNDS = 3
WINDOW_SECONDS = 0.2  # for one window in one round, after which no further batch begins
ALL_SECONDS = 3.0  # for all windows, after which none is tried that would take longer
WARM_UP = 3  # rows' time that a window takes at least
# of sound at once on a CPU, so that the trial's memory stays small; longer windows are estimated
CPU_SECONDS = 12
SEED = 1
COPIES = 3  # of the weights: themselves, their gradients, and what a step holds besides

Clips = Sequence[tuple[LogMel, list[int]]]  # features and tokens of a few recordings


@dataclass(frozen=True)
class Step:
    """A training step that is tried.

    Attributes:
        table: (P, D) positions of the longest window.
        precision: fp32, bf16 or fp16.
        rows: of a batch in training.
    """

    whisper: WhisperForConditionalGeneration
    table: torch.Tensor
    precision: str
    rows: int

    def set_window(self, seconds: float) -> None:
        """Give the model this window."""
        positions = max(round(seconds * POSITIONS_PER_SECOND), 1)
        embedding = self.whisper.model.encoder.embed_positions
        weight = self.table[:positions].detach()
        embedding.weight = torch.nn.Parameter(weight, requires_grad=False)
        embedding.num_embeddings = positions
        self.whisper.config.max_source_positions = positions

    def seconds(self, clips: Clips) -> float:
        """Seconds of one batch, forward and backward, at the model's window.

        The gradients are dropped.
        """
        device = self.whisper.device
        cpu_batch = self._collate(clips)
        began = now(device)
        batch = {key: value.to(device) for key, value in cpu_batch.items()}
        labels = batch.pop("labels")
        half = torch.float16 if self.precision == "fp16" else torch.bfloat16
        with torch.autocast(device.type, half, enabled=self.precision != "fp32"):
            logits = self.whisper(**batch, use_cache=False).logits
        batches.summed_loss(logits, labels).backward()
        self.whisper.zero_grad(set_to_none=True)
        return now(device) - began

    def _collate(self, clips: Clips) -> dict[str, torch.Tensor]:
        """A training batch; texts too long for the decoder are cut."""
        config = self.whisper.config
        room = config.max_target_positions - PROMPT
        return batches.collate(
            [log_mel for log_mel, _ in clips],
            [ids[:room] for _, ids in clips],
            [[config.decoder_start_token_id] * PROMPT] * len(clips),
            config.eos_token_id,
            2 * config.max_source_positions,
        )

    def row_seconds(self, clips: Clips) -> float:
        """Seconds of a row in a batch as large as training's, or as time allows."""
        first_clip = min(self.seconds(clips[:1]) for _ in range(2))  # the first time warms up
        rows = max(1, min(self.rows_at_once(), int(WINDOW_SECONDS / first_clip)))
        row_times: list[float] = []
        began = time.monotonic()
        for start in range(0, len(clips), rows):
            part = clips[start : start + rows]
            row_times.append(self.seconds(part) / len(part))
            if time.monotonic() - began > WINDOW_SECONDS:
                break
        return min(row_times)

    def rows_at_once(self) -> int:
        """As many rows as in training; on a CPU, where more are hardly faster, fewer."""
        if self.whisper.device.type == "cuda":
            return self.rows
        seconds = self.whisper.config.max_source_positions / POSITIONS_PER_SECOND
        return max(1, min(self.rows, int(CPU_SECONDS / seconds)))


def now(device: torch.device) -> float:
    """Seconds of a clock, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()


def build_model(
    params: schema.Params, tokenizer: WhisperTokenizer, seconds: int
) -> WhisperForConditionalGeneration | None:
    """A model as `train` starts from, with other weights.

    Args:
        seconds: its window, which is cut for shorter ones.
    Returns:
        None where memory would not hold a step of it.
    """
    model = params.model
    num_mel_bins = params.featurize.num_mel_bins
    if model.name == loader.SCRATCH:
        shape = {**model.scratch.model_dump(), "window_seconds": seconds}
        whisper = loader.build(shape, tokenizer, num_mel_bins, SEED)
    else:
        config = loader.load_config(model.name, model.revision)
        config.max_source_positions = seconds * POSITIONS_PER_SECOND
        config.num_mel_bins = num_mel_bins
        if COPIES * weights_bytes(config) > memory.free(torch.device(loader.device())):
            return None
        whisper = loader.untrained(config, SEED)
    choose_trained(Start(whisper, tokenizer, model.name, None), model, SEED)
    if params.train.gradient_checkpointing:
        with loader.quiet():
            whisper.activation_checkpointing_enable()
    return whisper.to(loader.device()).train()


def weights_bytes(config: WhisperConfig) -> int:
    """Bytes of a model's weights in fp32; no memory is taken for them."""
    with torch.device("meta"):
        return 4 * int(WhisperForConditionalGeneration(config).num_parameters())


def run(
    params: schema.Params,
    tokenizer: WhisperTokenizer,
    clips: Clips,
    windows: Sequence[float],
    flops: Callable[[float], float],
) -> dict[float, dict[str, Any]]:
    """Seconds that a training row takes at each window.

    Args:
        windows: seconds, those that matter most first; the first is tried however long it takes.
        flops: the compute of a window.
    Returns:
        `{row_seconds, measured}` by window, where `measured` is False for an estimate; nothing
        where memory holds no step.
    """
    memory.give_back()
    whisper = build_model(params, tokenizer, math.ceil(max(windows)))
    if whisper is None:
        return {}
    table = whisper.model.encoder.embed_positions.weight
    step = Step(whisper, table, params.train.precision, params.train.per_device_train_batch_size)
    measured = measure(step, clips, windows, flops)
    del whisper, table, step
    memory.give_back()
    if not measured:
        return {}
    return {
        window: {
            "row_seconds": estimated_seconds(window, measured, flops),
            "measured": window in measured,
        }
        for window in windows
    }


def measure(
    step: Step, clips: Clips, windows: Sequence[float], flops: Callable[[float], float]
) -> dict[float, float]:
    """Seconds of a row at each window for which there is time and memory.

    The least of a few rounds, as the machine does other things too.
    """
    measured: dict[float, float] = {}
    on_cpu = step.whisper.device.type == "cpu"
    began = time.monotonic()
    for window in [*windows] * ROUNDS:
        if measured:  # the first window is tried in any case
            if on_cpu and window > CPU_SECONDS:
                continue
            least_seconds = WARM_UP * estimated_seconds(window, measured, flops)
            if time.monotonic() - began + least_seconds > ALL_SECONDS:
                continue
        step.set_window(window)
        try:
            seconds = step.row_seconds(clips)
        except Exception as error:
            if not memory.ran_out(error):
                raise
            continue
        measured[window] = min(measured.get(window, math.inf), seconds)
    return measured


def estimated_seconds(
    window: float, measured: dict[float, float], flops: Callable[[float], float]
) -> float:
    """Seconds of a row at a window: as measured, or from the nearest window by its FLOPs."""
    nearest = min(measured, key=lambda other: abs(math.log(other / window)))
    return measured[nearest] * flops(window) / flops(nearest)
