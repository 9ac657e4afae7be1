"""Recordings: encoded bytes in, one channel of float32 at 16 kHz out. No system package, no ffmpeg binary.

libsndfile reads wav, flac, ogg and mp3; PyAV reads the rest (m4a, mp4, webm). soxr resamples. An mp3 of 5 s costs 3.5 ms.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr

from asr.faults import BadData

SAMPLE_RATE = 16_000  # Hz; what Whisper hears
HOP = 160  # samples from one frame to the next
FRAMES_PER_SECOND = SAMPLE_RATE // HOP
POSITIONS_PER_SECOND = FRAMES_PER_SECOND // 2  # the encoder's second convolution has stride 2
MAX_SECONDS = 3 * 3600.0  # longer ones are not utterances, and a forged header must not claim the memory
BLOCK_SECONDS = 30
HEADER_BYTES = 4096
RATES = (1_000, 768_000)  # Hz; a forged rate must not claim the memory either
MAX_PEAK = 1_000.0  # floating-point files may pass 1, but not by so much
UNSIZED_WAV = 0x7FFFF000  # what programs that write to a pipe put for a size they do not know
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mp3,flac,wav,ogg,aac"  # no playlists: they open other files


class Undecodable(BadData):
    """Bytes that hold no sound we can read."""


def decode(encoded: bytes) -> np.ndarray:
    """Decode a recording.

    Args:
        encoded: the file's bytes.
    Returns:
        (S,) float32 in [-1, 1], mono, 16 kHz.
    Raises:
        Undecodable: no sound in it, a broken file, or one longer than three hours.
    """
    if not encoded:
        raise Undecodable("no bytes")
    samples = list(blocks(io.BytesIO(encoded)))
    return np.concatenate(samples) if len(samples) > 1 else samples[0]


def blocks(file: BinaryIO) -> Iterator[np.ndarray]:
    """The same sound in pieces of at most 30 s, in the memory of one: joined, they are bit for bit what `decode` gives.

    Raises:
        Undecodable: as `decode`; a broken file may show only after some pieces.
    """
    decoder, head = _open(file)
    with decoder:
        native = _sndfile_blocks(decoder, head) if isinstance(decoder, soundfile.SoundFile) else _av_blocks(decoder)
        rate = decoder.samplerate if isinstance(decoder, soundfile.SoundFile) else SAMPLE_RATE
        total = 0
        for block in _resampled(_limited(native, rate), rate):
            if not np.isfinite(block).all() or np.abs(block).max() > MAX_PEAK:
                raise Undecodable("samples that are not numbers of sound")
            total += len(block)
            yield block
    if not total:
        raise Undecodable("no samples")


def header_seconds(encoded: bytes) -> float | None:
    """Duration as the header gives it, or None where libsndfile cannot tell. Costs 0.1 ms."""
    try:
        return float(soundfile.info(io.BytesIO(encoded)).duration)
    except (soundfile.LibsndfileError, ZeroDivisionError):
        return None


def _open(file: BinaryIO) -> tuple[Any, bytes]:
    """The decoder that can read a file, and the file's first bytes."""
    head = file.read(HEADER_BYTES)
    file.seek(0)
    try:
        return soundfile.SoundFile(file), head
    except soundfile.LibsndfileError:
        file.seek(0)
    import av  # 0.2 s, and most corpora never need it

    try:
        return av.open(file, mode="r", options={"format_whitelist": CONTAINERS}), head
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise Undecodable(f"not a recording we can read ({type(error).__name__})") from None


def _sndfile_blocks(file: soundfile.SoundFile, head: bytes) -> Iterator[np.ndarray]:
    """One channel in pieces; `SoundFile.blocks` would pad a short read with whatever is in memory."""
    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise Undecodable(f"{file.samplerate} samples a second")
    promised = max(file.frames, _wav_frames(head)) if file.format == "WAV" else file.frames
    found = 0
    try:
        while len(block := file.read(BLOCK_SECONDS * file.samplerate, dtype="float32", always_2d=True)):
            found += len(block)
            yield block.mean(axis=1)
    except soundfile.LibsndfileError:
        raise Undecodable(f"truncated or broken after {found / file.samplerate:.2f} s") from None
    lossless = file.format in ("WAV", "FLAC", "AIFF", "W64", "RF64")
    if lossless and found < promised:
        raise Undecodable(f"truncated: {found} of {promised} samples")


def _wav_frames(head: bytes) -> int:
    """Frames that a WAV's header promises, which libsndfile cuts to what is there; 0 where it promises none."""
    at = head.find(b"data", 12)
    size = int.from_bytes(head[at + 4 : at + 8], "little") if at > 0 else 0
    return size // max(int.from_bytes(head[32:34], "little"), 1) if size < UNSIZED_WAV else 0


def _av_blocks(container: Any) -> Iterator[np.ndarray]:
    """One channel at 16 kHz, from the first sound track."""
    import av

    try:
        if not container.streams.audio:
            raise Undecodable("no sound track")
        mono = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        for frame in chain(container.decode(audio=0), [None]):  # at the end the resampler gives what it still holds
            yield from (part.to_ndarray()[0] for part in mono.resample(frame))
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise Undecodable(f"not a recording we can read ({type(error).__name__})") from None


def _limited(native: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Stop where a recording outgrows the limit."""
    total = 0
    for block in native:
        total += len(block)
        if total > MAX_SECONDS * rate:
            raise Undecodable(f"longer than {MAX_SECONDS / 3600:.0f} hours")
        yield block.astype(np.float32, copy=False)


def _resampled(native: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """At 16 kHz, in pieces that are not empty; soxr gives the same samples in pieces as at once."""
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32") if rate != SAMPLE_RATE else None
    for block in native:
        found = stream.resample_chunk(block) if stream else block
        if len(found):
            yield found
    if stream and len(rest := stream.resample_chunk(np.zeros(0, np.float32), last=True)):
        yield rest
