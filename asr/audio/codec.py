"""Recordings: encoded bytes in, one channel of float32 at 16 kHz out. No system package, no ffmpeg
binary.

libsndfile reads wav, flac, ogg and mp3; PyAV reads the rest (m4a, mp4, webm), and a flac or mp3
that does not tell its length. soxr resamples. An mp3 of 5 s costs 3.5 ms.
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

MAX_SECONDS = (
    3 * 3600.0
)  # longer ones are not utterances, and a forged header must not claim the memory
BLOCK_SECONDS = 30
BLOCK_VALUES = 4_000_000  # of all channels together: a forged header may promise a thousand
HEADER_BYTES = 4096
WHOLE_SHARE = 0.9  # of what an mp4 or webm promises; encoders add a little at both ends
RATES = (1_000, 768_000)  # Hz; a forged rate must not claim the memory either
MAX_PEAK = 1_000.0  # floating-point files may pass 1, but not by so much
UNSIZED_WAV = 0x7FFFF000  # what programs that write to a pipe put for a size they do not know
UNSIZED = 2**63 - 1  # frames of a FLAC whose header knows no length, as libsndfile has it
MP3_LENGTHS = (
    b"Xing",
    b"Info",
    b"VBRI",
)  # one of which stands in the first frame of an MP3 that tells its length
# no playlists: they open other files
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mp3,flac,wav,ogg,aac"


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
    """The same sound in pieces of at most 30 s, in the memory of one: joined, they are bit for bit
    what `decode` gives.

    Raises:
        Undecodable: as `decode`; a broken file may show only after some pieces.
    """
    decoder, head = _open(file)
    with decoder:
        native = (
            _sndfile_blocks(decoder, head)
            if isinstance(decoder, soundfile.SoundFile)
            else _av_blocks(decoder)
        )
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
        found = soundfile.info(io.BytesIO(encoded))
        seconds = float(found.duration)
    except (soundfile.LibsndfileError, ZeroDivisionError):
        return None
    return seconds if seconds >= 0 and _knows_length(found, encoded[:HEADER_BYTES]) else None


def _knows_length(found: Any, head: bytes) -> bool:
    """Whether a file says how long it is. Else libsndfile fails at the end of a FLAC, and guesses
    by its first frame where an MP3 ends.
    """
    return (
        any(mark in head for mark in MP3_LENGTHS)
        if found.format == "MP3"
        else found.frames < UNSIZED
    )


def _open(file: BinaryIO) -> tuple[Any, bytes]:
    """The decoder that can read a file, and the file's first bytes."""
    head = file.read(HEADER_BYTES)
    file.seek(0)
    try:
        found = soundfile.SoundFile(file)
        if _knows_length(found, head):
            return found, head
        found.close()
    except soundfile.LibsndfileError:
        pass
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
    said = _said_frames(head) if file.format in ("WAV", "AIFF") else 0
    promised = max(file.frames, said)
    length = max(1, min(BLOCK_SECONDS * file.samplerate, BLOCK_VALUES // file.channels))
    found = 0
    try:
        while len(block := file.read(length, dtype="float32", always_2d=True)):
            found += len(block)
            yield block.mean(axis=1)
    except (
        soundfile.LibsndfileError,
        ValueError,
    ):  # the second where a broken file gives more than it promised
        raise Undecodable(f"truncated or broken after {found / file.samplerate:.2f} s") from None
    lossless = file.format in ("WAV", "FLAC", "AIFF", "W64", "RF64")
    if lossless and found < promised:
        raise Undecodable(f"truncated: {found} of {promised} samples")
    if 0 < 3 * said < 2 * found and file.subtype.startswith("PCM_"):
        raise Undecodable(f"its header contradicts itself: {found} samples where {said} have room")


def _said_frames(head: bytes) -> int:
    """Frames that the header of a WAV or AIFF promises, which libsndfile cuts to what is there; 0
    where it promises none.

    A WAV that is compressed promises fewer than there are, for it counts blocks.
    """
    order: Literal["little", "big"] = "little" if head[:4] == b"RIFF" else "big"
    chunks = dict(_chunks(head, order))
    if b"COMM" in chunks:
        frames = int.from_bytes(chunks[b"COMM"][1][2:6], "big")
        return frames if frames < UNSIZED_WAV else 0
    size, align = chunks.get(b"data", (0, b""))[0], chunks.get(b"fmt ", (0, b""))[1][12:14]
    return size // max(int.from_bytes(align, order), 1) if size < UNSIZED_WAV else 0


def _chunks(
    head: bytes, order: Literal["little", "big"]
) -> Iterator[tuple[bytes, tuple[int, bytes]]]:
    """The chunks that a RIFF or FORM file begins with: name, size, and as much of the content as
    stands in the head.
    """
    at = 12
    while at + 8 <= len(head):
        size = int.from_bytes(head[at + 4 : at + 8], order)
        yield head[at : at + 4], (size, head[at + 8 : at + 8 + size])
        at += 8 + size + size % 2


def _av_blocks(container: Any) -> Iterator[np.ndarray]:
    """One channel at 16 kHz, from the first sound track."""
    import av

    try:
        if not container.streams.audio:
            raise Undecodable("no sound track")
        mono = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        found = 0.0
        for frame in chain(
            container.decode(audio=0), [None]
        ):  # at the end the resampler gives what it still holds
            found += _frame_seconds(frame) if frame else 0.0
            yield from (part.to_ndarray()[0] for part in mono.resample(frame))
        promised = _promised_seconds(container)
        if found < WHOLE_SHARE * promised:
            raise Undecodable(f"truncated: {found:.2f} of {promised:.2f} s")
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise Undecodable(f"not a recording we can read ({type(error).__name__})") from None


def _frame_seconds(frame: Any) -> float:
    """How long a frame lasts; a forged rate must not become memory."""
    if not RATES[0] <= frame.sample_rate <= RATES[1]:
        raise Undecodable(f"{frame.sample_rate} samples a second")
    return float(frame.samples / frame.sample_rate)


def _promised_seconds(container: Any) -> float:
    """What an mp4 says of its sound track, or a webm of all it holds, if that is sound; other
    containers guess, or do not know.
    """
    stream = container.streams.audio[0]
    if "mp4" in container.format.name and stream.duration:
        return float(stream.duration * stream.time_base)
    alone = "matroska" in container.format.name and len(container.streams) == 1
    return container.duration / 1e6 if alone and container.duration else 0.0


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
    stream = (
        soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32") if rate != SAMPLE_RATE else None
    )
    for block in native:
        found = stream.resample_chunk(block) if stream else block
        if len(found):
            yield found
    if stream and len(rest := stream.resample_chunk(np.zeros(0, np.float32), last=True)):
        yield rest
