"""Tables of utterances to search, slice, sort and score.

A table holds the rows of one model, or of two models side by side. It is built once from
reports/evaluate/utterances.parquet; 20,000 rows cost 0.1 s, and each query a few milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from asr import wer
from asr.errors import DataError
from asr.evaluation import loops
from asr.storage import hashing

# Prefixes of the columns of counts: of normalized text as WER counts it, or of text as written.
COUNTED = ""
WRITTEN = "raw_"
QUARTERS = 4
FEW_VALUES = 12  # a number with more values than this is sliced by quartiles
MAX_ATTRIBUTES = 40
MOST_NUMBER = 1e15  # larger numbers count as missing
# Of the bootstrap, as params.yaml is shipped: for results whose params are not known.
RESAMPLES = 2000
SEED = 1


@dataclass(frozen=True)
class Utterances:
    """Rows of one model, or of two. N is their number.

    Attributes:
        key: identifies the rows: a hash of each table they come from, and of the model.
        rows: the columns of the table; `loop` is the Loop of the hypothesis, or None. Those of a
            second model begin with `other_`.
        slices: by name of a property, its value in each row; code -1 where a row has none.
        haystack: (N,) all texts of a row in lower case, to search in.
    """

    key: str
    rows: pd.DataFrame
    slices: dict[str, pd.Categorical]
    haystack: pa.Array

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def two(self) -> bool:
        """Whether the rows hold a second model."""
        return "other_hypothesis" in self.rows


@dataclass(frozen=True)
class ModelResults:
    """The results of one model: a table of utterances, its hash, and the model's name in it."""

    table: pa.Table
    digest: str
    model: str

    @property
    def key(self) -> str:
        return hashing.hash_of([self.digest, self.model])


def models(table: pa.Table) -> list[str]:
    """The names of a table's models, in the order of the table."""
    return list(pc.unique(table["model"]).to_pylist())


def of_model(results: ModelResults) -> Utterances:
    """One model's rows, each id once.

    Raises:
        DataError: the table has no row of this model.
    """
    rows = _frame(results)
    if rows.empty:
        raise DataError(f"no utterance of {results.model}; run dvc repro")
    return _utterances(results.key, rows)


def compare(results: ModelResults, other: ModelResults) -> Utterances:
    """The utterances of two models; columns of the second model begin with `other_`.

    Raises:
        DataError: they have no recording with the same transcript in common.
    """
    left = _frame(results)
    right = _frame(other).drop(columns=["duration", "speaker", "attributes"])
    right = right.rename(
        columns={name: f"other_{name}" for name in right.columns if name not in ("id", "reference")}
    )
    rows = left.merge(right, on=["id", "reference"], how="inner", sort=False)
    if rows.empty:
        raise DataError(f"{results.model} and {other.model} were not tested on the same recordings")
    return _utterances(results.key + other.key, rows)


def _frame(results: ModelResults) -> pd.DataFrame:
    """The rows of a model, without impossible durations."""
    table = results.table.filter(pc.equal(results.table["model"], results.model))
    rows = table.drop_columns(["model"]).to_pandas()
    rows = rows.drop_duplicates("id").reset_index(drop=True)
    durations = rows["duration"]
    rows["duration"] = durations.where(
        np.isfinite(durations) & (durations >= 0) & (durations < MOST_NUMBER)
    )
    return rows


def _utterances(key: str, rows: pd.DataFrame) -> Utterances:
    for prefix in ("", "other_"):
        if f"{prefix}hypothesis" in rows:
            rows[f"{prefix}loop"] = _loops(rows, prefix)
    texts = [rows[name] for name in ("reference", "hypothesis", "other_hypothesis") if name in rows]
    joined = ("\n".join(parts).lower() for parts in zip(*texts, strict=True))
    return Utterances(key, rows, _slices(rows), pa.array(joined, pa.string()))


def _loops(rows: pd.DataFrame, prefix: str) -> pd.Series:
    """The loop of each hypothesis, or None; those without an error are not looked at."""
    columns = rows["reference"], rows[f"{prefix}hypothesis"], errors(rows, prefix)
    found = [
        loops.find(hypothesis, reference) if num_errors else None
        for reference, hypothesis, num_errors in zip(*columns, strict=True)
    ]
    return pd.Series(found, index=rows.index, dtype=object)


def _slices(rows: pd.DataFrame) -> dict[str, pd.Categorical]:
    """Slices by speaker, by quartile of duration, and by each attribute.

    A property that no row has, or that has the same value in all rows, makes no slice.
    """
    slices = {
        "speaker": pd.Categorical(rows["speaker"]),
        "duration": _quartiles(rows["duration"].to_numpy(float), " s"),
    }
    parsed = {
        text: _attributes(text) for text in rows["attributes"].unique() if isinstance(text, str)
    }
    attributes = [parsed.get(text, {}) for text in rows["attributes"]]
    names = list(dict.fromkeys(name for values in parsed.values() for name in values))
    for name in names[:MAX_ATTRIBUTES]:
        title = f"{name} (attribute)" if name in slices else name
        slices[title] = _by_value([values.get(name) for values in attributes])
    return {name: column for name, column in slices.items() if len(column.categories) > 1}


def _attributes(text: str) -> dict[str, Any]:
    """The attributes of a row that are plain values; none if the text is damaged."""
    try:
        attributes = json.loads(text)
        hashing.hash_of(attributes)  # fails on half a surrogate, which no page can show
    except (ValueError, RecursionError):
        return {}
    if not isinstance(attributes, dict):
        return {}
    return {
        name: value
        for name, value in attributes.items()
        if isinstance(value, str | int | float) and value != ""
    }


