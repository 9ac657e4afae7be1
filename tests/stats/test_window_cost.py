"""What a window costs, against torch's own count and by hand; and that the recommended one is what
its rule says.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.stats import window_cost

SMALL = {
    "d_model": 768,
    "encoder_layers": 12,
    "encoder_ffn_dim": 3072,
    "decoder_layers": 12,
    "decoder_ffn_dim": 3072,
    "vocab_size": 51_865,
    "num_mel_bins": 80,
}
NARROW = {
    **SMALL,
    "d_model": 64,
    "encoder_layers": 3,
    "encoder_ffn_dim": 96,
    "decoder_layers": 1,
    "decoder_ffn_dim": 160,
    "vocab_size": 1900,
}
DURATIONS = st.lists(st.floats(0.125, 40, width=32), min_size=1, max_size=40).map(
    lambda one: np.array(one, np.float32)
)


@settings(max_examples=50)
@given(DURATIONS, st.floats(0.5, 30, width=32))
def test_rows_that_fit_are_those_no_longer_than_the_window(
    seconds: np.ndarray, window: float
) -> None:
    price = window_cost.price(window, seconds, SMALL)
    assert price["rows_fit"] == sum(float(one) <= window for one in seconds)
    assert 0 <= price["padding_share"] <= 1
    assert price["feature_bytes"] <= price["padded_float32_bytes"] * 3 / 8 + 1


@settings(max_examples=30)
@given(st.floats(1, 29), st.floats(0.5, 1), st.sampled_from([SMALL, NARROW]))
def test_a_smaller_window_costs_less(window: float, less: float, sizes: dict) -> None:
    flops = window_cost.training_flops
    assert 0 < flops(window * less, sizes) <= flops(window, sizes) < flops(30, sizes)


@pytest.mark.parametrize(("window", "sizes"), [(5, SMALL), (30, SMALL), (4, NARROW)])
def test_the_compute_is_what_torch_counts(window: int, sizes: dict) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    config = WhisperConfig(
        **sizes, **heads, max_source_positions=50 * window, use_cache=False, pad_token_id=0
    )
    with torch.device("meta"):
        model = WhisperForConditionalGeneration._from_config(config, attn_implementation="eager")
        clip, tokens = (
            torch.zeros(1, 80, 100 * window),
            torch.zeros(1, window_cost.LABEL_TOKENS, dtype=torch.long),
        )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(
            input_features=clip,
            decoder_input_ids=tokens,
            decoder_attention_mask=torch.ones_like(tokens, dtype=torch.float),
        )
    assert window_cost.training_flops(window, sizes) == pytest.approx(
        3 * counter.get_total_flops(), rel=0.01
    )


@settings(max_examples=100)
@given(DURATIONS, st.sampled_from([0.5, 0.9, 0.99, 1.0]), st.sampled_from([None, 10, 30]))
def test_the_recommended_window_is_the_shortest_that_holds_enough(
    seconds: np.ndarray, share: float, trained: int | None
) -> None:
    chosen = window_cost.recommended(seconds, share, SMALL, trained)
    enough = [window for window in range(1, 31) if np.mean(seconds <= window) >= share]
    shortest = enough[0] if enough else 30
    flops = window_cost.training_flops
    if trained and shortest < trained and flops(shortest, SMALL) / flops(trained, SMALL) > 0.9:
        assert chosen == trained
    else:
        assert chosen == shortest


def test_a_checkpoint_is_not_cut_for_a_small_saving() -> None:
    seconds = np.array([28.0] * 100, np.float32)
    assert window_cost.recommended(seconds, 0.99, SMALL, 30) == 30
    assert window_cost.recommended(seconds, 0.99, SMALL, None) == 28
    assert window_cost.recommended(seconds - 8, 0.99, SMALL, 30) == 20
    told = window_cost.reason(window_cost.price(30, seconds, SMALL), 0.99, 30, 100)
    assert "the start model's own 30 s where a cut would save less than 10 % of the compute" in told


def test_the_reason_is_told_in_words() -> None:
    seconds = np.concatenate([np.full(995, 3.5), np.full(5, 12.0)]).astype(np.float32)
    four, ten = (window_cost.price(one, seconds, SMALL) for one in (4, 10))
    assert window_cost.reason(four, 0.99, None, 1000) == (
        "4 s: it holds 99.5 % of the training recordings, and loses 5, with 12 % of padding. "
        "Rule: the fewest whole seconds that hold at least 99 % of the training "
        "recordings (stats.min_share_kept)."
    )
    long = np.full(50, 45.0, np.float32)
    assert "no window holds more, though it loses 50 recordings (100 %)" in window_cost.reason(
        window_cost.price(30, long, SMALL), 0.99, None, 50
    )
    assert (
        window_cost.difference(four, four, "model.window_seconds")
        == "model.window_seconds is 4, as recommended."
    )
    more = four["compute_against_30s"], ten["compute_against_30s"]
    assert window_cost.difference(four, ten, "it") == (
        "it is 10: it holds as many of the training recordings, and each "
        f"takes {100 * (more[1] / more[0] - 1):.0f} % more compute."
    )
    assert "holds 995 fewer of the training recordings" in window_cost.difference(
        four, window_cost.price(3, seconds, SMALL), "it"
    )
