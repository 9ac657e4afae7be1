"""Both engines score alike, whatever happened to the rows beside a row."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest

from asr.decoding import loading
from asr.engines import available, graph, openvino_engine
from asr.engines.engine import BF16, FP16, FP32, OPENVINO, TORCH, Engine
from asr.errors import ParamsError
from asr.features import pad
from support.model import clip, scratch

WINDOW = 3  # seconds
SHAPES = [
    {"window_seconds": WINDOW},
    {"window_seconds": WINDOW, "d_model": 24, "decoder_attention_heads": 3, "decoder_layers": 2},
]


def features(count: int) -> np.ndarray:
    """(B, M, T) of sounds that differ."""
    return np.stack([pad(clip(1 + 0.3 * seed, seed), 100 * WINDOW) for seed in range(count)])


def engines(**shape: object) -> dict[str, Engine]:
    start = scratch(init_std=0.5, **shape)
    return {
        name: loading.of_start(start, name, FP32, "greedy").engine for name in (OPENVINO, TORCH)
    }


def tokens(rows: int, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (rows, count))


@pytest.mark.parametrize("shape", SHAPES)
def test_openvino_scores_as_torch_does(shape: dict[str, int]) -> None:
    decoders = [
        engine.encode(features(3)).decoder([0, 1, 2]) for engine in engines(**shape).values()
    ]
    for step, count in enumerate((4, 1, 1, 2)):
        ours, theirs = (decoder.step(tokens(3, count, step)) for decoder in decoders)
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


@pytest.mark.parametrize("name", [OPENVINO, TORCH])
def test_a_row_scores_the_same_alone_and_when_others_leave_or_split(name: str) -> None:
    engine = engines(**SHAPES[0])[name]
    encoded = engine.encode(features(3))
    together = encoded.decoder([0, 1, 2, 2])
    together.step(np.repeat(tokens(1, 3), 4, 0))
    together.select([3, 1, 1])
    scores = together.step(np.array([[5], [6], [7]]))
    for row, (window, token) in enumerate([(2, 5), (1, 6), (1, 7)]):
        alone = encoded.decoder([window])
        alone.step(tokens(1, 3))
        np.testing.assert_allclose(alone.step(np.array([[token]]))[0], scores[row], atol=1e-3)


@pytest.mark.parametrize("windows", [1, 2, 3, 5])
def test_windows_that_are_encoded_in_parts_are_those_encoded_together(
    windows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So memory does not grow with the batch."""
    engine = engines(**SHAPES[0])[OPENVINO]
    together = engine.encode(features(5)).decoder(range(5)).step(tokens(5, 3))
    monkeypatch.setattr(openvino_engine, "ENCODED_FRAMES", windows * 100 * WINDOW)
    encode, sizes = engine._encode, []
    monkeypatch.setattr(engine, "_encode", lambda given: sizes.append(len(given)) or encode(given))
    encoded = engine.encode(features(5))
    assert len(encoded) == sum(sizes) == 5
    assert max(sizes) == windows
    scores = encoded.decoder(range(5)).step(tokens(5, 3))
    np.testing.assert_allclose(scores, together, atol=1e-3)


def test_a_decoder_that_hears_another_window_is_noticed() -> None:
    """A control for the two tests above: their tolerance tells one sound from another."""
    encoded = engines(**SHAPES[0])[OPENVINO].encode(features(2))
    first, second = (encoded.decoder([window]).step(tokens(1, 3)) for window in (0, 1))
    assert np.abs(first - second).max() > 0.02


@pytest.mark.skipif(not openvino_engine.has_bf16(), reason="this processor has no bfloat16")
def test_bfloat16_scores_nearly_as_float32() -> None:
    start = scratch(**SHAPES[0])
    exact, rounded = (
        loading.of_start(start, OPENVINO, precision, "greedy").engine for precision in (FP32, BF16)
    )
    ours, theirs = (
        one.encode(features(2)).decoder([0, 1]).step(tokens(2, 4)) for one in (exact, rounded)
    )
    assert 0 < np.abs(ours - theirs).max() < 0.1


def test_a_precision_that_the_machine_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "has_bf16", lambda: False)
    with pytest.raises(ParamsError, match=r"evaluate\.precision.*take fp32"):
        available.refuse_absent(OPENVINO, BF16)
    with pytest.raises(ParamsError, match="precision: OpenVINO does not"):
        openvino_engine.OpenVinoEngine("", "", FP16)
    available.refuse_absent(TORCH, BF16)


def test_weights_are_halved_only_where_that_loses_nothing() -> None:
    build = graph._Builder(
        lambda _: np.zeros(0), {"d_model": 8, "activation_function": "gelu"}, FP32
    )
    halves, thirds = np.full(4, 0.5, np.float32), np.full(4, 1 / 3, np.float32)
    assert build.constant(halves).get_type_name() == "Convert"
    assert build.constant(thirds).get_type_name() == "Constant"
    assert build.constant(np.full(4, 1e6, np.float32)).get_type_name() == "Constant"


@pytest.fixture
def offline_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, where opening a socket fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(socket, "socket", refuse)
    return tmp_path


def test_converting_opens_no_socket_and_writes_nothing_at_home(offline_home: Path) -> None:
    engine = engines(**SHAPES[0])[OPENVINO]
    engine.encode(features(1)).decoder([0]).step(tokens(1, 2))
    assert os.listdir(offline_home) == []
