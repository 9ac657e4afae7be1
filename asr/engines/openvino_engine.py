"""A Whisper on OpenVINO's CPU runtime; needs no torch.

The precision is always named, because OpenVINO would otherwise take bfloat16 wherever the processor
has it, and two processors would give two texts. Two threads on two cores: 280 ms of CPU for a
window of 30 s and 3.3 ms for a token with whisper-base in bf16; 500 and 6.6 in fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from asr.engines import graph
from asr.engines.engine import BF16, FP32, OPENVINO, Heads
from asr.engines.graph import io_type
from asr.errors import ParamsError
from asr.runtime import workers
from asr.runtime.openvino_core import core

HINTS = {FP32: "f32", BF16: "bf16"}
# Encoded at once, four minutes of sound: 0.6 GB in whisper-base; more gains no speed.
ENCODED_FRAMES = 24_000
MASKED = -1e9  # added to the attention to a token that is not there yet


def has_bf16() -> bool:
    """Whether this processor computes in bfloat16."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoEngine:
    """See `asr.engines.engine.Engine`."""

    name = OPENVINO

    def __init__(
        self,
        encoder: ov.Model | str,
        decoder: ov.Model | str,
        precision: str,
        threads: int | None = None,
        cache: Path | None = None,
    ):
        """Compile both graphs.

        Args:
            encoder, decoder: graphs of `asr.engines.graph`, or the paths of saved ones.
            threads: by default one for each core this process may use.
            cache: a folder for what compiling finds out, which halves the time from then on.
        Raises:
            ParamsError: the processor cannot compute in this precision.
        """
        if precision not in HINTS or (precision == BF16 and not has_bf16()):
            raise ParamsError(
                f"precision: OpenVINO does not compute in {precision} on this processor; take fp32"
            )
        self.precision = precision
        self.settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads or workers.count(),
        }
        kept = {"CACHE_DIR": str(cache), "CACHE_MODE": "OPTIMIZE_SIZE"} if cache else {}
        self.encoder = core().compile_model(encoder, "CPU", self.settings | kept)
        self.decoder = core().compile_model(decoder, "CPU", self.settings | kept)
        self.decoder_graph = decoder
        self.aligners: dict[Heads, ov.CompiledModel] = {}  # compiled when they are needed
        self.cross_names = [output.get_any_name() for output in self.encoder.outputs]
        self.layers = len(self.cross_names) // 2

    def encode(self, features: np.ndarray) -> OpenVinoEncoded:
        size = max(1, ENCODED_FRAMES // features.shape[2])
        if len(features) <= size:
            return OpenVinoEncoded(self, self._encode(features))
        states: dict[str, ov.Tensor] = {}
        for first in range(0, len(features), size):
            for name, part in self._encode(features[first : first + size]).items():
                if first == 0:
                    shape = [len(features), *list(part.shape)[1:]]
                    states[name] = ov.Tensor(part.element_type, shape)
                _plain(states[name])[first : first + size] = _plain(part)
        return OpenVinoEncoded(self, states)

    def _encode(self, features: np.ndarray) -> dict[str, ov.Tensor]:
        request = self.encoder.create_infer_request()
        request.infer({"features": np.ascontiguousarray(features, np.float32)})
        return {name: request.get_tensor(name) for name in self.cross_names}

    def aligner(self, heads: Heads) -> ov.CompiledModel:
        """The compiled graph that gives the attention of these heads."""
        heads = tuple(heads)
        if heads not in self.aligners:
            decoder = self.decoder_graph
            read = core().read_model(decoder) if isinstance(decoder, str) else decoder
            model = graph.aligner(read, heads)
            self.aligners[heads] = core().compile_model(model, "CPU", self.settings)
        return self.aligners[heads]


class OpenVinoEncoded:
    """Keys and values of the sound, (B, ...) for each decoder layer."""

    def __init__(self, engine: OpenVinoEngine, states: dict[str, ov.Tensor]):
        self.engine = engine
        self.states = states

    def __len__(self) -> int:
        return int(next(iter(self.states.values())).shape[0])

    def decoder(self, rows: Sequence[int]) -> OpenVinoDecoder:
        everything = list(rows) == list(range(len(self)))
        states = self.states if everything else _rows(self.states, rows)
        return OpenVinoDecoder(self.engine.decoder, self.engine.precision, states)

    def attention(self, window: int, tokens: np.ndarray, heads: Heads) -> np.ndarray:
        aligner, states = self.engine.aligner(heads), _rows(self.states, [window])
        run = OpenVinoDecoder(aligner, self.engine.precision, states)
        run.infer(tokens[None])
        shares: np.ndarray = run.request.get_tensor(graph.SHARES).data[0].astype(np.float32)
        return shares


class OpenVinoDecoder:
    """See `asr.engines.engine.Decoder`.

    The request keeps no copy of its inputs, so they are kept here as long as it runs.
    """

    def __init__(self, compiled: ov.CompiledModel, precision: str, cross: dict[str, ov.Tensor]):
        self.request = compiled.create_infer_request()
        self.names = [name.removeprefix("cross_") for name in cross]
        self.cross = cross
        self.length = 0
        self.inputs: list[Any] = []
        size, heads, width, _ = self.cross["cross_key0"].shape
        empty = [size, heads, 0, width]
        self.past = {name: ov.Tensor(io_type(precision), empty) for name in self.names}
        self._set_cross()

    def _set_cross(self) -> None:
        for name, tensor in self.cross.items():
            self.request.set_tensor(name, tensor)

    def step(self, tokens: np.ndarray) -> np.ndarray:
        self.infer(tokens)
        self.past = {name: _copy(self.request.get_tensor(name)) for name in self.names}
        scores: np.ndarray = self.request.get_tensor("scores").data[:, 0].astype(np.float32)
        return scores

    def infer(self, tokens: np.ndarray) -> None:
        """Run the graph on tokens (B, N) that follow those so far."""
        count = tokens.shape[1]
        positions = np.arange(self.length, self.length + count, dtype=np.int32)
        self.length += count
        later = np.arange(self.length)[None] > positions[:, None]  # (N, L + N)
        self.inputs = [
            ov.Tensor(np.ascontiguousarray(tokens, np.int32)),
            ov.Tensor(positions),
            ov.Tensor(np.where(later, np.float32(MASKED), np.float32(0))),
        ]
        for name, tensor in zip(("tokens", "positions", "mask"), self.inputs, strict=True):
            self.request.set_tensor(name, tensor)
        for name, tensor in self.past.items():
            self.request.set_tensor(f"past_{name}", tensor)
        self.request.infer()

    def select(self, rows: Sequence[int]) -> None:
        self.past = _rows(self.past, rows)
        self.cross = _rows(self.cross, rows)
        self._set_cross()


def _copy(tensor: ov.Tensor) -> ov.Tensor:
    copy = ov.Tensor(tensor.element_type, tensor.shape)
    tensor.copy_to(copy)
    return copy


def _plain(tensor: ov.Tensor) -> np.ndarray:
    """The values of a tensor; bfloat16, which numpy lacks, as pairs of bytes."""
    values: np.ndarray = tensor.data
    return values.view(np.uint16 if tensor.element_type == ov.Type.bf16 else np.float32)


def _rows(states: dict[str, ov.Tensor], rows: Sequence[int]) -> dict[str, ov.Tensor]:
    """The states of some rows."""
    picked: dict[str, ov.Tensor] = {}
    for name, tensor in states.items():
        target = ov.Tensor(tensor.element_type, [len(rows), *list(tensor.shape)[1:]])
        np.take(_plain(tensor), rows, axis=0, out=_plain(target))
        picked[name] = target
    return picked
