"""Chunk: decode and check each row; keep the good ones in files of `rows_per_chunk`, name the others with their reason.

    python -m stages.chunk data/raw data/chunks reports/chunk

Order is the corpus's own. Every row is accounted for: rows in = rows kept + rejects, or the stage fails. Costs one decoding of
each recording (3.5 ms for 5 s of mp3), spread over all cores; memory holds one record batch per worker, and 50 bytes a row.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from asr import audio, files, params, shards, stage
from asr.faults import BadData, exit_with
from asr.workers import parallel, progress

REJECT = pa.schema([("id", pa.string()), ("split", pa.string()), ("code", pa.string()), ("detail", pa.string())])
TRUNCATED_SHARE = 0.9  # a recording shorter than this share of what its table or header promised is not whole
SHOWN = 3


@dataclass(frozen=True)
class Sound:
    """What decoding a row told: its seconds and digest, or why it has none."""

    duration: float = 0.0
    digest: bytes = b""
    code: str = ""
    detail: str = ""


@dataclass
class Tally:
    """What stands where, gathered while rows pass: for duplicates, and for what two splits share."""

    ids: set[bytes] = field(default_factory=set)
    clips: dict[bytes, set[str]] = field(default_factory=lambda: defaultdict(set))
    speakers: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    sentences: dict[bytes, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, split: str, row: dict[str, Any], digest: bytes) -> None:
        self.clips[digest].add(split)
        self.sentences[_digest(row["text"].encode())].add(split)
        if row["speaker"]:
            self.speakers[row["speaker"]].add(split)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=12).digest()


def listen(path: Path, index: int) -> list[Sound]:
    """Decode each recording of one record batch."""
    return [_listen(row["audio"], row["duration"]) for row in shards.read_batch(path, index).to_pylist()]


def _listen(encoded: bytes | None, promised: float | None) -> Sound:
    if encoded is None:
        return Sound(code="audio_missing", detail="the corpus names a recording that is not there")
    try:
        duration = len(audio.decode(encoded)) / audio.SAMPLE_RATE
    except audio.Undecodable as fault:
        return Sound(code="audio_undecodable", detail=str(fault))
    if promised and duration < TRUNCATED_SHARE * promised:
        return Sound(code="audio_truncated", detail=f"{duration:.2f} s of {promised:.2f} s")
    return Sound(duration, _digest(encoded))


def reject_reason(row: dict[str, Any], sound: Sound, split: str, known: bool, limits: tuple[float, float]) -> tuple[str, str] | None:
    """Why a row is left out, as code and detail; None keeps it. The limits on length are for training rows only."""
    if known:
        return "id_duplicate", "an earlier row has this id"
    if sound.code:
        return sound.code, sound.detail
    if "\ufffd" in row["text"]:
        return "text_not_utf8", row["text"][:80]
    if not row["text"].strip():
        return "text_empty", "no transcript"
    if split == "train" and sound.duration < limits[0]:
        return "too_short", f"{sound.duration:.2f} s, want at least {limits[0]} s"
    if split == "train" and sound.duration > limits[1]:
        return "too_long", f"{sound.duration:.2f} s, want at most {limits[1]} s"
    return None


def heard(split: Path) -> Iterator[tuple[dict[str, Any], Sound]]:
    """Rows of a split in order, each with what decoding it told."""
    places = shards.batch_places(split)
    for (path, index), sounds in zip(places, parallel(listen, places, len(places)), strict=True):
        yield from zip(shards.read_batch(path, index).to_pylist(), sounds, strict=True)


def sift(
    raw: Path, out: Path, split: str, rows_per_chunk: int, limits: tuple[float, float], tally: Tally
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Write one split's chunks; returns its manifest and its rejects."""
    writer = shards.SplitWriter(out / split, "chunk", shards.ROW, rows_per_chunk)
    rejects = []
    num_rows = shards.manifest(raw / split)["rows"]
    for row, sound in progress(heard(raw / split), num_rows, "rows", f"chunk {split}"):
        key = _digest(row["id"].encode())
        reason = reject_reason(row, sound, split, key in tally.ids, limits)
        if reason:
            rejects.append({"id": row["id"], "split": split, "code": reason[0], "detail": reason[1]})
            continue
        tally.ids.add(key)
        tally.add(split, row, sound.digest)
        writer.add({**row, "duration": sound.duration})
    manifest = writer.close()
    _account(split, num_rows, manifest["rows"], rejects)
    return manifest, rejects


