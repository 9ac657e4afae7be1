"""A recording as samples on disk: decoded once, in a child process with limits, and read in pieces.

    python -m asr.audio.sample_file RECORDING SAMPLES ...     # the child

Costs 64 kB of disk per second of sound, so that three hours take 0.7 GB and the memory of one
piece. The child has 512 MB of memory and a limited time. It never opens the network: the decoders
get an open file, and read no playlists.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from asr.audio import codec
from asr.errors import DataError, ParamsError, exit_with
from asr.runtime.child import run_child
from asr.runtime.limits import limit_self
from asr.storage import files
from asr.whisper import SAMPLE_RATE

LIMIT_BYTES = 512 << 20
LIMIT_SECONDS = 300  # three hours of mp3 take 10
TOO_MUCH = f"the recording cannot be decoded with {LIMIT_BYTES >> 20} MB of memory"

PASSAGE_SECONDS = 120.0
CUT_SECONDS = 20.0  # the last part of a passage, in which a pause is looked for
PAUSE_SECONDS = 0.1

SAMPLE_BYTES = 4
AUDIO_SUFFIXES = (".aac", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav")
VIDEO_SUFFIXES = (".mkv", ".mov", ".mp4", ".webm")
SUFFIXES = AUDIO_SUFFIXES + VIDEO_SUFFIXES


@dataclass(frozen=True)
class SampleFile:
    """Decoded samples in a file: float32, mono, 16 kHz."""

    path: Path

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.path.stat().st_size / SAMPLE_BYTES / SAMPLE_RATE

    def read(self, start: float, end: float) -> np.ndarray:
        """(S,) the samples between two moments in seconds."""
        first = round(start * SAMPLE_RATE)
        last = round(end * SAMPLE_RATE)
        return np.fromfile(self.path, np.float32, max(last - first, 0), offset=first * SAMPLE_BYTES)


class Cancelled(Exception):
    """The caller cancelled."""


def decode_apart(
    recording: Path, samples: Path, cancelled: Callable[[], bool] = lambda: False
) -> SampleFile:
    """Decode a recording in a child process.

    Args:
        recording: the encoded file.
        samples: where the samples are written.
        cancelled: asked 50 times a second whether to give up.
    Raises:
        DataError: no sound in it, a broken file, too long, or more than the child may use.
        Cancelled: `cancelled` returned True.
    """
    (fault,) = _decode_in_child([(recording, samples)], cancelled)
    if fault:
        raise DataError(fault)
    return SampleFile(samples)


def decode_together(recordings: Sequence[Path], folder: Path) -> list[SampleFile | DataError]:
    """Decode recordings in one child, whose start costs ten times the decoding of a short one.

    Args:
        folder: where the samples are written, `0.f32`, `1.f32`, ...
    Returns:
        for each recording its samples, or why there are none.
    """
    pairs = [(path, folder / f"{number}.f32") for number, path in enumerate(recordings)]
    try:
        faults = _decode_in_child(pairs)
    except DataError as error:
        if len(pairs) == 1:
            return [error]
        return [_sound_or_error(*pair) for pair in pairs]  # one of them ended the child
    return [
        DataError(fault) if fault else SampleFile(samples)
        for fault, (_, samples) in zip(faults, pairs, strict=True)
    ]


def _sound_or_error(recording: Path, samples: Path) -> SampleFile | DataError:
    try:
        return decode_apart(recording, samples)
    except DataError as error:
        return error


def _decode_in_child(
    pairs: Sequence[tuple[Path, Path]], cancelled: Callable[[], bool] = lambda: False
) -> list[str | None]:
    """Decode recordings to samples in a child; return the fault of each, None for no fault.

    Raises:
        DataError: the child died, or took too long; no samples are left.
    """

    def check() -> None:
        if cancelled():
            raise Cancelled

    try:
        output = run_child(
            "asr.audio.sample_file",
            *(str(path.resolve()) for pair in pairs for path in pair),
            seconds=LIMIT_SECONDS,
            late=f"the recording was not decoded within {LIMIT_SECONDS} s",
            died=TOO_MUCH,
            check=check,
        )
    except BaseException:
        for _, samples in pairs:
            for part in (samples, *samples.parent.glob(f".{samples.name}.*.part")):
                part.unlink(missing_ok=True)
        raise
    faults: list[str | None] = json.loads(output)
    return faults


def decode(recording: Path, samples: Path) -> SampleFile:
    """Decode a recording in this process; a broken one leaves no file."""
    with (
        files.draft(samples, durable=False) as draft,
        recording.open("rb") as source,
        draft.open("wb") as target,
    ):
        for block in codec.blocks(source):
            block.tofile(target)
    return SampleFile(samples)


def passages(sound: SampleFile, start: float, end: float) -> Iterator[tuple[float, np.ndarray]]:
    """Yield pieces of at most two minutes, each cut at the quietest pause near its end.

    Args:
        start, end: seconds.
    Yields:
        The second at which the piece starts, and its samples.
    """
    end = min(end, sound.duration)
    while end - start > PASSAGE_SECONDS:
        samples = sound.read(start, start + PASSAGE_SECONDS)
        samples = samples[: _pause(samples)]
        yield start, samples
        start += len(samples) / SAMPLE_RATE
    samples = sound.read(start, end)
    if len(samples):
        yield start, samples


def _pause(samples: np.ndarray) -> int:
    """The sample in the middle of the quietest stretch in the last part of a passage."""
    width = round(PAUSE_SECONDS * SAMPLE_RATE)
    last = samples[-round(CUT_SECONDS * SAMPLE_RATE) :]
    stretches = last[: len(last) // width * width].reshape(-1, width)
    quietest = int(np.square(stretches).mean(1).argmin())
    return len(samples) - len(last) + quietest * width + width // 2


def peaks(sound: SampleFile, start: float, end: float, count: int) -> np.ndarray:
    """Compute what a waveform shows.

    Args:
        start, end: seconds.
        count: equal stretches between them.
    Returns:
        (count, 2) the least and the greatest sample of each stretch; 0 if it has no sample.
    """
    edges = np.linspace(start, end, count + 1)
    extremes = np.zeros((count, 2), np.float32)
    for index in range(count):
        samples = sound.read(edges[index], edges[index + 1])
        if len(samples):
            extremes[index] = samples.min(), samples.max()
    return extremes


def wav(sound: SampleFile, start: float, end: float) -> bytes:
    """Encode a stretch as a WAV file of 16 bits, for a player."""
    return _encoded(sound, start, end, "WAV")


def flac(sound: SampleFile, start: float, end: float) -> bytes:
    """Encode a stretch as a FLAC file of 16 bits, to keep."""
    return _encoded(sound, start, end, "FLAC")


def _encoded(sound: SampleFile, start: float, end: float, format: str) -> bytes:
    samples = np.clip(sound.read(start, end), -1, 1)
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, "PCM_16", format=format)
    return file.getvalue()


def _fault(recording: Path, samples: Path) -> str | None:
    """Decode a recording; return why it cannot be, None if it can."""
    try:
        decode(recording, samples)
    except MemoryError:
        return TOO_MUCH
    except DataError as error:
        return str(error)
    return None


def main() -> None:
    paths = [Path(argument) for argument in sys.argv[1:]]
    if not paths or len(paths) % 2:
        raise ParamsError("usage: python -m asr.audio.sample_file RECORDING SAMPLES ...")
    limit_self(
        cpu_seconds=LIMIT_SECONDS,
        memory=LIMIT_BYTES,
        file_bytes=int(codec.MAX_SECONDS + 1) * SAMPLE_RATE * SAMPLE_BYTES,
    )
    faults = [_fault(*pair) for pair in zip(paths[::2], paths[1::2], strict=True)]
    print(json.dumps(faults))


if __name__ == "__main__":
    exit_with(main)
