"""Which rows are taken depends on each row alone, so that a corpus which grows moves nobody."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.sources import selection
from asr.sources.selection import Selection
from asr.sources.utterances import Utterance, UtteranceIterable
from asr.storage.hashing import split_of
from asr.storage.shards import SPLITS

UTTERANCES = st.lists(
    st.tuples(st.integers(0, 200), st.sampled_from(SPLITS)),
    unique_by=lambda pair: pair[0],
    max_size=60,
)


def utterance(number: int, split: str | None = "train", **attributes: str) -> Utterance:
    return Utterance(
        f"clip-{number}", split, "x", lambda: None, f"speaker-{number % 7}", attributes
    )


def wanted(**changes: Any) -> Selection:
    return Selection(
        **{
            "name": "mine",
            "role": "main",
            "share": 1.0,
            "rules": [],
            "max_rows": None,
            "seed": 1,
            **changes,
        }
    )


def rule(field: str, weight: float = 1, otherwise: float = 0, **test: Any) -> dict[str, Any]:
    return {
        "field": field,
        "any_of": None,
        "min": None,
        "max": None,
        "weight": weight,
        "otherwise": otherwise,
        **test,
    }


def taken(rows: list[Utterance], **changes: Any) -> list[Utterance]:
    listing, one = UtteranceIterable(lambda: iter(rows)), wanted(**changes)
    found = selection.survey(listing, one)
    chosen = list(selection.select(listing, one, found))
    assert found.rows.total() == len(chosen)
    assert found.rows.total() + found.left_out.total() == len(rows)
    return chosen


def ids(rows: list[Utterance]) -> list[str]:
    return [one.id for one in rows]


@settings(max_examples=60)
@given(UTTERANCES, st.integers(1, 20), st.integers(0, 5))
def test_at_most_so_many_rows_of_each_split_are_kept_in_order(pairs, max_rows, seed):
    corpus = [utterance(*pair) for pair in pairs]
    kept = taken(corpus, max_rows=max_rows, seed=seed)
    assert [one for one in ids(corpus) if one in ids(kept)] == ids(kept)
    for split in SPLITS:
        assert sum(one.split == split for one in kept) == min(
            max_rows, sum(one.split == split for one in corpus)
        )


@settings(max_examples=60)
@given(UTTERANCES, st.data(), st.integers(1, 20), st.integers(0, 5))
def test_the_choice_is_stable_while_a_corpus_grows(pairs, data, max_rows, seed):
    old = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    before, after = (
        ids(taken([utterance(*pair) for pair in some], max_rows=max_rows, seed=seed))
        for some in (old, pairs)
    )
    assert set(after) & {f"clip-{number}" for number, _ in old} <= set(before)


@settings(max_examples=30)
@given(UTTERANCES, st.integers(1, 20))
def test_growth_of_one_split_changes_nothing_in_another(pairs, max_rows):
    whole = taken([utterance(*pair) for pair in pairs], max_rows=max_rows)
    alone = taken([utterance(*pair) for pair in pairs if pair[1] == "test"], max_rows=max_rows)
    assert [one.id for one in whole if one.split == "test"] == ids(alone)


def test_another_seed_chooses_other_rows():
    corpus = [utterance(number) for number in range(200)]
    assert ids(taken(corpus, max_rows=20)) != ids(taken(corpus, max_rows=20, seed=2))
    assert ids(taken(corpus)) == ids(corpus)


@settings(max_examples=40)
@given(st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_a_larger_share_takes_all_that_a_smaller_one_took(one, other):
    corpus = [utterance(number) for number in range(300)]
    small, large = (ids(taken(corpus, share=share)) for share in sorted((one, other)))
    assert set(small) <= set(large)
    assert len(large) == pytest.approx(300 * max(one, other), abs=45)


@pytest.mark.parametrize("max_rows", [1, 2, 5, 8])
def test_rows_that_share_an_id_count_towards_the_rows_of_a_split(max_rows):
    """`taken` sees that what is handed on is what was counted; the rows are told apart, and left
    out, in `chunk`.
    """
    assert (
        len(
            taken(
                [utterance(0)] * 5 + [utterance(number) for number in range(5)], max_rows=max_rows
            )
        )
        == max_rows
    )


def test_without_a_split_the_speaker_decides():
    for one in taken(voices([1, 2] * 50)):
        assert one.split == split_of(str(one.speaker))


@pytest.mark.parametrize(
    ("role", "splits"),
    [
        ("main", {"train": "train", "validation": "validation", "test": "test"}),
        ("train", {"train": "train", None: "train"}),
        ("holdout", {"test": "holdout", None: "holdout"}),
    ],
)
def test_a_role_says_which_split_counts_where(role, splits):
    corpus = [utterance(number, split) for number, split in enumerate([*SPLITS, None])]
    found = {
        corpus[int(one.id.partition("clip-")[2])].split: one.split
        for one in taken(corpus, role=role)
    }
    assert {key: value for key, value in found.items() if key or role != "main"} == splits


@pytest.mark.parametrize(
    ("test", "accents", "matches"),
    [
        ({"any_of": ["skånska"]}, "Skånska", True),
        ({"any_of": ["skånska"]}, "Göteborgska|Skånska", True),
        ({"any_of": ["skånska", "north"]}, "north, cold", True),
        ({"any_of": ["skånska"]}, "skånskans", False),
        ({"any_of": [""]}, "", True),
        ({"min": 2.0}, "2", True),
        ({"min": 2.0}, "1", False),
        ({"min": 2.0, "max": 3.0}, "2.5", True),
        ({"max": 3.0}, "4", False),
        ({"max": 3.0}, "", False),
        ({"max": 3.0}, "three", False),
        ({"min": 1.0}, "nan", False),
    ],
)
def test_what_a_rule_matches(test, accents, matches):
    assert selection.matches({"accents": accents}, rule("accents", **test)) == matches


@pytest.mark.parametrize(
    ("test", "value"),
    [
        ({"max": 0.0}, 0),
        ({"min": 0.0}, 0.0),
        ({"any_of": ["0"]}, 0),
        ({"any_of": ["false"]}, False),
    ],
)
def test_a_rule_matches_a_value_that_is_a_number_as_it_matches_its_text(test, value):
    assert selection.matches({"down_votes": value}, rule("down_votes", **test))
    assert selection.matches({"down_votes": str(value)}, rule("down_votes", **test))


def test_attributes_that_have_the_names_of_ours_are_told_apart():
    """A column `language` is common (FLEURS has one, with names in it), and no row is repeated or
    prompted for by it.
    """
    corpus = [
        utterance(1, language="Swedish", repeat="often", source="radio"),
        utterance(2, language="Finnish"),
    ]
    (one,) = taken(corpus, rules=[rule("their_language", 3, any_of=["swedish"])])
    theirs = {"their_language": "Swedish", "their_repeat": "often", "their_source": "radio"}
    assert one.attributes == {**theirs, "source": "mine", "repeat": 3}


def test_a_rule_may_ask_for_the_source_and_for_the_speaker():
    corpus = [utterance(number) for number in range(14)]
    assert len(taken(corpus, rules=[rule("source", any_of=["mine"])])) == 14
    assert len(taken(corpus, rules=[rule("source", any_of=["other"])])) == 0
    assert len(taken(corpus, rules=[rule("speaker", any_of=["speaker-3"])])) == 2


@settings(max_examples=30)
@given(st.floats(0, 5))
def test_a_weight_is_how_often_a_training_row_counts_on_average(weight):
    corpus = [utterance(number, age="teens") for number in range(400)]
    kept = taken(corpus, rules=[rule("age", weight, any_of=["teens"])])
    assert sum(one.attributes.get("repeat", 1) for one in kept) == pytest.approx(
        400 * weight, abs=60
    )


@pytest.mark.parametrize("weight", [0.01, 1, 7])
def test_rows_to_be_tested_on_count_once_whatever_their_weight(weight):
    corpus = [utterance(number, "test", age="teens") for number in range(20)]
    kept = taken(corpus, rules=[rule("age", weight, any_of=["teens"])])
    assert [one.attributes for one in kept] == 20 * [{"age": "teens", "source": "mine"}]


def test_weights_of_several_rules_multiply():
    corpus = [
        utterance(1, age="teens", gender="f"),
        utterance(2, age="teens", gender="m"),
        utterance(3, age="old", gender="f"),
    ]
    rules = [rule("age", 2, 1, any_of=["teens"]), rule("gender", 3, 0, any_of=["f"])]
    assert {one.id: one.attributes.get("repeat") for one in taken(corpus, rules=rules)} == {
        "clip-1": 6,
        "clip-3": 3,
    }


@settings(max_examples=30)
@given(st.integers(0, 2000))
def test_the_sample_is_small_and_evenly_spread(count):
    found = selection.survey(
        UtteranceIterable(lambda: (utterance(number) for number in range(count))), wanted()
    )
    places = [int(one.id[5:]) for one in found.sample]
    steps = {after - before for before, after in itertools.pairwise(places)}
    assert (
        len(places) == count
        if count < selection.SAMPLED
        else selection.SAMPLED // 2 <= len(places) <= selection.SAMPLED
    )
    assert len(steps) <= 1


def voices(sizes: list[int], names: str = "voice") -> list[Utterance]:
    """Rows without splits, so many of each speaker."""
    return [
        Utterance(f"{names}-{speaker}-{number}", None, "x", lambda: None, f"{names} {speaker}")
        for speaker, size in enumerate(sizes)
        for number in range(size)
    ]


def split_of_each(rows: list[Utterance]) -> dict[str | None, str | None]:
    """The split of each speaker, who must be in one alone."""
    splits = {(one.speaker, one.split) for one in taken(rows)}
    assert len(splits) == len({speaker for speaker, _ in splits})
    return dict(splits)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 9), min_size=3, max_size=60), st.sampled_from("abcdefgh"))
def test_three_speakers_or_more_leave_no_split_empty(sizes, names):
    assert set(split_of_each(voices(sizes, names)).values()) == set(SPLITS)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.sampled_from("abcdefgh"))
def test_nobody_moves_but_into_an_empty_split(sizes, names):
    rows = voices(sizes, names)
    by_hash = {one.speaker: split_of(str(one.speaker)) for one in rows}
    empty = set(SPLITS) - set(by_hash.values())
    moved = {one: split for one, split in split_of_each(rows).items() if split != by_hash[one]}
    assert set(moved.values()) <= empty
    assert len(moved) == (len(empty) if len(sizes) > 2 else len(set(moved.values())))


def test_the_speaker_with_the_fewest_rows_moves_to_the_test():
    rows = voices([5, 2, 9, 7])
    assert {split_of(str(one.speaker)) for one in rows} == {"train"}, "the control"
    splits = split_of_each(rows)
    assert splits == {
        "voice 0": "test",
        "voice 1": "validation",
        "voice 2": "train",
        "voice 3": "train",
    }


def test_splits_that_a_source_gives_stay_as_they_are():
    rows = [utterance(number, "train") for number in range(9)]
    assert {one.split for one in taken(rows)} == {"train"}
