"""Decode recordings: encoded bytes in, one channel of float32 at 16 kHz out.

libsndfile reads wav, flac, ogg and mp3; PyAV reads the rest (m4a, mp4, webm), and a flac or mp3
whose header gives no length. soxr resamples. No system package and no ffmpeg binary is needed. An
mp3 of 5 s costs 3.5 ms.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO, Literal

import numpy as np
import soundfile
import soxr

from asr.errors import DataError
from asr.whisper import SAMPLE_RATE

# Limits, so that a forged header cannot use up the memory.
MAX_SECONDS = 3 * 3600.0  # longer recordings are not utterances
BLOCK_SECONDS = 30
BLOCK_VALUES = 4_000_000  # of all channels together: a forged header may claim a thousand channels
RATES = (1_000, 768_000)  # Hz, lowest and highest
MAX_PEAK = 1_000.0  # samples of floating-point files may exceed 1, but not by so much

HEADER_BYTES = 4096
# Least share of the length in the header of an mp4 or webm that must be there; encoders add a
# little at both ends.
WHOLE_SHARE = 0.9
UNSIZED_WAV = 0x7FFFF000  # sizes from here on mean unknown: the writer of the file used a pipe
UNSIZED = 2**63 - 1  # the frames that libsndfile reports for a FLAC whose header has no length
# One of these is in the first frame of an MP3 that gives its length.
MP3_LENGTHS = (b"Xing", b"Info", b"VBRI")
LOSSLESS = ("WAV", "FLAC", "AIFF", "W64", "RF64")
# What PyAV may open: no playlists, which open other files.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mp3,flac,wav,ogg,aac"

ByteOrder = Literal["little", "big"]


class Undecodable(DataError):
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
    """Decode a recording in blocks of at most 30 s, so that memory holds one at a time.

    Joined, they are bit for bit what `decode` returns.

    Raises:
        Undecodable: as in `decode`; a broken file may be noticed only after some blocks.
    """
    decoder, head = _open(file)
    with decoder:
        if isinstance(decoder, soundfile.SoundFile):
            native = _sndfile_blocks(decoder, head)
            rate = decoder.samplerate
        else:
            native = _av_blocks(decoder)
            rate = SAMPLE_RATE
        total = 0
        for block in _resampled(_limited(native, rate), rate):
            if not np.isfinite(block).all() or np.abs(block).max() > MAX_PEAK:
                raise Undecodable("samples that are not numbers of sound")
            total += len(block)
            yield block
    if not total:
        raise Undecodable("no samples")


def header_seconds(encoded: bytes) -> float | None:
    """Duration in seconds from the header; None if libsndfile finds none. Costs 0.1 ms."""
    try:
        info = soundfile.info(io.BytesIO(encoded))
        seconds = float(info.duration)
    except (soundfile.LibsndfileError, ZeroDivisionError):
        return None
    is_known = seconds >= 0 and _gives_length(info, encoded[:HEADER_BYTES])
    return seconds if is_known else None


def _gives_length(info: Any, head: bytes) -> bool:
    """Whether a file's header gives its length.

    If it does not, libsndfile fails at the end of a FLAC, and estimates the length of an MP3 from
    its first frame.
    """
    if info.format == "MP3":
        return any(mark in head for mark in MP3_LENGTHS)
    return bool(info.frames < UNSIZED)


def _open(file: BinaryIO) -> tuple[Any, bytes]:
    """Open a file by libsndfile or else PyAV; return the decoder and the file's first bytes."""
    head = file.read(HEADER_BYTES)
    file.seek(0)
    try:
        decoder = soundfile.SoundFile(file)
        if _gives_length(decoder, head):
            return decoder, head
        decoder.close()
    except soundfile.LibsndfileError:
        pass
    file.seek(0)
    import av  # 0.2 s, and most corpora never need it

    try:
        return av.open(file, mode="r", options={"format_whitelist": CONTAINERS}), head
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> Undecodable:
    """The error for a file that PyAV cannot read."""
    return Undecodable(f"not a recording we can read ({type(error).__name__})")


def _check_rate(rate: int) -> None:
    """Refuse a sample rate outside RATES."""
    lowest, highest = RATES
    if not lowest <= rate <= highest:
        raise Undecodable(f"{rate} samples a second")


