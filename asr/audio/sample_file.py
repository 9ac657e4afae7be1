"""A recording as samples on disk: decoded once, in a child process with limits, and then read in
pieces.

    python -m asr.audio.sample_file RECORDING SAMPLES     # the child

64 kB per second of sound, so that three hours take 0.7 GB of disk and the memory of one piece. The
child has no more than 512 MB, a limited time, and no way to the network: the decoders are handed an
open file, and know no playlists.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import soundfile

from asr.audio import codec
from asr.errors import DataError, ParamsError, exit_with
from asr.storage import files
from asr.whisper import SAMPLE_RATE

LIMIT_BYTES = 512 << 20
LIMIT_SECONDS = 300  # three hours of mp3 take 10
PASSAGE_SECONDS = 120.0
PAUSE_SECONDS = 0.1
CUT_SECONDS = 20.0  # the last part of a passage in which a pause is looked for
SAMPLE_BYTES = 4
AUDIO_SUFFIXES = tuple(".aac .flac .m4a .mp3 .oga .ogg .opus .wav".split())
VIDEO_SUFFIXES = tuple(".mkv .mov .mp4 .webm".split())
SUFFIXES = AUDIO_SUFFIXES + VIDEO_SUFFIXES
TOLD_BYTES = 4096  # of what the child said that are looked at
TOO_MUCH = f"the recording cannot be decoded with {LIMIT_BYTES >> 20} MB of memory"


@dataclass(frozen=True)
class SampleFile:
    """Decoded samples in a file: float32, mono, 16 kHz."""

    path: Path

    @property
    def duration(self) -> float:
        return self.path.stat().st_size / SAMPLE_BYTES / SAMPLE_RATE

    def read(self, start: float, end: float) -> np.ndarray:
        """(S,) the samples between two moments in seconds."""
        first, last = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
        return np.fromfile(self.path, np.float32, max(last - first, 0), offset=first * SAMPLE_BYTES)


class Cancelled(Exception):
    """Somebody does not want the result any more."""


def decode_apart(
    recording: Path, samples: Path, cancelled: Callable[[], bool] = lambda: False
) -> SampleFile:
    """Decode a recording in a child process.

    Raises:
        BadData: no sound in it, a broken file, too long, or more than the child may use.
        Cancelled: `cancelled` told so.
    """
    with (
        tempfile.TemporaryFile() as said
    ):  # not a pipe: decoders may have more to say than a pipe holds
        returncode = _child(recording, samples, said, cancelled)
        said.seek(max(said.tell() - TOLD_BYTES, 0))
        lines = said.read().decode("utf-8", "replace").strip().splitlines()
    if returncode != 0:
        known = lines and lines[-1].startswith("error ")
        raise DataError(lines[-1].partition(": ")[2] if known else TOO_MUCH)
    return SampleFile(samples)


def _child(recording: Path, samples: Path, said: IO[bytes], cancelled: Callable[[], bool]) -> int:
    """Run the child to its end, and leave no file of a child that did not come to a good one."""
    command = [
        sys.executable,
        "-m",
        "asr.audio.sample_file",
        str(recording.resolve()),
        str(samples.resolve()),
    ]
    environment = {
        **os.environ,
        "OPENBLAS_NUM_THREADS": "1",
    }  # the stacks of many threads would count against the limit
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, env=environment
    )
    began = time.monotonic()
    try:
        while child.poll() is None:
            if cancelled():
                raise Cancelled
            if time.monotonic() - began > LIMIT_SECONDS:
                raise DataError(f"the recording was not decoded within {LIMIT_SECONDS} s")
            time.sleep(0.02)
    finally:
        child.kill()
        if child.wait() != 0:
            for part in samples.parent.glob(f".{samples.name}.*.part"):
                part.unlink(missing_ok=True)
            samples.unlink(missing_ok=True)
    said.seek(0, os.SEEK_END)
    return child.returncode


def decode(recording: Path, samples: Path) -> SampleFile:
    """Decode a recording in this process; a file that is broken leaves nothing."""
    with (
        files.draft(samples, durable=False) as part,
        recording.open("rb") as source,
        part.open("wb") as target,
    ):
        for block in codec.blocks(source):
            block.tofile(target)
    return SampleFile(samples)


def passages(sound: SampleFile, start: float, end: float) -> Iterator[tuple[float, np.ndarray]]:
    """Pieces of at most two minutes, each cut at the quietest pause near its end, with the moment
    it starts.
    """
    end = min(end, sound.duration)
    while end - start > PASSAGE_SECONDS:
        samples = sound.read(start, start + PASSAGE_SECONDS)
        samples = samples[: _pause(samples)]
        yield start, samples
        start += len(samples) / SAMPLE_RATE
    if len(samples := sound.read(start, end)):
        yield start, samples


def _pause(samples: np.ndarray) -> int:
    """The middle of the quietest stretch in the last part of a passage."""
    width = round(PAUSE_SECONDS * SAMPLE_RATE)
    last = samples[-round(CUT_SECONDS * SAMPLE_RATE) :]
    power = np.square(last[: len(last) // width * width].reshape(-1, width)).mean(1)
    return len(samples) - len(last) + int(power.argmin()) * width + width // 2


def peaks(sound: SampleFile, start: float, end: float, count: int) -> np.ndarray:
    """(count, 2) the least and the greatest sample in each of `count` equal stretches: what a
    waveform shows.
    """
    edges = np.linspace(start, end, count + 1)
    found = np.zeros((count, 2), np.float32)
    for index in range(count):
        samples = sound.read(edges[index], edges[index + 1])
        if len(samples):
            found[index] = samples.min(), samples.max()
    return found


def wav(sound: SampleFile, start: float, end: float) -> bytes:
    """A stretch as a WAV file of 16 bits, for a player."""
    return _encoded(sound, start, end, "WAV")


def flac(sound: SampleFile, start: float, end: float) -> bytes:
    """A stretch as a FLAC file of 16 bits, to keep."""
    return _encoded(sound, start, end, "FLAC")


def _encoded(sound: SampleFile, start: float, end: float, format: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(
        file, np.clip(sound.read(start, end), -1, 1), SAMPLE_RATE, "PCM_16", format=format
    )
    return file.getvalue()


def _limit() -> None:
    """Take from this process what a recording must not claim."""
    import resource

    wanted = {
        resource.RLIMIT_CPU: LIMIT_SECONDS,
        resource.RLIMIT_DATA: LIMIT_BYTES,
        resource.RLIMIT_FSIZE: int(codec.MAX_SECONDS + 1) * SAMPLE_RATE * SAMPLE_BYTES,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in wanted.items():
        resource.setrlimit(limit, (value, value))


def main() -> None:
    if len(sys.argv) != 3:
        raise ParamsError("usage: python -m asr.audio.sample_file RECORDING SAMPLES")
    _limit()
    try:
        decode(Path(sys.argv[1]), Path(sys.argv[2]))
    except MemoryError:
        raise DataError(TOO_MUCH) from None


if __name__ == "__main__":
    exit_with(main)
