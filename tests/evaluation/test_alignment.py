"""Words marked as WER counts them: a table worked out by hand, both texts rebuilt from the marks, a
table's errors equal to its counts.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asr import wer
from asr.evaluation import alignment
from asr.evaluation.alignment import DELETION, HIT, INSERTION, SUBSTITUTION, Edits, Mark, Normalizer

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
WORDS = st.lists(st.sampled_from(["en", "två", "tre", "fyra", "Fem,"]), max_size=8).map(" ".join)
PAIR = st.tuples(WORDS, WORDS) | st.tuples(TEXT, TEXT)
BY_HAND = [
    ("", "", ""),
    ("en två", "en två", "= =="),
    ("en två", "en tre", "= två>tre"),
    ("en två tre", "en tre", "= -två ="),
    ("en tre", "en två tre", "= +två ="),
    ("", "hallå där", "+hallå +där"),
    ("tyst nu", "", "-tyst -nu"),
    ("a b c d", "b c d e", "-a = = = +e"),
    ("ett tu tre", "ett du tre fyr", "= tu>du = +fyr"),
    ("a\tb\nc", "a  b c", "= = ="),
]
KINDS = {"=": HIT, "-": DELETION, "+": INSERTION}


def shorthand(marks: list[Mark]) -> list[str]:
    signs = {HIT: "=", DELETION: "-", INSERTION: "+"}
    return [
        f"{mark.said}>{mark.heard}"
        if mark.kind == SUBSTITUTION
        else signs[mark.kind] + (mark.said or mark.heard or "")
        for mark in marks
    ]


def whole(references: list[str], hypotheses: list[str], normalised: bool = False) -> Edits:
    *shares, found = alignment.edits(references, hypotheses, normalised)
    assert all(0 <= share < 1 for share in shares)
    assert isinstance(found, Edits)
    return found


@pytest.mark.parametrize(("reference", "hypothesis", "expected"), BY_HAND)
def test_marks_are_those_worked_out_by_hand(reference: str, hypothesis: str, expected: str) -> None:
    found = [
        "=" if one.startswith("=") else one
        for one in shorthand(alignment.align(reference, hypothesis))
    ]
    assert found == ["=" if one.startswith("=") else one for one in expected.split()]


@settings(max_examples=300)
@given(PAIR)
def test_marks_rebuild_both_texts_and_count_as_wer_counts(pair: tuple[str, str]) -> None:
    marks = alignment.align(*pair)
    assert " ".join(mark.said for mark in marks if mark.said is not None) == wer.collapse_spaces(
        pair[0]
    )
    assert " ".join(mark.heard for mark in marks if mark.heard is not None) == wer.collapse_spaces(
        pair[1]
    )
    kinds = [mark.kind for mark in marks]
    assert wer.Counts(*(kinds.count(kind) for kind in (HIT, *alignment.ERRORS))) == wer.count_words(
        *pair
    )
    assert all((mark.said == mark.heard) == (mark.kind == HIT) for mark in marks)


def test_a_marking_that_loses_a_word_would_be_seen() -> None:
    """The property above fails on marks that were tampered with."""
    marks = alignment.align("en två tre", "en tre")
    assert " ".join(mark.said for mark in marks[1:] if mark.said is not None) != "en två tre"


@settings(max_examples=60)
@given(st.lists(PAIR, max_size=6), st.booleans())
def test_errors_of_a_table_are_those_of_its_rows(
    pairs: list[tuple[str, str]], normalised: bool
) -> None:
    found = whole([pair[0] for pair in pairs], [pair[1] for pair in pairs], normalised)
    for row, pair in enumerate(pairs):
        texts = [wer.normalize(text) for text in pair] if normalised else list(pair)
        counted = wer.count_words(*texts)
        here = [int(((found.rows == row) & (found.kinds == kind)).sum()) for kind in range(3)]
        assert here == [counted.substitutions, counted.deletions, counted.insertions]
        words = [
            (found.word(one), found.word(other))
            for one, other in zip(found.reference_words, found.hypothesis_words, strict=True)
        ]
        marked = [(mark.said, mark.heard) for mark in alignment.align(*texts) if mark.kind != HIT]
        assert [one for one, at in zip(words, found.rows, strict=True) if at == row] == marked


@settings(max_examples=500)
@given(TEXT)
@example("ΑΣ ΑΣΑ ¨ ´a a\u200d b\u0308 İ ﬁ ½\x1c\x85\u2028Ⅳ")
def test_words_made_comparable_once_are_the_text_made_comparable(text: str) -> None:
    once = Normalizer()
    assert once(text) == wer.normalize(text)
    assert once(text) == wer.normalize(text)


def test_the_most_frequent_errors_come_first_and_can_be_found_again() -> None:
    references = ["en två", "en två", "tre två", "tre två tre"]
    hypotheses = ["en tva", "en tva", "fyra tva", "två"]
    found = whole(references, hypotheses)
    everywhere = np.ones(4, bool)
    assert found.frequent(SUBSTITUTION, everywhere, 5) == [
        ("två", "tva", 3, 3),
        ("tre", "fyra", 1, 1),
    ]
    assert found.frequent(DELETION, everywhere, 5) == [("tre", None, 2, 1)]
    assert found.frequent(INSERTION, everywhere, 5) == []
    assert found.frequent(SUBSTITUTION, everywhere, 1) == [("två", "tva", 3, 3)]
    assert found.frequent(SUBSTITUTION, np.array([False, False, True, False]), 5) == [
        ("två", "tva", 1, 1),
        ("tre", "fyra", 1, 1),
    ]
    assert list(found.holding(SUBSTITUTION, "två", "tva")) == [0, 1, 2]
    assert list(found.holding(DELETION, "tre", None)) == [3]
    assert list(found.holding(DELETION, "never", None)) == []


def test_a_table_without_rows_or_errors() -> None:
    assert len(whole([], []).rows) == 0
    assert len(whole(["en"], ["en"]).rows) == 0
    assert whole(["en"], ["en"]).frequent(SUBSTITUTION, np.ones(1, bool), 5) == []
