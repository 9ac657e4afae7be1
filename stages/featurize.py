"""Featurize: one file of unpadded log-mel features per chunk, of at most 16 kB per second of audio
at 80 mel bins.

    python -m stages.featurize data/chunks data/features reports/featurize

A finished file is kept under .cache/shards, named by what it was computed from (chunk, mel bins,
code), and linked into the out: it is never computed twice, also after a kill, in `dvc exp run
--temp`, or when one goes back and forth between corpora. Copies of training rows that sound
otherwise (featurize.augment) stand in files of their own, named by that and by all that was mixed
in, so that no param of theirs touches the recordings' own features. DVC does not look into the
folders of noise and rooms that params name: after a change there, `dvc repro -s -f featurize`.
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
from asr.errors import DataError, exit_with
from asr.features import FEATURES
from asr.params import reader, schema
from asr.rooms import KEPT
from asr.runtime import command, disk
from asr.runtime.workers import parallel, progress
from asr.storage import cache, files, hashing, shards
from asr.whisper import FRAMES_PER_SECOND, SAMPLE_RATE

BYTES_PER_VALUE = 1.5  # of features
EXTRA_FRAMES = (
    features.TAIL + 2
)  # frames that a row takes besides its own: the tail, the edge, a part of one
ROW_BYTES = 300  # of a row's other columns


@dataclass(frozen=True)
class AugmentationInputs:
    """What copies are made with: params, and the recordings that are mixed in; None stands for
    babble, and for rooms made up.
    """

    given: schema.Augment
    noises: list[Path] | None
    responses: list[Path] | None


@dataclass(frozen=True)
class FeatureFile:
    """One file of features to have: of which chunk, which copy of its rows, and its place in the
    store.
    """

    chunk: Path
    sha256: str
    copy: int
    place: Path

    @property
    def name(self) -> str:
        """In the out."""
        return f"{self.chunk.stem}-copy-{self.copy}.arrow" if self.copy else self.chunk.name


def feature_row(
    row: dict[str, Any], samples: np.ndarray, copy: int, num_mel_bins: int
) -> dict[str, Any]:
    """Features of a row's samples; its other columns come along."""
    found = features.log_mel(samples, num_mel_bins)
    return {
        "id": row["id"],
        "copy": copy,
        "mel": features.pack(found.mel, found.floor),
        "num_frames": found.mel.shape[1],
        "floor": found.floor,
        "edge": None if found.edge is None else features.pack(found.edge, found.floor),
        "duration": len(samples) / SAMPLE_RATE,
        "text": row["text"],
        "speaker": row["speaker"],
        "attributes": row["attributes"],
    }


