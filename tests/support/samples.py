"""Decoded sound in a file, and the text that the functions of evaluation give for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asr.audio.sample_file import SampleFile
from asr.model.loader import Start


def stored(folder: Path, samples: np.ndarray) -> SampleFile:
    """(S,) samples as a decoded recording, `samples.f32` in this folder."""
    path = folder / "samples.f32"
    samples.astype(np.float32).tofile(path)
    return SampleFile(path)


def transcript(start: Start, sound: SampleFile) -> list[str]:
    """The texts of its segments, by the model's own language and task; some may be empty."""
    from asr.transcribe import recognizer  # torch, which a test of sound alone does without

    return [one.text for one in recognizer.transcribe(start, sound, 0.0, sound.duration)]
