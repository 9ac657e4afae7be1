"""How long a training will take, and whether memory and disk hold it, from one real step.

Nothing is updated, and every bit of the training stays as it was: gradients are dropped, and each
step seeds its noise anew. Costs two steps and the first tokens of a few rows. For a training that
has ended there is no forecast.
"""

from __future__ import annotations

import heapq
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from asr import windows
from asr.errors import DiskError
from asr.features import input_features
from asr.model import greedy
from asr.runtime.formatting import bytes_text, rough_duration
from asr.training import checkpoints, memory

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

    from asr.training.loop import Training
    from asr.training.validation import Validation

NEAR_LIMIT_SHARE = 0.9  # of the memory that is free
TOKENS = 8  # decoded to learn what one costs


def forecast(training: Training, out: Path) -> None:
    """Print what the rest of a training takes.

    Args:
        out: the folder that its model will be written to.
    Raises:
        DiskError: the disk cannot hold its checkpoints and its model.
        ModelError: memory does not hold a single row, or AdamW's moments.
    """
    if training.ended():
        return
    accelerator = training.accelerator
    disk_text = refuse_full_disk(disk_needed(training, out)) if accelerator.is_main_process else ""
    step = step_seconds(training)
    if accelerator.num_processes == 1 and training.signals.received:
        return
    params, state = training.params, training.state
    evaluations = evaluations_left(
        state.step, params.eval_steps, params.max_steps, state.validated()
    )
    seconds = (params.max_steps - state.step) * step + evaluations * evaluation_of(training)
    needed = memory_needed(accelerator.device, moments_to_come(training.optimizer))
    free = memory.free(accelerator.device)
    accelerator.print(
        f"forecast: {params.max_steps - state.step:,} steps in about {rough_duration(seconds)}, "
        f"{bytes_text(needed)} of memory of {bytes_text(free)} free, {disk_text}",
        flush=True,
    )
    if needed > NEAR_LIMIT_SHARE * free:
        accelerator.print(
            "memory is near: lower train.per_device_train_batch_size, "
            "or set train.gradient_checkpointing",
            flush=True,
        )


# Time


def step_seconds(training: Training) -> float:
    """Seconds of the next step without its update.

    The rows with the longest texts go through memory first, while room is held for AdamW's moments,
    which only the first update makes. Where memory runs out, micro-batches are halved.
    """
    parts = training.micro_batches(training.state.step)
    longest = heapq.nlargest(
        training.params.per_device_train_batch_size,
        training.examples,
        key=lambda window: len(window.text_ids),
    )
    device = training.accelerator.device
    num_bytes = moments_to_come(training.optimizer)
    with memory.must_hold("AdamW's moments; take a smaller model, or freeze its encoder"):
        held = torch.empty(num_bytes, dtype=torch.uint8, device=device)
    longest_batch = training.collator.batch(training.train, longest)
    gradient_seconds(training, [*parts[:-1], longest_batch])
    seconds = gradient_seconds(training, parts)
    del held
    return seconds


def gradient_seconds(training: Training, parts: list[dict[str, torch.Tensor]]) -> float:
    """Seconds that the gradients of one step's micro-batches take; the gradients are dropped."""
    device = training.accelerator.device
    began = now(device)
    training.gradients(parts)
    seconds = now(device) - began
    training.optimizer.zero_grad(set_to_none=True)
    return seconds


