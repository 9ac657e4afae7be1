"""Open the corpus that the params name: the one place that knows every source."""

from __future__ import annotations

import math
from pathlib import Path

from asr import paths
from asr.errors import DataError
from asr.params import schema
from asr.sources import (
    common_voice,
    data_collective,
    digits,
    folder,
    huggingface,
    synthetic,
)
from asr.sources.utterances import Corpus


def open_corpus(params: schema.Download, working: Path, share: float) -> Corpus:
    """Open the corpus that the params name.

    Args:
        working: an empty folder for unpacked archives and decoded long recordings; keep it until
            the last sound is fetched.
        share: the share of its rows that will be taken.
    """
    name = params.path or ""
    if params.source == "huggingface":
        return _huggingface(name, params, share)
    if params.source == "data_collective":
        return data_collective.read(name, working, params.common_voice.splits)
    if params.source == "synthetic":
        return _synthetic(params)
    path = paths.resolve(name)
    if not path.exists():
        raise DataError(f"download.path: {path} is not there")
    if params.source == "common_voice":
        return common_voice.read(path, working, params.common_voice.splits)
    if params.source == "folder":
        return folder.read(path, working)
    return _digits(path, params)


def _huggingface(name: str, params: schema.Download, share: float) -> Corpus:
    options = params.huggingface
    max_rows = None
    # A rule may want rows of any file, so only without rules do the first files suffice.
    if params.max_rows_per_split and not params.where:
        max_rows = math.ceil(params.max_rows_per_split / share)
    return huggingface.read(
        name, options.config, options.revision, options.splits, options.columns, max_rows
    )


def _synthetic(params: schema.Download) -> Corpus:
    options = params.synthetic
    return synthetic.read(
        params.language,
        params.seed,
        options.rows.model_dump(),
        options.voices.model_dump(),
        options.max_number,
        (options.min_numbers, options.max_numbers),
        (options.min_words_per_minute, options.max_words_per_minute),
        (options.min_pitch, options.max_pitch),
    )


def _digits(path: Path, params: schema.Download) -> Corpus:
    options = params.digits
    return digits.read(
        path,
        options.rows.model_dump(),
        list(options.speakers.validation),
        list(options.speakers.test),
        options.min_digits,
        options.max_digits,
        params.seed,
        params.language,
    )
