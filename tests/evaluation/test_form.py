"""Errors of form: found where only the writing differs, never more than there are errors."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from num2words import num2words
from rapidfuzz.distance import Levenshtein

from asr import wer
from asr.evaluation import form
from asr.evaluation.form import FormErrors

# Reference, hypothesis, language, and the errors: case, punctuation, spacing, numerals.
WRITTEN = {
    "digit by digit": ("nine three seven", "9 3 7", "en", (0, 0, 0, 3)),
    "digits run together": ("nine three seven", "937", "en", (0, 0, 0, 3)),
    "the reference has figures": ("kapitel 21", "kapitel einundzwanzig", "de", (0, 0, 0, 1)),
    "a mark of thousands": ("one thousand and five men", "1,005 men", "en", (0, 0, 0, 4)),
    "an ordinal": ("the third man", "the 3rd man", "en", (0, 0, 0, 1)),
    "a unit is no ordinal": ("the fifth man", "the 5k man", "en", (0, 0, 0, 0)),
    "a year": ("in nineteen eighty four", "in 1984", "en", (0, 0, 0, 3)),
    "thousands without and": ("two thousand five", "2005", "en", (0, 0, 0, 3)),
    "hundreds without and": ("one hundred five", "105", "en", (0, 0, 0, 3)),
    "Persian figures": ("دوازده نفر", "۱۲ نفر", "fa", (0, 0, 0, 1)),
    "other figures": ("۱۲ نفر", "12 نفر", "fa", (0, 0, 0, 1)),
    "figures of a language without numbers": ("१२ लोग", "12 लोग", "hi", (0, 0, 0, 1)),
    "another code than Whisper's": ("бес", "5", "kk", (0, 0, 0, 1)),
    "as in Brazil": ("dezesseis", "16", "pt", (0, 0, 0, 1)),
    "as in Belgium": ("nonante", "90", "fr", (0, 0, 0, 1)),
    "a compound": ("Kaffee Maschine", "Kaffeemaschine", "de", (0, 0, 2, 0)),
    "an apostrophe": ("do not, don't", "do not, dont", "en", (0, 0, 2, 0)),
    "a moved space": ("ab c", "a bc", "en", (0, 0, 2, 0)),
    "case": ("in Rom", "in rom", "de", (1, 0, 0, 0)),
    "punctuation": ("yes, he came.", "yes he came", "en", (0, 2, 0, 0)),
    "case and figures": ("Haus eins", "haus 1", "de", (1, 0, 0, 1)),
    "a real error beside": ("neun drei hallo", "9 3 gelb", "de", (0, 0, 0, 2)),
    "a language without numbers": ("dua", "2", "eu", (0, 0, 0, 0)),
    "another number": ("nine", "8", "en", (0, 0, 0, 0)),
    "nothing right": ("a b c", "x y", "en", (0, 0, 0, 0)),
    "nothing said": ("", "9", "en", (0, 0, 0, 0)),
    "nothing heard": ("nine", "", "en", (0, 0, 0, 0)),
}
SPOKEN = st.lists(
    st.sampled_from(["nine", "9", "21", "twenty", "one", "a", "ab", "b", "Ab", "1,000", "don't"]),
    max_size=6,
).map(" ".join)


@pytest.mark.parametrize("case", WRITTEN)
def test_what_only_the_writing_made_wrong_is_told(case: str) -> None:
    reference, hypothesis, language, errors = WRITTEN[case]
    assert form.count(reference, hypothesis, language) == FormErrors(*errors)


@given(SPOKEN, SPOKEN)
@settings(max_examples=300)
def test_no_more_errors_are_of_form_than_there_are(reference: str, hypothesis: str) -> None:
    found = form.count(reference, hypothesis, "en")
    normalized = [wer.normalize(text).split() for text in (reference, hypothesis)]
    as_written = Levenshtein.distance(reference.split(), hypothesis.split())
    assert min(vars(found).values()) >= 0
    assert found.spacing_errors + found.numeral_errors <= Levenshtein.distance(*normalized)
    assert found.case_errors + found.punctuation_errors <= as_written


@given(SPOKEN)
def test_a_right_text_has_no_error_of_form(text: str) -> None:
    assert form.count(text, text, "en") == FormErrors(0, 0, 0, 0)


@given(st.integers(0, 999_999), st.sampled_from(["en", "de", "fr", "es", "fa", "sv", "it", "ru"]))
@settings(max_examples=100)
def test_a_spelled_number_is_its_figures(number: int, language: str) -> None:
    spelled = num2words(number, lang=language)
    found = form.count(f"so {spelled} so", f"so {number} so", language)
    normalized = wer.normalize(f"so {spelled} so").split()
    assert found.numeral_errors == Levenshtein.distance(normalized, ["so", str(number), "so"])


def test_a_number_without_end_is_spelled_digit_by_digit() -> None:
    assert form.count(" ".join(["one"] * 40), "1" * 40, "en").numeral_errors == 40


def test_a_number_beyond_what_python_reads_is_counted() -> None:
    assert form.count("seventh", "7" * 5000 + "th", "en").numeral_errors == 0


@pytest.mark.parametrize("loop", ["000 ", "111 ", "1 000 "])
def test_a_loop_of_figures_costs_no_minutes(loop: str) -> None:
    began = time.process_time()
    form.count("one " * 60, loop * 150, "en")
    assert time.process_time() - began < 5
