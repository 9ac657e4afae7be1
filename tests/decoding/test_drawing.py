"""Tokens that are drawn at a temperature."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from asr.decoding import search


def drawn(scores: np.ndarray, point: float, temperature: float = 1.0) -> int:
    """The token at a point of the shares, from 0 to 1, of one row."""
    row: Any = SimpleNamespace(draw=SimpleNamespace(random=lambda: point), log_probability=0.0)
    (token,) = search._choose(scores[None], [row], temperature)
    assert np.isfinite(row.log_probability)
    return int(token)


@pytest.mark.parametrize("size", [3, 300, 1908, 51_865])
@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_a_draw_at_the_very_end_is_the_last_token_that_may_be_said(
    size: int, temperature: float
) -> None:
    scores = np.random.default_rng(size).normal(0, 0.1, size).astype(np.float32)
    assert drawn(scores, 1 - 2**-53, temperature) == size - 1
    scores[-1] = -np.inf
    assert drawn(scores, 1 - 2**-53, temperature) == size - 2


def test_tokens_are_drawn_by_their_shares() -> None:
    scores = np.log(np.array([0.25, 0.5, 0.25], np.float32))
    assert [drawn(scores, point) for point in (0.1, 0.3, 0.7, 0.8)] == [0, 1, 1, 2]
