"""What a model hears in a split, decoded once and kept in .cache/hypotheses.

It is kept under a hash of the model, the rows, how they are decoded, the code and the library that
do it, and the processor: a new baseline, normalizer or report decodes nothing twice. 1,000 rows
take 0.1 MB.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from asr.decoding import recordings
from asr.decoding.recognizer import Recognizer
from asr.decoding.recordings import Heard
from asr.engines import available
from asr.features import FeatureRows, language_of
from asr.model import loader
from asr.params import schema
from asr.rooms import KEPT
from asr.runtime.workers import progress
from asr.storage import cache, hashing, shards

STORE = "hypotheses"
SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        *((name, pa.bool_()) for name in ("fell_back", "silent", "looped", "capped")),
    ]
)


@dataclass(frozen=True)
class Compared:
    """A model to score.

    title: what the table calls it.
    identity: a hash of all that decides what it hears: weights, tokens, prompt, tokenizer.
    recognizer: makes it ready to recognise.
    """

    title: str
    identity: str
    recognizer: Callable[[], Recognizer]


def of_split(
    model: Compared, test: FeatureRows, params: schema.Evaluate
) -> tuple[list[Heard], dict[str, Any]]:
    """What a model hears in each row of a split, and how it was decoded, for metrics.json."""
    path = cache.path_of(cache.folder(STORE), _made_from(model, test, params))
    if cache.entry(path):
        print(f"decode {model.title}: as decoded before, {len(test):,} rows", flush=True)

    def write(draft: Path) -> dict[str, Any]:
        heard, how = _decoded(model, test, params)
        draft.write_bytes(_as_arrow(heard))
        return {"how": how, "sha256": hashing.sha256(draft)}

    how = cache.make(path, write)["how"]
    with pa.memory_map(str(path)) as source:
        rows = pa.ipc.open_stream(source).read_all().to_pylist()
    heard = [Heard(**row) for row in rows]
    return heard, how | {name: sum(row[name] for row in rows) for name in SCHEMA.names[1:]}


def _made_from(model: Compared, test: FeatureRows, params: schema.Evaluate) -> list[Any]:
    decoding = params.model_dump(
        include={"decoding", "engine", "precision", "max_new_tokens", "per_device_eval_batch_size"}
    )
    return [
        model.identity,
        shards.data_hash(test.split),
        decoding,
        available.device_name(params.engine),
        version(params.engine),  # an engine is called as its package
        hashing.code_hash(KEPT[STORE]),
    ]


def _decoded(
    model: Compared, test: FeatureRows, params: schema.Evaluate
) -> tuple[list[Heard], dict[str, Any]]:
    recognizer = model.recognizer()
    loader.check_mel_bins(recognizer.vocabulary.num_mel_bins, test.num_mel_bins)
    began = time.monotonic()
    heard = _decode(model.title, recognizer, test, params)
    seconds = time.monotonic() - began
    return heard, {
        "decoding": recognizer.method,
        "engine": recognizer.engine.name,
        "precision": recognizer.engine.precision,
        "processor": available.device_name(recognizer.engine.name),
        "window_seconds": recognizer.vocabulary.window_seconds,
        "rtfx": sum(test.column("duration")) / max(seconds, 1e-9),
    }


def _as_arrow(heard: list[Heard]) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist([*map(asdict, heard)], schema=SCHEMA))
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _decode(
    title: str, recognizer: Recognizer, test: FeatureRows, params: schema.Evaluate
) -> list[Heard]:
    """What is heard in every row, decoded in the row's own language."""
    heard: dict[int, Heard] = {}
    for language, rows in by_language(test.column("attributes")).items():
        heard |= zip(
            rows, _decode_rows(title, recognizer, test, rows, language, params), strict=True
        )
    return [heard[row] for row in range(len(test))]


def _decode_rows(
    title: str,
    recognizer: Recognizer,
    test: FeatureRows,
    rows: list[int],
    language: str | None,
    params: schema.Evaluate,
) -> list[Heard]:
    durations = test.column("duration")
    return recordings.decode(
        recognizer,
        [durations[row] for row in rows],
        lambda index: test.log_mel(rows[index]),
        language,
        params.per_device_eval_batch_size,
        params.max_new_tokens,
        lambda groups, count: progress(groups, count, "batches", f"decode {title}"),
    )


def by_language(attributes: list[str]) -> dict[str | None, list[int]]:
    """Row numbers by the language that the rows' attributes name.

    None stands for the language that the model is prompted with anyway; only held-out rows have
    another one.
    """
    rows: dict[str | None, list[int]] = {}
    for row, text in enumerate(attributes):
        rows.setdefault(language_of(text), []).append(row)
    return rows
