"""What models heard, as tables a person can sift: rows of one model or of two side by side, slices
of them, searches, orders, scores.

Built once per table from reports/evaluate/utterances.parquet; 20,000 rows cost 0.1 s, and each
question to them a few milliseconds.
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
from asr.storage import hashing

COUNTED, WRITTEN = "", "raw_"  # which text is meant: as WER counts it, or as it was written
QUARTERS = 4
FEW_VALUES = 12  # a number with more values than this is sliced by quartiles
MOST_ATTRIBUTES = 40
MOST_NUMBER = 1e15
RESAMPLES = 1_000
SEED = 1


@dataclass(frozen=True)
class Utterances:
    """Rows of one model. `slices` maps a property's name to the value of each row (a pandas
    Categorical; code -1 where it has none).
    """

    key: str  # names the rows: the hash of each table they come from, and the model
    rows: pd.DataFrame
    slices: dict[str, pd.Categorical]
    haystack: pa.Array

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def two(self) -> bool:
        return "other_hypothesis" in self.rows


@dataclass(frozen=True)
class ModelResults:
    """What a model heard: a table of utterances, its hash, and which of its models is meant."""

    table: pa.Table
    digest: str
    model: str

    @property
    def key(self) -> str:
        return hashing.hash_of([self.digest, self.model])


def models(table: pa.Table) -> list[str]:
    """The models of a table, in its order."""
    return list(pc.unique(table["model"]).to_pylist())


def of_model(heard: ModelResults) -> Utterances:
    """One model's rows, each id once.

    Raises:
        BadData: the table has none.
    """
    rows = _frame(heard)
    if rows.empty:
        raise DataError(f"no utterance of {heard.model}; run dvc repro")
    return _sifted(heard.key, rows)


def compared(heard: ModelResults, other: ModelResults) -> Utterances:
    """The utterances that two models heard, the second's columns with `other_` before them.

    Raises:
        BadData: they have no recording with the same transcript in common.
    """
    left, right = _frame(heard), _frame(other).drop(columns=["duration", "speaker", "attributes"])
    right = right.rename(
        columns={name: f"other_{name}" for name in right.columns if name not in ("id", "reference")}
    )
    rows = left.merge(right, on=["id", "reference"], how="inner", sort=False)
    if rows.empty:
        raise DataError(f"{heard.model} and {other.model} were not tested on the same recordings")
    return _sifted(heard.key + other.key, rows)


def _frame(heard: ModelResults) -> pd.DataFrame:
    rows = (
        heard.table.filter(pc.equal(heard.table["model"], heard.model))
        .drop_columns(["model"])
        .to_pandas()
    )
    rows = rows.drop_duplicates("id").reset_index(drop=True)
    rows["duration"] = rows["duration"].where(
        np.isfinite(rows["duration"]) & (rows["duration"] >= 0) & (rows["duration"] < MOST_NUMBER)
    )
    return rows


def _sifted(key: str, rows: pd.DataFrame) -> Utterances:
    texts = [rows[name] for name in ("reference", "hypothesis", "other_hypothesis") if name in rows]
    joined = ("\n".join(parts).lower() for parts in zip(*texts, strict=True))
    return Utterances(key, rows, _slices(rows), pa.array(joined, pa.string()))


def _slices(rows: pd.DataFrame) -> dict[str, pd.Categorical]:
    """By speaker, by quartile of duration, and by each attribute; what all rows share or none has
    is no slice.
    """
    found = {
        "speaker": pd.Categorical(rows["speaker"]),
        "duration": _quartiles(rows["duration"].to_numpy(float), " s"),
    }
    parsed = {
        text: _attributes(text) for text in rows["attributes"].unique() if isinstance(text, str)
    }
    each = [parsed.get(text, {}) for text in rows["attributes"]]
    names = list(dict.fromkeys(name for one in parsed.values() for name in one))[:MOST_ATTRIBUTES]
    for name in names:
        values = [one.get(name) for one in each]
        found[f"{name} (attribute)" if name in found else name] = _valued(values)
    return {name: one for name, one in found.items() if len(one.categories) > 1}


def _attributes(text: str) -> dict[str, Any]:
    """The attributes of a row that are plain values; damaged ones are none."""
    try:
        found = json.loads(text)
        hashing.hash_of(found)  # half a surrogate cannot be hashed, nor shown
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, str | int | float) and value != ""
    }


def _valued(values: list[Any]) -> pd.Categorical:
    numbers = [
        value if isinstance(value, int | float) and abs(value) < MOST_NUMBER else np.nan
        for value in values
    ]
    whole = all(value is None or isinstance(value, int | float) for value in values)
    if whole and len(set(values)) > FEW_VALUES:
        return _quartiles(np.array(numbers, float), "")
    return pd.Categorical([None if value is None else str(value) for value in values])


def _quartiles(values: np.ndarray, unit: str) -> pd.Categorical:
    known = values[np.isfinite(values)]
    edges = (
        np.unique(np.quantile(known, np.linspace(0, 1, QUARTERS + 1)))
        if len(known)
        else np.zeros(1)
    )
    codes = np.where(
        np.isfinite(values),
        np.clip(np.searchsorted(edges, values) - 1, 0, max(len(edges) - 2, 0)),
        -1,
    )
    digits = "{:.1f}" if unit else "{:g}"
    labels = [
        f"Q{number + 1}: {digits.format(low)} to {digits.format(high)}{unit}"
        for number, (low, high) in enumerate(pairwise(edges))
    ]
    return pd.Categorical.from_codes(
        codes if labels else np.full(len(values), -1), categories=labels
    )


def matching(one: Utterances, words: str, chosen: Mapping[str, Sequence[str]]) -> np.ndarray:
    """True for rows in which each of the words stands, in the reference or in what was heard, and
    that are in all chosen slices.
    """
    found = np.ones(len(one), bool)
    for word in words.lower().split():
        found &= pc.match_substring(one.haystack, word).to_numpy(zero_copy_only=False)
    for name, values in chosen.items():
        if values and name in one.slices:
            codes = one.slices[name].categories.get_indexer(list(values))
            found &= np.isin(one.slices[name].codes, codes[codes >= 0])
    return found


def errors(rows: pd.DataFrame, prefix: str) -> np.ndarray:
    """Errors of each row; the prefix says of which model (`other_`) and which text."""
    return _summed(rows, prefix, "substitutions", "deletions", "insertions")


def words(rows: pd.DataFrame, prefix: str) -> np.ndarray:
    """Reference words of each row."""
    return _summed(rows, prefix, "hits", "substitutions", "deletions")


def _summed(rows: pd.DataFrame, prefix: str, *names: str) -> np.ndarray:
    return np.asarray(rows[[f"{prefix}{name}" for name in names]].to_numpy(np.int64).sum(axis=1))


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


def ordered(one: Utterances, found: np.ndarray, order: str, text: str) -> np.ndarray:
    """Places of the rows found, in an order; rows that it holds equal stay as they are."""
    places = np.flatnonzero(found)
    keys = {**ORDERS, **CHANGES}[order](one.rows.iloc[places], text)
    return places[np.argsort(keys, kind="stable")]


def score(rows: pd.DataFrame, prefix: str) -> tuple[float, wer.Interval]:
    """WER of these rows with its 95 % interval. 20,000 rows without speakers cost 0.2 s."""
    wrong, total = errors(rows, prefix), words(rows, prefix)
    return wer.rate(int(wrong.sum()), int(total.sum())), wer.bootstrap(
        wrong.tolist(), total.tolist(), _speakers(rows), RESAMPLES, SEED
    )


def difference(rows: pd.DataFrame, text: str) -> wer.Difference:
    """The second model against the first, on the rows of both."""
    ours, theirs = errors(rows, f"other_{text}").tolist(), errors(rows, text).tolist()
    return wer.paired(ours, theirs, words(rows, text).tolist(), _speakers(rows), RESAMPLES, SEED)


def _speakers(rows: pd.DataFrame) -> list[str | None]:
    return [name if isinstance(name, str) else None for name in rows["speaker"]]
