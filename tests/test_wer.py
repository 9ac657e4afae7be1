"""Text made comparable in many scripts, errors against tables worked out by hand, and how sure the
number is.
"""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr import wer
from asr.evaluation.metric import corpus_scores
from asr.wer import Counts

NORMALISED = [
    ("Hindi", "हिन्दी में, आपका स्वागत है।", "हिन्दी में आपका स्वागत है"),
    ("Bengali", "“আমি বাংলায় গান গাই”।", "আমি বাংলায় গান গাই"),
    ("Thai", "น้ำแข็ง—กี่บาท?", "น้ำแข็ง กี่บาท"),
    ("Arabic", "مَرْحَبًا، كيف الحال؟", "مَرْحَبًا كيف الحال"),
    ("Chinese", "今天天气，很好。ＡＢＣ１", "今天天气 很好 abc1"),
    ("Swedish", "Å, är det så? Örnen!", "å är det så örnen"),
    ("German", "Straße – „ÜBER“ uns…", "straße über uns"),
    ("Turkish", "IŞIK İzmir’de", "işik i̇zmir de"),
    ("composed", "cafe\u0301 \ufb01n ²", "café fin 2"),
    ("symbols", "a + b = 5 € <b>", "a b 5 b"),
    ("emoji", "I ❤️ you 👍🏽 1️⃣ 🇸🇪", "i you 1"),
    ("joiners", "क्\u200dष co\u00adop می\u200cروم", "क्ष coop میروم"),
    ("spaces", "\ta\u00a0b\u3000c\r\nd\x00e ", "a b c d e"),
    ("nothing", " ¿?… ", ""),
]
WORDS = [
    ("a b c", "a b c", Counts(3, 0, 0, 0)),
    ("a b c", "a x c", Counts(2, 1, 0, 0)),
    ("a b c", "a c", Counts(2, 0, 1, 0)),
    ("a b c", "a b b c", Counts(3, 0, 0, 1)),
    ("a b c", "", Counts(0, 0, 3, 0)),
    ("", "", Counts(0, 0, 0, 0)),
    ("", "x y", Counts(0, 0, 0, 2)),
    ("a", "x y z", Counts(0, 1, 0, 2)),
    ("a b c d", "b c d e", Counts(3, 0, 1, 1)),
    ("ett två\ttre", "ett två tre", Counts(3, 0, 0, 0)),
    ("ett\nett  två", "ett ett två", Counts(3, 0, 0, 0)),
    ("ett\u00a0två", "ett två", Counts(2, 0, 0, 0)),
]
CHARACTERS = [
    ("abc", "abc", (0, 3)),
    ("abc", "axc", (1, 3)),
    ("ab c", "abc", (1, 4)),
    ("abc", "", (3, 3)),
    ("", "abc", (3, 0)),
    ("kitten", "sitting", (3, 6)),
    ("नि", "न", (1, 2)),
]
TEXTS = st.lists(st.sampled_from(["a", "b", "c", "åäö", "น้ำ"]), max_size=5).map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("text", "wanted"), [line[1:] for line in NORMALISED], ids=[line[0] for line in NORMALISED]
)
def test_normalised_text_keeps_what_is_heard(text: str, wanted: str) -> None:
    assert wer.normalize(text) == unicodedata.normalize("NFKC", wanted)


@settings(max_examples=150)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = wer.normalize(text)
    assert wer.normalize(once) == once


def test_a_joiner_before_a_mark_leaves_the_composed_letter() -> None:
    assert wer.normalize("e\u200d\u0301") == "é"


@settings(max_examples=100)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_normalised_text_holds_letters_marks_digits_and_single_spaces(text: str) -> None:
    found = wer.normalize(text)
    assert all(
        unicodedata.category(character)[0] in "LMN" or character == " " for character in found
    )
    assert found == " ".join(found.split())


def test_a_word_needs_more_than_an_invisible_mark() -> None:
    assert wer.normalize("❤\ufe0f") == ""


@pytest.mark.parametrize(("reference", "hypothesis", "wanted"), WORDS)
def test_words_are_counted_as_worked_out_by_hand(
    reference: str, hypothesis: str, wanted: Counts
) -> None:
    found = wer.count_words(reference, hypothesis)
    assert found == wanted
    assert (found.words, found.errors) == (
        len(reference.split()),
        wanted.substitutions + wanted.deletions + wanted.insertions,
    )


