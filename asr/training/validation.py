"""Loss, WER and CER of a training on a fixed subset of the validation split, decoded greedily.

A hash of the ids chooses the rows, so a growing corpus hardly changes the choice. With several
processes each decodes its share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers import WhisperForConditionalGeneration

from asr import wer, windows
from asr.features import FeatureRows, LogMel
from asr.model import greedy
from asr.stats import writing_systems
from asr.storage.hashing import fraction_of
from asr.training import batches
from asr.training.batches import Collator
from asr.training.examples import TrainingExample
from asr.training.state import Score

# Yields groups of rows; after a signal it raises `Interrupted` before the next group.
UntilSignal = Callable[..., Iterable[Any]]


class Validation:
    """A subset of the validation split.

    row_numbers: numbers of its rows in the split.
    durations, references: seconds and normalized text of each of its rows.
    examples: training examples of its rows that fit the window, to measure the loss on.
    compared_by: names of the values of an evaluation that make its score, in their order.
    """

    def __init__(
        self, rows: FeatureRows, collator: Collator, count: int, seed: int, batch_size: int
    ):
        self.rows = rows
        self.collator = collator
        self.batch_size = batch_size
        self.row_numbers = subset(rows.column("id"), count, seed)
        durations, texts = rows.column("duration"), rows.column("text")
        self.durations = [durations[row] for row in self.row_numbers]
        self.references = [wer.normalize(texts[row]) for row in self.row_numbers]
        numbers = set(self.row_numbers)
        usable = [row for row in collator.choose(rows).rows if row.index in numbers]
        self.examples = [collator.example([row], collator.timed) for row in usable]
        self.compared_by = compared_by(self.references)

    def hypotheses(
        self,
        whisper: WhisperForConditionalGeneration,
        accelerator: Accelerator,
        until_signal: UntilSignal,
    ) -> list[str]:
        """Decode each row greedily; return the texts of all processes."""
        mine = range(accelerator.process_index, len(self.row_numbers), accelerator.num_processes)

        def log_mel(number: int) -> LogMel:
            return self.rows.log_mel(self.row_numbers[mine[number]])

        texts = greedy.transcribe(
            whisper,
            self.collator.tokenizer,
            [self.durations[index] for index in mine],
            log_mel,
            self.batch_size,
            self.collator.positions,
            until_signal,
        )
        of_all_processes = gather_object(list(zip(mine, texts, strict=True)))
        return [text for _, text in sorted(of_all_processes)]

    def scores(self, hypotheses: list[str]) -> dict[str, float]:
        """WER and CER of normalized texts, plain and bounded."""
        pairs = self.references, [wer.normalize(text) for text in hypotheses]
        return wer.error_rates(*pairs) | wer.bounded_error_rates(*pairs)

    def score(self, evaluation: Mapping[str, float | None]) -> Score:
        """The numbers by which an evaluation is compared with others.

        Args:
            evaluation: loss and error rates by name.
        """
        return [evaluation[name] for name in self.compared_by]

    def worst(self, hypotheses: list[str], count: int) -> list[tuple[str, str]]:
        """Reference and hypothesis of the rows with the most errors, normalized."""
        pairs = [
            (reference, wer.normalize(text))
            for reference, text in zip(self.references, hypotheses, strict=True)
        ]
        return sorted(pairs, key=lambda pair: (-wer.count_words(*pair).errors, pair))[:count]


def compared_by(references: list[str]) -> tuple[str, ...]:
    """What evaluations are compared by: an error rate, if it is equal the other, then the loss.

    The rates are bounded, so that no single row can decide: one hypothesis that goes round in
    circles has more errors than many rows have words. Where texts have no spaces, a whole sentence
    would count as one word, so CER comes first.
    """
    if writing_systems.are_unspaced(references):
        return "cer_bounded", "wer_bounded", "loss"
    return "wer_bounded", "cer_bounded", "loss"


def mean_loss(
    loss: Callable[[dict[str, torch.Tensor]], torch.Tensor],
    rows: FeatureRows,
    examples: list[TrainingExample],
    collator: Collator,
    batch_size: int,
    accelerator: Accelerator,
    until_signal: UntilSignal,
) -> float:
    """Loss per label over the examples of all processes; 0 if there is no label.

    Args:
        loss: returns the summed loss of a batch.
    """
    groups = list(windows.in_groups(range(len(examples)), batch_size))
    mine = groups[accelerator.process_index :: accelerator.num_processes]
    sums = torch.zeros(2, dtype=torch.float64, device=accelerator.device)  # loss, labels
    for group in until_signal(mine):
        batch = collator.batch(rows, [examples[index] for index in group])
        with torch.inference_mode():
            values = [float(loss(batch)), batches.num_labels(batch)]
            sums += torch.tensor(values, dtype=torch.float64, device=sums.device)
    total, count = accelerator.reduce(sums, "sum").tolist()
    return float(total / max(count, 1))


def subset(ids: list[str], count: int, seed: int) -> list[int]:
    """The numbers of `count` rows, chosen by a hash of their ids, in the corpus's order."""
    ranked = sorted(range(len(ids)), key=lambda row: fraction_of(f"{seed}:{ids[row]}"))
    return sorted(ranked[:count])
