"""What decoding the recordings told, row by row, kept by record batch: no recording is decoded
twice, whatever corpus it comes in, but those of a batch in which a process died.

Decoded in guarded processes, for a broken file may end the one it is decoded in. Kept under
.cache/heard, some 70 bytes a second of sound, each file named by the recordings and promised
lengths that it is about. A file that is damaged is made anew.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from asr.audio import codec
from asr.cleaning.audio_fingerprint import fingerprint
from asr.rooms import KEPT
from asr.runtime.limits import allow
from asr.runtime.sandbox import guarded
from asr.storage import cache, files, hashing, shards
from asr.whisper import SAMPLE_RATE

SCHEMA = pa.schema(
    [
        ("duration", pa.float64()),
        ("digest", pa.binary()),
        ("code", pa.string()),
        ("detail", pa.string()),
        ("fingerprint", pa.binary()),
        ("loud", pa.float64()),
        ("fullness", pa.float64()),
    ]
)

TRUNCATED_SHARE = (
    0.9  # a recording shorter than this share of what its table or header promised is not whole
)
# of work: an hour of mp3 has 14 MB and takes 3 s, three hours of the thinnest opus 8 MB and 15 s
SECONDS_PER_MEGABYTE = 5.0
FRAME = SAMPLE_RATE // 50  # samples
SILENCE = 1e-4  # RMS of a frame, -80 dB: three steps of 16 bits, of which no speech is made
KNOWN_BY = 10  # pieces of 30 s from which a fingerprint is taken


def measure(places: Sequence[tuple[Path, int, int]]) -> Iterator[list[Measurement]]:
    """What the recordings of each of these record batches told, in order; one that ended its
    process told that.

    Args:
        places: file, byte and rows, as `shards.batch_places` gives them.
    """
    store, code = cache.folder("heard"), hashing.code_hash(KEPT["measurements"])
    told = guarded(
        measure_batch,
        ((rows, (path, offset, store, code)) for path, offset, rows in places),
        len(places),
        died,
    )
    for _, _, rows in places:
        yield list(islice(told, rows))


def measure_batch(
    path: Path, offset: int, store: Path, code: str, start: int
) -> Iterator[Measurement]:
    """What the recordings of one record batch tell, from one of them on."""
    batch = shards.read_batch(path, offset)
    encoded, promised = batch.column("audio"), batch.column("duration").to_pylist()
    place = store / f"{_name(encoded, promised, code)}.arrow"
    known = _read(place, len(batch))
    found = []
    for number in range(start, len(batch)):
        found.append(known[number] if known else _heard(encoded[number].as_py(), promised[number]))
        if not known and len(found) == len(batch):
            _write(place, found)
        yield found[-1]  # nobody asks for more after the last


def _heard(encoded: bytes | None, promised: float | None) -> Measurement:
    allow(cpu_limit_seconds(encoded))
    return measure_audio(encoded, promised)


def _name(encoded: pa.Array, promised: list[float | None], code: str) -> str:
    """Hash of the recordings, of where one ends and the next begins, and of what they should be."""
    name = hashlib.blake2b(f"{code} {promised}".encode(), digest_size=16)
    for sound in encoded:
        content = sound.as_buffer()
        name.update(b"missing" if content is None else f"{content.size} ".encode())
        name.update(content or b"")
    return name.hexdigest()


def _write(place: Path, found: list[Measurement]) -> None:
    """Not synced: after a power cut the digest before the rows tells whether they are whole."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_batch(
            pa.RecordBatch.from_pylist([asdict(one) for one in found], schema=SCHEMA)
        )
    content: bytes = sink.getvalue().to_pybytes()
    with files.draft(place, durable=False) as part:
        part.write_bytes(hashlib.sha256(content).digest() + content)