@pytest.mark.parametrize(("reference", "hypothesis", "wanted"), CHARACTERS)
def test_characters_are_counted_as_worked_out_by_hand(
    reference: str, hypothesis: str, wanted: tuple[int, int]
) -> None:
    assert wer.count_characters(reference, hypothesis) == wanted


@settings(max_examples=100)
@given(st.text("ab \t\n", max_size=8), st.text("ab \t\n", max_size=8))
def test_counted_words_are_those_between_white_space(reference: str, hypothesis: str) -> None:
    found = wer.count_words(reference, hypothesis)
    assert found.words == len(reference.split())
    assert found.hits + found.substitutions + found.insertions == len(hypothesis.split())


@settings(max_examples=100)
@given(TEXTS, TEXTS)
def test_errors_are_the_edit_distance(reference: str, hypothesis: str) -> None:
    assert wer.count_words(reference, hypothesis).errors == edit_distance(
        reference.split(), hypothesis.split()
    )
    assert wer.count_characters(reference, hypothesis) == (
        edit_distance(list(reference), list(hypothesis)),
        len(reference),
    )


def edit_distance(a: list[str], b: list[str]) -> int:
    line = list(range(len(b) + 1))
    for row, one in enumerate(a, 1):
        before, line[0] = line[0], row
        for column, other in enumerate(b, 1):
            before, line[column] = (
                line[column],
                min(line[column] + 1, line[column - 1] + 1, before + (one != other)),
            )
    return line[-1]


def sums(pairs: list[tuple[str, str]], prefix: str, characters: str) -> tuple[float, float]:
    """WER and CER as a reader of utterances.parquet works them out."""
    lines = [wer.utterance_scores(*pair) for pair in pairs]
    total = {key: sum(line[key] for line in lines) for key in lines[0]}
    errors = (
        total[f"{prefix}substitutions"] + total[f"{prefix}deletions"] + total[f"{prefix}insertions"]
    )
    words = total[f"{prefix}hits"] + total[f"{prefix}substitutions"] + total[f"{prefix}deletions"]
    return wer.rate(errors, words), wer.rate(
        total[f"{characters}_errors"], total[f"{characters}_chars"]
    )


