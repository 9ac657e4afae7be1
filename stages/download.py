"""Download: bring a corpus into data/raw as delivered, one row per utterance.

    python -m stages.download data/raw reports/download

Nothing is decoded, and nothing is left out but what params leave out (`share`, `where`,
`max_rows_per_split`), which the manifest counts: a recording that is missing becomes a row without
audio, which `chunk` counts. Each source begins a new file, so that a source that grows moves no row
of another. Costs two readings of the tables, one of the sound, and one write of the corpus; the
synthetic one 5 ms an utterance and core.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from asr.audio import codec
from asr.errors import DataError
from asr.params import reader, schema
from asr.runtime import command, disk, formatting
from asr.runtime.stage import run_stage
from asr.runtime.workers import parallel, progress
from asr.sources import data_collective, huggingface, selection, speakers
from asr.sources.opening import open_corpus
from asr.sources.selection import MAIN, Selection, SelectionCounts
from asr.sources.tables import printable
from asr.sources.utterances import Corpus, Utterance
from asr.storage import files, shards

# what a worker takes at once; two jobs a worker wait in memory
JOB_ROWS = 16  # utterances
JOB_BYTES = 1 << 20  # of sound, about
FEATURE_BYTES = 12_000  # of a second of sound at 80 mel bins
# how a person says which voice is whose
OWN_VOICES = "name that column speaker_id, or put each voice into a folder of its own"
VOICES_TOLD_BY = {"huggingface": "-S 'download.huggingface.columns={speaker: COLUMN}'"}
# of a second of speech, however it is encoded: a table or header that promises more seconds than
# that allows is wrong
MIN_SECOND_BYTES = 500


@dataclass(frozen=True)
class OpenedSource:
    """One of the corpora that make up ours.

    Attributes:
        params: `download`, with what a mixed-in source has of its own.
        selection: what is taken of it.
        counts: what a first pass over its listing found.
    """

    params: schema.Download
    corpus: Corpus
    selection: Selection
    counts: SelectionCounts


def row_of(utterance: Utterance) -> dict[str, Any]:
    """One row of data/raw; fetches the sound."""
    sound = utterance.audio()
    duration = utterance.duration
    if duration is None:
        duration = _header_seconds(sound or b"")
    attributes = json.dumps(utterance.attributes, sort_keys=True, ensure_ascii=False)
    return {
        "id": _utf8(utterance.id),
        "audio": sound,
        "text": _utf8(utterance.text),
        "speaker": utterance.speaker and _utf8(utterance.speaker),
        "attributes": _utf8(attributes),
        "duration": duration,
    }


def _header_seconds(sound: bytes) -> float | None:
    """The duration in a recording's header; None where there is none, or the bytes are too few."""
    seconds = codec.header_seconds(sound) if sound else None
    if seconds is not None and seconds <= len(sound) / MIN_SECOND_BYTES:
        return seconds
    return None


