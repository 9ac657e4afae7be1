"""The state of a training except tensors: JSON in each checkpoint; its rows are steps.csv."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

# What evaluations are compared by, the most important number first; less is better, and None, a
# loss that was not measured, is the worst.
Score = list[float | None]
NUM_RATES = 2  # of a score, before the loss


@dataclass
class TrainingState:
    """The state of a training except tensors.

    step: number of updates done.
    best_step, best_score: of the best evaluation so far, without that of the start model.
    best_wer: the plain validation WER of the weights at best_step.
    loss_sum, loss_steps: sum and number of the losses since the last recorded training loss.
    fixed_loss: loss on the fixed batch before the first step.
    first_rate, highest_rate: learning rates that were used.
    halvings: how often memory ran out, and the micro-batches were halved.
    rows: the rows of steps.csv; those of evaluations have their score too.
    """

    step: int = 0
    best_step: int = 0
    best_score: Score | None = None
    best_wer: float | None = None
    loss_sum: float = 0.0
    loss_steps: int = 0
    fixed_loss: float | None = None
    first_rate: float | None = None
    highest_rate: float = 0.0
    halvings: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def row(self, step: int) -> dict[str, Any]:
        """The row of steps.csv for a step, which is added if it is missing."""
        if not self.rows or self.rows[-1]["step"] != step:
            self.rows.append({"step": step})
        return self.rows[-1]

    def validated(self) -> bool:
        """Whether the present step has a validation WER."""
        return any(row["step"] == self.step and "validation_wer" in row for row in self.rows[-2:])

    def add_evaluation(self, loss: float | None, wer: float, score: Score) -> None:
        """Add the evaluation of the present step; it is the best one if its score is better."""
        row = self.row(self.step)
        row["validation_loss"] = loss
        row["validation_wer"] = wer
        row["validation_score"] = score
        if self.step and self.is_best(score):
            self.best_step, self.best_score, self.best_wer = self.step, score, wer

    def is_best(self, score: Score) -> bool:
        """Whether a score is better than the best so far."""
        return self.best_score is None or rank(score) < rank(self.best_score)

    def evaluations(self) -> list[dict[str, Any]]:
        """The rows with a validation WER, without that of the start model."""
        return [row for row in self.rows if row["step"] and "validation_wer" in row]

    def patience_spent(self, patience: int | None) -> bool:
        """Whether no error rate got better in the last `patience` evaluations; false if it is None.

        A loss that creeps down under equal rates makes a step the best, and no reason to go on.
        """
        rates = [rank(row["validation_score"])[:NUM_RATES] for row in self.evaluations()]
        if patience is None or not rates:
            return False
        return len(rates) - 1 - rates.index(min(rates)) >= patience

    def averaged(self, way: str, count: int) -> list[int]:
        """The steps whose weights would be averaged if the training ended now.

        Args:
            way: `none`, `best` (the best validation scores) or `last`.
            count: at most so many steps.
        """
        if way == "none":
            return []
        evaluations = self.evaluations()
        if way == "best":
            ranked = sorted(evaluations, key=lambda row: rank(row["validation_score"]))
        else:
            ranked = evaluations[::-1]
        return sorted(row["step"] for row in ranked[:count])


def rank(score: Score) -> list[float]:
    """A key that sorts scores, the best first.

    Where nothing was heard wrong, a lower loss says only that the model is surer: all such scores
    are equal, and the first step that reaches them stays the best.
    """
    values = [math.inf if value is None or math.isnan(value) else value for value in score]
    return values if any(values[:NUM_RATES]) else values[:NUM_RATES]
