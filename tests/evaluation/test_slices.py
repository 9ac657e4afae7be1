"""Rows sifted as by hand: slices and quartiles, searches, orders, two models joined; damaged
attributes are no attributes.
"""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr import wer
from asr.errors import DataError
from asr.evaluation import slices
from asr.evaluation.slices import ModelResults, Utterances
from asr.runs import reports
from support.store import HOSTILE

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def heard(lines: list[tuple], model: str = "m") -> ModelResults:
    """Lines of id, reference, hypothesis, duration, speaker, attributes."""
    names = ("id", "reference", "hypothesis", "duration", "speaker", "attributes")
    rows = []
    for given_line in lines:
        one = dict(zip(names, (*given_line, *(None,) * len(names))[: len(names)], strict=True))
        rows.append(
            {**one, "model": model, **wer.utterance_scores(one["reference"], one["hypothesis"])}
        )
    return ModelResults(
        pa.Table.from_pylist(rows, schema=reports.UTTERANCE), f"{model}{len(lines)}", model
    )


def one(lines: list[tuple]) -> Utterances:
    return slices.of_model(heard(lines))


def test_slices_by_speaker_duration_and_attributes():
    lines = [
        (
            str(n),
            "en",
            "en",
            n / 2,
            f"s{n % 2}",
            json.dumps({"age": "old" if n < 5 else "young", "pitch": n, "same": 1}),
        )
        for n in range(20)
    ]
    found = one(lines).slices
    assert list(found) == ["speaker", "duration", "age", "pitch"]  # what all share is no slice
    assert found["speaker"].categories.tolist() == ["s0", "s1"]
    assert found["age"].tolist() == ["old"] * 5 + ["young"] * 15
    for name in ("duration", "pitch"):
        assert np.bincount(found[name].codes).tolist() == [5, 5, 5, 5]
    assert found["duration"].categories[0] == "Q1: 0.0 to 2.4 s"


def test_attributes_that_are_damaged_are_none():
    wrong = [
        "not json",
        "[1]",
        "null",
        "",
        None,
        '{"a": {"b": 1}}',
        "[" * 100_000,
        '{"a": "\\ud800"}',
        '{"a": 1e999, "b": NaN}',
    ]
    lines = [
        (str(n), "en", "en", 1.0, None, text)
        for n, text in enumerate([*wrong, '{"a": "x"}', '{"a": "y"}'])
    ]
    assert set(one(lines).slices["a"].dropna()) <= {"x", "y", "inf"}


@settings(max_examples=40)
@given(st.lists(st.floats() | st.none(), min_size=1, max_size=30))
def test_quartiles_hold_every_known_duration(durations):
    found = one([(str(n), "a", "b", seconds) for n, seconds in enumerate(durations)])
    known = [
        n
        for n, seconds in enumerate(durations)
        if seconds is not None and 0 <= seconds < slices.MOST_NUMBER
    ]
    if "duration" in found.slices:
        assert np.flatnonzero(found.slices["duration"].codes >= 0).tolist() == known
    for order in slices.ORDERS:
        assert sorted(slices.order(found, np.ones(len(found), bool), order, "")) == list(
            range(len(found))
        )


@settings(max_examples=60)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8), TEXT)
def test_a_search_finds_what_python_finds(pairs, words):
    found = slices.match(one([(str(n), *pair) for n, pair in enumerate(pairs)]), words, {})
    joined = ["\n".join(pair).lower() for pair in pairs]
    assert found.tolist() == [
        all(word in text for word in words.lower().split()) for text in joined
    ]


@pytest.mark.parametrize("text", HOSTILE[:20])
def test_a_hostile_search_is_a_search(text):
    found = one([("a", text, ""), ("b", "nothing", "")])
    assert slices.match(found, text, {}).tolist() == [True, False]


def test_two_models_are_joined_by_recording_and_transcript():
    left = heard(
        [("a", "en två", "en två"), ("b", "tre", "fyra"), ("c", "x", "x"), ("d", "y", "y")], "l"
    )
    right = heard(
        [
            ("b", "tre", "tre"),
            ("a", "en två", "en"),
            ("c", "another transcript", "x"),
            ("a", "en två", "doubled"),
        ],
        "r",
    )
    both = slices.compare(left, right)
    assert both.two
    assert both.rows["id"].tolist() == ["a", "b"]
    assert both.rows["other_hypothesis"].tolist() == ["en", "tre"]
    assert slices.errors(both.rows, "").tolist() == [0, 1]
    assert slices.errors(both.rows, "other_").tolist() == [1, 0]
    everywhere = np.ones(2, bool)
    assert slices.order(both, everywhere, "second model worse", "").tolist() == [0, 1]
    assert slices.order(both, everywhere, "second model better", "").tolist() == [1, 0]
    assert slices.match(both, "fyra", {}).tolist() == [False, True]
    gap = slices.difference(both.rows, "", slices.RESAMPLES, slices.SEED)
    assert (gap.difference, gap.verdict) == (0.0, "not distinguishable")
    assert left.key != right.key
    with pytest.raises(DataError, match="not tested on the same recordings"):
        slices.compare(left, heard([("a", "other", "")], "r"))
    with pytest.raises(DataError, match="no utterance of other"):
        slices.of_model(ModelResults(left.table, "", "other"))


def test_scores_are_those_of_the_house():
    lines = [
        (str(n), "en två tre", "en två" if n % 3 else "en fem tre fyra", 1.0, f"s{n}")
        for n in range(30)
    ]
    found = one(lines)
    rate, interval = slices.score(found.rows, "", slices.RESAMPLES, slices.SEED)
    assert rate == wer.error_rates([line[1] for line in lines], [line[2] for line in lines])["wer"]
    assert interval.low <= rate <= interval.high
    assert interval.unit == "speaker"
    assert slices.words(found.rows, "").sum() == 90
