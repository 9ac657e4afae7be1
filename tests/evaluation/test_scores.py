"""Scores and verdicts of a table: sums, bounds, and what one row or the form of words decides."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr import wer
from asr.evaluation import form, loops
from asr.evaluation.cautions import cautions
from asr.evaluation.report import counted_otherwise
from asr.evaluation.scores import Draws, difference, score
from asr.evaluation.table import FINETUNED, errors, words

DRAWS = Draws(200, 1)
SAID = "nine three seven and then some more"
LOOPING = "na na " * 200
TEXTS = st.lists(st.sampled_from(["nine", "9", "a", "b", "ab"]), min_size=1, max_size=5).map(
    " ".join
)


def row(reference: str, hypothesis: str, number: int = 0, language: str = "en") -> dict[str, Any]:
    return {
        "id": f"r{number}",
        "reference": reference,
        "hypothesis": hypothesis,
        **wer.utterance_scores(reference, hypothesis),
        **vars(form.count(reference, hypothesis, language)),
        "looped": loops.find(hypothesis, reference) is not None,
        "duration": 3.6,
        "speaker": None,
        "attributes": "{}",
    }


def rows(hypotheses: list[str], reference: str = SAID) -> list[dict[str, Any]]:
    return [row(reference, text, number) for number, text in enumerate(hypotheses)]


def compared(ours: list[str], theirs: list[str]) -> dict[str, dict[str, Any]]:
    """`models` of metrics.json."""
    our_rows, their_rows = rows(ours), rows(theirs)
    start = score(their_rows, "en", DRAWS) | difference(our_rows, their_rows, DRAWS)
    return {FINETUNED: score(our_rows, "en", DRAWS), "start": start}


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_bounded_and_formless_rates_are_at_most_the_plain_ones(
    pairs: list[tuple[str, str]],
) -> None:
    table = [row(*pair) for pair in pairs]
    found = score(table, "en", DRAWS)
    assert found["wer_without_form"] <= found["wer"]
    assert found["wer_bounded"] <= min(found["wer"], 1.0)
    assert found["cer_bounded"] <= min(found["cer"], 1.0)
    if all(errors(one) <= words(one) for one in table):
        assert found["wer_bounded"] == pytest.approx(found["wer"])


@given(TEXTS, st.text(max_size=200))
def test_one_row_adds_no_more_than_its_words(reference: str, hypothesis: str) -> None:
    one = row(reference, hypothesis)
    assert wer.bounded(errors(one), words(one)) <= words(one)


@pytest.mark.parametrize(("change", "verdict"), [(-1, "better"), (1, "worse")])
def test_a_clear_difference_has_its_verdict(change: int, verdict: str) -> None:
    few, many = "nine three six", "nine two six"
    ours, theirs = (few, many) if change < 0 else (many, few)
    found = difference(
        rows([ours] * 40, "nine three seven"), rows([theirs] * 40, "nine three seven"), DRAWS
    )
    assert (found["verdict"], found["difference"]) == (verdict, pytest.approx(change / 3))
    assert found["difference_low"] <= found["difference"] <= found["difference_high"]
    assert found["verdicts"]["wer"]["verdict"] == verdict
    assert "wer_without_loops" not in found["verdicts"]  # no row loops


def test_a_row_that_loops_decides_no_verdict_but_the_plain_one() -> None:
    ours = [SAID] * 20 + ["nine three"] * 20
    models = compared([LOOPING, *ours], [SAID, *ours[::-1]])
    looped = models[FINETUNED]["loops"]
    assert (looped["rows"], looped["ids"]) == (1, ["r0"])
    assert looped["share"] > 0.5
    verdicts = models["start"]["verdicts"]
    assert verdicts["wer_without_loops"]["difference"] == 0
    assert abs(verdicts["wer_bounded"]["difference"]) < 0.05 < verdicts["wer"]["difference"]


def test_a_verdict_that_hangs_on_loops_is_told() -> None:
    theirs = [SAID] * 40 + [LOOPING] * 5
    models = compared([SAID] * 45, theirs)
    assert models["start"]["verdicts"]["wer"]["verdict"] == "better"
    (told, decided) = cautions(models)
    assert told == "start: 5 utterances go round in circles, with 100 % of its word errors."
    assert decided.startswith("A few utterances decide: by WER finetuned against start is better,")
    assert decided.endswith(
        "without the utterances that go round in circles it is not distinguishable."
    )


def test_a_model_that_learnt_to_write_is_told_so() -> None:
    models = compared([SAID] * 40, ["9 3 7 and then some more"] * 40)
    assert models["start"]["form"] == {
        "case_errors": 0,
        "punctuation_errors": 0,
        "spacing_errors": 0,
        "numeral_errors": 120,
        "share": 1.0,
    }
    assert (models["start"]["wer"], models["start"]["wer_without_form"]) == (3 / 7, 0.0)
    told, taught = cautions(models)
    assert told.startswith("start: 100 % of its word errors are only a matter of how")
    assert taught == (
        "What training taught the model is how words are written: without errors of form "
        "finetuned against start is not distinguishable."
    )


def test_a_model_that_learnt_to_hear_has_no_caution() -> None:
    assert cautions(compared([SAID] * 40, ["line tree heaven and then some more"] * 40)) == []


def test_older_results_have_no_caution() -> None:
    assert cautions({FINETUNED: {"wer": 0.1}, "start": {"wer": 0.9, "verdict": "better"}}) == []


def test_both_normalizers_are_named_and_counted() -> None:
    found = score([row("It's Mr. Smith", "it is mister smith")], "en", DRAWS)
    assert (found["wer_whisper"], found["cer_whisper"]) == (0.0, 0.0)
    assert found["wer"] == 0.5
    assert found["normalizer"] == wer.NORMALIZER
    assert found["whisper_normalizer"].endswith("English")


def test_a_row_is_normalized_in_its_own_language() -> None:
    held_out = row("colour", "color", language="de") | {"attributes": '{"language": "en"}'}
    assert score([held_out], "de", DRAWS)["wer_whisper"] == 0
    assert score([held_out | {"attributes": "{}"}], "de", DRAWS)["wer_whisper"] == 1


def test_the_normalizers_of_all_rows_are_named() -> None:
    held_out = row("colour", "color", language="de") | {"attributes": '{"language": "de"}'}
    found = score([row("colour", "color"), held_out], "en", DRAWS)["whisper_normalizer"]
    assert found.split(" and ")[0].endswith("English")
    assert found.split(" and ")[1].endswith("basic")


def test_letters_count_as_words_and_the_spaces_between_them_do_not_count() -> None:
    found = score([row("我有三个", "我有五个", language="zh")], "zh", DRAWS)
    assert (found["wer_whisper"], found["cer_whisper"]) == (0.25, 0.25)


def test_a_report_names_some_loops_and_counts_the_rest() -> None:
    models = compared([LOOPING] * 103, [SAID] * 103)
    lines = "\n".join(counted_otherwise(models))
    assert "| 103 (100 % of errors) |" in lines
    assert lines.endswith(", r99 and 3 more.")
