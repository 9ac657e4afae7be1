"""What decoding asks of an engine. Imports nothing heavy.

encoded = engine.encode(features)         # (B, M, T)
decoder = encoded.decoder([0, 0, 1])      # three hypotheses, two of them for the first row
scores = decoder.step(prompt)             # (3, V)
decoder.select([0, 2])                    # the second hypothesis has ended
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

OPENVINO, TORCH = "openvino", "torch"
ENGINES = (OPENVINO, TORCH)
FP32, BF16, FP16 = "fp32", "bf16", "fp16"
PRECISIONS = (FP32, BF16, FP16)

Heads = Sequence[tuple[int, int]]  # of the decoder's attention to the sound: layer and head


class Decoder(Protocol):
    """A batch of hypotheses that grow by the same number of tokens at each step."""

    def step(self, tokens: np.ndarray) -> np.ndarray:
        """Scores (B, V) float32 of the token that follows `tokens` (B, N) int64.

        The array is the caller's to change. Costs one pass through the decoder.
        """

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these hypotheses alone, in this order; one may be taken twice."""


class Encoded(Protocol):
    """What the encoder has heard in a batch of windows."""

    def __len__(self) -> int: ...

    def decoder(self, rows: Sequence[int]) -> Decoder:
        """Begin one hypothesis for each of these windows; a window may be named twice."""

    def attention(self, window: int, tokens: np.ndarray, heads: Heads) -> np.ndarray:
        """How a text attends to a window: shares (K, N, P) float32, that sum to 1 over P.

        Costs one pass through the decoder; on OpenVINO the first one compiles a graph.

        Args:
            tokens: (N,) int64, prompt and end included.
            heads: K of them; none are all heads of the upper half of the decoder's layers.
        """


class Engine(Protocol):
    """A model that is ready to run.

    Attributes:
        name, precision: as in params.yaml, `evaluate.engine` and `evaluate.precision`.
    """

    name: str
    precision: str

    def encode(self, features: np.ndarray) -> Encoded:
        """Encode windows (B, M, T) float32, T the frames of the window."""
