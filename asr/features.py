"""Log-mel features as `WhisperFeatureExtractor` computes them, without the padding.

All frames after a clip's own have one value, the floor. From the clip's frames and the floor the
padded features can therefore be rebuilt for any window. Whisper clamps every clip to a range of 2.0
above the floor: 12 bits per value hold this range with an error of 2.5e-4, half of fp16's, in 12 kB
per second at 80 mel bins (padded float32 takes 32 kB per second of *window*). Computing costs
1.5 ms for 5 s on one core.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from asr.storage import shards
from asr.whisper import FFT, HOP, SAMPLE_RATE

if TYPE_CHECKING:
    import torch

DECADES = 8.0  # Whisper keeps so many powers of ten below the loudest value
LEAST_POWER = 1e-10
LEAST_LOG_POWER = -10.0
RANGE = DECADES / 4.0  # from the floor to the largest scaled value
BITS = 12  # per stored value
LEVELS = (1 << BITS) - 1
LINEAR_HZ, LINEAR_MELS = 1000.0, 15.0  # up to where the mel scale is linear
MEL_STEP = np.log(6.4) / 27.0  # of the logarithm of frequency, above
TAIL = 2  # frames that start after the clip's end and still overlap it

FEATURES = pa.schema(
    [
        ("id", pa.string()),
        ("copy", pa.int32()),
        ("mel", pa.binary()),
        ("num_frames", pa.int32()),
        ("floor", pa.float64()),
        ("edge", pa.binary()),
        ("duration", pa.float64()),
        ("text", pa.string()),
        ("speaker", pa.string()),
        ("attributes", pa.string()),
    ]
)


@dataclass(frozen=True)
class LogMel:
    """Features of one clip.

    mel: (M, T) float32, T = ceil(S / 160) + 2.
    floor: the value of every frame after these.
    edge: (M,) takes the place of the last frame if the clip fills the window: the extractor then
        reflects the end of the clip, while in a longer window silence follows it. None if the clip
        ends 40 samples or more before the end of a frame, where both are equal. The floor is that
        of a longer window; it would differ only for a clip that fills the window and is by far the
        loudest in its last 6 ms.
    """

    mel: np.ndarray
    floor: float
    edge: np.ndarray | None


@cache
def _filters(num_mel_bins: int) -> np.ndarray:
    """(M, 201) the extractor's triangular filters, each of area 1, on Slaney's scale."""
    highest = LINEAR_MELS + np.log(SAMPLE_RATE / 2 / LINEAR_HZ) / MEL_STEP
    edges = _hertz(np.linspace(0, highest, num_mel_bins + 2))[:, None]
    distances = edges - np.linspace(0, SAMPLE_RATE / 2, 1 + FFT // 2)
    widths = np.diff(edges, axis=0)
    rising, falling = -distances[:-2] / widths[:-1], distances[2:] / widths[1:]
    triangles = np.maximum(0, np.minimum(rising, falling))
    filters: np.ndarray = (triangles * (2 / (edges[2:] - edges[:-2]))).astype(np.float32)
    return filters


def _hertz(mels: np.ndarray) -> np.ndarray:
    """Frequencies on Slaney's mel scale: linear up to 1 kHz, logarithmic above."""
    linear = mels * (LINEAR_HZ / LINEAR_MELS)
    return np.where(mels < LINEAR_MELS, linear, LINEAR_HZ * np.exp(MEL_STEP * (mels - LINEAR_MELS)))


