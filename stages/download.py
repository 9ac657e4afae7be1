"""Download: bring a corpus into data/raw as delivered, one row per utterance, whatever source it comes from.

    python -m stages.download data/raw reports/download

Nothing is decoded and nothing is left out here, apart from `max_rows_per_split`: a recording that is missing becomes a row
without audio, which `chunk` counts. Costs one read and one write of the corpus; the synthetic one 5 ms an utterance and core.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from asr import audio, files, params, shards, stage
from asr.chance import fraction_of, split_of
from asr.faults import BadData, exit_with
from asr.sources import Corpus, Utterance, common_voice, folder, synthetic
from asr.workers import parallel, progress

JOB_ROWS = 16  # utterances that a worker takes at once


def select(utterances: list[Utterance], max_rows: int | None, seed: int) -> list[Utterance]:
    """At most `max_rows` of each split, chosen by a hash of the id, in the corpus's own order."""
    if max_rows is None:
        return utterances
    kept = set()
    for split in shards.SPLITS:
        ids = [one.id for one in utterances if one.split == split]
        kept |= {(split, id) for id in sorted(ids, key=lambda id: fraction_of(f"{seed}:{id}"))[:max_rows]}
    return [one for one in utterances if (one.split, one.id) in kept]


def row_of(utterance: Utterance) -> dict[str, Any]:
    """One row of data/raw; fetches the sound."""
    sound = utterance.audio()
    known = utterance.duration is not None or not sound
    return {
        "id": _utf8(utterance.id),
        "audio": sound,
        "text": _utf8(utterance.text),
        "speaker": utterance.speaker and _utf8(utterance.speaker),
        "attributes": _utf8(json.dumps(utterance.attributes, sort_keys=True, ensure_ascii=False)),
        "duration": utterance.duration if known else audio.header_seconds(sound or b""),
    }


def _utf8(text: str) -> str:
    """Bytes that are not UTF-8 become U+FFFD, by which `chunk` knows and rejects the row."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def rows_of(utterances: list[Utterance]) -> list[dict[str, Any]]:
    return [row_of(utterance) for utterance in utterances]


def fetch(utterances: list[Utterance]) -> Iterator[dict[str, Any]]:
    """Rows of these utterances in order, fetched by all workers."""
    jobs = ((job,) for job in _jobs(iter(utterances)))
    for rows in parallel(rows_of, jobs, -(-len(utterances) // JOB_ROWS)):
        yield from rows


def _jobs(utterances: Iterator[Utterance]) -> Iterable[list[Utterance]]:
    return iter(lambda: list(islice(utterances, JOB_ROWS)), [])


def source(given: params.Download, working: Path) -> Corpus:
    """Open the corpus that the params name."""
    if given.source == "synthetic":
        made = given.synthetic
        return synthetic.read(
            given.language,
            given.seed,
            made.rows.model_dump(),
            made.voices.model_dump(),
            made.max_number,
            (made.min_numbers, made.max_numbers),
            (made.min_words_per_minute, made.max_words_per_minute),
            (made.min_pitch, made.max_pitch),
        )
    path = files.resolve(given.path or "")
    if not path.exists():
        raise BadData(f"download.path: {path} is not there")
    return common_voice.read(path, working) if given.source == "common_voice" else folder.read(path)


def run(out: Path, given: params.Download) -> None:
    """Write data/raw: per split its rows and manifest, and a manifest that says where they come from."""
    with files.new_folder(out) as draft, TemporaryDirectory(dir=draft) as working:
        corpus = source(given, Path(working))
        placed = [replace(one, split=one.split or split_of(one.speaker or one.id)) for one in corpus.utterances]
        utterances = select(placed, given.max_rows_per_split, given.seed)
        writers = {split: shards.SplitWriter(draft / split, "part", shards.ROW) for split in shards.SPLITS}
        rows = progress(fetch(utterances), len(utterances), "utterances", "download")
        for utterance, row in zip(utterances, rows, strict=True):
            writers[str(utterance.split)].add(row)
        manifests = {split: writer.close() for split, writer in writers.items()}
        empty = [split for split, manifest in manifests.items() if not manifest["rows"]]
        if empty:
            raise BadData(f"download: no utterance in {', '.join(empty)}; training needs all of {', '.join(shards.SPLITS)}")
        shards.write_top_manifest(draft, manifests, source=given.source, **corpus.about)


def main() -> None:
    out, reports = stage.paths(__doc__, "out", "reports")
    with stage.timing(reports):
        run(out, params.load().download)


if __name__ == "__main__":
    exit_with(main)
