"""Featurize: one file of unpadded log-mel features per chunk.

    python -m stages.featurize data/chunks data/features reports/featurize

Features take at most 16 kB per second of audio at 80 mel bins. A finished file is kept under
.cache/shards, named by what it was computed from (chunk, mel bins, code), and linked into the out:
it is never computed twice, also after a kill, in `dvc exp run --temp`, or when one goes back and
forth between corpora.

Copies of training rows that sound otherwise (featurize.augment) stand in files of their own, named
by that and by all that was mixed in, so that no param of theirs touches the recordings' own
features. DVC does not look into the folders of noise and rooms that params name: after a change
there, `dvc repro -s -f featurize`.

Costs one decoding and 1 ms per clip of 5 s and core, for a copy three times as much, most of it to
decode babble; memory is one record batch per worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from asr import augmentation, features
from asr.audio import codec
from asr.errors import DataError
from asr.features import FEATURES
from asr.params import reader, schema
from asr.rooms import KEPT
from asr.runtime import command, disk
from asr.runtime.stage import run_stage
from asr.runtime.workers import parallel, progress
from asr.storage import cache, files, hashing, shards
from asr.whisper import FRAMES_PER_SECOND, SAMPLE_RATE

BYTES_PER_VALUE = 1.5  # of features
EXTRA_FRAMES = features.TAIL + 2  # of a row besides its own: the tail, the edge, a part of one
ROW_BYTES = 300  # of a row's other columns


@dataclass(frozen=True)
class AugmentationInputs:
    """What copies of training rows are made with.

    Attributes:
        noises: recordings that are mixed in; None stands for babble.
        responses: of rooms; None stands for rooms made up.
    """

    params: schema.Augment
    noises: list[Path] | None
    responses: list[Path] | None


@dataclass(frozen=True)
class FeatureFile:
    """One file of features.

    Attributes:
        chunk: the file that its rows come from.
        sha256: of that file.
        copy: which copy of the rows; 0 is the recordings themselves.
        path: where the file is kept in the cache.
    """

    chunk: Path
    sha256: str
    copy: int
    path: Path

    @property
    def name(self) -> str:
        """The file's name in the out."""
        return f"{self.chunk.stem}-copy-{self.copy}.arrow" if self.copy else self.chunk.name


def feature_row(
    row: dict[str, Any], samples: np.ndarray, copy: int, num_mel_bins: int
) -> dict[str, Any]:
    """A row of features.

    Args:
        row: of a chunk; its columns other than the sound come along.
        samples: (S,) float32 at 16 kHz, of this copy.
    """
    log_mel = features.log_mel(samples, num_mel_bins)
    edge = None if log_mel.edge is None else features.pack(log_mel.edge, log_mel.floor)
    return {
        "id": row["id"],
        "copy": copy,
        "mel": features.pack(log_mel.mel, log_mel.floor),
        "num_frames": log_mel.mel.shape[1],
        "floor": log_mel.floor,
        "edge": edge,
        "duration": len(samples) / SAMPLE_RATE,
        "text": row["text"],
        "speaker": row["speaker"],
        "attributes": row["attributes"],
    }