def _sndfile_blocks(file: soundfile.SoundFile, head: bytes) -> Iterator[np.ndarray]:
    """Decode by libsndfile to one channel, in blocks.

    `SoundFile.blocks` is not used: it pads a short read with whatever is in memory.
    """
    _check_rate(file.samplerate)
    length = max(1, min(BLOCK_SECONDS * file.samplerate, BLOCK_VALUES // file.channels))
    num_read = 0
    try:
        while len(block := file.read(length, dtype="float32", always_2d=True)):
            num_read += len(block)
            yield block.mean(axis=1)
    # ValueError if a broken file has more samples than its header says.
    except (soundfile.LibsndfileError, ValueError):
        message = f"truncated or broken after {num_read / file.samplerate:.2f} s"
        raise Undecodable(message) from None
    _check_whole(file, head, num_read)


def _check_whole(file: soundfile.SoundFile, head: bytes, num_read: int) -> None:
    """Refuse a file from which fewer, or many more, samples were read than its header says."""
    in_header = _frames_in_header(head) if file.format in ("WAV", "AIFF") else 0
    promised = max(file.frames, in_header)
    if file.format in LOSSLESS and num_read < promised:
        raise Undecodable(f"truncated: {num_read} of {promised} samples")
    if 0 < 3 * in_header < 2 * num_read and file.subtype.startswith("PCM_"):
        raise Undecodable(
            f"its header contradicts itself: {num_read} samples where {in_header} have room"
        )


def _frames_in_header(head: bytes) -> int:
    """The number of frames in the header of a WAV or AIFF; 0 if it gives none.

    libsndfile would limit it to the frames that are present, so truncation could not be seen. For a
    compressed WAV the number is too low, because the header counts blocks.
    """
    order: ByteOrder = "little" if head[:4] == b"RIFF" else "big"
    chunks = dict(_chunks(head, order))
    if b"COMM" in chunks:
        _, content = chunks[b"COMM"]
        frames = int.from_bytes(content[2:6], "big")
        return frames if frames < UNSIZED_WAV else 0
    size, _ = chunks.get(b"data", (0, b""))
    _, wave_format = chunks.get(b"fmt ", (0, b""))
    frame_bytes = int.from_bytes(wave_format[12:14], order)
    return size // max(frame_bytes, 1) if size < UNSIZED_WAV else 0


def _chunks(head: bytes, order: ByteOrder) -> Iterator[tuple[bytes, tuple[int, bytes]]]:
    """The chunks that a RIFF or FORM file begins with.

    Yields:
        Name, size, and as much of the content as `head` holds.
    """
    position = 12
    while position + 8 <= len(head):
        size = int.from_bytes(head[position + 4 : position + 8], order)
        yield head[position : position + 4], (size, head[position + 8 : position + 8 + size])
        position += 8 + size + size % 2


def _av_blocks(container: Any) -> Iterator[np.ndarray]:
    """Decode the first audio track by PyAV to one channel at 16 kHz, in blocks."""
    import av

    try:
        if not container.streams.audio:
            raise Undecodable("no sound track")
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        seconds = 0.0
        # None at the end makes the resampler return the samples it still holds.
        for frame in chain(container.decode(audio=0), [None]):
            seconds += _frame_seconds(frame) if frame else 0.0
            yield from (part.to_ndarray()[0] for part in resampler.resample(frame))
        promised = _promised_seconds(container)
        if seconds < WHOLE_SHARE * promised:
            raise Undecodable(f"truncated: {seconds:.2f} of {promised:.2f} s")
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise _unreadable(error) from None


def _frame_seconds(frame: Any) -> float:
    """The duration of a decoded frame in seconds."""
    _check_rate(frame.sample_rate)
    return float(frame.samples / frame.sample_rate)


def _promised_seconds(container: Any) -> float:
    """Seconds of the audio track by the header of an mp4, or of a webm that holds nothing else.

    0 for other containers, whose headers give an estimate or nothing.
    """
    stream = container.streams.audio[0]
    if "mp4" in container.format.name and stream.duration:
        return float(stream.duration * stream.time_base)
    is_only_stream = "matroska" in container.format.name and len(container.streams) == 1
    return container.duration / 1e6 if is_only_stream and container.duration else 0.0


def _limited(native: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Yield the blocks as float32, and refuse a recording longer than MAX_SECONDS."""
    total = 0
    for block in native:
        total += len(block)
        if total > MAX_SECONDS * rate:
            raise Undecodable(f"longer than {MAX_SECONDS / 3600:.0f} hours")
        yield block.astype(np.float32, copy=False)


def _resampled(native: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Resample the blocks to 16 kHz; empty blocks are left out.

    The samples are the same as when all is resampled at once.
    """
    if rate == SAMPLE_RATE:
        yield from (block for block in native if len(block))
        return
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    for block in native:
        resampled = stream.resample_chunk(block)
        if len(resampled):
            yield resampled
    rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)
    if len(rest):
        yield rest
