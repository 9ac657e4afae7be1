"""The probability of speech in each 32 ms of a sound, by Silero's network.

The package's graph for whole sequences runs on OpenVINO: 0.04 CPU seconds a minute of sound. Where
there is no OpenVINO, its TorchScript takes 0.5. The package itself is not imported, for that would
import torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from asr.whisper import SAMPLE_RATE

CHUNK = 512  # samples that have a probability
BATCH = 256  # chunks that go through the network together; 8 s of sound
MARGIN = 64  # samples that are heard before each chunk
HIDDEN = 128  # width of what the network remembers
GRAPH, TORCHSCRIPT = "silero_vad_16k_sequence.onnx", "silero_vad.jit"

# Takes (N, MARGIN + CHUNK) samples and what the network remembers; returns N probabilities, and
# what it remembers then. Nothing is remembered at the start of a sound.
Network = Callable[[np.ndarray, list[np.ndarray]], tuple[np.ndarray, list[np.ndarray]]]


def probabilities(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Listen to a sound, of which a batch is in memory at a time.

    Args:
        blocks: (S,) float32 at 16 kHz, of any lengths; how the sound is divided changes nothing.
    Yields:
        (N,) the probability of speech in each of the next N chunks. The last chunk of the sound is
        filled up with silence.
    """
    network = _network()
    margin = np.zeros(MARGIN, np.float32)
    remembered: list[np.ndarray] = []
    for samples in _batches(blocks):
        chunks = samples.reshape(-1, CHUNK)
        before = np.vstack([margin, chunks[:-1, -MARGIN:]])
        margin = chunks[-1, -MARGIN:]
        heard, remembered = network(np.hstack([before, chunks]), remembered)
        yield heard


def _batches(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same samples in blocks of BATCH chunks; the last is a whole number of chunks."""
    length = BATCH * CHUNK
    waiting = np.zeros(0, np.float32)
    for block in blocks:
        waiting = np.concatenate([waiting, block.astype(np.float32, copy=False)])
        whole = len(waiting) // length * length
        yield from waiting[:whole].reshape(-1, length)
        waiting = waiting[whole:]
    if len(waiting):
        yield np.pad(waiting, (0, -len(waiting) % CHUNK))


@cache
def _network() -> Network:
    return _on_openvino() if importlib.util.find_spec("openvino") else _on_torch()


def _file(name: str) -> str:
    """The path of a file of the package."""
    spec = importlib.util.find_spec("silero_vad")
    assert spec is not None
    return str(Path(str(spec.origin)).parent / "data" / name)


def _on_openvino() -> Network:
    from asr.runtime.openvino_core import core

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core().compile_model(_file(GRAPH), "CPU", settings)

    def listen(
        chunks: np.ndarray, remembered: list[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        nothing = np.zeros((1, 1, HIDDEN), np.float32)
        hidden, cell = remembered or (nothing, nothing)
        outputs = compiled({"input": chunks, "h": hidden, "c": cell})
        names = ("speech_probs", "hn", "cn")
        heard, *states = (np.array(outputs[name]) for name in names)
        return heard.ravel(), states

    return listen


def _on_torch() -> Network:
    import torch

    network = torch.jit.load(_file(TORCHSCRIPT))

    @torch.inference_mode()
    def listen(
        chunks: np.ndarray, remembered: list[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        # The network itself remembers its state and the last samples.
        if not remembered:
            network.reset_states()
        samples = torch.from_numpy(np.ascontiguousarray(chunks[:, MARGIN:]))
        heard = [float(network(chunk[None], SAMPLE_RATE)) for chunk in samples]
        return np.array(heard, np.float32), [chunks[-1:, MARGIN:]]

    return listen
