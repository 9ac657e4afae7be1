"""Chunk: decode and check each row, and write the good ones in files of `rows_per_chunk`.

    python -m stages.chunk data/raw data/chunks reports/chunk

The others are named in the reports, each with its reason. The order is the corpus's own, and each
source begins a new file. Every row is accounted for, per split and source: rows in = rows kept +
rejects, or the stage fails. Measurements and chunks are kept under a name that says what they were
made from, so that new rows at the end of a source cost their own decoding and the last and the new
chunks. Costs one decoding of each recording (3.5 ms for 5 s of mp3), spread over all cores; memory
holds one record batch per worker, and does not grow with the corpus.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from asr.cleaning import measurements, reasons, split_overlap
from asr.cleaning.measurements import Measurement
from asr.cleaning.near_duplicates import NearDuplicate, NearDuplicateIndex
from asr.cleaning.rejects import RejectWriter, page
from asr.cleaning.same_sound import is_copy
from asr.errors import DataError
from asr.params import reader
from asr.rooms import KEPT
from asr.runtime import command, disk
from asr.runtime.stage import run_stage
from asr.runtime.workers import progress
from asr.storage import cache, corpus, files, hashing, shards
from asr.storage.corpus import Recording
from asr.storage.scratch import DiskSet

COLUMNS = ("id", "text", "speaker", "attributes")  # of a raw row, besides the sound
HASHED_SPEAKER = re.compile("[0-9a-f]{32,}")
SHARED = ("speaker", "clip", "sentence")
MAX_SHOWN_EXAMPLES = 3  # reasons named where no row is left
MAX_SHOWN_COPIES = 5  # pairs of near duplicates that the page plays
COMPARED_AT_ONCE = 32  # pairs whose recordings are held in memory
INDEX_BYTES = 2_500  # of a row in the index of sounds, while the stage runs

ShownCopy = tuple[Recording, Recording, str]  # two recordings, and where they stand
RowPlace = tuple[Path, int, int]  # file, byte at which its record batch begins, row in that


@dataclass
class RawRow:
    """A row of the raw corpus without its sound.

    Attributes:
        place: where its sound lies.
        values: COLUMNS.
        measured: what decoding its sound gave.
        source: the corpus it comes from.
    """

    place: RowPlace
    values: dict[str, Any]
    measured: Measurement
    source: str


@dataclass
class Chunk:
    """Rows that will be one file.

    Attributes:
        hash: of all that the file will hold; names it among the files kept.
        rows: place and duration of each.
    """

    source: str
    hash: Any = field(default_factory=hashlib.sha256)
    rows: list[tuple[RowPlace, float]] = field(default_factory=list)

    def add(self, row: RawRow) -> None:
        duration = row.measured.duration
        values = [*(row.values[name] for name in COLUMNS), duration]
        self.hash.update(json.dumps(values).encode() + row.measured.digest)
        self.rows.append((row.place, duration))

    def write(self, path: Path) -> dict[str, Any]:
        """Copy the rows from the raw corpus, with their measured durations.

        Returns:
            The file's entry in the manifest.
        """
        with shards.Shard(path, shards.ROW) as shard:
            for (part, offset), group in groupby(self.rows, key=lambda row: row[0][:2]):
                batch = shards.read_batch(part, offset)
                for (_, _, number), duration in group:
                    (row,) = batch.slice(number, 1).to_pylist()
                    shard.add({**row, "duration": duration})
            return shard.close()


def read_rows(
    places: Iterable[shards.BatchPlace], measured: Iterator[list[Measurement]]
) -> Iterator[RawRow]:
    """The rows of some record batches in order.

    Args:
        measured: a list for each batch; those that follow are left to the next caller.
    """
    # `places` comes first: zip ends with it before it takes a list that belongs to the next split
    for (path, offset, _), measurements_of_batch in zip(places, measured, strict=False):
        rows = shards.read_batch(path, offset).select(COLUMNS).to_pylist()
        for number, (values, measurement) in enumerate(
            zip(rows, measurements_of_batch, strict=True)
        ):
            source = str(json.loads(values["attributes"]).get("source", ""))
            yield RawRow((path, offset, number), values, measurement, source)


def digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=12).digest()


def filter_rows(
    rows: Iterator[RawRow],
    split: str,
    limits: tuple[float, float],
    seen: DiskSet,
    duplicates: NearDuplicateIndex,
    left_out: RejectWriter,
    copies: Mapping[str, str],
) -> Iterator[RawRow]:
    """The rows that stay; the others go to `left_out` with their reason.

    Args:
        limits: seconds that a training row must and may have.
        seen: takes the ids, sounds, speakers and sentences of all splits.
        duplicates: takes what the rows that stay sound like.
        copies: training rows to leave out, and the validation rows whose sound they have.
    """
    for row in rows:
        reject = _reject(row, split, limits, seen, copies)
        if reject:
            left_out.add(reject, row.values["text"], row.place)
            continue
        duplicates.add(split, row.values["id"], row.measured.fingerprint)
        seen.add("sentence", digest(row.values["text"].encode()), split)
        yield row


def _reject(
    row: RawRow,
    split: str,
    limits: tuple[float, float],
    seen: DiskSet,
    copies: Mapping[str, str],
) -> dict[str, str] | None:
    """The line of rejects.parquet for a row that is left out, None for one that stays.

    Notes sound and speaker of a row also where an earlier one has its id.
    """
    reason = reasons.reason(row.values["text"], row.measured, split, limits)
    original = copies.get(row.values["id"]) if split == "train" else None
    if not reason and original:
        reason = "clip_in_validation", f"a copy of {reasons.printable(original)}"
    if not reason:
        seen.add("clip", sound_of(row), split)
        if speaker := speaker_of(row):
            seen.add("speaker", speaker, split)
        if not seen.add("id", digest(row.values["id"].encode())):
            reason = "id_duplicate", "an earlier row has this id"
    if not reason:
        return None
    code, detail = reason
    return {
        "id": row.values["id"],
        "split": split,
        "code": code,
        "detail": detail,
        "source": row.source,
    }


def sound_of(row: RawRow) -> bytes:
    """A digest that two recordings share if they have the same samples, whatever their format.

    It is taken of what was measured, which no other samples give; of the bytes where nobody is to
    be heard.
    """
    measured = row.measured
    if not measured.loud:
        return measured.digest
    return digest(f"{measured.duration} {measured.fullness} ".encode() + measured.fingerprint)


def speaker_of(row: RawRow) -> bytes | None:
    """A name for the speaker that is unique among all sources; None where it is unknown.

    A hash, as Common Voice has, is one person everywhere; a name belongs to its source. Accents
    are composed, for folders that come from a Mac have them apart.
    """
    speaker = unicodedata.normalize("NFC", row.values["speaker"] or "")
    if not speaker:
        return None
    if row.source and not HASHED_SPEAKER.fullmatch(speaker):
        speaker = f"{speaker} of {row.source}"
    return speaker.encode()


def chunks_of(rows: Iterator[RawRow], rows_per_chunk: int, counts: Counter[str]) -> Iterator[Chunk]:
    """Group rows into chunks, a new one for each source.

    Args:
        counts: takes the number of rows by source.
    """
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
    """Link a split's chunks into `out`, and write those that are not kept from before.

    Returns:
        The split's manifest.
    """
    store = cache.folder()
    code = hashing.code_hash(KEPT["chunks"])
    entries = []
    num_kept = 0
    out.mkdir()
    for number, chunk in enumerate(chunks):
        path = cache.path_of(store, [chunk.hash.hexdigest(), code])
        entry = cache.entry(path)
        if entry is None:
            entry = cache.make(path, chunk.write)
        else:
            num_kept += 1
        name = f"chunk-{number:05d}.arrow"
        files.link(path, out / name)
        entries.append({**entry, "name": name})
    if num_kept:
        print(f"chunk: {num_kept:,} of {len(entries):,} {out.name} chunks were made before")
    return shards.write_manifest(out, entries)


def account(
    raw: Path, split: str, rows_kept: Counter[str], left_out: RejectWriter
) -> dict[str, dict[str, Any]]:
    """Rows in, kept and left out of each source of a split.

    Args:
        rows_kept: by source.
    Raises:
        DataError: they do not add up, or no row is left.
    """
    rejects: dict[str, dict[str, int]] = defaultdict(dict)
    for (reject_split, source, code), count in sorted(left_out.counts.items()):
        if reject_split == split:
            rejects[source][code] = count
    by_source: dict[str, dict[str, Any]] = {}
    for source in sorted({*rows_kept, *rejects}):
        codes = rejects.get(source, {})
        by_source[source] = {
            "rows_in": rows_kept[source] + sum(codes.values()),
            "rows_kept": rows_kept[source],
            "rejects": codes,
        }
    _check_sums(raw, split, {source: one["rows_in"] for source, one in by_source.items()})
    if not rows_kept.total() and (by_source or split in shards.SPLITS):
        raise DataError(f"{split}: no row is left: {_reasons(split, left_out)}")
    return by_source


def _check_sums(raw: Path, split: str, counted: dict[str, int]) -> None:
    """Compare the rows counted by source with those that download promised."""
    promised = _promised(raw, split)
    rows_in = shards.manifest(raw / split)["rows"]
    sources_differ = any(counted.get(source, 0) != rows for source, rows in promised.items())
    if sources_differ or sum(counted.values()) != rows_in:
        raise DataError(
            f"{split}: in {promised or rows_in}, kept and left out {counted}; "
            "the raw files are not those of their manifest"
        )


def _promised(raw: Path, split: str) -> dict[str, int]:
    """Rows of each source, as the manifest of download says."""
    sources = shards.manifest(raw).get("sources", [])
    return {source["name"]: source["rows"].get(split, 0) for source in sources}


def _reasons(split: str, left_out: RejectWriter) -> str:
    """The most frequent reasons of a split, each with an example."""
    counts = Counter({key: count for key, count in left_out.counts.items() if key[0] == split})
    return ", ".join(
        f"{count:,} {code} ({_example(left_out, code, split)})"
        for code, count in _by_code(counts).most_common(MAX_SHOWN_EXAMPLES)
    )


def _example(left_out: RejectWriter, code: str, split: str) -> str:
    reject = left_out.first[split, code]
    return f"{reasons.printable(reject['id'])}: {reject['detail']}"


def rows_with_speakers(
    places: dict[str, list[shards.BatchPlace]],
) -> Iterator[tuple[str, str, bytes, bytes | None]]:
    """Split, id, digest of the samples and speaker of all rows; measurements are kept."""
    for split in places:
        for row in read_rows(places[split], measurements.measure(places[split])):
            yield split, row.values["id"], sound_of(row), speaker_of(row)


def run(
    raw: Path,
    out: Path,
    reports: Path,
    rows_per_chunk: int,
    limits: tuple[float, float],
    allow_shared: list[str],
) -> None:
    """Write data/chunks and reports/chunk.

    The reports are rejects.parquet, shared.csv, summary.json, and page.html, which plays what lies
    in sounds. They are written also where the stage fails for what stands in two splits. Where
    clips may stand in two splits, and training has the very sound of a validation row, all is
    written once more without it, for training refuses it.

    Args:
        limits: seconds that a training row must and may have.
        allow_shared: kinds of things that may stand in two splits.
    """
    arguments = (raw, out, reports, rows_per_chunk, limits, allow_shared)
    if copies := write(*arguments, {}):
        write(*arguments, copies)


def write(
    raw: Path,
    out: Path,
    reports: Path,
    rows_per_chunk: int,
    limits: tuple[float, float],
    allow_shared: list[str],
    copies: Mapping[str, str],
) -> dict[str, str]:
    """As `run`, without the training rows in `copies`; return those that must go as well."""
    places = {split: list(shards.batch_locations(raw / split)) for split in shards.splits(raw)}
    disk.check_free_space(out, forecast(raw, places), "chunk")
    measured = measurements.measure([place for split in places for place in places[split]])
    sources: dict[str, dict[str, Any]] = {}
    manifests: dict[str, dict[str, Any]] = {}
    with (
        files.new_folder(out) as draft,
        TemporaryDirectory(dir=draft) as scratch,
        closing(DiskSet()) as seen,
        closing(NearDuplicateIndex(Path(scratch) / "leaks")) as duplicates,
        RejectWriter(reports / "rejects.parquet") as left_out,
    ):
        for split in places:
            num_rows = shards.manifest(raw / split)["rows"]
            rows = read_rows(places[split], measured)
            rows = progress(rows, num_rows, "rows", f"chunk {split}")
            rows = filter_rows(rows, split, limits, seen, duplicates, left_out, copies)
            rows_kept: Counter[str] = Counter()
            chunks = chunks_of(rows, rows_per_chunk, rows_kept)
            manifests[split] = write_split(draft / split, chunks)
            sources[split] = account(raw, split, rows_kept, left_out)
        left_out.close()
        shards.write_top_manifest(draft, manifests, rejects=left_out.counts.total())
        found, shown = confirmed(draft, duplicates.found())
        shared = {kind: len(seen.shared(kind)) for kind in SHARED} | {"copy": len(found)}
        without_speaker = rows_without_speaker(draft)
        write_reports(reports, sources, shared, left_out, shown, without_speaker)
        copies = refuse_shared(draft, reports, places, seen, found, allow_shared)
    print_rejects(left_out)
    return copies


def refuse_shared(
    chunks: Path,
    reports: Path,
    places: dict[str, list[shards.BatchPlace]],
    seen: DiskSet,
    copies: list[NearDuplicate],
    allow_shared: list[str],
) -> dict[str, str]:
    """Write shared.csv, and refuse what stands in two splits though it may not.

    Returns:
        The training rows that have the very sound of a validation row, by id, and that row's id.
    """
    in_two_splits = split_overlap.find_shared(seen, copies, rows_with_speakers(places))
    split_overlap.write(reports / "shared.csv", in_two_splits)
    split_overlap.refuse(in_two_splits, allow_shared, first_texts(chunks, in_two_splits))
    return split_overlap.copies_in_training(seen, rows_with_speakers(places))


def print_rejects(left_out: RejectWriter) -> None:
    """Print the number of rows left out by reason, each with an example."""
    for code, count in _by_code(left_out.counts).most_common():
        split = left_out.examples[code][0].reject["split"]
        print(f"chunk: {count:,} rows left out, {code} ({_example(left_out, code, split)})")


def forecast(raw: Path, places: dict[str, list[shards.BatchPlace]]) -> int:
    """Bytes that the chunks will take, and the index of sounds while the stage runs.

    That is all of the raw corpus, and INDEX_BYTES a row.
    """
    corpus_bytes = sum(
        path.stat().st_size for split in places for path in shards.paths(raw / split)
    )
    num_rows = sum(rows for batches in places.values() for _, _, rows in batches)
    return corpus_bytes + INDEX_BYTES * num_rows


def rows_without_speaker(chunks: Path) -> int:
    """How many rows have no speaker, so that nothing is known of their voices."""
    columns = (
        batch.column("speaker")
        for split in shards.splits(chunks)
        for path in shards.paths(chunks / split)
        for batch in shards.batches(path, ["speaker"])
    )
    return sum(column.null_count for column in columns)


def confirmed(
    chunks: Path, candidates: Iterator[NearDuplicate]
) -> tuple[list[NearDuplicate], list[ShownCopy]]:
    """The candidates that are copies also by a second look, and the first of them to be shown.

    Args:
        chunks: the rows that were kept, among which an id is unique.
    """
    copies: list[NearDuplicate] = []
    shown: list[ShownCopy] = []
    while group := list(islice(candidates, COMPARED_AT_ONCE)):
        recordings = recordings_of(chunks, group)
        for copy in group:
            one = recordings[copy.split, copy.id]
            other = recordings[copy.other_split, copy.other_id]
            if not is_copy(one, other):
                continue
            copies.append(copy)
            where = f"{copy.split} and {copy.other_split}, {copy.share:.0%} of the shorter"
            if len(shown) < MAX_SHOWN_COPIES:
                shown.append((one, other, where))
    return copies, shown


def recordings_of(
    chunks: Path, pairs: list[NearDuplicate]
) -> dict[split_overlap.SplitAndId, Recording]:
    """The recordings of some pairs, by split and id."""
    ids: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        ids[pair.split].add(pair.id)
        ids[pair.other_split].add(pair.other_id)
    found = {split: corpus.find(chunks / split, ids[split]) for split in ids}
    return {(split, id): rows[0] for split in found for id, rows in found[split].items()}


def first_texts(
    chunks: Path, overlaps: Iterable[split_overlap.Shared]
) -> dict[split_overlap.SplitAndId, str]:
    """The texts of the first clip that stands in two splits, of a row in each."""
    clip = next((shared for shared in overlaps if shared.kind == "clip"), None)
    if clip is None:
        return {}
    first_ids: dict[str, str] = {}
    for split, id in clip.rows:
        first_ids.setdefault(split, id)
    found = {(split, id): corpus.find(chunks / split, {id}) for split, id in first_ids.items()}
    return {place: rows[place[1]][0].text for place, rows in found.items() if rows}


def write_reports(
    reports: Path,
    sources: dict[str, dict[str, Any]],
    shared: dict[str, int],
    left_out: RejectWriter,
    copies: list[ShownCopy],
    without_speaker: int,
) -> None:
    """Write page.html with the sounds that it plays, and summary.json.

    Args:
        sources: by split, what `account` gives.
        shared: how many clips, speakers, sentences and copies stand in two splits.
        copies: pairs of near duplicates, and where each stands.
        without_speaker: how many rows kept have none.
    """
    summary = {
        "splits": {split: _all_sources(by_source) for split, by_source in sources.items()},
        "sources": sources,
        "in_two_splits": shared,
    }
    if without_speaker:
        summary["rows_without_speaker"] = without_speaker
    with files.new_folder(reports / "sounds") as sounds:
        files.write_text(reports / "page.html", page(summary, left_out.examples, copies, sounds))
    files.write_json(reports / "summary.json", summary)


def _by_code(counts: Counter[tuple[str, str, str]]) -> Counter[str]:
    """Rows left out by code, from those by split, source and code."""
    codes: Counter[str] = Counter()
    for (_, _, code), count in counts.items():
        codes[code] += count
    return codes


def _all_sources(by_source: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All sources of a split as one."""
    codes: Counter[str] = Counter()
    for one in by_source.values():
        codes.update(one["rejects"])
    counts = {key: sum(one[key] for one in by_source.values()) for key in ("rows_in", "rows_kept")}
    return {**counts, "rejects": dict(sorted(codes.items()))}


def main() -> None:
    raw, out, reports = command.paths(__doc__, "raw", "out", "reports")
    params = reader.load().chunk
    limits = params.min_seconds, params.max_seconds
    with command.timing(reports):
        run(raw, out, reports, params.rows_per_chunk, limits, list(params.allow_shared))


if __name__ == "__main__":
    run_stage(main)
