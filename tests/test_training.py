"""The rate at each step of a real training is that of its schedule's formula, written down here anew."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, write_params

from asr import params
from stages import train

STEPS, WARMUP, PEAK = 8, 3, 1e-3
AFTER: dict[str, Callable[[float], float]] = {  # of the share of steps that is done after the warm-up
    "linear": lambda done: PEAK * (1 - done),
    "cosine": lambda done: PEAK * (1 + math.cos(math.pi * done)) / 2,
    "constant_with_warmup": lambda _: PEAK,
    "polynomial": lambda done: 1e-7 + (PEAK - 1e-7) * (1 - done),  # of the first degree, and never quite to nothing
}


def wanted(kind: str, warmup: int, step: int) -> float:
    """The rate of the update that ends in this step; the first has done nothing yet."""
    before = step - 1
    return PEAK * before / warmup if before < warmup else AFTER[kind]((before - warmup) / (STEPS - warmup))


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(("kind", "warmup"), [*((kind, WARMUP) for kind in AFTER), ("cosine", 0)])
def test_rates_follow_the_formula(kind: str, warmup: int, tmp_path: Path, tiny_data: Path) -> None:
    steps = {"train.max_steps": STEPS, "train.warmup_steps": warmup, "train.eval_steps": STEPS, "train.logging_steps": 1}
    small = {"train.lr_scheduler_type": kind, "train.learning_rate": PEAK, "train.eval_rows": 2, "train.save_steps": STEPS}
    given = params.load(write_params(tmp_path / "params.yaml", {**TINY, **steps, **small}))
    split = tiny_data / "data/features"
    train.run(split / "train", split / "validation", tmp_path / "models/finetuned", tmp_path / "reports", given)
    rows = csv.DictReader((tmp_path / "reports/steps.csv").read_text().splitlines())
    rates = {int(row["step"]): float(row["learning_rate"]) for row in rows if row["learning_rate"]}
    assert rates == pytest.approx({step: wanted(kind, warmup, step) for step in range(1, STEPS + 1)})
    others = [other for other in AFTER if other not in (kind, "linear", "polynomial")]
    assert all(rates[STEPS] != pytest.approx(wanted(other, warmup, STEPS)) for other in others), "the formulas must differ"