def sounds(
    chunk: Path, copy: int, mixed: AugmentationInputs | None
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Rows of a chunk, each with the samples of its copy; copy 0 is the recording itself."""
    rows = (row for batch in shards.batches(chunk) for row in batch.to_pylist())
    if not copy or not mixed:
        yield from ((row, codec.decode(row["audio"])) for row in rows)
        return
    voices, responses = (
        augmentation.voices(chunk),
        augmentation.responses_of(mixed.given, mixed.responses),
    )
    for own, row in enumerate(rows):
        noises = augmentation.noises_of(mixed.given, mixed.noises, voices, own)
        yield (
            row,
            augmentation.augmented(
                codec.decode(row["audio"]), row["id"], copy, mixed.given, noises, responses
            )[0],
        )


def featurize(
    job: FeatureFile, num_mel_bins: int, mixed: AugmentationInputs | None
) -> dict[str, Any]:
    """Compute one file into the store, whole or not at all; returns its line of the manifest.

    Raises:
        BadData: the chunk is damaged; its features would be kept under the name of the whole one.
    """
    if hashing.sha256(job.chunk) != job.sha256:
        raise DataError(
            f"{job.chunk}: not the file its manifest names; run dvc checkout, or dvc repro -f chunk"
        )

    def write(path: Path) -> dict[str, Any]:
        with shards.Shard(path, FEATURES) as shard:
            for row, samples in sounds(job.chunk, job.copy, mixed):
                shard.add(feature_row(row, samples, job.copy, num_mel_bins))
            return shard.close()

    return cache.make(job.place, write)


def files_to_make(
    chunks: Path, store: Path, num_mel_bins: int, mixed: AugmentationInputs | None
) -> dict[str, list[FeatureFile]]:
    """The files that each split is to have: one per chunk, and for training its copies after these."""
    plain, beside = (
        hashing.code_hash(KEPT["features"]),
        augmentation_identity(mixed) if mixed else {},
    )

    def job(chunk: Path, sha256: str, copy: int) -> FeatureFile:
        named = [sha256, num_mel_bins, plain, *([copy, beside] if copy else [])]
        return FeatureFile(chunk, sha256, copy, cache.path_of(store, named))

    jobs = {}
    for split in shards.splits(chunks):
        entries, copies = (
            shards.manifest(chunks / split)["files"],
            mixed.given.copies if mixed and split == "train" else 0,
        )
        jobs[split] = [
            job(chunks / split / one["name"], one["sha256"], copy)
            for copy in range(copies + 1)
            for one in entries
        ]
    return jobs


def augmentation_identity(mixed: AugmentationInputs) -> dict[str, Any]:
    """All that decides how copies sound, but for their number: code, params, and the digests of
    what is mixed in.
    """
    digests = [
        [hashing.sha256(path) for path in paths or []] for paths in (mixed.noises, mixed.responses)
    ]
    return {
        "code": hashing.code_hash(KEPT["augmented features"]),
        "given": mixed.given.model_dump(exclude={"copies"}),
        "mixed_in": digests,
    }


def num_bytes(job: FeatureFile, num_mel_bins: int, mixed: AugmentationInputs | None) -> float:
    """About what a file of features will take, told by the durations of its rows."""
    rows, seconds = 0, 0.0
    for batch in shards.batches(job.chunk, ["duration"]):
        rows, seconds = rows + len(batch), seconds + (pc.sum(batch["duration"]).as_py() or 0.0)
    slower = min(mixed.given.speed.min, 1.0) if mixed and job.copy else 1.0
    frames = seconds / slower * FRAMES_PER_SECOND + EXTRA_FRAMES * rows
    return frames * num_mel_bins * BYTES_PER_VALUE + ROW_BYTES * rows


def run(chunks: Path, out: Path, num_mel_bins: int, given: schema.Augment | None = None) -> None:
    """Write data/features: for each chunk its features and those of its copies, and manifests.

    Raises:
        DiskFault: what is to be computed will not fit on the disk.
    """
    store = cache.folder()
    jobs = files_to_make(chunks, store, num_mel_bins, mixed := mixing(given))
    found = {job: cache.entry(job.place) for split in jobs for job in jobs[split]}
    missing = [job for job, record in found.items() if record is None]
    disk.check_free_space(
        store, sum(num_bytes(job, num_mel_bins, mixed) for job in missing), "featurize"
    )
    made = parallel(featurize, ((job, num_mel_bins, mixed) for job in missing), len(missing))
    found.update(zip(missing, progress(made, len(missing), "chunks", "featurize"), strict=True))
    if len(missing) < len(found):
        print(f"featurize: {len(found) - len(missing)} of {len(found)} chunks were computed before")
    collect(
        out, {split: [(job, found[job]) for job in jobs[split]] for split in jobs}, num_mel_bins
    )


def mixing(given: schema.Augment | None) -> AugmentationInputs | None:
    """What copies are made with, if there are any."""
    if not given or not given.copies:
        return None
    noise, room = given.noise, given.reverberation
    return AugmentationInputs(
        given,
        augmentation.recordings(noise.folder, noise.probability),
        augmentation.recordings(room.folder, room.probability),
    )


def collect(out: Path, found: dict[str, list[tuple[FeatureFile, Any]]], num_mel_bins: int) -> None:
    """Link the store's files into the out and name them."""
    manifests = {}
    with files.new_folder(out) as draft:
        for split, made in found.items():
            (draft / split).mkdir()
            for job, _ in made:
                files.link(job.place, draft / split / job.name)
            manifests[split] = shards.write_manifest(
                draft / split, [{**record, "name": job.name} for job, record in made]
            )
        shards.write_top_manifest(draft, manifests, num_mel_bins=num_mel_bins)


def main() -> None:
    chunks, out, reports = command.paths(__doc__, "chunks", "out", "reports")
    given = reader.load().featurize
    with command.timing(reports):
        run(chunks, out, given.num_mel_bins, given.augment)


if __name__ == "__main__":
    exit_with(main)
