"""Where a training stands: all of it that is no tensor. It is JSON in each checkpoint, and its rows
are steps.csv.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class TrainingState:
    """All of a training that is not a tensor; it is JSON in the checkpoint."""

    step: int = 0
    best_step: int = 0
    best_wer: float | None = None
    loss_sum: float = 0.0
    loss_steps: int = 0
    fixed_loss: float | None = None
    first_rate: float | None = None
    highest_rate: float = 0.0
    halvings: int = 0  # how often memory ran out
    rows: list[dict[str, Any]] = field(default_factory=list)

    def row(self, step: int) -> dict[str, Any]:
        """The line of steps.csv for a step."""
        if not self.rows or self.rows[-1]["step"] != step:
            self.rows.append({"step": step})
        return self.rows[-1]

    def validated(self) -> bool:
        return any(row["step"] == self.step and "validation_wer" in row for row in self.rows[-2:])

    def evaluations(self) -> list[dict[str, Any]]:
        """The lines with a validation WER, but for that of the start."""
        return [row for row in self.rows if row["step"] and "validation_wer" in row]

    def patience_spent(self, patience: int | None) -> bool:
        """Whether so many evaluations have brought no better WER."""
        return (
            patience is not None
            and sum(row["step"] > self.best_step for row in self.evaluations()) >= patience
        )

    def averaged(self, way: str, count: int) -> list[int]:
        """The steps whose weights would be averaged now."""
        if way == "none":
            return []
        found = self.evaluations()
        ranked = (
            sorted(found, key=lambda row: row["validation_wer"]) if way == "best" else found[::-1]
        )
        return sorted(row["step"] for row in ranked[:count])
