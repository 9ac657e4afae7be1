"""Chance that depends on a key alone: the same on any machine, and for ever."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.storage.hashing import fraction_of, split_of
from asr.storage.shards import SPLITS


@settings(deadline=None, max_examples=50)
@given(st.text())
def test_a_fraction_depends_on_its_key_alone(key):
    assert 0 <= fraction_of(key) < 1
    assert fraction_of(key) == fraction_of(key)
    assert split_of(key) in SPLITS


def test_eight_in_ten_keys_train():
    splits = [split_of(f"speaker {number}") for number in range(5000)]
    assert splits.count("train") / 5000 == pytest.approx(0.8, abs=0.02)
    assert splits.count("test") / 5000 == pytest.approx(0.1, abs=0.02)


def test_splits_stay_what_they_were_when_published():
    held_out = {
        key: split_of(key)
        for key in ("anna", "bo", "eva", "hans", "s2", "s3")
        if split_of(key) != "train"
    }
    assert held_out == {"eva": "validation", "hans": "validation", "s2": "validation"}
