"""Feature rows to batches: which rows a model can take, in which order, padded to its window with the floor.

The order is a pure function of (seed, epoch, index), so nothing about it needs saving. Rows are memory-mapped: a batch of 16
clips of 5 s costs 2 ms, and memory does not grow with the corpus but for four numbers per row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import WhisperForConditionalGeneration, WhisperTokenizer

from asr import features, model, shards, tokenizer
from asr.audio import FRAMES_PER_SECOND
from asr.features import TAIL, LogMel

IGNORED = -100  # labels that the loss passes over
POOL = 32  # batches that are sorted by length together


class Features:
    """The rows of one split of data/features, read in place."""

    def __init__(self, split: Path):
        parts = [datasets.Dataset.from_file(str(path)) for path in shards.paths(split)]
        self.dataset = datasets.concatenate_datasets(parts).with_format("arrow")
        self.num_mel_bins = num_mel_bins(split)

    def __len__(self) -> int:
        return len(self.dataset)

    def column(self, name: str) -> list[Any]:
        """All values of one small column."""
        return [value for batch in self.dataset.select_columns(name).iter(1000) for value in batch[name].to_pylist()]

    def digest(self, index: int) -> bytes:
        """A short name of one row's sound: the same features give the same."""
        return hashlib.blake2b(memoryview(self.dataset[index]["mel"][0].as_buffer()), digest_size=12).digest()

    def text(self, index: int) -> str:
        """The transcript of one row."""
        return str(self.dataset[index]["text"][0].as_py())

    def log_mel(self, index: int) -> LogMel:
        """The unpadded features of one row."""
        row = self.dataset[index]
        floor = row["floor"][0].as_py()
        edge = row["edge"][0].as_buffer()
        return LogMel(
            features.unpack(memoryview(row["mel"][0].as_buffer()), self.num_mel_bins, floor),
            floor,
            None if edge is None else features.unpack(memoryview(edge), self.num_mel_bins, floor)[:, 0],
        )


def num_mel_bins(split: Path) -> int:
    """Mel bins of the features in a split, told by its first row: 12 bits a value."""
    row = next(shards.rows(split, ["mel", "num_frames"]))
    return len(row["mel"]) * 2 // 3 // int(row["num_frames"])


@dataclass(frozen=True)
class Example:
    """A training row: where it stands, how long it is, its tokens without prompt or end."""

    index: int
    num_frames: int
    text_ids: tuple[int, ...]


@dataclass(frozen=True)
class Choice:
    """The rows a model can train on, and how many it cannot, by reason."""

    examples: list[Example]
    left_out: dict[str, int]


def choose(rows: Features, made: WhisperTokenizer, num_prompt: int, max_target_positions: int, window_seconds: int) -> Choice:
    """Leave out rows longer than the window, and labels longer than the decoder has positions."""
    frames = [num_frames - TAIL for num_frames in rows.column("num_frames")]
    texts = tokenizer.text_ids(made, rows.column("text"))
    examples, left_out = [], {"longer_than_window": 0, "label_too_long": 0}
    for index, (num_frames, ids) in enumerate(zip(frames, texts, strict=True)):
        if num_frames > window_seconds * FRAMES_PER_SECOND:
            left_out["longer_than_window"] += 1
        elif num_prompt + len(ids) > max_target_positions:
            left_out["label_too_long"] += 1
        else:
            examples.append(Example(index, num_frames, tuple(ids)))
    return Choice(examples, left_out)


class Collator:
    """Makes batches for one model: its tokens, its prompt, its window."""

    def __init__(self, whisper: WhisperForConditionalGeneration, made: WhisperTokenizer):
        self.made = made
        self.prompt = tokenizer.prompt(whisper.generation_config)
        self.end = int(whisper.generation_config.eos_token_id)
        self.positions = int(whisper.config.max_target_positions)
        self.frames = model.window_seconds(whisper) * FRAMES_PER_SECOND

    def choose(self, rows: Features) -> Choice:
        """The rows that the model can train on."""
        return choose(rows, self.made, len(self.prompt), self.positions, self.frames // FRAMES_PER_SECOND)

    def batch(self, rows: Features, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        clips = [rows.log_mel(one.index) for one in examples]
        return collate(clips, [one.text_ids for one in examples], self.prompt, self.end, self.frames)


@lru_cache(maxsize=2)
def epoch_order(lengths: tuple[int, ...], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Batches of one epoch: rows shuffled, sorted by length within pools, batches shuffled. Every row comes once.

    The last batch of an epoch may be smaller, if the rows do not fill it.
    """
    draw = np.random.default_rng([seed, epoch])
    order = draw.permutation(len(lengths))
    pools = (order[at : at + POOL * batch_size] for at in range(0, len(order), POOL * batch_size))
    batches = [
        pool[at : at + batch_size].tolist()
        for pool in (sorted_by(lengths, pool) for pool in pools)
        for at in range(0, len(pool), batch_size)
    ]
    return [batches[index] for index in draw.permutation(len(batches))]


def sorted_by(lengths: Sequence[int], rows: np.ndarray) -> np.ndarray:
    return rows[np.argsort([lengths[row] for row in rows], kind="stable")]


def batch_rows(lengths: tuple[int, ...], batch_size: int, seed: int, index: int) -> list[int]:
    """The rows of batch number `index` since the start of training."""
    per_epoch = -(-len(lengths) // batch_size)
    epoch, place = divmod(index, per_epoch)
    return epoch_order(lengths, batch_size, seed, epoch)[place]


def input_features(clips: list[LogMel], num_frames: int) -> torch.Tensor:
    """(B, M, T) float32: each clip padded to the window with its own floor."""
    return torch.from_numpy(np.stack([features.pad(clip, num_frames) for clip in clips]))


def collate(clips: list[LogMel], texts: list[Sequence[int]], prompt: list[int], end: int, num_frames: int) -> dict[str, torch.Tensor]:
    """A training batch.

    Args:
        texts: tokens of each text, without prompt or end.
        num_frames: of the window.
    Returns:
        input_features (B, M, T); decoder_input_ids (B, L): prompt and text; labels (B, L): what comes after each of these,
        IGNORED for the prompt, which is always given, and for padding.
    """
    longest = max(map(len, texts))
    inputs = torch.full((len(texts), len(prompt) + longest), end)
    labels = torch.full_like(inputs, IGNORED)
    for row, ids in enumerate(texts):
        inputs[row, : len(prompt) + len(ids)] = torch.tensor([*prompt, *ids])
        labels[row, len(prompt) - 1 : len(prompt) + len(ids)] = torch.tensor([*ids, end])
    return {"input_features": input_features(clips, num_frames), "decoder_input_ids": inputs, "labels": labels}


def num_labels(batch: dict[str, torch.Tensor]) -> int:
    """Labels that count in the loss."""
    return int((batch["labels"] != IGNORED).sum())


def in_groups(indices: Sequence[int], size: int) -> Iterator[list[int]]:
    for at in range(0, len(indices), size):
        yield list(indices[at : at + size])
