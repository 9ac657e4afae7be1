"""Featurize: one file of unpadded log-mel features per chunk, of at most 16 kB per second of audio at 80 mel bins.

    python -m stages.featurize data/chunks data/features reports/featurize

A finished file is kept under .cache/shards, named by what it was computed from (chunk, mel bins, code), and linked into the
out: it is never computed twice, also after a kill, in `dvc exp run --temp`, or when one goes back and forth between corpora.
Costs one decoding and 1 ms per clip of 5 s and core; memory is one record batch per worker.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from asr import audio, features, files, params, shards, stage
from asr.faults import exit_with
from asr.workers import parallel, progress

FEATURES = pa.schema(
    [
        ("id", pa.string()),
        ("copy", pa.int32()),
        ("mel", pa.binary()),
        ("num_frames", pa.int32()),
        ("floor", pa.float64()),
        ("edge", pa.binary()),
        ("duration", pa.float64()),
        ("text", pa.string()),
        ("speaker", pa.string()),
        ("attributes", pa.string()),
    ]
)
DRAFT_SECONDS = 86_400  # a draft this old is what a kill left
CODE = tuple(
    """
    asr.audio asr.features asr.files asr.shards stages.featurize
    """.split()
)


def feature_row(row: dict[str, Any], num_mel_bins: int) -> dict[str, Any]:
    """Features of one row; its other columns come along."""
    found = features.log_mel(audio.decode(row["audio"]), num_mel_bins)
    return {
        "id": row["id"],
        "copy": 0,
        "mel": features.pack(found.mel, found.floor),
        "num_frames": found.mel.shape[1],
        "floor": found.floor,
        "edge": None if found.edge is None else features.pack(found.edge, found.floor),
        "duration": row["duration"],
        "text": row["text"],
        "speaker": row["speaker"],
        "attributes": row["attributes"],
    }


def featurize(chunk: Path, kept: Path, num_mel_bins: int) -> None:
    """Compute one chunk's features into the store, whole or not at all."""
    draft = kept.with_name(f".{kept.name}.{os.getpid()}.part")
    with shards.Shard(draft, FEATURES) as shard:
        for batch in shards.batches(chunk):
            for row in batch.to_pylist():
                shard.add(feature_row(row, num_mel_bins))
        shard.close()
    files.sync(draft)
    draft.rename(kept)


def run(chunks: Path, out: Path, num_mel_bins: int) -> None:
    """Write data/features: for each chunk its features, and manifests."""
    store = files.cache("shards")
    store.mkdir(parents=True, exist_ok=True)
    for draft in store.glob(".*.part"):
        if time.time() - draft.stat().st_mtime > DRAFT_SECONDS:
            draft.unlink(missing_ok=True)
    code = files.code_hash(*CODE)
    wanted = [
        (split, entry, store / f"{files.hash_of([entry['sha256'], num_mel_bins, code])[:32]}.arrow")
        for split in shards.splits(chunks)
        for entry in shards.manifest(chunks / split)["files"]
    ]
    missing = [(chunks / split / entry["name"], kept, num_mel_bins) for split, entry, kept in wanted if not kept.is_file()]
    for _ in progress(parallel(featurize, missing, len(missing)), len(missing), "chunks", "featurize"):
        pass
    if len(missing) < len(wanted):
        print(f"featurize: {len(wanted) - len(missing)} of {len(wanted)} chunks were computed before")
    collect(out, wanted, num_mel_bins)


def collect(out: Path, wanted: list[tuple[str, dict[str, Any], Path]], num_mel_bins: int) -> None:
    """Link the store's files into the out and name them."""
    splits: dict[str, list[dict[str, Any]]] = {}
    with files.new_folder(out) as draft:
        for split, entry, kept in wanted:
            (draft / split).mkdir(exist_ok=True)
            files.link(kept, draft / split / entry["name"])
            splits.setdefault(split, []).append({**entry, "sha256": files.sha256(kept)})
        manifests = {split: shards.write_manifest(draft / split, entries) for split, entries in splits.items()}
        shards.write_top_manifest(draft, manifests, num_mel_bins=num_mel_bins)


def main() -> None:
    chunks, out, reports = stage.paths(__doc__, "chunks", "out", "reports")
    with stage.timing(reports):
        run(chunks, out, params.load().featurize.num_mel_bins)


if __name__ == "__main__":
    exit_with(main)
