"""The state of a training except tensors: JSON in each checkpoint; its rows are steps.csv."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class TrainingState:
    """The state of a training except tensors.

    step: number of updates done.
    best_step, best_wer: step and value of the lowest validation WER, without the start model's.
    loss_sum, loss_steps: sum and number of the losses since the last recorded training loss.
    fixed_loss: loss on the fixed batch before the first step.
    first_rate, highest_rate: learning rates that were used.
    halvings: how often memory ran out, and the micro-batches were halved.
    rows: the rows of steps.csv.
    """

    step: int = 0
    best_step: int = 0
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

    def evaluations(self) -> list[dict[str, Any]]:
        """The rows with a validation WER, without that of the start model."""
        return [row for row in self.rows if row["step"] and "validation_wer" in row]

    def patience_spent(self, patience: int | None) -> bool:
        """Whether the last `patience` evaluations gave no better WER; false if it is None."""
        if patience is None:
            return False
        since_best = [row for row in self.evaluations() if row["step"] > self.best_step]
        return len(since_best) >= patience

    def averaged(self, way: str, count: int) -> list[int]:
        """The steps whose weights would be averaged if the training ended now.

        Args:
            way: `none`, `best` (the lowest validation WER) or `last`.
            count: at most so many steps.
        """
        if way == "none":
            return []
        evaluations = self.evaluations()
        if way == "best":
            ranked = sorted(evaluations, key=lambda row: row["validation_wer"])
        else:
            ranked = evaluations[::-1]
        return sorted(row["step"] for row in ranked[:count])