@cache
def _hann() -> np.ndarray:
    """(400,) the Hann window of a frame, periodic as in the extractor."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)).astype(np.float32)


def log_mel(samples: np.ndarray, num_mel_bins: int) -> LogMel:
    """Turn a waveform into the spectrogram Whisper was trained on.

    Args:
        samples: (S,) float32 in [-1, 1], mono, 16 kHz.
        num_mel_bins: 80, or 128 for large-v3.
    Raises:
        ValueError: samples is empty or not one-dimensional.
    Source: Radford et al. 2022, section 2.2.
    """
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"samples have the shape {samples.shape}, want (S,) with S > 0")
    own_frames = -(-len(samples) // HOP)
    missing = own_frames * HOP - len(samples)  # samples to the end of the last frame
    silence = np.zeros(missing + FFT * 2, np.float32)
    padded = np.concatenate([samples, silence])
    mel = _log_power(padded, own_frames + TAIL, num_mel_bins)  # (M, T)
    # The last frame of a window reaches FFT // 2 - HOP samples beyond its end, where the extractor
    # reflects the samples before it. These are silence, unless the clip ends among them.
    has_edge = missing < FFT // 2 - HOP and own_frames * HOP > FFT // 2
    edge = _edge(samples, missing, num_mel_bins) if has_edge else None
    return _scale(mel, edge)


def _edge(samples: np.ndarray, missing: int, num_mel_bins: int) -> np.ndarray:
    """(M,) log10 of the power of the last frame, with the end of the clip reflected."""
    whole_frames = np.concatenate([samples, np.zeros(missing, np.float32)])
    reflected = np.pad(whole_frames, (0, FFT // 2), mode="reflect")
    return _log_power(reflected[-FFT - HOP :], 2, num_mel_bins, centered=False)[:, 0]


def _log_power(
    samples: np.ndarray, num_frames: int, num_mel_bins: int, centered: bool = True
) -> np.ndarray:
    """(M, T) log10 of the power in each mel bin.

    Args:
        centered: the first frame has its middle, not its start, at the first sample; samples before
            it are made by reflection.
    """
    if centered:
        samples = np.pad(samples, (FFT // 2, 0), mode="reflect")
    import scipy.fft  # 0.2 s, which a page that only reads features need not wait for

    frames = np.lib.stride_tricks.sliding_window_view(samples, FFT)[::HOP][:num_frames] * _hann()
    spectrum = scipy.fft.rfft(frames, axis=1)
    power = spectrum.real**2 + spectrum.imag**2  # (T, 201)
    mel: np.ndarray = np.log10(np.maximum(_filters(num_mel_bins) @ power.T, LEAST_POWER))
    return mel


def _scale(mel: np.ndarray, edge: np.ndarray | None) -> LogMel:
    """Clamp to 8 decades below the loudest value, and scale, as Whisper does."""
    bottom = max(float(mel.max()) - DECADES, LEAST_LOG_POWER)
    scaled = (np.maximum(mel, bottom) + 4.0) / 4.0
    if edge is not None:
        edge = (np.minimum(np.maximum(edge, bottom), bottom + DECADES) + 4.0) / 4.0
    return LogMel(scaled.astype(np.float32), (bottom + 4.0) / 4.0, edge)


def stored_log_mel(samples: np.ndarray, num_mel_bins: int) -> LogMel:
    """Features rounded to 12 bits, as in data/features.

    Transcription uses these, so that it gives the text that evaluation scored.
    """
    clip = log_mel(samples, num_mel_bins)
    mel = unpack(pack(clip.mel, clip.floor), num_mel_bins, clip.floor)
    edge = clip.edge
    if edge is not None:
        edge = unpack(pack(edge, clip.floor), num_mel_bins, clip.floor)[:, 0]
    return LogMel(mel, clip.floor, edge)


def pack(mel: np.ndarray, floor: float) -> bytes:
    """Store values in [floor, floor + 2] in 12 bits each: two values in three bytes.

    The number of values must be even.
    """
    levels = np.rint((mel - floor) * (LEVELS / RANGE)).clip(0, LEVELS)
    codes = levels.astype(np.uint16).reshape(-1, 2)
    first, second = codes[:, 0], codes[:, 1]
    packed = np.empty((len(codes), 3), np.uint8)
    packed[:, 0] = first & 0xFF
    packed[:, 1] = (first >> 8) | ((second & 0xF) << 4)
    packed[:, 2] = second >> 4
    return packed.tobytes()


def unpack(packed: bytes | memoryview, num_mel_bins: int, floor: float) -> np.ndarray:
    """Undo `pack`: (M, T) float32."""
    triples = np.frombuffer(packed, np.uint8).reshape(-1, 3).astype(np.uint16)
    codes = np.empty((len(triples), 2), np.uint16)
    codes[:, 0] = triples[:, 0] | ((triples[:, 1] & 0xF) << 8)
    codes[:, 1] = (triples[:, 1] >> 4) | (triples[:, 2] << 4)
    above_floor = codes.reshape(num_mel_bins, -1) * np.float32(RANGE / LEVELS)
    return (above_floor + np.float32(floor)).astype(np.float32, copy=False)


def pad(features: LogMel, num_frames: int) -> np.ndarray:
    """Rebuild the extractor's features for a window.

    Returns:
        (M, num_frames) float32. A clip longer than the window is cut at its end.
    """
    mel = features.mel
    padded = np.full((len(mel), num_frames), features.floor, np.float32)
    num_filled = min(mel.shape[1], num_frames)
    padded[:, :num_filled] = mel[:, :num_filled]
    fills_window = mel.shape[1] - TAIL == num_frames
    if features.edge is not None and fills_window:
        padded[:, -1] = features.edge
    return padded


def input_features(clips: Sequence[LogMel], num_frames: int) -> torch.Tensor:
    """(B, M, T) float32: each clip padded to the window with its own floor."""
    import torch  # takes 2 s, and is not needed to store features

    return torch.from_numpy(np.stack([pad(clip, num_frames) for clip in clips]))


def num_mel_bins(split: Path) -> int:
    """The number of mel bins of a split's features, from the bytes of its first row."""
    row = next(shards.rows(split, ["mel", "num_frames"]))
    num_values = len(row["mel"]) * 8 // BITS
    return num_values // int(row["num_frames"])


