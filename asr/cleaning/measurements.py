"""Decode each recording once, measure it, and cache the measurements, a file per record batch.

Decoding runs in guarded processes, because a broken file may crash the process that decodes it. If
a worker dies, its batch is decoded again next time. The cache lies under .cache/heard, about 70
bytes per second of sound. A file is named by a hash of the recordings and of the lengths that they
should have, so it is found in whatever corpus they come. A damaged file is computed anew.
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
from asr.cleaning.sandbox import guarded
from asr.rooms import KEPT
from asr.runtime.limits import allow
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

# A recording shorter than this share of what its table or header promised is truncated.
TRUNCATED_SHARE = 0.9
# Limit on CPU time: an hour of mp3 has 14 MB and takes 3 s, three hours of the thinnest opus have
# 8 MB and take 15 s.
SECONDS_PER_MEGABYTE = 5.0
FRAME = SAMPLE_RATE // 50  # samples
SILENCE = 1e-4  # RMS of a frame, -80 dB: three steps of 16 bits, below any speech
FINGERPRINTED_PIECES = 10  # of 30 s, from which a fingerprint is taken
SHA256_BYTES = 32


@dataclass(frozen=True)
class Measurement:
    """What was measured of a recording, or in `code` and `detail` why nothing could be.

    duration: seconds.
    digest: of the encoded bytes.
    fingerprint: of the sound of the first minutes (asr.cleaning.audio_fingerprint).
    loud: seconds in which there is any sound.
    fullness: the mean of the samples' absolute values as a share of their RMS, offset removed.
    """

    duration: float = 0.0
    digest: bytes = b""
    code: str = ""
    detail: str = ""
    fingerprint: bytes = b""
    loud: float = math.inf
    fullness: float = 0.0


def measure(places: Sequence[shards.BatchPlace]) -> Iterator[list[Measurement]]:
    """Yield the measurements of each record batch, in order.

    A recording that crashes its process gets the measurement `crashed`.

    Args:
        places: where the record batches lie, as `shards.batch_locations` gives them.
    """
    store = cache.folder("heard")
    code = hashing.code_hash(KEPT["measurements"])
    jobs = ((num_rows, (path, offset, store, code)) for path, offset, num_rows in places)
    measurements = guarded(measure_batch, jobs, len(places), crashed)
    for _, _, num_rows in places:
        yield list(islice(measurements, num_rows))


def measure_batch(
    path: Path, offset: int, store: Path, code: str, start: int
) -> Iterator[Measurement]:
    """Yield the measurements of one record batch, from row `start` on.

    They are read from the folder `store`, or written there if all rows were measured here.
    """
    batch = shards.read_batch(path, offset)
    encoded = batch.column("audio")
    promised = batch.column("duration").to_pylist()
    cached_path = store / f"{_name(encoded, promised, code)}.arrow"
    cached = _read(cached_path, len(batch))
    if cached:
        yield from cached[start:]
        return
    measurements = []
    for row in range(start, len(batch)):
        measurements.append(_measure_limited(encoded[row].as_py(), promised[row]))
        # Written before the last one is yielded, for nobody asks the generator for more after it.
        if len(measurements) == len(batch):
            _write(cached_path, measurements)
        yield measurements[-1]


def measure_audio(encoded: bytes | None, promised: float | None) -> Measurement:
    """Decode a recording and measure it.

    Args:
        encoded: the file's bytes; None where the corpus names a file that is not there.
        promised: seconds by a table or a header.
    """
    if encoded is None:
        detail = "the corpus names a recording that is not there"
        return Measurement(code="audio_missing", detail=detail)
    beginning: list[np.ndarray] = []
    try:
        duration, loud, fullness = _levels(_with_copies(_pieces(encoded), beginning))
    except codec.Undecodable as error:
        return Measurement(code="audio_undecodable", detail=str(error))
    if promised and duration < TRUNCATED_SHARE * promised:
        return Measurement(code="audio_truncated", detail=f"{duration:.2f} s of {promised:.2f} s")
    return Measurement(
        duration,
        hashlib.blake2b(encoded, digest_size=12).digest(),
        fingerprint=fingerprint(np.concatenate(beginning)),
        loud=loud,
        fullness=fullness,
    )


def crashed(reason: str) -> Measurement:
    """The measurement of a recording that crashed the process in which it was decoded."""
    return Measurement(code="audio_undecodable", detail=f"decoding stopped: {reason}")


def cpu_limit_seconds(encoded: bytes | None) -> float:
    """Seconds of CPU time that decoding a recording may take."""
    return SECONDS_PER_MEGABYTE * max(1.0, len(encoded or b"") / 1e6)


def _measure_limited(encoded: bytes | None, promised: float | None) -> Measurement:
    """Measure a recording; the process ends if it takes too long."""
    allow(cpu_limit_seconds(encoded))
    return measure_audio(encoded, promised)


def _name(encoded: pa.Array, promised: list[float | None], code: str) -> str:
    """Hash of the code, of the recordings with their sizes, and of the lengths they should have."""
    name = hashlib.blake2b(f"{code} {promised}".encode(), digest_size=16)
    for recording in encoded:
        content = recording.as_buffer()
        name.update(b"missing" if content is None else f"{content.size} ".encode())
        name.update(content or b"")
    return name.hexdigest()


def _write(path: Path, measurements: list[Measurement]) -> None:
    """Cache the measurements of a batch, with a digest before them.

    Not synced: after a power cut the digest tells whether the file is whole.
    """
    rows = [asdict(measurement) for measurement in measurements]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    content: bytes = sink.getvalue().to_pybytes()
    with files.draft(path, durable=False) as draft:
        draft.write_bytes(hashlib.sha256(content).digest() + content)


def _read(path: Path, num_rows: int) -> list[Measurement] | None:
    """The cached measurements of a batch; None where there are none, or the file is damaged."""
    if not path.is_file():
        return None
    stored = path.read_bytes()
    digest, content = stored[:SHA256_BYTES], stored[SHA256_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        return None
    rows = pa.ipc.open_stream(content).read_all().to_pylist()
    if len(rows) != num_rows:
        return None
    return [Measurement(**row) for row in rows]


def _pieces(encoded: bytes) -> Iterator[np.ndarray]:
    """The decoded sound in pieces of 30 s or a little more; only the last may be shorter."""
    if not encoded:
        raise codec.Undecodable("no bytes")
    waiting: list[np.ndarray] = []
    length = 0
    for block in codec.blocks(io.BytesIO(encoded)):
        waiting.append(block)
        length += len(block)
        if length >= codec.BLOCK_SECONDS * SAMPLE_RATE:
            yield np.concatenate(waiting)
            waiting = []
            length = 0
    if waiting:
        yield np.concatenate(waiting)


def _with_copies(pieces: Iterator[np.ndarray], beginning: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the same pieces; the first ones, which get fingerprinted, are added to `beginning`."""
    for piece in pieces:
        if len(beginning) < FINGERPRINTED_PIECES:
            beginning.append(piece)
        yield piece


def _levels(pieces: Iterator[np.ndarray]) -> tuple[float, float, float]:
    """Duration, seconds in which there is any sound, and fullness, as in `Measurement`.

    An offset is no sound.
    """
    num_samples = 0
    num_loud = 0
    total = 0.0
    power = 0.0
    for piece in pieces:
        frames = _frames(piece)
        num_loud += int((frames.std(axis=1) >= SILENCE).sum()) * frames.shape[1]
        magnitudes = np.abs(piece - piece.mean())
        num_samples += len(piece)
        total += float(magnitudes.sum(dtype=np.float64))
        power += float(np.square(magnitudes).sum(dtype=np.float64))
    fullness = total / math.sqrt(num_samples * power) if power else 0.0
    return num_samples / SAMPLE_RATE, num_loud / SAMPLE_RATE, fullness


def _frames(piece: np.ndarray) -> np.ndarray:
    """(N, F) frames of 20 ms; a shorter piece is one frame."""
    if len(piece) < FRAME:
        return piece[None]
    return piece[: len(piece) // FRAME * FRAME].reshape(-1, FRAME)