def _read(place: Path, num_rows: int) -> list[Measurement] | None:
    if not place.is_file():
        return None
    content = place.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        return None
    rows = pa.ipc.open_stream(content[32:]).read_all().to_pylist()
    return [Measurement(**row) for row in rows] if len(rows) == num_rows else None


@dataclass(frozen=True)
class Measurement:
    """What decoding a recording told, or in `code` and `detail` why it told nothing.

    duration: seconds.
    digest: of the encoded bytes.
    fingerprint: of what is heard in the first minutes (asr.cleaning.audio_fingerprint).
    loud: seconds in which there is any sound.
    fullness: its mean (of absolute values, about the offset) as a share of its RMS.
    """

    duration: float = 0.0
    digest: bytes = b""
    code: str = ""
    detail: str = ""
    fingerprint: bytes = b""
    loud: float = math.inf
    fullness: float = 0.0


def measure_audio(encoded: bytes | None, promised: float | None) -> Measurement:
    """Decode a recording and measure it.

    Args:
        encoded: the file's bytes; None where the corpus names a file that is not there.
        promised: seconds by a table or a header.
    """
    if encoded is None:
        return Measurement(
            code="audio_missing", detail="the corpus names a recording that is not there"
        )
    start: list[np.ndarray] = []
    try:
        duration, loud, fullness = _measure(_noted(_pieces(encoded), start))
    except codec.Undecodable as fault:
        return Measurement(code="audio_undecodable", detail=str(fault))
    if promised and duration < TRUNCATED_SHARE * promised:
        return Measurement(code="audio_truncated", detail=f"{duration:.2f} s of {promised:.2f} s")
    digest = hashlib.blake2b(encoded, digest_size=12).digest()
    return Measurement(
        duration,
        digest,
        fingerprint=fingerprint(np.concatenate(start)),
        loud=loud,
        fullness=fullness,
    )


def died(reason: str) -> Measurement:
    """What is told of a recording that ended the process in which it was decoded."""
    return Measurement(code="audio_undecodable", detail=f"decoding stopped: {reason}")


def cpu_limit_seconds(encoded: bytes | None) -> float:
    """Seconds of work that decoding may take."""
    return SECONDS_PER_MEGABYTE * max(1.0, len(encoded or b"") / 1e6)


def _pieces(encoded: bytes) -> Iterator[np.ndarray]:
    """The sound in pieces of 30 s or a little more; only the last may be shorter."""
    if not encoded:
        raise codec.Undecodable("no bytes")
    waiting: list[np.ndarray] = []
    length = 0
    for block in codec.blocks(io.BytesIO(encoded)):
        waiting.append(block)
        length += len(block)
        if length >= codec.BLOCK_SECONDS * SAMPLE_RATE:
            yield np.concatenate(waiting)
            waiting, length = [], 0
    if waiting:
        yield np.concatenate(waiting)


def _noted(pieces: Iterator[np.ndarray], start: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The same pieces; those of the first minutes are noted, by which a recording is known."""
    for piece in pieces:
        if len(start) < KNOWN_BY:
            start.append(piece)
        yield piece


def _measure(pieces: Iterator[np.ndarray]) -> tuple[float, float, float]:
    """Seconds, seconds in which there is any sound, and its mean as a share of its RMS; an offset
    is no sound.
    """
    count, loud, total, power = 0, 0, 0.0, 0.0
    for piece in pieces:
        frames = (
            piece[: len(piece) // FRAME * FRAME].reshape(-1, FRAME)
            if len(piece) >= FRAME
            else piece[None]
        )
        loud += int((frames.std(axis=1) >= SILENCE).sum()) * frames.shape[1]
        moved = np.abs(piece - piece.mean())
        count += len(piece)
        total += float(moved.sum(dtype=np.float64))
        power += float(np.square(moved).sum(dtype=np.float64))
    return (
        count / SAMPLE_RATE,
        loud / SAMPLE_RATE,
        total / math.sqrt(count * power) if power else 0.0,
    )
