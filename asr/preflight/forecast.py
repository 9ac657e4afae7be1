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

from asr.errors import DiskError
from asr.features import input_features
from asr.model import greedy
from asr.runtime.formatting import bytes_text, rough_duration
from asr.training import checkpoints, memory

if TYPE_CHECKING:
    from asr.training.loop import Training

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
    disk_text = refuse_full_disk(training, out) if accelerator.is_main_process else ""
    step = step_seconds(training)
    if accelerator.num_processes == 1 and training.signals.received:
        return
    evaluation = evaluation_seconds(training)
    steps = training.params.max_steps - training.state.step
    seconds = steps * step + evaluations_left(training) * evaluation
    needed = memory_needed(training)
    free = memory.free(accelerator.device)
    accelerator.print(
        f"forecast: {steps:,} steps in about {rough_duration(seconds)}, "
        f"{bytes_text(needed)} of memory of {bytes_text(free)} free, {disk_text}",
        flush=True,
    )
    if needed > NEAR_LIMIT_SHARE * free:
        accelerator.print(
            "memory is near: lower train.per_device_train_batch_size, "
            "or set train.gradient_checkpointing",
            flush=True,
        )


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
    with memory.must_hold("AdamW's moments; take a smaller model, or freeze its encoder"):
        held = torch.empty(moments_to_come(training), dtype=torch.uint8, device=device)
    longest_batch = training.collator.batch(training.train, longest)
    gradient_seconds(training, [*parts[:-1], longest_batch])
    seconds = gradient_seconds(training, parts)
    del held
    return seconds


def gradient_seconds(training: Training, parts: list[dict[str, torch.Tensor]]) -> float:
    """Seconds that the gradients of one step's micro-batches take; the gradients are dropped."""
    began = now(training)
    training.gradients(parts)
    seconds = now(training) - began
    training.optimizer.zero_grad(set_to_none=True)
    return seconds


def evaluation_seconds(training: Training) -> float:
    """Seconds of one evaluation, estimated from the first tokens of a few rows.

    Each row is encoded twice, for its loss and for its text.
    """
    validation = training.validation
    encoded, token = decoding_seconds(training)
    longest = max((len(window.text_ids) for window in validation.examples), default=TOKENS)
    rows = -(-len(validation.row_numbers) // training.accelerator.num_processes)
    batches = -(-rows // validation.batch_size)
    return float(2 * encoded * rows + batches * (longest + 1) * token)


def decoding_seconds(training: Training) -> tuple[float, float]:
    """Seconds to encode a row, and seconds of a batch for each token that is decoded."""
    validation = training.validation
    whisper = training.unwrapped
    frames = training.collator.frames
    num_rows = min(validation.batch_size, training.params.per_device_train_batch_size)
    chosen = validation.row_numbers[:num_rows]
    times = [now(training)]
    hook = whisper.model.decoder.register_forward_pre_hook(lambda *_: times.append(now(training)))
    training.model.eval()
    try:
        clips = [greedy.cut(validation.rows.log_mel(row), frames)[0].features for row in chosen]
        inputs = input_features(clips, frames).to(whisper.device)
        greedy.decode_batch(whisper, inputs, training.collator.prompt, [TOKENS] * len(clips))
    finally:
        hook.remove()
    encoding = times[1] - times[0]  # until the decoder was called first
    return encoding / len(chosen), (now(training) - times[1]) / (len(times) - 1)


def evaluations_left(training: Training) -> int:
    """Evaluations from the present step to the last one."""
    step = training.state.step
    every = training.params.eval_steps
    last = training.params.max_steps
    next_due = -(-step // every) * every
    return len({*range(next_due, last, every), last}) - training.state.validated()


def moments_to_come(training: Training) -> int:
    """Bytes that the first update will take: two moments for each weight that is trained."""
    return 0 if training.optimizer.state else moments_bytes(training)


def moments_bytes(training: Training) -> int:
    """Bytes of AdamW's moments."""
    groups = training.optimizer.param_groups
    return 2 * sum(int(weight.nbytes) for group in groups for weight in group["params"])


def memory_needed(training: Training) -> int:
    """Bytes of the device at the peak.

    That is what this process held at most till now, and, on a CPU, the moments, whose memory no
    update has touched yet. Processes that share a machine's memory count together.
    """
    device = training.accelerator.device
    if device.type == "cuda":
        return memory.peak(device)
    num_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return (memory.peak(device) + moments_to_come(training)) * num_processes


def disk_needed(training: Training, out: Path) -> dict[Path, int]:
    """Bytes that will be written, by folder: checkpoints and weights, and the model.

    A checkpoint is written before the oldest one is removed.
    """
    params = training.params
    weights_bytes = sum(weight.nbytes for weight in training.unwrapped.parameters())
    checkpoint_bytes = weights_bytes + moments_bytes(training)
    num_averaged = params.average_count if params.average_weights != "none" else 0
    evaluations_per_save = -(-params.save_steps // params.eval_steps)
    num_weights = 1 + num_averaged + evaluations_per_save
    needed = (checkpoints.MAX_KEPT + 1) * checkpoint_bytes + num_weights * weights_bytes
    present = sum(path.stat().st_size for path in training.folder.rglob("*.safetensors"))
    return {training.folder: max(needed - present, 0), out: weights_bytes}


def refuse_full_disk(training: Training, out: Path) -> str:
    """What the disk must hold, in words.

    Raises:
        DiskError: it does not have so much room.
    """
    needed: dict[int, int] = {}
    free: dict[int, int] = {}
    for folder, num_bytes in disk_needed(training, out).items():
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


def now(training: Training) -> float:
    """Seconds of a clock, after the device has finished its work."""
    if training.accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()