def language_of(attributes: str) -> str | None:
    """The language that a row's attributes name, by Whisper's code, if they name one."""
    language: str | None = json.loads(attributes).get("language")
    return language


class FeatureRows:
    """The rows of one split of data/features, memory-mapped."""

    def __init__(self, split: Path):
        import datasets  # takes 0.5 s and 60 MB, and is not needed to compute features

        parts = [datasets.Dataset.from_file(str(path)) for path in shards.paths(split)]
        self.dataset = datasets.concatenate_datasets(parts).with_format("arrow")
        self.split = split
        self.num_mel_bins = num_mel_bins(split)

    def __len__(self) -> int:
        return len(self.dataset)

    def column(self, name: str) -> list[Any]:
        """All values of one small column."""
        return [
            value
            for batch in self.dataset.select_columns(name).iter(1000)
            for value in batch[name].to_pylist()
        ]

    def digest(self, index: int) -> bytes:
        """12 bytes that identify one row's audio: a hash of its features."""
        mel = memoryview(self.dataset[index]["mel"][0].as_buffer())
        return hashlib.blake2b(mel, digest_size=12).digest()

    def text(self, index: int) -> str:
        """The transcript of one row."""
        return str(self.dataset[index]["text"][0].as_py())

    def duration(self, index: int) -> float:
        """The duration of one row in seconds."""
        return float(self.dataset[index]["duration"][0].as_py())

    def log_mel(self, index: int) -> LogMel:
        """The features of one row, not padded."""
        row = self.dataset[index]
        floor = row["floor"][0].as_py()
        mel = unpack(memoryview(row["mel"][0].as_buffer()), self.num_mel_bins, floor)
        packed_edge = row["edge"][0].as_buffer()
        if packed_edge is None:
            return LogMel(mel, floor, None)
        edge = unpack(memoryview(packed_edge), self.num_mel_bins, floor)[:, 0]
        return LogMel(mel, floor, edge)