def _utf8(text: str) -> str:
    """Bytes that are not UTF-8 become U+FFFD, by which `chunk` knows and rejects the row."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def rows_of(utterances: list[Utterance]) -> list[tuple[str, dict[str, Any]]]:
    """Split and row of each utterance."""
    return [(str(utterance.split), row_of(utterance)) for utterance in utterances]


def fetch(
    utterances: Iterable[Utterance], count: int, job_rows: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Split and row of each utterance in order, fetched by all workers.

    Args:
        count: how many there are.
        job_rows: utterances that a worker takes at once.
    """
    jobs = ((job,) for job in _jobs(iter(utterances), job_rows))
    for rows in parallel(rows_of, jobs, -(-count // job_rows)):
        yield from rows


def _jobs(utterances: Iterator[Utterance], job_rows: int) -> Iterable[list[Utterance]]:
    return iter(lambda: list(islice(utterances, job_rows)), [])


def sources(params: schema.Download, working: Path) -> list[OpenedSource]:
    """Open and survey the main source and those that are mixed in.

    Where a mixed-in source has no params of its own, those of the main one hold.

    Args:
        working: an empty folder for what the sources unpack.
    Raises:
        ParamsError: a rule asks for a field that no row has.
    """
    opened: list[OpenedSource] = []
    rules = [rule.model_dump() for rule in params.where or []]
    for number, mixed in enumerate([None, *(params.mix or [])]):
        own = params.model_copy(update=mixed.own() if mixed else {})
        folder = working / str(number)
        folder.mkdir()
        share = mixed.share if mixed else 1.0
        corpus = open_corpus(own, folder, share)
        names = [source.selection.name for source in opened]
        taken = Selection(
            name=_free_name(corpus.about["name"], names),
            role=mixed.role if mixed else MAIN,
            share=share,
            rules=rules,
            max_rows=own.max_rows_per_split,
            seed=own.seed,
            language=own.language if own.language != params.language else None,
        )
        _warn_of_language(corpus, own.language)
        counts = selection.survey(corpus.utterances, taken)
        _tell_of_voices(corpus, counts, own.source)
        opened.append(OpenedSource(own, corpus, taken, counts))
    selection.check_fields(rules, set().union(*(source.counts.fields for source in opened)))
    return opened


def _warn_of_language(corpus: Corpus, language: str) -> None:
    corpus_language = corpus.about.get("language")
    if corpus_language not in (None, language):
        print(
            f"download: {corpus.about['name']} says that it is in {corpus_language}; "
            f"download.language is {language}"
        )


def _tell_of_voices(corpus: Corpus, counts: SelectionCounts, source: str) -> None:
    """Print what a source says of its speakers, and where nothing tells its voices apart."""
    name = corpus.about["name"]
    if corpus.note:
        print(f"download: {name}: {corpus.note}")
    if counts.moved:
        moved = ", ".join(f"{printable(one)} to {split}" for one, split in counts.moved.items())
        print(f"download: {name}: few speakers left a split empty, so these moved: {moved}")
    if warning := speakers.warning(counts.voices, corpus.utterances):
        print(f"download: {name}: {warning}; {VOICES_TOLD_BY.get(source, OWN_VOICES)}", flush=True)


def _free_name(name: str, taken: list[str]) -> str:
    """The name, with a number from 2 on if another source has it."""
    numbered = (f"{name}-{number}" for number in range(2, len(taken) + 3))
    return next(candidate for candidate in (name, *numbered) if candidate not in taken)


def forecast(opened: list[OpenedSource], out: Path) -> list[int]:
    """Print what the data stages will write, and refuse what the disk cannot hold.

    Costs fetching a sample of each source.

    Returns:
        How many utterances of each source a worker may take at once.
    Raises:
        DiskError: there is no room.
    """
    raw_bytes = seconds = 0.0
    job_rows = []
    for source in opened:
        sample = [_size_and_seconds(utterance) for utterance in source.counts.sample]
        scale = source.counts.rows.total() / max(len(sample), 1)
        largest = max((size for size, _ in sample), default=1)
        job_rows.append(max(1, min(JOB_ROWS, JOB_BYTES // largest)))
        raw_bytes += scale * sum(size for size, _ in sample)
        seconds += scale * sum(min(length, size / MIN_SECOND_BYTES) for size, length in sample)
    feature_bytes = seconds * FEATURE_BYTES
    print(
        f"forecast: {seconds / 3600:,.2f} h; raw {formatting.bytes_text(raw_bytes)}, "
        f"chunks the same, features {formatting.bytes_text(feature_bytes)}",
        flush=True,
    )
    needed = 2 * raw_bytes + feature_bytes
    disk.check_free_space(out, needed, "the corpus (raw, chunks and features)")
    return job_rows


def _size_and_seconds(utterance: Utterance) -> tuple[int, float]:
    """Bytes, 1 at least, and seconds of a recording, which is not held."""
    row = row_of(utterance)
    return len(row["audio"] or b"x"), row["duration"] or 0.0


def run(out: Path, params: schema.Download) -> None:
    """Write data/raw: for each split its rows and manifest, and one manifest for all.

    Raises:
        DataError: a split or source is empty, or a source changed while it was read.
    """
    with files.new_folder(out) as draft, TemporaryDirectory(dir=draft) as working:
        opened = sources(params, Path(working))
        _refuse_empty(opened)
        job_rows = forecast(opened, out)
        manifests = write_rows(draft, opened, job_rows)
        _check_counts(opened, manifests)
        abouts = [{"name": source.selection.name, **about(source)} for source in opened]
        main_about = opened[0].corpus.about
        shards.write_top_manifest(
            draft, manifests, source=params.source, **main_about, sources=abouts
        )
    for source in opened:
        forget(source.params)


def write_rows(
    folder: Path, opened: list[OpenedSource], job_rows: list[int]
) -> dict[str, dict[str, Any]]:
    """Fetch the rows of all sources, and write them by split, a new file for each source.

    Args:
        job_rows: utterances of each source that a worker takes at once.
    Returns:
        The manifest of each split.
    """
    writers = {
        split: shards.SplitWriter(folder / split, "part", shards.ROW) for split in shards.ALL_SPLITS
    }
    for source, rows_at_once in zip(opened, job_rows, strict=True):
        count = source.counts.rows.total()
        utterances = selection.select(source.corpus.utterances, source.selection, source.counts)
        rows = fetch(utterances, count, rows_at_once)
        for split, row in progress(rows, count, "utterances", f"download {source.selection.name}"):
            writers[split].add(row)
        for writer in writers.values():
            writer.next()
    return {split: writer.close() for split, writer in writers.items()}


def forget(params: schema.Download) -> None:
    """Remove what was fetched, now that data/raw holds it."""
    if params.source == "huggingface":
        huggingface.forget(params.path or "")
    if params.source == "data_collective":
        data_collective.forget(params.path or "")


def about(source: OpenedSource) -> dict[str, Any]:
    """A source's entry in the manifest, without its name."""
    counts = source.counts
    rest = {key: value for key, value in source.corpus.about.items() if key != "name"}
    return {
        "source": source.params.source,
        "role": source.selection.role,
        "rows": {split: counts.rows[split] for split in shards.ALL_SPLITS if counts.rows[split]},
        "left_out": dict(sorted(counts.left_out.items())),
        **rest,
    }


def _refuse_empty(opened: list[OpenedSource]) -> None:
    """Refuse a split that no source fills, and a source of which nothing is taken."""
    empty = [
        split for split in shards.SPLITS if not any(source.counts.rows[split] for source in opened)
    ]
    if empty:
        raise DataError(
            f"download: no utterance in {', '.join(empty)}; "
            f"training needs all of {', '.join(shards.SPLITS)}; {_way_out(opened[0])}"
        )
    for source in opened:
        if not source.counts.rows.total():
            why = _counts_text(source.counts.left_out) or "it is empty"
            raise DataError(
                f"download.mix: no utterance of {source.selection.name} is left ({why})"
            )


def _way_out(main: OpenedSource) -> str:
    """What to do about a split that is empty.

    Rules left its rows out, the hash of few speakers did, or the source has none.
    """
    if main.counts.left_out:
        return f"{_counts_text(main.counts.left_out)} were left out"
    if not main.counts.rows:
        return "the corpus has no rows at all"
    if all(utterance.split for utterance in main.corpus.utterances):
        return "the corpus has splits of its own, and not these"
    return (
        "each wants a speaker of its own, and there are not three; "
        "give splits of your own (a column split, folders train, validation and test, "
        "or the corpus's official splits), or no speakers"
    )


def _counts_text(left_out: Counter[str]) -> str:
    return ", ".join(f"{count} by {reason}" for reason, count in left_out.items())


def _check_counts(opened: list[OpenedSource], manifests: dict[str, dict[str, Any]]) -> None:
    """Compare the rows fetched with those that the first pass counted."""
    for split, manifest in manifests.items():
        listed = sum(source.counts.rows[split] for source in opened)
        if listed != manifest["rows"]:
            raise DataError(
                f"{split}: {listed} utterances listed, {manifest['rows']} fetched; "
                "the source changed meanwhile: run again"
            )


def main() -> None:
    out, reports = command.paths(__doc__, "out", "reports")
    with command.timing(reports):
        run(out, reader.load().download)


if __name__ == "__main__":
    run_stage(main)
