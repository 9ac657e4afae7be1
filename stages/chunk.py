"""Chunk: decode and check each row; keep the good ones in files of `rows_per_chunk`, name the
others with their reason.

    python -m stages.chunk data/raw data/chunks reports/chunk

Order is the corpus's own, and each source begins a new file. Every row is accounted for, per split
and source: rows in = rows kept + rejects, or the stage fails. What decoding told, and each chunk,
is kept by what it was made from, so that rows which come at a source's end cost the last and the
new chunks alone. Costs one decoding of each recording (3.5 ms for 5 s of mp3), spread over all
cores; memory holds one record batch per worker, and does not grow with the corpus.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from asr.cleaning import measurements, reasons, split_overlap
from asr.cleaning.measurements import Measurement
from asr.cleaning.near_duplicates import NearDuplicate, NearDuplicateIndex
from asr.cleaning.rejects import RejectWriter, page
from asr.errors import DataError, exit_with
from asr.params import reader
from asr.rooms import KEPT
from asr.runtime import command, disk
from asr.runtime.workers import progress
from asr.storage import cache, corpus, files, hashing, shards
from asr.storage.corpus import Recording
from asr.storage.scratch import DiskSet

KNOWN = ("id", "text", "speaker", "attributes")  # the columns that come along, besides the sound
HASHED = re.compile("[0-9a-f]{32,}")
SHARED = ("speaker", "clip", "sentence")
MAX_SHOWN_EXAMPLES, SHOWN_COPIES = 3, 5
INDEX_BYTES = 2_500  # of a row, while the stage runs


@dataclass
class RawRow:
    """A row without its sound: file, byte of the record batch and number in it say where that lies."""

    place: tuple[Path, int, int]
    values: dict[str, Any]
    sound: Measurement
    source: str


@dataclass
class Chunk:
    """Rows that will be one file."""

    source: str
    name: Any = field(default_factory=lambda: hashlib.sha256())
    rows: list[tuple[tuple[Path, int, int], float]] = field(
        default_factory=list
    )  # place and duration

    def add(self, row: RawRow) -> None:
        self.name.update(
            json.dumps([row.values[name] for name in KNOWN] + [row.sound.duration]).encode()
            + row.sound.digest
        )
        self.rows.append((row.place, row.sound.duration))

    def write(self, path: Path) -> dict[str, Any]:
        """Copy the rows from the raw corpus, with their measured durations."""
        with shards.Shard(path, shards.ROW) as shard:
            for (part, offset), group in groupby(self.rows, key=lambda row: row[0][:2]):
                batch = shards.read_batch(part, offset)
                for (_, _, number), duration in group:
                    shard.add({**batch.slice(number, 1).to_pylist()[0], "duration": duration})
            return shard.close()


def rows_of(
    places: Iterable[tuple[Path, int, int]], heard: Iterator[list[Measurement]]
) -> Iterator[RawRow]:
    """Rows of a split in order, each with what decoding it told."""
    for (path, offset, _), sounds in zip(places, heard, strict=False):
        known = shards.read_batch(path, offset).select(KNOWN).to_pylist()
        for number, (values, sound) in enumerate(zip(known, sounds, strict=True)):
            yield RawRow(
                (path, offset, number),
                values,
                sound,
                str(json.loads(values["attributes"]).get("source", "")),
            )


def digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=12).digest()


def filter_rows(
    rows: Iterator[RawRow],
    split: str,
    limits: tuple[float, float],
    tally: DiskSet,
    leaks: NearDuplicateIndex,
    left_out: RejectWriter,
) -> Iterator[RawRow]:
    """The rows that stay; the others are noted with their reason. What could be trained or tested
    on is tallied by split.
    """
    for row in rows:
        why = reasons.reason(row.values["text"], row.sound, split, limits)
        if not why:
            tally.add("clip", row.sound.digest, split)
            if speaker := speaker_of(row):
                tally.add("speaker", speaker, split)
            if not tally.add("id", digest(row.values["id"].encode())):
                why = "id_duplicate", "an earlier row has this id"
        if why:
            reject = {
                "id": row.values["id"],
                "split": split,
                "code": why[0],
                "detail": why[1],
                "source": row.source,
            }
            left_out.add(reject, row.values["text"], row.place)
            continue
        leaks.add(split, row.values["id"], row.sound.fingerprint)
        tally.add("sentence", digest(row.values["text"].encode()), split)
        yield row


def speaker_of(row: RawRow) -> bytes | None:
    """Who speaks, among those of all sources: a hash, as Common Voice has, is one person
    everywhere, a name its source's own.

    A name is one however its accents are encoded, for folders that come from a Mac have them apart.
    """
    speaker = unicodedata.normalize("NFC", row.values["speaker"] or "")
    if not speaker:
        return None
    return (
        speaker if HASHED.fullmatch(speaker) or not row.source else f"{speaker} of {row.source}"
    ).encode()


def chunks_of(rows: Iterator[RawRow], rows_per_chunk: int, counts: Counter[str]) -> Iterator[Chunk]:
    """Rows in files of so many, a new one for each source; counts them by source."""
    chunk = None
    for row in rows:
        counts[row.source] += 1
        if chunk and (len(chunk.rows) == rows_per_chunk or chunk.source != row.source):
            yield chunk
            chunk = None
        chunk = chunk or Chunk(row.source)
        chunk.add(row)
    if chunk:
        yield chunk


def write_split(out: Path, chunks: Iterator[Chunk]) -> dict[str, Any]:
    """Link a split's chunks into the out, those made that were not made before; returns its
    manifest.
    """
    store, code = cache.folder(), hashing.code_hash(KEPT["chunks"])
    entries, known = [], 0
    out.mkdir()
    for number, chunk in enumerate(chunks):
        place = cache.path_of(store, [chunk.name.hexdigest(), code])
        before = cache.entry(place)
        known += before is not None
        entry = {**(before or cache.make(place, chunk.write)), "name": f"chunk-{number:05d}.arrow"}
        files.link(place, out / entry["name"])
        entries.append(entry)
    if known:
        print(f"chunk: {known:,} of {len(entries):,} {out.name} chunks were made before")
    return shards.write_manifest(out, entries)


def account(
    raw: Path, split: str, kept_by_source: Counter[str], left_out: RejectWriter
) -> dict[str, dict[str, Any]]:
    """Rows in, kept and left out of each source of a split.

    Raises:
        BadData: they do not add up, or no row is left.
    """
    by_source: dict[str, dict[str, Any]] = {}
    for source in sorted(
        {*kept_by_source, *(one for place, one, _ in left_out.counts if place == split)}
    ):
        codes = {
            code: count
            for (place, one, code), count in sorted(left_out.counts.items())
            if (place, one) == (split, source)
        }
        rows_kept = kept_by_source[source]
        by_source[source] = {
            "rows_in": rows_kept + sum(codes.values()),
            "rows_kept": rows_kept,
            "rejects": codes,
        }
    promised, found = (
        _promised(raw, split),
        {source: one["rows_in"] for source, one in by_source.items()},
    )
    rows_in = shards.manifest(raw / split)["rows"]
    if sum(found.values()) != rows_in or any(
        found.get(source, 0) != rows for source, rows in promised.items()
    ):
        raise DataError(
            f"{split}: in {promised or rows_in}, kept and left out {found}; the raw files are not those of their manifest"
        )
    if not kept_by_source.total() and (found or split in shards.SPLITS):
        raise DataError(f"{split}: no row is left: {_reasons(split, left_out)}")
    return by_source


def _promised(raw: Path, split: str) -> dict[str, int]:
    """Rows of each source, as download told."""
    return {
        one["name"]: one["rows"].get(split, 0) for one in shards.manifest(raw).get("sources", [])
    }


def _reasons(split: str, left_out: RejectWriter) -> str:
    codes = _by_code(
        Counter({key: count for key, count in left_out.counts.items() if key[0] == split})
    )
    return ", ".join(
        f"{count:,} {code} ({_example(left_out, code, split)})"
        for code, count in codes.most_common(MAX_SHOWN_EXAMPLES)
    )


def _example(left_out: RejectWriter, code: str, split: str) -> str:
    reject = left_out.first[split, code]
    return f"{reasons.printable(reject['id'])}: {reject['detail']}"


def named(
    places: dict[str, list[tuple[Path, int, int]]],
) -> Iterator[tuple[str, str, bytes, bytes | None]]:
    """Split, id, digest of the sound and speaker of all rows, which were heard before."""
    for split in places:
        for row in rows_of(places[split], measurements.measure(places[split])):
            yield split, row.values["id"], row.sound.digest, speaker_of(row)


def run(
    raw: Path,
    out: Path,
    reports: Path,
    rows_per_chunk: int,
    limits: tuple[float, float],
    allow_shared: list[str],
) -> None:
    """Write data/chunks, and reports/chunk: rejects.parquet, shared.csv, summary.json, and
    page.html, which plays what lies in sounds.

    The reports are there also where the stage fails for what stands in two splits.
    """
    places = {split: list(shards.batch_places(raw / split)) for split in shards.splits(raw)}
    disk.check_free_space(out, forecast(raw, places), "chunk")
    told = measurements.measure([place for split in places for place in places[split]])
    sources: dict[str, dict[str, Any]] = {}
    manifests: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        draft = stack.enter_context(files.new_folder(out))
        scratch = stack.enter_context(TemporaryDirectory(dir=draft))
        tally, leaks = (
            stack.enter_context(closing(DiskSet())),
            stack.enter_context(closing(NearDuplicateIndex(Path(scratch) / "leaks"))),
        )
        left_out = stack.enter_context(RejectWriter(reports / "rejects.parquet"))
        for split in places:
            counts: Counter[str] = Counter()
            rows = progress(
                rows_of(places[split], told),
                shards.manifest(raw / split)["rows"],
                "rows",
                f"chunk {split}",
            )
            found = chunks_of(
                filter_rows(rows, split, limits, tally, leaks, left_out), rows_per_chunk, counts
            )
            manifests[split] = write_split(draft / split, found)
            sources[split] = account(raw, split, counts, left_out)
        left_out.close()
        shards.write_top_manifest(draft, manifests, rejects=left_out.counts.total())
        copies = list(leaks.found())
        shared = {kind: len(tally.shared(kind)) for kind in SHARED} | {"copy": len(copies)}
        write_reports(
            reports, sources, shared, left_out, copies_shown(draft, copies[:SHOWN_COPIES])
        )
        in_two_splits = split_overlap.found(tally, copies, named(places))
        split_overlap.write(reports / "shared.csv", in_two_splits)
        split_overlap.refuse(in_two_splits, allow_shared)
    for code, count in _by_code(left_out.counts).most_common():
        print(
            f"chunk: {count:,} rows left out, {code} ({_example(left_out, code, left_out.examples[code][0].reject['split'])})"
        )


def forecast(raw: Path, places: dict[str, list[tuple[Path, int, int]]]) -> int:
    """Bytes that the chunks and what is beside them will take: all of the raw corpus, and an index
    of what it sounds like.
    """
    sounds = sum(path.stat().st_size for split in places for path in shards.paths(raw / split))
    return sounds + INDEX_BYTES * sum(rows for found in places.values() for _, _, rows in found)


def copies_shown(
    chunks: Path, copies: list[NearDuplicate]
) -> list[tuple[Recording, Recording, str]]:
    """Pairs of recordings of which one is the other's copy, and where each stands.

    Args:
        chunks: what was kept, where an id stands once.
    """
    found = []
    for one in copies:
        pair = [
            corpus.find(chunks / split, {id})[id][0]
            for split, id in ((one.split, one.id), (one.other_split, one.other_id))
        ]
        found.append(
            (pair[0], pair[1], f"{one.split} and {one.other_split}, {one.share:.0%} of the shorter")
        )
    return found


def write_reports(
    reports: Path,
    sources: dict[str, dict[str, Any]],
    shared: dict[str, int],
    left_out: RejectWriter,
    copies: list[tuple[Recording, Recording, str]],
) -> None:
    summary = {
        "splits": {split: _joined(found) for split, found in sources.items()},
        "sources": sources,
        "in_two_splits": shared,
    }
    with files.new_folder(reports / "sounds") as sounds:
        files.write_text(reports / "page.html", page(summary, left_out.examples, copies, sounds))
    files.write_json(reports / "summary.json", summary)


def _by_code(counts: Counter[tuple[str, str, str]]) -> Counter[str]:
    codes: Counter[str] = Counter()
    for (_, _, code), count in counts.items():
        codes[code] += count
    return codes


def _joined(by_source: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All sources of a split as one."""
    codes: Counter[str] = Counter()
    for one in by_source.values():
        codes.update(one["rejects"])
    counts = {key: sum(one[key] for one in by_source.values()) for key in ("rows_in", "rows_kept")}
    return {**counts, "rejects": dict(sorted(codes.items()))}


def main() -> None:
    raw, out, reports = command.paths(__doc__, "raw", "out", "reports")
    given = reader.load().chunk
    with command.timing(reports):
        run(
            raw,
            out,
            reports,
            given.rows_per_chunk,
            (given.min_seconds, given.max_seconds),
            list(given.allow_shared),
        )


if __name__ == "__main__":
    exit_with(main)
