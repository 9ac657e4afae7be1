"""The fixed rows on which a training is judged: loss with the labels given, and WER as `evaluate`
will decode.

Which rows is a hash of their ids, so that a corpus that grows hardly changes the choice. With
several processes each takes its share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers import WhisperForConditionalGeneration

from asr import wer
from asr.features import FeatureRows
from asr.model import greedy
from asr.storage.hashing import fraction_of
from asr.training import batches
from asr.training.batches import Collator
from asr.training.examples import TrainingExample

Obey = Callable[..., Iterable[Any]]


class Validation:
    """A subset of the validation split."""

    def __init__(
        self, rows: FeatureRows, collator: Collator, count: int, seed: int, batch_size: int
    ):
        self.rows, self.collator, self.batch_size = rows, collator, batch_size
        self.chosen = subset(rows.column("id"), count, seed)
        durations, texts = rows.column("duration"), rows.column("text")
        self.durations = [durations[row] for row in self.chosen]
        self.references = [wer.normalize(texts[row]) for row in self.chosen]
        wanted = set(self.chosen)
        examples = [one for one in collator.choose(rows).examples if one.index in wanted]
        self.windows = [collator.window([one], collator.timed) for one in examples]

    def hypotheses(
        self, whisper: WhisperForConditionalGeneration, accelerator: Accelerator, obey: Obey
    ) -> list[str]:
        """What the model hears in each row, decoded as `evaluate` decodes."""
        mine = range(accelerator.process_index, len(self.chosen), accelerator.num_processes)
        texts = greedy.transcribe(
            whisper,
            self.collator.made,
            [self.durations[place] for place in mine],
            lambda place: self.rows.log_mel(self.chosen[mine[place]]),
            self.batch_size,
            self.collator.positions,
            obey,
        )
        return [text for _, text in sorted(gather_object(list(zip(mine, texts, strict=True))))]

    def scores(self, hypotheses: list[str]) -> dict[str, float]:
        """WER and CER of normalised texts."""
        return wer.error_rates(self.references, [wer.normalize(text) for text in hypotheses])

    def worst(self, hypotheses: list[str], count: int) -> list[tuple[str, str]]:
        """The references that were heard worst, with what was heard."""
        pairs = [
            (reference, wer.normalize(text))
            for reference, text in zip(self.references, hypotheses, strict=True)
        ]
        return sorted(pairs, key=lambda pair: (-wer.count_words(*pair).errors, pair))[:count]


def mean_loss(
    loss: Callable[[dict[str, torch.Tensor]], torch.Tensor],
    rows: FeatureRows,
    windows: list[TrainingExample],
    collator: Collator,
    batch_size: int,
    accelerator: Accelerator,
    obey: Obey,
) -> float:
    """Loss per label over some rows; 0 where there is no label."""
    sums = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
    groups = list(greedy.in_groups(range(len(windows)), batch_size))[
        accelerator.process_index :: accelerator.num_processes
    ]
    for group in obey(groups):
        batch = collator.batch(rows, [windows[index] for index in group])
        with torch.inference_mode():
            sums += torch.tensor(
                [float(loss(batch)), batches.num_labels(batch)],
                dtype=torch.float64,
                device=sums.device,
            )
    total, count = accelerator.reduce(sums, "sum").tolist()
    return float(total / max(count, 1))


def subset(ids: list[str], count: int, seed: int) -> list[int]:
    """A fixed choice of rows by a hash of their ids, in the corpus's order."""
    chosen = sorted(range(len(ids)), key=lambda row: fraction_of(f"{seed}:{ids[row]}"))[:count]
    return sorted(chosen)
