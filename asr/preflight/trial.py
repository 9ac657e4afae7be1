"""How long a training row takes on this machine at each window: a real forward and backward pass
over a few recordings.

The model has the shape that params name, and random weights: what they are changes no time, so none
are fetched. A window takes at most a second or two, and all of them a few; those for which no time
is left are told from the others by their compute. Costs the import of torch and transformers (3 s)
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
WINDOW_SECONDS = (
    0.2  # spent on the clips of one window in one round, after which no further batch begins
)
ALL_SECONDS = 3.0  # on all windows, after which no further window is tried that will not fit
WARM_UP = 3  # rows' time that a window takes at least
# of sound at once on a CPU, where longer windows are told from shorter ones: the trial's memory is
# small and the same
CPU_SECONDS = 12
SEED = 1
COPIES = 3  # of the weights: themselves, their gradients, and what a step holds besides


@dataclass(frozen=True)
class Step:
    """What is tried: a model, and how training runs it."""

    whisper: WhisperForConditionalGeneration
    table: torch.Tensor  # positions of the longest window
    precision: str
    rows: int

    def hear(self, seconds: float) -> None:
        """Give the model this window."""
        positions, own = (
            max(round(seconds * POSITIONS_PER_SECOND), 1),
            self.whisper.model.encoder.embed_positions,
        )
        own.weight = torch.nn.Parameter(self.table[:positions].detach(), requires_grad=False)
        own.num_embeddings = self.whisper.config.max_source_positions = positions

    def seconds(self, clips: Sequence[tuple[LogMel, list[int]]]) -> float:
        """Seconds of one batch, forward and backward, at the model's window; the gradients are
        dropped.
        """
        config, device = self.whisper.config, self.whisper.device
        room = config.max_target_positions - PROMPT
        prompts = [[config.decoder_start_token_id] * PROMPT] * len(clips)
        texts = [ids[:room] for _, ids in clips]
        made = batches.collate(
            [one for one, _ in clips],
            texts,
            prompts,
            config.eos_token_id,
            2 * config.max_source_positions,
        )
        began = now(device)
        batch = {key: value.to(device) for key, value in made.items()}
        labels = batch.pop("labels")
        half = torch.float16 if self.precision == "fp16" else torch.bfloat16
        with torch.autocast(device.type, half, enabled=self.precision != "fp32"):
            logits = self.whisper(**batch, use_cache=False).logits
        batches.summed_loss(logits, labels).backward()
        self.whisper.zero_grad(set_to_none=True)
        return now(device) - began

    def row_seconds(self, clips: Sequence[tuple[LogMel, list[int]]]) -> float:
        """Seconds of a row in a batch as large as training's, or as time allows; one step warms up."""
        alone = min(self.seconds(clips[:1]) for _ in range(2))
        rows = max(1, min(self.rows_at_once(), int(WINDOW_SECONDS / alone)))
        paces: list[float] = []
        began = time.monotonic()
        for at in range(0, len(clips), rows):
            part = clips[at : at + rows]
            paces.append(self.seconds(part) / len(part))
            if time.monotonic() - began > WINDOW_SECONDS:
                break
        return min(paces)

    def rows_at_once(self) -> int:
        """As many as in training; on a CPU, where more are hardly faster, as many as take little
        memory.
        """
        seconds = self.whisper.config.max_source_positions / POSITIONS_PER_SECOND
        return (
            self.rows
            if self.whisper.device.type == "cuda"
            else max(1, min(self.rows, int(CPU_SECONDS / seconds)))
        )


def now(device: torch.device) -> float:
    """Seconds of a clock, when the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()


def built(
    given: schema.Params, made: WhisperTokenizer, seconds: int
) -> WhisperForConditionalGeneration | None:
    """A model as `train` starts from, but for its weights; None where memory would not hold a step
    of it.

    Args:
        seconds: its window, which is cut for shorter ones.
    """
    chosen = given.model
    if chosen.name == loader.SCRATCH:
        shape = {**chosen.scratch.model_dump(), "window_seconds": seconds}
        whisper = loader.build(shape, made, given.featurize.num_mel_bins, SEED)
    else:
        config = loader.load_config(chosen.name, chosen.revision)
        config.max_source_positions, config.num_mel_bins = (
            seconds * POSITIONS_PER_SECOND,
            given.featurize.num_mel_bins,
        )
        if COPIES * weights_bytes(config) > memory.free(torch.device(loader.device())):
            return None
        whisper = loader.untrained(config, SEED)
    choose_trained(Start(whisper, made, chosen.name, None), chosen, SEED)
    if given.train.gradient_checkpointing:
        with loader.quiet():
            whisper.activation_checkpointing_enable()
    return whisper.to(loader.device()).train()


def weights_bytes(config: WhisperConfig) -> int:
    """Bytes of a model's weights in fp32; nothing is built."""
    with torch.device("meta"):
        return 4 * int(WhisperForConditionalGeneration(config).num_parameters())


def run(
    given: schema.Params,
    made: WhisperTokenizer,
    clips: Sequence[tuple[LogMel, list[int]]],
    windows: Sequence[float],
    flops: Callable[[float], float],
) -> dict[float, dict[str, Any]]:
    """Seconds that a training row takes at each window, and whether that was measured or follows
    from one that was.

    Args:
        clips: features and tokens of a few recordings.
        windows: seconds, those that matter most first; the first is tried however long it takes.
        flops: the compute of a window.
    Returns:
        `{row_seconds, measured}` by window; nothing where memory holds no step.
    """
    memory.give_back()
    whisper = built(given, made, math.ceil(max(windows)))
    if whisper is None:
        return {}
    step = Step(
        whisper,
        whisper.model.encoder.embed_positions.weight,
        given.train.precision,
        given.train.per_device_train_batch_size,
    )
    found = tried(step, clips, windows, flops)
    del whisper, step
    memory.give_back()
    return (
        {
            one: {"row_seconds": estimated_seconds(one, found, flops), "measured": one in found}
            for one in windows
        }
        if found
        else {}
    )


def tried(
    step: Step,
    clips: Sequence[tuple[LogMel, list[int]]],
    windows: Sequence[float],
    flops: Callable[[float], float],
) -> dict[float, float]:
    """Seconds of a row at each window for which there was time and memory: the least of a few
    rounds, as the machine does other things.
    """
    found: dict[float, float] = {}
    began = time.monotonic()
    for window in [*windows] * ROUNDS:
        if found and step.whisper.device.type == "cpu" and window > CPU_SECONDS:
            continue
        if (
            found
            and time.monotonic() - began + WARM_UP * estimated_seconds(window, found, flops)
            > ALL_SECONDS
        ):
            continue
        step.hear(window)
        try:
            found[window] = min(found.get(window, math.inf), step.row_seconds(clips))
        except Exception as error:
            if not memory.ran_out(error):
                raise
    return found


def estimated_seconds(
    window: float, found: dict[float, float], flops: Callable[[float], float]
) -> float:
    """Seconds of a row at a window: as measured, or as the nearest window's and the compute of both
    tell.
    """
    nearest = min(found, key=lambda one: abs(math.log(one / window)))
    return found[nearest] * flops(window) / flops(nearest)