def evaluation_of(training: Training) -> float:
    """Seconds of one evaluation of a training, estimated from the first tokens of a few rows."""
    validation = training.validation
    tried = min(validation.batch_size, training.params.per_device_train_batch_size)
    training.model.eval()
    encoded, token = decoding_seconds(training.unwrapped, validation, tried)
    rows = -(-len(validation.row_numbers) // training.accelerator.num_processes)
    longest = max((len(window.text_ids) for window in validation.examples), default=TOKENS)
    return evaluation_seconds(encoded, token, rows, validation.batch_size, longest)


def evaluation_seconds(
    encoded: float, token: float, rows: int, batch_size: int, longest: int
) -> float:
    """Seconds of an evaluation, in which each row is encoded twice: for its loss and for its text.

    Args:
        encoded: seconds to encode a row.
        token: seconds of a batch for each token that is decoded.
        longest: tokens of the longest text.
    """
    num_batches = -(-rows // batch_size)
    return float(2 * encoded * rows + num_batches * (longest + 1) * token)


def decoding_seconds(
    whisper: WhisperForConditionalGeneration, validation: Validation, num_rows: int
) -> tuple[float, float]:
    """Seconds to encode a row, and seconds of a batch for each token that is decoded.

    Args:
        num_rows: of the validation rows, that are tried as one batch.
    """
    device = whisper.device
    frames = validation.collator.frames
    chosen = validation.row_numbers[:num_rows]
    times = [now(device)]
    hook = whisper.model.decoder.register_forward_pre_hook(lambda *_: times.append(now(device)))
    try:
        clips = [windows.cut(validation.rows.log_mel(row), frames)[0].features for row in chosen]
        inputs = input_features(clips, frames).to(device)
        limits = [TOKENS] * len(clips)
        greedy.decode_batch(whisper, inputs, validation.collator.prompt, limits)
    finally:
        hook.remove()
    encoding = times[1] - times[0]  # until the decoder was called first
    return encoding / len(chosen), (now(device) - times[1]) / (len(times) - 1)


def evaluations_left(step: int, every: int, last: int, validated: bool) -> int:
    """Evaluations from the present step to the last one.

    Args:
        every: so many steps there is one, and one at the last step.
        validated: whether that of the present step is done.
    """
    next_due = -(-step // every) * every
    return len({*range(next_due, last, every), last}) - validated


def now(device: torch.device) -> float:
    """Seconds of a clock, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()


# Memory


def moments_to_come(optimizer: torch.optim.Optimizer) -> int:
    """Bytes that the first update will take: two moments for each weight that is trained."""
    return 0 if optimizer.state else moments_bytes(optimizer)


def moments_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of AdamW's moments."""
    return 2 * sum(int(w.nbytes) for group in optimizer.param_groups for w in group["params"])


def memory_needed(device: torch.device, to_come: int) -> int:
    """Bytes of the device at the peak.

    That is what this process held at most till now, and, on a CPU, the moments, whose memory no
    update has touched yet. Processes that share a machine's memory count together.

    Args:
        to_come: bytes of the moments.
    """
    if device.type == "cuda":
        return memory.peak(device)
    num_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return (memory.peak(device) + to_come) * num_processes


# Disk


def disk_needed(training: Training, out: Path) -> dict[Path, int]:
    """Bytes that a training will write, by folder: checkpoints and weights, and the model."""
    params, folder = training.params, training.folder
    weights = sum(weight.nbytes for weight in training.unwrapped.parameters())
    averaged = params.average_count if params.average_weights != "none" else 0
    evaluations_per_save = -(-params.save_steps // params.eval_steps)
    needed = checkpoints_bytes(
        weights, moments_bytes(training.optimizer), averaged, evaluations_per_save
    )
    present = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    return {folder: max(needed - present, 0), out: weights}


def checkpoints_bytes(weights: int, moments: int, averaged: int, evaluations_per_save: int) -> int:
    """The most bytes that checkpoints and kept weights take.

    A checkpoint is written before the oldest one is removed; so are weights, once per evaluation.

    Args:
        weights: bytes of the model's.
        moments: bytes of AdamW's.
        averaged: steps whose weights are averaged in the end.
    """
    kept_weights = 1 + averaged + evaluations_per_save
    return (checkpoints.MAX_KEPT + 1) * (weights + moments) + kept_weights * weights


def refuse_full_disk(bytes_by_folder: dict[Path, int]) -> str:
    """What the disk must hold, in words.

    Args:
        bytes_by_folder: that will be written.
    Raises:
        DiskError: a disk does not have so much room.
    """
    needed: dict[int, int] = {}
    free: dict[int, int] = {}
    for folder, num_bytes in bytes_by_folder.items():
        existing = next(path for path in (folder, *folder.resolve().parents) if path.is_dir())
        disk = existing.stat().st_dev
        needed[disk] = needed.get(disk, 0) + num_bytes
        free[disk] = shutil.disk_usage(existing).free
    tightest = min(needed, key=lambda disk: free[disk] - needed[disk])
    needed_text, free_text = bytes_text(needed[tightest]), bytes_text(free[tightest])
    if needed[tightest] > free[tightest]:
        raise DiskError(
            f"checkpoints and the model want {needed_text} of disk, {free_text} are free; "
            "make room (make fresh drops checkpoints, dvc gc -w data of other experiments), "
            "then run again"
        )
    return f"{needed_text} of disk of {free_text} free"