def two_columns(pairs: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [reference for reference, _ in pairs], [hypothesis for _, hypothesis in pairs]


@settings(max_examples=15)
@given(PAIRS)
def test_the_metric_of_the_library_our_own_rates_and_the_sums_of_counts_agree(
    pairs: list[tuple[str, str]],
) -> None:
    references, hypotheses = two_columns([(wer.normalize(a), wer.normalize(b)) for a, b in pairs])
    by_library, by_us = (
        corpus_scores(references, hypotheses),
        wer.error_rates(references, hypotheses),
    )
    assert by_library == pytest.approx(by_us)
    assert (by_us["wer"], by_us["cer"]) == pytest.approx(sums(pairs, "", "cer"))


@pytest.mark.parametrize("text", [" ett två", "ett  två ", "ett\ttvå", "ett två\n"])
def test_raw_scores_agree_with_their_counts_whatever_white_space_the_text_has(text: str) -> None:
    pairs = [(text, "ett två"), ("tre", f" tre {text}")]
    by_library = corpus_scores(*two_columns(pairs))
    assert (by_library["wer"], by_library["cer"]) == pytest.approx(sums(pairs, "raw_", "raw_cer"))


def test_rates_over_references_without_words_count_each_word_put_in() -> None:
    assert wer.error_rates(["", ""], ["x y", ""]) == {"wer": 2.0, "cer": 3.0}
    assert corpus_scores(["", ""], ["x y", ""]) == {"wer": 2.0, "cer": 3.0}
    assert wer.error_rates(["", "a b"], ["x", "a b"])["wer"] == 0.5


def test_rate_is_summed_over_the_corpus_and_no_mean_over_utterances() -> None:
    assert wer.error_rates(["a", "b c d e f g h i j"], ["x", "b c d e f g h i j"])[
        "wer"
    ] == pytest.approx(0.1)


BOUNDED = [
    ("abc", "abc", 0, 0),
    ("a b", "a", 1, 2),
    ("a b", "", 2, 3),
    ("a b", "x y z a b", 2, 3),
    ("ab", "abababab", 1, 2),
    ("", "", 0, 0),
    ("", "x", 1, 1),
    ("", "x y z", 1, 1),
]


def bounded_errors(references: list[str], hypotheses: list[str]) -> tuple[float, float]:
    """The sums of bounded errors, of words and of characters."""
    rates = wer.bounded_error_rates(references, hypotheses)
    words = sum(len(reference.split()) for reference in references)
    characters = sum(map(len, references))
    return rates["wer_bounded"] * max(words, 1), rates["cer_bounded"] * max(characters, 1)


@pytest.mark.parametrize(("reference", "hypothesis", "words", "characters"), BOUNDED)
def test_bounded_errors_are_as_worked_out_by_hand(
    reference: str, hypothesis: str, words: int, characters: int
) -> None:
    """An empty reference counts for at most one error."""
    found = bounded_errors([reference, "a a a"], [hypothesis, "a a a"])
    assert found == pytest.approx((words, characters))


LONG = st.one_of(
    TEXTS, st.tuples(TEXTS, st.integers(2, 40)).map(lambda pair: " ".join(pair[:1] * pair[1]))
)
LONG_PAIRS = st.lists(st.tuples(TEXTS, LONG), min_size=1, max_size=8)


@settings(max_examples=60)
@given(LONG_PAIRS)
def test_bounded_rates_are_below_the_plain_ones_and_equal_where_no_row_exceeds(
    pairs: list[tuple[str, str]],
) -> None:
    references, hypotheses = two_columns(pairs)
    plain = wer.error_rates(references, hypotheses)
    bounded = wer.bounded_error_rates(references, hypotheses)
    rows = {
        "wer": [(c.errors, c.words) for c in (wer.count_words(*pair) for pair in pairs)],
        "cer": [wer.count_characters(*pair) for pair in pairs],
    }
    for name, counted in rows.items():
        exceeds = any(errors > max(length, 1) for errors, length in counted)
        assert bounded[f"{name}_bounded"] <= plain[name]
        assert (bounded[f"{name}_bounded"] == plain[name]) is not exceeds


@settings(max_examples=60)
@given(LONG_PAIRS, LONG, st.data())
def test_one_row_moves_the_bounded_sum_by_its_own_words_at_most(
    pairs: list[tuple[str, str]], other: str, data: st.DataObject
) -> None:
    """And a hypothesis with more errors never lowers it."""
    references, hypotheses = two_columns(pairs)
    row = data.draw(st.integers(0, len(pairs) - 1))
    changed = [*hypotheses[:row], other, *hypotheses[row + 1 :]]
    reference = references[row]
    before, after = bounded_errors(references, hypotheses), bounded_errors(references, changed)
    limits = max(len(reference.split()), 1), max(len(reference), 1)
    for old, new, limit in zip(before, after, limits, strict=True):
        assert abs(new - old) <= limit + 1e-9
    counts = [wer.count_words(reference, text).errors for text in (hypotheses[row], other)]
    if counts[1] >= counts[0]:
        assert after[0] >= before[0] - 1e-9


COUNTED = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=1, max_size=60)


@settings(max_examples=30)
@given(COUNTED, st.integers(0, 99))
def test_interval_lies_within_the_utterances_rates_and_repeats_by_seed(
    counted: list[tuple[int, int]], seed: int
) -> None:
    errors, words = (list(column) for column in zip(*counted, strict=True))
    found = wer.bootstrap(errors, words, [None] * len(errors), 200, seed)
    rates = [error / word for error, word in counted]
    assert min(rates) - 1e-9 <= found.low <= found.high <= max(rates) + 1e-9
    assert found == wer.bootstrap(errors, words, [None] * len(errors), 200, seed)
    assert found.unit == "utterance"


def corpus(
    speakers: int, spread: float, seed: int, per_speaker: int = 20
) -> tuple[list[int], list[int], list[str]]:
    """Errors of 10-word utterances by speakers whose rates differ by `spread`."""
    draw = np.random.default_rng(seed)
    rates = np.clip(0.3 + spread * draw.normal(size=speakers), 0.01, 0.99)
    errors = [int(draw.binomial(10, rate)) for rate in rates for _ in range(per_speaker)]
    return (
        errors,
        [10] * len(errors),
        [f"s{number}" for number in range(speakers) for _ in range(per_speaker)],
    )


def test_interval_contains_the_estimate_and_differs_by_seed() -> None:
    errors, words, speakers = corpus(12, 0.1, 1)
    first, second = (wer.bootstrap(errors, words, speakers, 500, seed) for seed in (1, 2))
    assert first.low < sum(errors) / sum(words) < first.high
    assert first != second


