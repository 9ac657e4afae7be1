"""Feature rows to batches: which rows a model can take, in which order, padded to its window with
the floor.

The order is a pure function of (seed, epoch, index), so nothing about it needs saving. Rows are
memory-mapped: a batch of 16 clips of 5 s costs 2 ms, and memory does not grow with the corpus but
for four numbers per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from transformers import WhisperForConditionalGeneration, WhisperTokenizer

from asr.features import TAIL, FeatureRows, LogMel, input_features
from asr.model import loader, timestamps, tokenization
from asr.training import examples
from asr.training.examples import PAIR, TrainingExample, TrainingRow
from asr.whisper import FRAMES_PER_SECOND

IGNORED = -100  # labels that the loss passes over
POOL = 32  # batches that are sorted by length together


@dataclass(frozen=True)
class UsableRows:
    """The rows a model can train on, and how many it cannot, by reason."""

    examples: list[TrainingRow]
    left_out: dict[str, int]


def usable_rows(
    rows: FeatureRows,
    made: WhisperTokenizer,
    num_prompt: int,
    max_target_positions: int,
    window_seconds: int,
    lead: str = "",
) -> UsableRows:
    """Leave out rows longer than the window, and labels longer than the decoder has positions.

    Args:
        num_prompt: tokens that a label has besides those of its text.
        lead: stands before each text.
    """
    frames = [num_frames - TAIL for num_frames in rows.column("num_frames")]
    texts = tokenization.text_ids(
        made, [lead + text if text else text for text in rows.column("text")]
    )
    examples, left_out = [], {"longer_than_window": 0, "label_too_long": 0}
    for index, (num_frames, ids) in enumerate(zip(frames, texts, strict=True)):
        if num_frames > window_seconds * FRAMES_PER_SECOND:
            left_out["longer_than_window"] += 1
        elif num_prompt + len(ids) > max_target_positions:
            left_out["label_too_long"] += 1
        else:
            examples.append(TrainingRow(index, num_frames, tuple(ids)))
    return UsableRows(examples, left_out)


class Collator:
    """Makes batches for one model: its tokens, its prompt, its window.

    A model that says when is taught as Whisper was, with a space before each text, which parts it
    from the one before.
    """

    def __init__(self, whisper: WhisperForConditionalGeneration, made: WhisperTokenizer):
        self.made = made
        self.prompt = tokenization.prompt(whisper.generation_config)
        self.timed = tokenization.says_when(whisper.generation_config)
        self.zero = timestamps.first_timestamp(whisper.generation_config)
        self.plain_prompt = [*self.prompt, self.zero - 1] if self.timed else self.prompt
        self.lead = " " if self.timed else ""
        self.end = int(whisper.generation_config.eos_token_id)
        self.positions = int(whisper.config.max_target_positions)
        self.frames = loader.window_seconds(whisper) * FRAMES_PER_SECOND

    def choose(self, rows: FeatureRows) -> UsableRows:
        """The rows that the model can train on."""
        beside = len(self.prompt) + (PAIR if self.timed else 0)
        return usable_rows(
            rows, self.made, beside, self.positions, self.frames // FRAMES_PER_SECOND, self.lead
        )

    def window(self, rows: Sequence[TrainingRow], timed: bool) -> TrainingExample:
        """Rows one after the other, with their label."""
        frames, texts = [one.num_frames for one in rows], [one.text_ids for one in rows]
        ids = (
            examples.timed_label(frames, texts, self.zero)
            if timed
            else [token for text in texts for token in text]
        )
        return TrainingExample(
            tuple(one.index for one in rows),
            sum(frames),
            tuple(self.prompt if timed else self.plain_prompt),
            tuple(ids),
        )

    def batch(
        self, rows: FeatureRows, found: Sequence[TrainingExample], moment: tuple[int, ...] = ()
    ) -> dict[str, torch.Tensor]:
        """A training batch.

        Args:
            moment: decides, with its number, how a silence sounds.
        """
        clips = [self.sound(rows, one, moment) for one in found]
        return collate(
            clips,
            [one.text_ids for one in found],
            [one.prompt for one in found],
            self.end,
            self.frames,
        )

    def sound(self, rows: FeatureRows, window: TrainingExample, moment: tuple[int, ...]) -> LogMel:
        """The features of what a window holds."""
        clips = [rows.log_mel(row) for row in window.rows]
        if not clips:
            return examples.silence(
                np.random.default_rng((*moment, window.number)),
                window.num_frames,
                rows.num_mel_bins,
            )
        return clips[0] if len(clips) == 1 else examples.join(clips)


@lru_cache(maxsize=2)
def epoch_order(
    lengths: tuple[int, ...], batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Batches of one epoch: rows shuffled, sorted by length within pools, batches shuffled. Every
    row comes once.

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


def collate(
    clips: Sequence[LogMel],
    texts: Sequence[Sequence[int]],
    prompts: Sequence[Sequence[int]],
    end: int,
    num_frames: int,
) -> dict[str, torch.Tensor]:
    """A training batch.

    Args:
        texts: tokens of each text, without prompt or end.
        prompts: what is given before each.
        num_frames: of the window.
    Returns:
        input_features (B, M, T); decoder_input_ids (B, L): prompt and text; labels (B, L): what
        comes after each of these, IGNORED for the prompt, which is always given, and for padding.
    """
    longest = max(len(prompt) + len(ids) for prompt, ids in zip(prompts, texts, strict=True))
    inputs = torch.full((len(texts), longest), end)
    labels = torch.full_like(inputs, IGNORED)
    for row, (prompt, ids) in enumerate(zip(prompts, texts, strict=True)):
        inputs[row, : len(prompt) + len(ids)] = torch.tensor([*prompt, *ids])
        labels[row, len(prompt) - 1 : len(prompt) + len(ids)] = torch.tensor([*ids, end])
    return {
        "input_features": input_features(clips, num_frames),
        "decoder_input_ids": inputs,
        "labels": labels,
    }


def summed_loss(logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Cross entropy summed over the labels that count.

    Args:
        logits: (B, L, V).
        labels: (B, L).
        smoothing: share of each label that is spread over all tokens.
    """
    return F.cross_entropy(
        logits.flatten(0, 1).float(),
        labels.flatten(),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=smoothing,
    )


def num_labels(batch: dict[str, torch.Tensor]) -> int:
    """Labels that count in the loss."""
    return int((batch["labels"] != IGNORED).sum())
