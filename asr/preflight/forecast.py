"""Before the long run: how long it will take, and whether memory and disk hold it, as a real step
and a few tokens tell.

Nothing is updated, and every bit of the training stays as it was: gradients are dropped, and each
step seeds its noise anew. Costs two steps and a few rows' first tokens. A training that has ended
is not asked.
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
    """Say what the rest of a training takes; `out` is where its model will lie.

    Raises:
        DiskFault: the disk cannot hold its checkpoints and its model.
        BadModel: memory does not hold a single row, or AdamW's moments.
    """
    if training.ended():
        return
    accelerator, alone = training.accelerator, training.accelerator.num_processes == 1
    disk = refuse_full_disk(training, out) if accelerator.is_main_process else ""
    step = step_seconds(training)
    if alone and training.signals.received:
        return
    evaluation = evaluation_seconds(training)
    steps = training.given.max_steps - training.state.step
    seconds = steps * step + evaluations_left(training) * evaluation
    needed, free = memory_needed(training), memory.free(accelerator.device)
    accelerator.print(
        f"forecast: {steps:,} steps in about {rough_duration(seconds)}, {bytes_text(needed)} of memory of {bytes_text(free)} free, {disk}",
        flush=True,
    )
    if needed > NEAR_LIMIT_SHARE * free:
        accelerator.print(
            "memory is near: lower train.per_device_train_batch_size, or set train.gradient_checkpointing",
            flush=True,
        )


def step_seconds(training: Training) -> float:
    """Seconds of the next step without its update, after the rows of the longest texts have been
    through memory.

    Room is held for AdamW's moments, which the first update makes. Where memory runs out,
    micro-batches are halved.
    """
    parts = training.micro_batches(training.state.step)
    most = heapq.nlargest(
        training.given.per_device_train_batch_size,
        training.windows,
        key=lambda one: len(one.text_ids),
    )
    with memory.must_hold("AdamW's moments; take a smaller model, or freeze its encoder"):
        held = torch.empty(
            moments_to_come(training), dtype=torch.uint8, device=training.accelerator.device
        )
    seconds = [
        gradient_seconds(training, one)
        for one in ([*parts[:-1], training.collator.batch(training.train, most)], parts)
    ]
    del held
    return seconds[1]


def gradient_seconds(training: Training, parts: list[dict[str, torch.Tensor]]) -> float:
    """Seconds that the gradients of one step's rows take; they are dropped."""
    began = now(training)
    training.gradients(parts)
    seconds = now(training) - began
    training.optimizer.zero_grad(set_to_none=True)
    return seconds


def evaluation_seconds(training: Training) -> float:
    """Seconds of one evaluation, in which each row is encoded twice, for its loss and to be heard,
    from the first tokens of a few rows.
    """
    validation, whisper, frames = training.validation, training.bare, training.collator.frames
    chosen = validation.chosen[
        : min(validation.batch_size, training.given.per_device_train_batch_size)
    ]
    marks = [now(training)]
    hook = whisper.model.decoder.register_forward_pre_hook(lambda *_: marks.append(now(training)))
    training.model.eval()
    try:
        clips = [greedy.cut(validation.rows.log_mel(row), frames)[0].features for row in chosen]
        inputs = input_features(clips, frames).to(whisper.device)
        greedy.decode_batch(whisper, inputs, training.collator.prompt, [TOKENS] * len(clips))
    finally:
        hook.remove()
    encoded, token = marks[1] - marks[0], (now(training) - marks[1]) / (len(marks) - 1)
    longest = max((len(one.text_ids) for one in validation.windows), default=TOKENS)
    rows = -(-len(validation.chosen) // training.accelerator.num_processes)
    return float(
        2 * encoded * rows / len(chosen) + -(-rows // validation.batch_size) * (longest + 1) * token
    )


def evaluations_left(training: Training) -> int:
    """Evaluations from where we stand to the last step."""
    step, every, last = training.state.step, training.given.eval_steps, training.given.max_steps
    return len({*range(-(-step // every) * every, last, every), last}) - training.state.validated()


def moments_to_come(training: Training) -> int:
    """Bytes that the first update will take: two moments for each weight that is trained."""
    return 0 if training.optimizer.state else moments_bytes(training)


def moments_bytes(training: Training) -> int:
    return 2 * sum(
        int(value.nbytes) for group in training.optimizer.param_groups for value in group["params"]
    )


def memory_needed(training: Training) -> int:
    """Bytes of the device at the peak: what this process held at most till now, and, on a CPU,
    moments that nobody wrote yet.

    Processes that share a machine's memory count together.
    """
    device = training.accelerator.device
    if device.type == "cuda":
        return memory.peak(device)
    return (memory.peak(device) + moments_to_come(training)) * int(
        os.environ.get("LOCAL_WORLD_SIZE", "1")
    )


def disk_needed(training: Training, out: Path) -> dict[Path, int]:
    """Bytes by folder: checkpoints with the one that is written before the oldest goes, weights
    that are kept, the model.
    """
    given = training.given
    weights = sum(value.nbytes for value in training.bare.parameters())
    kept = (
        1
        + (given.average_count if given.average_weights != "none" else 0)
        + -(-given.save_steps // given.eval_steps)
    )
    wanted = (checkpoints.MAX_KEPT + 1) * (weights + moments_bytes(training)) + kept * weights
    there = sum(path.stat().st_size for path in training.folder.rglob("*.safetensors"))
    return {training.folder: max(wanted - there, 0), out: weights}


def refuse_full_disk(training: Training, out: Path) -> str:
    """What the disk must hold, in words.

    Raises:
        DiskFault: it has not so much room.
    """
    needed: dict[int, int] = {}
    free: dict[int, int] = {}
    for folder, count in disk_needed(training, out).items():
        there = next(one for one in (folder, *folder.resolve().parents) if one.is_dir())
        disk = there.stat().st_dev
        needed[disk] = needed.get(disk, 0) + count
        free[disk] = shutil.disk_usage(there).free
    tightest = min(needed, key=lambda disk: free[disk] - needed[disk])
    if needed[tightest] > free[tightest]:
        raise DiskError(
            f"checkpoints and the model want {bytes_text(needed[tightest])} of disk, {bytes_text(free[tightest])} are free; make room "
            "(make fresh drops checkpoints, dvc gc -w data of other experiments), then run again"
        )
    return f"{bytes_text(needed[tightest])} of disk of {bytes_text(free[tightest])} free"


def now(training: Training) -> float:
    """Seconds of a clock, when the device has done what it was told."""
    if training.accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()
