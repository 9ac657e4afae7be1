"""Download: bring a corpus into data/raw as delivered, one row per utterance, whatever sources it
comes from.

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
from asr.errors import DataError, exit_with
from asr.params import reader, schema
from asr.runtime import command, disk, formatting
from asr.runtime.workers import parallel, progress
from asr.sources import (
    data_collective,
    huggingface,
    selection,
)
from asr.sources.opening import open_corpus
from asr.sources.selection import MAIN, Selection, SelectionCounts
from asr.sources.utterances import Corpus, Utterance
from asr.storage import files, shards

JOB_ROWS, JOB_BYTES = (
    16,
    1 << 20,
)  # utterances that a worker takes at once, and about how much sound; two jobs a worker wait in memory
FEATURE_BYTES = 12_000  # of a second of sound at 80 mel bins
# of a second of speech, however it is encoded: what a table or header says beyond that is not
# believed
LEAST_BYTES = 500


@dataclass(frozen=True)
class OpenedSource:
    """One of the corpora that make up ours."""

    given: schema.Download
    corpus: Corpus
    wanted: Selection
    found: SelectionCounts


def row_of(utterance: Utterance) -> dict[str, Any]:
    """One row of data/raw; fetches the sound."""
    sound = utterance.audio()
    return {
        "id": _utf8(utterance.id),
        "audio": sound,
        "text": _utf8(utterance.text),
        "speaker": utterance.speaker and _utf8(utterance.speaker),
        "attributes": _utf8(json.dumps(utterance.attributes, sort_keys=True, ensure_ascii=False)),
        "duration": utterance.duration
        if utterance.duration is not None
        else _header_seconds(sound or b""),
    }


def _header_seconds(sound: bytes) -> float | None:
    """What a recording says of its length, unless so much cannot be in it."""
    seconds = codec.header_seconds(sound) if sound else None
    return seconds if seconds is not None and seconds <= len(sound) / LEAST_BYTES else None


def _utf8(text: str) -> str:
    """Bytes that are not UTF-8 become U+FFFD, by which `chunk` knows and rejects the row."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def rows_of(utterances: list[Utterance]) -> list[tuple[str, dict[str, Any]]]:
    return [(str(utterance.split), row_of(utterance)) for utterance in utterances]