def sounds(
    chunk: Path, copy: int, inputs: AugmentationInputs | None
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Rows of a chunk, each with the samples of its copy; copy 0 is the recording itself."""
    rows = (row for batch in shards.batches(chunk) for row in batch.to_pylist())
    if not copy or not inputs:
        yield from ((row, codec.decode(row["audio"])) for row in rows)
        return
    voices = augmentation.encoded_recordings(chunk)
    responses = augmentation.responses_of(inputs.params, inputs.responses)
    for index, row in enumerate(rows):
        noises = augmentation.noises_of(inputs.params, inputs.noises, voices, index)
        recording = codec.decode(row["audio"])
        samples, _ = augmentation.augmented(
            recording, row["id"], copy, inputs.params, noises, responses
        )
        yield row, samples


def featurize(
    job: FeatureFile, num_mel_bins: int, inputs: AugmentationInputs | None
) -> dict[str, Any]:
    """Compute one file into the cache, whole or not at all.

    Returns:
        The file's entry in the manifest.
    Raises:
        DataError: the chunk is damaged; its features would be kept under the name of the whole one.
    """
    if hashing.sha256(job.chunk) != job.sha256:
        raise DataError(
            f"{job.chunk}: not the file its manifest names; run dvc checkout, or dvc repro -f chunk"
        )

    def write(path: Path) -> dict[str, Any]:
        with shards.Shard(path, FEATURES) as shard:
            for row, samples in sounds(job.chunk, job.copy, inputs):
                shard.add(feature_row(row, samples, job.copy, num_mel_bins))
            return shard.close()

    return cache.make(job.path, write)


def files_to_make(
    chunks: Path, store: Path, num_mel_bins: int, inputs: AugmentationInputs | None
) -> dict[str, list[FeatureFile]]:
    """The files that each split should have.

    One per chunk, in the chunks' order; for training the files of each copy follow.
    """
    code = hashing.code_hash(KEPT["features"])
    identity = augmentation_identity(inputs) if inputs else {}

    def file_of(chunk: Path, sha256: str, copy: int) -> FeatureFile:
        made_from = [sha256, num_mel_bins, code]
        if copy:
            made_from += [copy, identity]
        return FeatureFile(chunk, sha256, copy, cache.path_of(store, made_from))

    by_split = {}
    for split in shards.splits(chunks):
        entries = shards.manifest(chunks / split)["files"]
        copies = inputs.params.copies if inputs and split == "train" else 0
        by_split[split] = [
            file_of(chunks / split / entry["name"], entry["sha256"], copy)
            for copy in range(copies + 1)
            for entry in entries
        ]
    return by_split


def augmentation_identity(inputs: AugmentationInputs) -> dict[str, Any]:
    """All that decides how copies sound, except for their number.

    That is code, params, and the digests of what is mixed in.
    """
    digests = [
        [hashing.sha256(path) for path in paths or []]
        for paths in (inputs.noises, inputs.responses)
    ]
    return {
        "code": hashing.code_hash(KEPT["augmented features"]),
        "given": inputs.params.model_dump(exclude={"copies"}),
        "mixed_in": digests,
    }


def num_bytes(job: FeatureFile, num_mel_bins: int, inputs: AugmentationInputs | None) -> float:
    """About what a file of features will take, from the durations of its rows."""
    num_rows = 0
    seconds = 0.0
    for batch in shards.batches(job.chunk, ["duration"]):
        num_rows += len(batch)
        seconds += pc.sum(batch["duration"]).as_py() or 0.0
    slowest = min(inputs.params.speed.min, 1.0) if inputs and job.copy else 1.0
    frames = seconds / slowest * FRAMES_PER_SECOND + EXTRA_FRAMES * num_rows
    return frames * num_mel_bins * BYTES_PER_VALUE + ROW_BYTES * num_rows


def run(chunks: Path, out: Path, num_mel_bins: int, augment: schema.Augment | None = None) -> None:
    """Write data/features: for each chunk its features and those of its copies, and manifests.

    Raises:
        DiskError: what is to be computed will not fit on the disk.
    """
    store = cache.folder()
    inputs = mixing(augment)
    jobs = files_to_make(chunks, store, num_mel_bins, inputs)
    entries = {job: cache.entry(job.path) for split in jobs for job in jobs[split]}
    missing = [job for job, entry in entries.items() if entry is None]
    missing_bytes = sum(num_bytes(job, num_mel_bins, inputs) for job in missing)
    disk.check_free_space(store, missing_bytes, "featurize")
    arguments = ((job, num_mel_bins, inputs) for job in missing)
    new_entries = parallel(featurize, arguments, len(missing))
    new_entries = progress(new_entries, len(missing), "chunks", "featurize")
    entries.update(zip(missing, new_entries, strict=True))
    num_kept = len(entries) - len(missing)
    if num_kept:
        print(f"featurize: {num_kept} of {len(entries)} chunks were computed before")
    by_split = {split: [(job, entries[job]) for job in jobs[split]] for split in jobs}
    collect(out, by_split, num_mel_bins)


def mixing(augment: schema.Augment | None) -> AugmentationInputs | None:
    """What copies are made with, if there are any."""
    if not augment or not augment.copies:
        return None
    noise, room = augment.noise, augment.reverberation
    return AugmentationInputs(
        augment,
        augmentation.recordings(noise.folder, noise.probability),
        augmentation.recordings(room.folder, room.probability),
    )


def collect(
    out: Path, by_split: dict[str, list[tuple[FeatureFile, Any]]], num_mel_bins: int
) -> None:
    """Link files from the cache into the out, and write manifests.

    Args:
        by_split: each file with its entry in the manifest.
    """
    manifests = {}
    with files.new_folder(out) as draft:
        for split, jobs in by_split.items():
            (draft / split).mkdir()
            for job, _ in jobs:
                files.link(job.path, draft / split / job.name)
            entries = [{**entry, "name": job.name} for job, entry in jobs]
            manifests[split] = shards.write_manifest(draft / split, entries)
        shards.write_top_manifest(draft, manifests, num_mel_bins=num_mel_bins)


def main() -> None:
    chunks, out, reports = command.paths(__doc__, "chunks", "out", "reports")
    params = reader.load().featurize
    with command.timing(reports):
        run(chunks, out, params.num_mel_bins, params.augment)


if __name__ == "__main__":
    run_stage(main)
