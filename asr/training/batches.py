"""Feature rows to batches: which rows a model can take, their order, and padding to its window.

The order is a pure function of (seed, epoch, index), so a checkpoint need not hold it. Rows are
memory-mapped: a batch of 16 clips of 5 s costs 2 ms, and memory grows by only four numbers for each
row of the corpus.
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

IGNORED = -100  # a label that does not count in the loss
POOL = 32  # batches whose rows are sorted by length together


@dataclass(frozen=True)
class UsableRows:
    """The rows a model can train on, and how many it cannot, by reason."""

    rows: list[TrainingRow]
    left_out: dict[str, int]


def usable_rows(
    rows: FeatureRows,
    tokenizer: WhisperTokenizer,
    num_prompt: int,
    max_target_positions: int,
    window_seconds: int,
    lead: str = "",
) -> UsableRows:
    """Leave out rows longer than the window, and labels longer than the decoder has positions.

    Args:
        num_prompt: number of tokens of a label besides those of its text.
        lead: text put before each transcript that is not empty.
    """
    frames = [num_frames - TAIL for num_frames in rows.column("num_frames")]
    texts = [lead + text if text else text for text in rows.column("text")]
    text_ids = tokenization.text_ids(tokenizer, texts)
    usable: list[TrainingRow] = []
    left_out = {"longer_than_window": 0, "label_too_long": 0}
    for index, (num_frames, ids) in enumerate(zip(frames, text_ids, strict=True)):
        if num_frames > window_seconds * FRAMES_PER_SECOND:
            left_out["longer_than_window"] += 1
        elif num_prompt + len(ids) > max_target_positions:
            left_out["label_too_long"] += 1
        else:
            usable.append(TrainingRow(index, num_frames, tuple(ids)))
    return UsableRows(usable, left_out)


class Collator:
    """Makes training examples and batches for one model.

    tokenizer: the model's own.
    prompt: tokens before a label with timestamps, or before any label of a model without them.
    timed: whether the model is trained to predict timestamps.
    first_timestamp: the token of 0.00 s.
    plain_prompt: tokens before a label without timestamps.
    lead: text put before each transcript: a space if the model predicts timestamps, as in Whisper's
        training, else nothing.
    end: the token that ends a transcript.
    positions: the most tokens that the decoder takes.
    frames: length of the model's window.
    """

    def __init__(self, whisper: WhisperForConditionalGeneration, tokenizer: WhisperTokenizer):
        generation = whisper.generation_config
        self.tokenizer = tokenizer
        self.prompt = tokenization.prompt(generation)
        self.timed = tokenization.predicts_timestamps(generation)
        self.first_timestamp = timestamps.first_timestamp(generation)
        self.plain_prompt = self.prompt
        if self.timed:
            self.plain_prompt = [*self.prompt, int(generation.no_timestamps_token_id)]
        self.lead = " " if self.timed else ""
        self.end = int(generation.eos_token_id)
        self.positions = int(whisper.config.max_target_positions)
        self.frames = loader.window_seconds(whisper) * FRAMES_PER_SECOND

    def choose(self, rows: FeatureRows) -> UsableRows:
        """The rows that the model can train on."""
        num_timestamps = PAIR if self.timed else 0
        return usable_rows(
            rows,
            self.tokenizer,
            len(self.prompt) + num_timestamps,
            self.positions,
            self.frames // FRAMES_PER_SECOND,
            self.lead,
        )

    def example(self, rows: Sequence[TrainingRow], timed: bool) -> TrainingExample:
        """Make one example of rows that follow each other in a window.

        Args:
            timed: whether its label has timestamps.
        """
        frames = [row.num_frames for row in rows]
        texts = [row.text_ids for row in rows]
        if timed:
            ids = examples.timed_label(frames, texts, self.first_timestamp)
        else:
            ids = [token for text in texts for token in text]
        return TrainingExample(
            rows=tuple(row.index for row in rows),
            num_frames=sum(frames),
            prompt=tuple(self.prompt if timed else self.plain_prompt),
            text_ids=tuple(ids),
        )

    def batch(
        self, rows: FeatureRows, windows: Sequence[TrainingExample], seed: tuple[int, ...] = ()
    ) -> dict[str, torch.Tensor]:
        """A training batch, as `collate` describes it.

        Args:
            seed: seeds the noise of silent windows, together with each window's number.
        """
        clips = [self.log_mel(rows, window, seed) for window in windows]
        texts = [window.text_ids for window in windows]
        prompts = [window.prompt for window in windows]
        return collate(clips, texts, prompts, self.end, self.frames)

    def log_mel(self, rows: FeatureRows, window: TrainingExample, seed: tuple[int, ...]) -> LogMel:
        """The features of one window, not padded to its length."""
        clips = [rows.log_mel(row) for row in window.rows]
        if not clips:
            draw = np.random.default_rng((*seed, window.number))
            return examples.silence(draw, window.num_frames, rows.num_mel_bins)
        return clips[0] if len(clips) == 1 else examples.join(clips)


@lru_cache(maxsize=2)
def epoch_order(
    lengths: tuple[int, ...], batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """The batches of one epoch as lists of row numbers; every row occurs once.

    Rows are shuffled, sorted by length within pools and cut into batches; the batches are shuffled.
    One batch is smaller if the rows do not fill it.

    Args:
        lengths: frames of each row.
    """
    draw = np.random.default_rng([seed, epoch])
    order = draw.permutation(len(lengths))
    pool_size = POOL * batch_size
    batches: list[list[int]] = []
    for pool_start in range(0, len(order), pool_size):
        pool = sort_by_length(lengths, order[pool_start : pool_start + pool_size])
        batches += [
            pool[start : start + batch_size].tolist() for start in range(0, len(pool), batch_size)
        ]
    return [batches[index] for index in draw.permutation(len(batches))]


def sort_by_length(lengths: Sequence[int], rows: np.ndarray) -> np.ndarray:
    """Sort row numbers by length, the shortest first; rows of equal length keep their order."""
    return rows[np.argsort([lengths[row] for row in rows], kind="stable")]


def batch_rows(lengths: tuple[int, ...], batch_size: int, seed: int, index: int) -> list[int]:
    """The rows of batch number `index` since the start of training."""
    batches_per_epoch = -(-len(lengths) // batch_size)
    epoch, index_in_epoch = divmod(index, batches_per_epoch)
    return epoch_order(lengths, batch_size, seed, epoch)[index_in_epoch]


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
        prompts: tokens before each text.
        end: the token that ends a transcript; it also pads the inputs.
        num_frames: length of the window.
    Returns:
        input_features (B, M, T); decoder_input_ids (B, L), prompt and text; labels (B, L), the
        token that follows each input. Labels inside the prompt and in the padding are IGNORED.
    """
    lengths = [len(prompt) + len(ids) for prompt, ids in zip(prompts, texts, strict=True)]
    inputs = torch.full((len(texts), max(lengths)), end)  # (B, L)
    labels = torch.full_like(inputs, IGNORED)
    for row, (prompt, ids) in enumerate(zip(prompts, texts, strict=True)):
        inputs[row, : lengths[row]] = torch.tensor([*prompt, *ids])
        # The prompt's last token predicts the text's first token; the text's last token, the end.
        labels[row, len(prompt) - 1 : lengths[row]] = torch.tensor([*ids, end])
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
        smoothing: share of each label's weight that is spread over all tokens.
    """
    return F.cross_entropy(
        logits.flatten(0, 1).float(),
        labels.flatten(),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=smoothing,
    )


def num_labels(batch: dict[str, torch.Tensor]) -> int:
    """The number of labels that count in the loss."""
    return int((batch["labels"] != IGNORED).sum())