def _account(split: str, num_rows: int, kept: int, rejects: list[dict[str, str]]) -> None:
    if num_rows != kept + len(rejects):
        raise BadData(f"{split}: {num_rows} rows in, {kept} kept and {len(rejects)} rejected; the raw files do not match their manifest")
    if not kept:
        codes = Counter(row["code"] for row in rejects).most_common(SHOWN)
        why = ", ".join(f"{count} {code} ({_example(rejects, code)})" for code, count in codes)
        raise BadData(f"{split}: no row is left: {why}")


def _example(rejects: list[dict[str, str]], code: str) -> str:
    return next(f"{row['id']}: {row['detail']}" for row in rejects if row["code"] == code)


def check_leaks(tally: Tally, allowed: list[str]) -> dict[str, int]:
    """Count what stands in two splits.

    Raises:
        BadData: a speaker or a clip does, and params do not allow it by name.
    """
    shared = {
        "speaker": [name[:12] for name, splits in tally.speakers.items() if len(splits) > 1],
        "clip": [name.hex()[:12] for name, splits in tally.clips.items() if len(splits) > 1],
        "sentence": [name.hex()[:12] for name, splits in tally.sentences.items() if len(splits) > 1],
    }
    for kind in ("clip", "speaker"):
        if shared[kind] and kind not in allowed:
            raise BadData(
                f"{len(shared[kind])} {kind}s stand in two splits ({', '.join(shared[kind][:SHOWN])}), so the test is not honest; "
                f"split anew by speaker, or allow it: -S 'chunk.allow_shared=[{kind}]'"
            )
    return {kind: len(names) for kind, names in shared.items()}


def run(raw: Path, out: Path, reports: Path, rows_per_chunk: int, limits: tuple[float, float], allow_shared: list[str]) -> None:
    """Write data/chunks and reports/chunk: rejects.parquet and summary.json."""
    tally, rejects, manifests = Tally(), [], {}
    with files.new_folder(out) as draft:
        for split in shards.splits(raw):
            manifests[split], left_out = sift(raw, draft, split, rows_per_chunk, limits, tally)
            rejects += left_out
        shared = check_leaks(tally, allow_shared)
        shards.write_top_manifest(draft, manifests, rejects=len(rejects))
        write_reports(reports, manifests, rejects, shared)
    for code, count in Counter(row["code"] for row in rejects).most_common():
        print(f"chunk: {count} rows left out, {code} ({_example(rejects, code)})")


def write_reports(reports: Path, manifests: dict[str, Any], rejects: list[dict[str, str]], shared: dict[str, int]) -> None:
    by_split = {split: Counter(row["code"] for row in rejects if row["split"] == split) for split in manifests}
    summary = {
        split: {
            "rows_in": manifests[split]["rows"] + sum(codes.values()),
            "rows_kept": manifests[split]["rows"],
            "rejects": dict(sorted(codes.items())),
        }
        for split, codes in by_split.items()
    }
    files.write_json(reports / "summary.json", {"splits": summary, "in_two_splits": shared})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rejects, schema=REJECT), sink)
    files.write_bytes(reports / "rejects.parquet", sink.getvalue().to_pybytes())


def main() -> None:
    raw, out, reports = stage.paths(__doc__, "raw", "out", "reports")
    given = params.load().chunk
    with stage.timing(reports):
        run(raw, out, reports, given.rows_per_chunk, (given.min_seconds, given.max_seconds), list(given.allow_shared))


if __name__ == "__main__":
    exit_with(main)