def _by_value(values: list[Any]) -> pd.Categorical:
    """One category per value; quartiles if there are many values and all are numbers."""
    all_numbers = all(value is None or isinstance(value, int | float) for value in values)
    if all_numbers and len(set(values)) > FEW_VALUES:
        return _quartiles(np.array([_number(value) for value in values], float), "")
    return pd.Categorical([None if value is None else str(value) for value in values])


def _number(value: int | float | None) -> float:
    return value if value is not None and abs(value) < MOST_NUMBER else np.nan


def _quartiles(values: np.ndarray, unit: str) -> pd.Categorical:
    """Four categories of about as many rows each; fewer if values repeat."""
    is_known = np.isfinite(values)
    quantiles = np.linspace(0, 1, QUARTERS + 1)
    edges = np.unique(np.quantile(values[is_known], quantiles)) if is_known.any() else np.zeros(1)
    digits = "{:.1f}" if unit else "{:g}"
    labels = [
        f"Q{number + 1}: {digits.format(low)} to {digits.format(high)}{unit}"
        for number, (low, high) in enumerate(pairwise(edges))
    ]
    if not labels:
        return pd.Categorical.from_codes(np.full(len(values), -1), categories=labels)
    quarters = np.clip(np.searchsorted(edges, values) - 1, 0, len(labels) - 1)
    return pd.Categorical.from_codes(np.where(is_known, quarters, -1), categories=labels)


def match(
    utterances: Utterances, words: str, values_by_slice: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """Find rows by words and slices.

    Args:
        words: each word must occur in the reference or in a hypothesis, also within a word.
        values_by_slice: allowed values of each slice; an empty list allows all.
    Returns:
        (N,) bool, true for the rows that match.
    """
    matches = np.ones(len(utterances), bool)
    for word in words.lower().split():
        matches &= pc.match_substring(utterances.haystack, word).to_numpy(zero_copy_only=False)
    for name, values in values_by_slice.items():
        if values and name in utterances.slices:
            column = utterances.slices[name]
            codes = column.categories.get_indexer(list(values))
            matches &= np.isin(column.codes, codes[codes >= 0])
    return matches


def has_loop(rows: pd.DataFrame) -> np.ndarray:
    """(N,) bool, whether a hypothesis of the row, of either model, is a loop."""
    columns = [name for name in ("loop", "other_loop") if name in rows]
    return np.asarray(rows[columns].notna().any(axis=1))


def errors(rows: pd.DataFrame, prefix: str) -> np.ndarray:
    """(N,) word errors of each row.

    Args:
        prefix: COUNTED or WRITTEN, after `other_` for the second model.
    """
    return _summed(rows, prefix, "substitutions", "deletions", "insertions")


def words(rows: pd.DataFrame, prefix: str) -> np.ndarray:
    """(N,) reference words of each row; `prefix` as for `errors`."""
    return _summed(rows, prefix, "hits", "substitutions", "deletions")


def _summed(rows: pd.DataFrame, prefix: str, *names: str) -> np.ndarray:
    return np.asarray(rows[[f"{prefix}{name}" for name in names]].to_numpy(np.int64).sum(axis=1))


# What rows are sorted by, ascending.
ORDERS = {
    "most errors": lambda rows, text: -errors(rows, text),
    "highest error rate": lambda rows, text: -errors(rows, text) / np.maximum(words(rows, text), 1),
    "longest": lambda rows, _: -rows["duration"].fillna(-1).to_numpy(),
    "shortest": lambda rows, _: rows["duration"].fillna(np.inf).to_numpy(),
    "as in the test": lambda rows, _: np.zeros(len(rows)),
}
CHANGES = {
    "second model worse": lambda rows, text: errors(rows, text) - errors(rows, f"other_{text}"),
    "second model better": lambda rows, text: errors(rows, f"other_{text}") - errors(rows, text),
}


def order(utterances: Utterances, matches: np.ndarray, order: str, text: str) -> np.ndarray:
    """Sort the indices of the rows that match; equal rows keep the order of the table.

    Args:
        matches: (N,) bool.
        order: a key of ORDERS or CHANGES.
        text: COUNTED or WRITTEN.
    """
    indices = np.flatnonzero(matches)
    keys = {**ORDERS, **CHANGES}[order](utterances.rows.iloc[indices], text)
    return indices[np.argsort(keys, kind="stable")]


def score(rows: pd.DataFrame, prefix: str, resamples: int, seed: int) -> tuple[float, wer.Interval]:
    """WER of these rows and its 95 % interval. 20,000 rows without speakers cost 0.4 s."""
    row_errors = errors(rows, prefix)
    row_words = words(rows, prefix)
    rate = wer.rate(int(row_errors.sum()), int(row_words.sum()))
    interval = wer.bootstrap(
        row_errors.tolist(), row_words.tolist(), _speakers(rows), resamples, seed
    )
    return rate, interval


def difference(rows: pd.DataFrame, text: str, resamples: int, seed: int) -> wer.Difference:
    """WER of the second model minus that of the first, on the same rows."""
    second = errors(rows, f"other_{text}").tolist()
    first = errors(rows, text).tolist()
    row_words = words(rows, text).tolist()
    return wer.paired(second, first, row_words, _speakers(rows), resamples, seed)


def _speakers(rows: pd.DataFrame) -> list[str | None]:
    return [name if isinstance(name, str) else None for name in rows["speaker"]]
