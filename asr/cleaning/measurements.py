"""What decoding the recordings told, row by row, kept by record batch: no recording is decoded twice, whatever corpus it comes in,
but those of a batch in which a process died.

Decoded in guarded processes, for a broken file may end the one it is decoded in. Kept under .cache/heard, some 70 bytes a second of
sound, each file named by the recordings and promised lengths that it is about. A file that is damaged is made anew.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import pyarrow as pa

from asr.cleaning import reasons
from asr.cleaning.reasons import Sound
from asr.runtime.limits import allow
from asr.runtime.sandbox import guarded
from asr.storage import cache, hashing, shards

HEARD = pa.schema(
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
CODE = (
    "asr.audio.codec",
    "asr.storage.files",
    "asr.cleaning.audio_fingerprint",
    "asr.cleaning.measurements",
    "asr.cleaning.reasons",
    "asr.storage.shards",
)


def sounds(places: Sequence[tuple[Path, int, int]]) -> Iterator[list[Sound]]:
    """What the recordings of each of these record batches told, in order; one that ended its process told that.

    Args:
        places: file, byte and rows, as `shards.batch_places` gives them.
    """
    store, code = cache.folder("heard"), hashing.code_hash(*CODE)
    told = guarded(listen, ((rows, (path, offset, store, code)) for path, offset, rows in places), len(places), reasons.died)
    for _, _, rows in places:
        yield list(islice(told, rows))


def listen(path: Path, offset: int, store: Path, code: str, start: int) -> Iterator[Sound]:
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


def _heard(encoded: bytes | None, promised: float | None) -> Sound:
    allow(reasons.patience(encoded))
    return reasons.listen(encoded, promised)


def _name(encoded: pa.Array, promised: list[float | None], code: str) -> str:
    """Hash of the recordings, of where one ends and the next begins, and of what they should be."""
    name = hashlib.blake2b(f"{code} {promised}".encode(), digest_size=16)
    for sound in encoded:
        content = sound.as_buffer()
        name.update(b"missing" if content is None else f"{content.size} ".encode())
        name.update(content or b"")
    return name.hexdigest()


def _write(place: Path, found: list[Sound]) -> None:
    """Not synced: after a power cut the digest before the rows tells whether they are whole."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, HEARD) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist([asdict(one) for one in found], schema=HEARD))
    content: bytes = sink.getvalue().to_pybytes()
    draft = place.with_name(f".{place.name}.{os.getpid()}.part")
    draft.write_bytes(hashlib.sha256(content).digest() + content)
    draft.replace(place)


def _read(place: Path, num_rows: int) -> list[Sound] | None:
    if not place.is_file():
        return None
    content = place.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        return None
    rows = pa.ipc.open_stream(content[32:]).read_all().to_pylist()
    return [Sound(**row) for row in rows] if len(rows) == num_rows else None