def fetch(
    utterances: Iterable[Utterance], count: int, at_once: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Split and row of each of these utterances in order, fetched by all workers, each so many at
    once.
    """
    jobs = ((job,) for job in _jobs(iter(utterances), at_once))
    for rows in parallel(rows_of, jobs, -(-count // at_once)):
        yield from rows


def _jobs(utterances: Iterator[Utterance], at_once: int) -> Iterable[list[Utterance]]:
    return iter(lambda: list(islice(utterances, at_once)), [])


def sources(given: schema.Download, working: Path) -> list[OpenedSource]:
    """Open and survey the main source and those that are mixed in; what these do not say is as the
    main one says.
    """
    opened: list[OpenedSource] = []
    rules = [rule.model_dump() for rule in given.where or []]
    for number, mixed in enumerate([None, *(given.mix or [])]):
        own = given.model_copy(update=mixed.own() if mixed else {})
        place = working / str(number)
        place.mkdir()
        corpus = open_corpus(own, place, mixed.share if mixed else 1.0)
        wanted = Selection(
            name=_free_name(corpus.about["name"], [one.wanted.name for one in opened]),
            role=mixed.role if mixed else MAIN,
            share=mixed.share if mixed else 1.0,
            rules=rules,
            max_rows=own.max_rows_per_split,
            seed=own.seed,
            language=own.language if own.language != given.language else None,
        )
        _warn_of_language(corpus, own.language)
        opened.append(
            OpenedSource(own, corpus, wanted, selection.survey(corpus.utterances, wanted))
        )
    selection.check_fields(rules, set().union(*(one.found.fields for one in opened)))
    return opened


def _warn_of_language(corpus: Corpus, language: str) -> None:
    told = corpus.about.get("language")
    if told not in (None, language):
        print(
            f"download: {corpus.about['name']} says that it is in {told}; download.language is {language}"
        )


def _free_name(name: str, taken: list[str]) -> str:
    return next(
        one
        for one in (name, *(f"{name}-{number}" for number in range(2, len(taken) + 3)))
        if one not in taken
    )


def forecast(opened: list[OpenedSource], out: Path) -> list[int]:
    """Say what the data stages will write, from a sample of each source, and refuse what the disk
    cannot hold.

    Returns:
        How many utterances of each source a worker may take at once.
    """
    raw = seconds = 0.0
    at_once = []
    for one in opened:
        sample = [_measured(utterance) for utterance in one.found.sample]
        share = one.found.rows.total() / max(len(sample), 1)
        at_once.append(
            max(1, min(JOB_ROWS, JOB_BYTES // max((size for size, _ in sample), default=1)))
        )
        raw += share * sum(size for size, _ in sample)
        seconds += share * sum(min(length, size / LEAST_BYTES) for size, length in sample)
    features = seconds * FEATURE_BYTES
    print(
        f"forecast: {seconds / 3600:,.2f} h; raw {formatting.bytes_text(raw)}, chunks the same, features {formatting.bytes_text(features)}",
        flush=True,
    )
    disk.check_free_space(out, 2 * raw + features, "the corpus (raw, chunks and features)")
    return at_once


def _measured(utterance: Utterance) -> tuple[int, float]:
    """Bytes, 1 at least, and seconds of a recording, which is let go."""
    row = row_of(utterance)
    return len(row["audio"] or b"x"), row["duration"] or 0.0


def run(out: Path, given: schema.Download) -> None:
    """Write data/raw: per split its rows and manifest, and a manifest that says where they come
    from.
    """
    with files.new_folder(out) as draft, TemporaryDirectory(dir=draft) as working:
        opened = sources(given, Path(working))
        _refuse_empty(opened)
        sizes = forecast(opened, out)
        writers = {
            split: shards.SplitWriter(draft / split, "part", shards.ROW)
            for split in shards.ALL_SPLITS
        }
        for one, at_once in zip(opened, sizes, strict=True):
            count = one.found.rows.total()
            utterances = selection.selected(one.corpus.utterances, one.wanted, one.found)
            for split, row in progress(
                fetch(utterances, count, at_once),
                count,
                "utterances",
                f"download {one.wanted.name}",
            ):
                writers[split].add(row)
            for writer in writers.values():
                writer.next()
        manifests = {split: writer.close() for split, writer in writers.items()}
        _account(opened, manifests)
        told = [{"name": one.wanted.name, **about(one)} for one in opened]
        shards.write_top_manifest(
            draft, manifests, source=given.source, **opened[0].corpus.about, sources=told
        )
    for one in opened:
        forget(one.given)


def forget(given: schema.Download) -> None:
    """Remove what was fetched, now that data/raw holds it."""
    if given.source == "huggingface":
        huggingface.forget(given.path or "")
    if given.source == "data_collective":
        data_collective.forget(given.path or "")


def about(one: OpenedSource) -> dict[str, Any]:
    """What the manifest tells of a source."""
    rows = {split: one.found.rows[split] for split in shards.ALL_SPLITS if one.found.rows[split]}
    known = {key: value for key, value in one.corpus.about.items() if key != "name"}
    return {
        "source": one.given.source,
        "role": one.wanted.role,
        "rows": rows,
        "left_out": dict(sorted(one.found.left_out.items())),
        **known,
    }


def _refuse_empty(opened: list[OpenedSource]) -> None:
    empty = [split for split in shards.SPLITS if not any(one.found.rows[split] for one in opened)]
    if empty:
        raise DataError(
            f"download: no utterance in {', '.join(empty)}; training needs all of {', '.join(shards.SPLITS)}; {_way_out(opened[0])}"
        )
    for one in opened:
        if not one.found.rows.total():
            why = _told(one.found.left_out) or "it is empty"
            raise DataError(f"download.mix: no utterance of {one.wanted.name} is left ({why})")


def _way_out(main: OpenedSource) -> str:
    """What to do about a split that is empty: rules left its rows out, the dice of few speakers
    did, or the source has none.
    """
    if main.found.left_out:
        return f"{_told(main.found.left_out)} were left out"
    if not main.found.rows:
        return "the corpus has no rows at all"
    if all(one.split for one in main.corpus.utterances):
        return "the corpus has splits of its own, and not these"
    given = "a column split, folders train, validation and test, or the corpus's official splits"
    return f"a speaker has eight chances in ten to train, so few speakers may leave a split empty; give splits of your own ({given})"


def _told(left_out: Counter[str]) -> str:
    return ", ".join(f"{count} by {reason}" for reason, count in left_out.items())


def _account(opened: list[OpenedSource], manifests: dict[str, dict[str, Any]]) -> None:
    for split, manifest in manifests.items():
        listed = sum(one.found.rows[split] for one in opened)
        if listed != manifest["rows"]:
            raise DataError(
                f"{split}: {listed} utterances listed, {manifest['rows']} fetched; the source changed meanwhile: run again"
            )


def main() -> None:
    out, reports = command.paths(__doc__, "out", "reports")
    with command.timing(reports):
        run(out, reader.load().download)


if __name__ == "__main__":
    exit_with(main)
