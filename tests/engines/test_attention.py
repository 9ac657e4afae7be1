"""The attention of a text to the sound: the same on both engines, and what it says it is."""

from __future__ import annotations

import numpy as np
import pytest

from asr.decoding import loading
from asr.engines.engine import FP32, OPENVINO, TORCH, Encoded, Heads
from support.model import noise, scratch

HEADS = ((3, 1), (1, 0), (2, 1))
TOKENS = np.array([5, 6, 7, 8, 9, 10, 11], np.int64)


@pytest.fixture(scope="module")
def encoded() -> dict[str, Encoded]:
    """Two windows, heard by the same model of four layers on both engines."""
    features = noise(3.2).astype(np.float32)[: 2 * 80 * 200].reshape(2, 80, 200) * 10
    heard = {}
    for name in (OPENVINO, TORCH):
        model = scratch(decoder_layers=4)
        heard[name] = loading.of_start(model, name, FP32, "greedy").engine.encode(features)
    return heard


@pytest.mark.parametrize("window", [0, 1])
@pytest.mark.parametrize("heads", [HEADS, HEADS[:1], ()])
def test_both_engines_attend_alike(encoded, window: int, heads: Heads):
    one, other = (each.attention(window, TOKENS, heads) for each in encoded.values())
    assert one.shape == (len(heads) or 4, len(TOKENS), 100)
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.ptp(one) > 1e-3  # the control: it says something


@pytest.mark.parametrize("name", [OPENVINO, TORCH])
def test_heads_come_in_the_order_asked_and_none_are_the_upper_half(encoded, name):
    def attention(heads: Heads) -> np.ndarray:
        return encoded[name].attention(0, TOKENS, heads)

    apart = [attention([head])[0] for head in HEADS]
    np.testing.assert_allclose(attention(HEADS), apart, atol=1e-6)
    np.testing.assert_allclose(
        attention(()), attention([(2, 0), (2, 1), (3, 0), (3, 1)]), atol=1e-6
    )
    assert not np.allclose(apart[0], apart[1], atol=1e-3)  # the control


@pytest.mark.parametrize("name", [OPENVINO, TORCH])
def test_attention_is_shares_of_the_window_that_no_later_token_changes(encoded, name):
    shares = encoded[name].attention(1, TOKENS, HEADS)
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(
        encoded[name].attention(1, TOKENS[:4], HEADS), shares[:, :4], atol=1e-5
    )
    assert not np.allclose(encoded[name].attention(0, TOKENS, HEADS), shares, atol=1e-3)
