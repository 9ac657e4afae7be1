"""What decoding the recordings told, row by row, kept by record batch: no recording is decoded twice, whatever corpus it comes in.

Kept under .cache/heard, some 100 bytes a row, each file named by the recordings and promised lengths that it is about. A file that
is damaged is made anew.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from asr import files, rejects, shards
from asr.rejects import Sound
from asr.workers import parallel

HEARD = pa.schema(
    [
        ("duration", pa.float64()),
        ("digest", pa.binary()),
        ("code", pa.string()),
        ("detail", pa.string()),
        ("fingerprint", pa.binary()),
    ]
)
CODE = ("asr.audio", "asr.files", "asr.heard", "asr.rejects", "asr.shards")


def sounds(split: Path) -> Iterator[tuple[tuple[Path, int], list[Sound]]]:
    """Place of each record batch of a split, in order, with what its recordings told."""
    store, code = files.cache("heard"), files.code_hash(*CODE)
    store.mkdir(parents=True, exist_ok=True)
    places = list(shards.batch_places(split))
    yield from zip(places, parallel(listen, ((*place, store, code) for place in places), len(places)), strict=True)


def listen(path: Path, offset: int, store: Path, code: str) -> list[Sound]:
    """What the recordings of one record batch tell."""
    batch = shards.read_batch(path, offset)
    encoded, promised = batch.column("audio"), batch.column("duration").to_pylist()
    kept = store / f"{_name(encoded, promised, code)}.arrow"
    found = _read(kept, len(batch))
    if found is None:
        found = [rejects.listen(sound.as_py(), seconds) for sound, seconds in zip(encoded, promised, strict=True)]
        _write(kept, found)
    return found


def _name(encoded: pa.Array, promised: list[float | None], code: str) -> str:
    """Hash of the recordings, of where one ends and the next begins, and of what they should be."""
    name = hashlib.blake2b(f"{code} {promised}".encode(), digest_size=16)
    for sound in encoded:
        content = sound.as_buffer()
        name.update(b"missing" if content is None else f"{content.size} ".encode())
        name.update(content or b"")
    return name.hexdigest()


def _write(kept: Path, found: list[Sound]) -> None:
    """Not synced: after a power cut the digest before the rows tells whether they are whole."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, HEARD) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist([asdict(one) for one in found], schema=HEARD))
    content: bytes = sink.getvalue().to_pybytes()
    draft = kept.with_name(f".{kept.name}.{os.getpid()}.part")
    draft.write_bytes(hashlib.sha256(content).digest() + content)
    draft.replace(kept)


def _read(kept: Path, num_rows: int) -> list[Sound] | None:
    if not kept.is_file():
        return None
    content = kept.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        return None
    rows = pa.ipc.open_stream(content[32:]).read_all().to_pylist()
    return [Sound(**row) for row in rows] if len(rows) == num_rows else None
