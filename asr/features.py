"""Log-mel features, unpadded: what `WhisperFeatureExtractor` computes, without the silence it pads
with.

After the clip's own frames a padded clip holds one constant, the floor, so the clip's frames and
that value rebuild the padded features for any window. Whisper clamps every clip to a range of 2.0
above the floor: 12 bits hold it with an error of 2.5e-4, half of fp16's, in 12 kB per second at 80
mel bins (padded float32 takes 32 kB per second of *window*). Computing costs 1.5 ms for 5 s on one
core.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import scipy.fft

if TYPE_CHECKING:
    import torch

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from asr.storage import shards
from asr.whisper import FFT, HOP, SAMPLE_RATE

RANGE = 2.0  # log10 of 8 decades, divided by 4
LEVELS = 4095
TAIL = 2  # frames after the clip's end that still hear it

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
    edge: (M,) the frame at the end of a window that the clip fills to within 40 samples; None for
        clips that cannot. There the extractor reflects the clip's end, where in a longer window it
        hears silence. The floor is the longer window's; it would differ only for a clip that fills
        the window and is by far the loudest in its last 6 ms.
    """

    mel: np.ndarray
    floor: float
    edge: np.ndarray | None


@cache
def _filters(num_mel_bins: int) -> np.ndarray:
    """(M, 201) Slaney mel filters, the extractor's own."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        1 + FFT // 2,
        num_mel_bins,
        0.0,
        SAMPLE_RATE / 2,
        SAMPLE_RATE,
        norm="slaney",
        mel_scale="slaney",
    )
    return np.ascontiguousarray(filters.T, dtype=np.float32)


@cache
def _hann() -> np.ndarray:
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
    own = -(-len(samples) // HOP)
    length = own * HOP
    silence = np.zeros(length + FFT * 2 - len(samples), np.float32)
    mel = _power(np.concatenate([samples, silence]), own + TAIL, num_mel_bins)  # (M, T)
    edge = None
    if length - len(samples) < FFT // 2 - HOP and length > FFT // 2:
        filled = np.concatenate([samples, np.zeros(length - len(samples), np.float32)])
        edge = _power(
            np.pad(filled, (0, FFT // 2), mode="reflect")[-FFT - HOP :],
            2,
            num_mel_bins,
            centred=False,
        )[:, 0]
    return _scale(mel, edge)


def stored(samples: np.ndarray, num_mel_bins: int) -> LogMel:
    """Features as they come back from data/features: a model that wavers between two words must not
    hear finer elsewhere.
    """
    clip = log_mel(samples, num_mel_bins)
    mel = unpack(pack(clip.mel, clip.floor), num_mel_bins, clip.floor)
    edge = (
        None
        if clip.edge is None
        else unpack(pack(clip.edge, clip.floor), num_mel_bins, clip.floor)[:, 0]
    )
    return LogMel(mel, clip.floor, edge)


def _power(
    samples: np.ndarray, num_frames: int, num_mel_bins: int, centred: bool = True
) -> np.ndarray:
    """(M, T) log10 of the mel power; the first frame is centred on the first sample by reflection."""
    if centred:
        samples = np.pad(samples, (FFT // 2, 0), mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(samples, FFT)[::HOP][:num_frames] * _hann()
    spectrum = scipy.fft.rfft(frames, axis=1)
    power = spectrum.real**2 + spectrum.imag**2  # (T, 201)
    mel: np.ndarray = np.log10(np.maximum(_filters(num_mel_bins) @ power.T, 1e-10))
    return mel


def _scale(mel: np.ndarray, edge: np.ndarray | None) -> LogMel:
    """Whisper's clamp to 8 decades below the loudest value, and its scale."""
    bottom = max(float(mel.max()) - 8.0, -10.0)
    scaled = (np.maximum(mel, bottom) + 4.0) / 4.0
    clamped = (
        None if edge is None else (np.minimum(np.maximum(edge, bottom), bottom + 8.0) + 4.0) / 4.0
    )
    return LogMel(scaled.astype(np.float32), (bottom + 4.0) / 4.0, clamped)


def pack(mel: np.ndarray, floor: float) -> bytes:
    """Store values in [floor, floor + 2] in 12 bits each: two in three bytes. The count of values
    must be even.
    """
    codes = (
        np.rint((mel - floor) * (LEVELS / RANGE)).clip(0, LEVELS).astype(np.uint16).reshape(-1, 2)
    )
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
    return (
        codes.reshape(num_mel_bins, -1) * np.float32(RANGE / LEVELS) + np.float32(floor)
    ).astype(np.float32, copy=False)


def pad(features: LogMel, num_frames: int) -> np.ndarray:
    """Rebuild the extractor's features for a window.

    Returns:
        (M, num_frames) float32. A clip longer than the window is cut at its end.
    """
    mel = features.mel
    padded = np.full((len(mel), num_frames), features.floor, np.float32)
    kept = min(mel.shape[1], num_frames)
    padded[:, :kept] = mel[:, :kept]
    if features.edge is not None and mel.shape[1] - TAIL == num_frames:
        padded[:, -1] = features.edge
    return padded


class FeatureRows:
    """The rows of one split of data/features, read in place."""

    def __init__(self, split: Path):
        import datasets  # 0.5 s and 60 MB, and who has the features at hand needs none of it

        parts = [datasets.Dataset.from_file(str(path)) for path in shards.paths(split)]
        self.dataset = datasets.concatenate_datasets(parts).with_format("arrow")
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
        """A short name of one row's sound: the same features give the same."""
        return hashlib.blake2b(
            memoryview(self.dataset[index]["mel"][0].as_buffer()), digest_size=12
        ).digest()

    def text(self, index: int) -> str:
        """The transcript of one row."""
        return str(self.dataset[index]["text"][0].as_py())

    def duration(self, index: int) -> float:
        """Seconds of one row."""
        return float(self.dataset[index]["duration"][0].as_py())

    def log_mel(self, index: int) -> LogMel:
        """The unpadded features of one row."""
        row = self.dataset[index]
        floor = row["floor"][0].as_py()
        edge = row["edge"][0].as_buffer()
        return LogMel(
            unpack(memoryview(row["mel"][0].as_buffer()), self.num_mel_bins, floor),
            floor,
            None if edge is None else unpack(memoryview(edge), self.num_mel_bins, floor)[:, 0],
        )


def num_mel_bins(split: Path) -> int:
    """Mel bins of the features in a split, told by its first row: 12 bits a value."""
    row = next(shards.rows(split, ["mel", "num_frames"]))
    return len(row["mel"]) * 2 // 3 // int(row["num_frames"])


def input_features(clips: Sequence[LogMel], num_frames: int) -> torch.Tensor:
    """(B, M, T) float32: each clip padded to the window with its own floor."""
    import torch  # 2 s, and who only stores features needs none of it

    return torch.from_numpy(np.stack([pad(clip, num_frames) for clip in clips]))
