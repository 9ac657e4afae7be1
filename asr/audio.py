"""Recordings: encoded bytes in, one channel of float32 at 16 kHz out. No system package, no ffmpeg binary.

libsndfile reads wav, flac, ogg and mp3; PyAV reads the rest (m4a, mp4, webm). soxr resamples. An mp3 of 5 s costs 3.5 ms.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

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
    try:
        rate, samples = _decode_sndfile(encoded)
    except soundfile.LibsndfileError:
        rate, samples = _decode_av(encoded)
    if not np.isfinite(samples).all() or np.abs(samples).max(initial=0.0) > MAX_PEAK:
        raise Undecodable("samples that are not numbers of sound")
    if len(samples) and rate != SAMPLE_RATE:
        samples = soxr.resample(samples, rate, SAMPLE_RATE).astype(np.float32, copy=False)
    if not len(samples):
        raise Undecodable("no samples")
    return samples


def header_seconds(encoded: bytes) -> float | None:
    """Duration as the header gives it, or None where libsndfile cannot tell. Costs 0.1 ms."""
    try:
        return float(soundfile.info(io.BytesIO(encoded)).duration)
    except (soundfile.LibsndfileError, ZeroDivisionError):
        return None


def _decode_sndfile(encoded: bytes) -> tuple[int, np.ndarray]:
    with soundfile.SoundFile(io.BytesIO(encoded)) as file:
        if not RATES[0] <= file.samplerate <= RATES[1]:
            raise Undecodable(f"{file.samplerate} samples a second")
        promised = max(file.frames, _wav_frames(encoded)) if file.format == "WAV" else file.frames
        samples = _collect(_blocks(file), file.samplerate)
        lossless = file.format in ("WAV", "FLAC", "AIFF", "W64", "RF64")
        if lossless and len(samples) < promised:
            raise Undecodable(f"truncated: {len(samples)} of {promised} samples")
        return file.samplerate, samples


def _blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """One channel in pieces; `SoundFile.blocks` would pad a short read with whatever is in memory."""
    while len(block := file.read(BLOCK_SECONDS * file.samplerate, dtype="float32", always_2d=True)):
        yield block.mean(axis=1)


def _wav_frames(encoded: bytes) -> int:
    """Frames that a WAV's header promises, which libsndfile cuts to what is there; 0 where it promises none."""
    at = encoded.find(b"data", 12, 4096)
    size = int.from_bytes(encoded[at + 4 : at + 8], "little") if at > 0 else 0
    return size // max(int.from_bytes(encoded[32:34], "little"), 1) if size < UNSIZED_WAV else 0


def _decode_av(encoded: bytes) -> tuple[int, np.ndarray]:
    import av  # 0.2 s, and most corpora never need it

    try:
        with av.open(io.BytesIO(encoded), mode="r", options={"format_whitelist": CONTAINERS}) as container:
            if not container.streams.audio:
                raise Undecodable("no sound track")
            mono = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            frames = (part for frame in container.decode(audio=0) for part in mono.resample(frame))
            return SAMPLE_RATE, _collect((frame.to_ndarray()[0] for frame in frames), SAMPLE_RATE)
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise Undecodable(f"not a recording we can read ({type(error).__name__})") from None


def _collect(blocks: Iterator[np.ndarray], rate: int) -> np.ndarray:
    """Join blocks, and stop where a recording outgrows the limit."""
    kept: list[np.ndarray] = []
    total = 0
    for block in blocks:
        total += len(block)
        if total > MAX_SECONDS * rate:
            raise Undecodable(f"longer than {MAX_SECONDS / 3600:.0f} hours")
        kept.append(block.astype(np.float32, copy=False))
    return np.concatenate(kept) if kept else np.zeros(0, np.float32)