def test_interval_is_by_speaker_from_ten_known_speakers_up() -> None:
    units = [wer.bootstrap(*corpus(count, 0.1, 1), 100, 1).unit for count in (9, 10)]
    assert units == ["utterance", "speaker"]
    errors, words, speakers = corpus(10, 0.1, 1)
    assert wer.bootstrap(errors, words, [None, *speakers[1:]], 100, 1).unit == "utterance"


def test_interval_by_speaker_is_wider_where_speakers_differ() -> None:
    errors, words, speakers = corpus(20, 0.15, 3)
    by_speaker, by_utterance = (
        wer.bootstrap(errors, words, speakers, 1000, 1),
        wer.bootstrap(errors, words, [None] * len(errors), 1000, 1),
    )
    assert by_speaker.high - by_speaker.low > 1.8 * (by_utterance.high - by_utterance.low)


def test_intervals_cover_the_true_rate_about_as_often_as_they_say() -> None:
    found = [wer.bootstrap(*corpus(30, 0.08, seed), 300, seed) for seed in range(150)]
    covered = np.mean([one.low <= 0.3 <= one.high for one in found])
    assert 0.86 <= covered <= 0.99


def test_interval_by_utterance_would_cover_too_seldom_where_speakers_differ() -> None:
    found = [
        wer.bootstrap(errors, words, [None] * len(errors), 300, seed)
        for seed in range(100)
        for errors, words, _ in [corpus(30, 0.08, seed)]
    ]
    assert np.mean([one.low <= 0.3 <= one.high for one in found]) < 0.75


def test_many_utterances_are_drawn_in_blocks_without_changing_the_meaning() -> None:
    count = wer.BLOCK // 100
    found = wer.bootstrap([1] * count, [2] * count, [None] * count, 150, 1)
    assert (found.low, found.high) == (0.5, 0.5)


@st.composite
def two_models(draw: st.DrawFn) -> tuple[list[int], list[int], list[int], list[str | None]]:
    """Errors of two models, reference words and speakers of the same utterances."""
    count = draw(st.integers(1, 30))
    numbers = st.lists(st.integers(0, 9), min_size=count, max_size=count)
    speakers = draw(st.sampled_from([3, 15]))
    return (
        draw(numbers),
        draw(numbers),
        [n + 1 for n in draw(numbers)],
        [f"voice {n % speakers}" for n in range(count)],
    )


@settings(max_examples=60)
@given(two_models(), st.integers(0, 5))
def test_a_difference_turned_round_is_its_negative(
    models: tuple[list[int], list[int], list[int], list[str | None]], seed: int
) -> None:
    ours, theirs, words, speakers = models
    one, other = (
        wer.paired(ours, theirs, words, speakers, 200, seed),
        wer.paired(theirs, ours, words, speakers, 200, seed),
    )
    assert (one.difference, one.low, one.high) == pytest.approx(
        (-other.difference, -other.high, -other.low)
    )
    assert one.difference == pytest.approx(sum(ours) / sum(words) - sum(theirs) / sum(words))
    turned = {"better": "worse", "worse": "better", "not distinguishable": "not distinguishable"}
    assert turned[one.verdict] == other.verdict
    assert one.low <= one.high
    assert (
        one.unit
        == other.unit
        == ("speaker" if len(set(speakers)) >= wer.MIN_SPEAKERS else "utterance")
    )


def test_a_model_against_itself_is_not_distinguishable() -> None:
    found = wer.paired([3, 0, 9], [3, 0, 9], [4, 4, 9], [None] * 3, 500, 0)
    assert (found.difference, found.low, found.high, found.verdict) == (
        0,
        0,
        0,
        "not distinguishable",
    )


def test_what_both_models_find_hard_does_not_widen_the_interval() -> None:
    hard = [0, 9] * 50
    ours, theirs, words, names = hard, [n + 1 for n in hard], [10] * 100, [None] * 100
    found = wer.paired(ours, theirs, words, names, 500, 0)
    assert (found.low, found.high, found.verdict) == (
        pytest.approx(-0.1),
        pytest.approx(-0.1),
        "better",
    )
    alone = [wer.bootstrap(errors, words, names, 500, 0) for errors in (ours, theirs)]
    assert alone[0].high > alone[1].low  # two intervals apart would tell nothing


def test_paired_needs_the_same_utterances() -> None:
    with pytest.raises(ValueError, match="shorter"):
        wer.paired([1, 2], [1], [3, 3], [None, None], 10, 0)
