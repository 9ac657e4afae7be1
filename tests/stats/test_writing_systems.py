"""The script of a text, for scripts of many kinds."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.stats import writing_systems


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Räksmörgås 12!", {"LATIN": 10}),
        ("plain words", {"LATIN": 10}),
        ("Ｆｕｌｌ ｶﾅ", {"LATIN": 4, "KATAKANA": 2}),
        ("привет, world", {"CYRILLIC": 6, "LATIN": 5}),
        ("日々はカー", {"CJK": 2, "HIRAGANA": 1, "KATAKANA": 2}),
        ("안녕", {"HANGUL": 2}),
        ("ʰ", {"LATIN": 1}),
        ("— 42 ♫", {}),
        ("", {}),
    ],
)
def test_letters_are_counted_by_script(text: str, wanted: dict[str, int]) -> None:
    assert +writing_systems.count(text) == Counter(wanted)


@given(st.text())
def test_every_letter_counts_at_most_once_and_nothing_else_does(text: str) -> None:
    assert 0 <= writing_systems.count(text).total() <= sum(map(str.isalpha, text))


def test_what_a_corpus_is_written_in() -> None:
    assert writing_systems.own(Counter(LATIN=95, CYRILLIC=5)) == {"LATIN"}
    assert writing_systems.own(Counter(LATIN=60, CYRILLIC=40)) == {
        "LATIN",
        "CYRILLIC",
    }  # as Serbian is
    assert writing_systems.own(Counter(HIRAGANA=60, CJK=38, KATAKANA=2)) == {
        "HIRAGANA",
        "CJK",
        "KATAKANA",
    }
    assert writing_systems.own(Counter(CJK=99, HIRAGANA=1)) == {"CJK"}
    assert writing_systems.own(Counter()) == set()


def test_writing_without_spaces_is_told_by_most_letters() -> None:
    assert writing_systems.are_unspaced(["今天天气很好", "ok"])
    assert writing_systems.are_unspaced(["ភាសាខ្មែរ"])
    assert not writing_systems.are_unspaced(["안녕 하세요 漢字"])
    assert not writing_systems.are_unspaced(["12", ""])
    assert not writing_systems.are_unspaced([])
