"""Spoken numbers: the same bytes in any process and order; no voice or sentence in two splits."""

import json
import os
import random
import subprocess
import sys
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.codec import decode, header_seconds
from asr.errors import ParamsError
from asr.sources import synthetic
from asr.sources.utterances import Corpus
from asr.storage.shards import SPLITS
from support.repository import REPOSITORY
from support.sources import by_split, digest, disjoint

ROWS = {"train": 12, "validation": 4, "test": 4}
VOICES = {"train": 6, "validation": 2, "test": 2}
NUMBERS = {"max_number": 99, "numbers": (2, 3), "words_per_minute": (140, 190), "pitch": (30, 70)}


@cache
def spoken(language: str = "sv", seed: int = 1) -> Corpus:
    return synthetic.read(language, seed, ROWS, VOICES, **NUMBERS)


@pytest.mark.parametrize("language", ["en", "de", "fr", "sv", "no"])
def test_numbers_are_spoken_in_many_languages(language):
    corpus = spoken(language)
    utterances = list(corpus.utterances)
    heard = decode(utterances[0].audio())
    assert len(utterances) == sum(ROWS.values())
    assert 0.3 * 16_000 < len(heard) < 10 * 16_000
    assert abs(heard).max() > 0.05
    assert corpus.about["name"] == f"spoken numbers in {language}"


def test_languages_spell_their_own_numbers():
    assert (
        len({next(iter(spoken(language).utterances)).text for language in ("en", "de", "fr", "sv")})
        == 4
    )


@pytest.mark.parametrize("language", ["zh", "yue"])
def test_a_language_without_spelling_is_refused(language):
    with pytest.raises(
        ParamsError,
        match=(
            rf"download\.language: num2words cannot spell {language}; want another source or "
            r"language"
        ),
    ) as caught:
        spoken(language)
    assert caught.value.exit_code == 2


def test_a_voice_that_is_not_there_is_refused():
    with pytest.raises(ParamsError, match=r"download.language: espeak-ng has no voice xx\+m1"):
        synthetic.speak("ett", "xx+m1", 150, 50)


def test_the_same_bytes_are_spoken_in_any_order():
    utterances = list(spoken().utterances)
    forth = {one.id: digest(one.audio()) for one in utterances}
    back = {one.id: digest(one.audio()) for one in reversed(utterances)}
    assert forth == back
    assert len(set(forth.values())) == len(utterances)


def test_the_same_bytes_are_spoken_in_another_process():
    code = f"""
import hashlib, json
from asr.sources import synthetic
corpus = synthetic.read("sv", 1, {ROWS}, {VOICES}, **{NUMBERS})
print(json.dumps([
    [one.id, one.text, one.speaker, hashlib.sha256(one.audio()).hexdigest()]
    for one in list(corpus.utterances)[::-3]
]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONHASHSEED": "3", "LC_ALL": "C", "TZ": "Asia/Tokyo"},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == [
        [one.id, one.text, one.speaker, digest(one.audio())]
        for one in list(spoken().utterances)[::-3]
    ]


def test_what_is_spoken_is_mono_flac():
    content = next(iter(spoken().utterances)).audio()
    assert content[:4] == b"fLaC"
    assert header_seconds(content) == pytest.approx(len(decode(content)) / 16_000, abs=1e-3)


def test_another_seed_says_other_things_with_other_voices():
    one, other = spoken(), spoken(seed=2)
    assert [u.text for u in one.utterances] != [u.text for u in other.utterances]
    assert by_split(one, "speaker") != by_split(other, "speaker")


@settings(max_examples=20)
@given(
    st.integers(0, 10**6),
    st.tuples(*[st.integers(1, 20)] * 3),
    st.tuples(*[st.integers(1, 15)] * 3),
)
def test_splits_share_no_sentence_and_no_voice(seed, rows, voices):
    corpus = synthetic.read(
        "en",
        seed,
        dict(zip(SPLITS, rows, strict=True)),
        dict(zip(SPLITS, voices, strict=True)),
        **NUMBERS,
    )
    assert disjoint(by_split(corpus, "speaker"))
    assert (
        len({one.text for one in corpus.utterances})
        == len({one.id for one in corpus.utterances})
        == sum(rows)
    )
    assert all(
        len(by_split(corpus, "speaker")[split]) <= count
        for split, count in zip(SPLITS, voices, strict=True)
    )


def test_attributes_stay_inside_their_limits():
    for one in spoken().utterances:
        assert 140 <= one.attributes["words_per_minute"] <= 190
        assert 30 <= one.attributes["pitch"] <= 70


def test_more_voices_than_there_are_are_refused():
    with pytest.raises(
        ParamsError, match=r"download\.synthetic\.voices: got 300 in all, want at most \d+"
    ):
        synthetic.read("en", 1, ROWS, dict.fromkeys(SPLITS, 100), **NUMBERS)


def test_more_sentences_than_there_are_are_refused():
    with pytest.raises(
        ParamsError,
        match=(
            r"download\.synthetic: more rows than different sentences; raise max_number or "
            r"max_numbers"
        ),
    ):
        list(
            synthetic.read(
                "en",
                1,
                {**ROWS, "train": 11},
                VOICES,
                **{**NUMBERS, "max_number": 9, "numbers": (1, 1)},
            ).utterances
        )


def test_hyphens_are_spoken_as_spaces():
    assert not any("-" in one.text for one in spoken("en").utterances)


@pytest.mark.parametrize("counts", [(46, 6, 10), (21, 21, 21), (61, 1, 1), (2, 2, 2)])
def test_voices_that_sound_the_same_are_in_one_split(counts: tuple[int, int, int]) -> None:
    voices = dict(zip(SPLITS, counts, strict=True))
    parted = 0
    for seed in range(20):
        dealt = synthetic._deal_voices(voices, seed)
        assert [len(dealt[split]) for split in SPLITS] == list(counts)
        assert not synthetic._are_parted(dealt)
        deck = random.Random(f"{seed}:voices").sample(synthetic.VARIANTS, len(synthetic.VARIANTS))
        first = {split: [deck.pop() for _ in range(voices[split])] for split in SPLITS}
        parted += synthetic._are_parted(first)
        assert dealt == first or synthetic._are_parted(first), "none is dealt anew without need"
    assert parted or counts == (2, 2, 2), "the control: the first deck would do"


def test_the_voices_of_the_params_as_they_come_stay_as_they_were() -> None:
    dealt = synthetic._deal_voices(dict(zip(SPLITS, (46, 6, 10), strict=True)), 1)
    assert dealt["validation"] == ["croak", "kaukovalta", "m6", "m4", "pablo", "miguel"]
    assert len({voice for voices in dealt.values() for voice in voices}) == 62
