"""Decoded sound in a file, a voice that speaks, and what a model hears in it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from asr.audio import codec
from asr.audio.sample_file import SampleFile
from asr.engines.engine import FP32, OPENVINO
from asr.sources import synthetic
from asr.storage import files
from asr.whisper import SAMPLE_RATE

TEXT = "The quick brown fox jumps over the lazy dog, and nobody knows why it does so every day."


def stored(folder: Path, samples: np.ndarray) -> SampleFile:
    """(S,) samples as a decoded recording, `samples.f32` in this folder."""
    folder.mkdir(exist_ok=True)
    path = folder / "samples.f32"
    samples.astype(np.float32).tofile(path)
    return SampleFile(path)


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """(S,) of a voice that speaks without end, in which each seed begins at another word."""
    spoken = _spoken()
    count = round(seconds * SAMPLE_RATE)
    return np.resize(np.roll(spoken, -seed * SAMPLE_RATE // 3), count)


@cache
def _spoken() -> np.ndarray:
    sound = codec.decode(synthetic.speak(TEXT, "en+m3", 170, 50))
    heard = np.flatnonzero(np.abs(sound) > 0.01)
    return sound[heard[0] : heard[-1]]


def say_evaluated(root: Path, model: str = "", decoding: str = "greedy") -> None:
    """Write scores that were measured with this decoding, of the workspace or of a kept model."""
    scores = {"engine": OPENVINO, "precision": FP32, "decoding": decoding, "wer": 0.109}
    if model:
        files.write_json(root / f"reports/kept/{model}.json", {"metrics": scores})
    else:
        files.write_json(root / "reports/evaluate/metrics.json", scores)


def transcript(
    folder: Path, sound: SampleFile, language: str | None = None, task: str | None = None
) -> list[str]:
    """The texts that a saved model hears, greedily; some may be empty."""
    from asr.transcribe import recognizer  # OpenVINO, which a test of sound alone does without
    from asr.transcribe.settings import Settings

    loaded = recognizer.load(folder, Settings(OPENVINO, FP32, "greedy"))
    work = recognizer.begin(loaded, sound, 0.0, sound.duration)
    recognizer.choose_prompts([work], language, task)
    return [segment.text for segment in work.segments()]
