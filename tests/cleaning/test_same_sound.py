"""A copy is a copy also at the second look, in whatever shape; what fingerprints are mistaken in is
not.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from asr.audio import codec
from asr.cleaning import same_sound
from asr.cleaning.same_sound import is_copy
from asr.sources import synthetic
from asr.storage.corpus import Recording
from support.altered_audio import ALTERED
from support.copies import FAMILY, HIDES_WORDS, WORN, Clip, found, heard, recording, trimmed
from support.data import real
from support.repository import SHARED

CASE = SHARED / "cases/31-copies-that-are-none"
# Pairs of the embedded corpus, with the params as they come, whose fingerprints agree by chance.
MISTAKEN = [
    ("de", "train-00200", "validation-00092"),
    ("de", "train-00911", "validation-00077"),
    ("de", "train-02841", "test-00216"),
    ("en", "train-03972", "test-00057"),
    ("ko", "train-00200", "validation-00092"),
    ("ko", "train-00344", "test-00234"),
]
SENTENCES = (
    "seven thousand four hundred twenty three",
    "nineteen sixty six",
    "two hundred",
    "five eight",
)


@cache
def spoken() -> list[Clip]:
    voices = ("en+m3", "en+f2", "en+ed", "en+linda")
    return [(text, heard(text, voice)) for text, voice in zip(SENTENCES, voices, strict=True)]


@cache
def recorded() -> list[Clip]:
    return [
        (path.stem, codec.decode(path.read_bytes()))
        for path in sorted(real("clips").glob("LJ*.flac"))[1:8:2]
    ]


@pytest.mark.parametrize("how", [*ALTERED, *WORN])
def test_a_copy_is_one_whatever_it_went_through(how: str) -> None:
    for text, samples in spoken():
        copy = (ALTERED | WORN)[how](samples)
        assert is_copy(recording(samples, text), recording(copy, text)), (how, text)


@pytest.mark.parametrize("how", [how for how in (*ALTERED, *WORN) if how != HIDES_WORDS])
def test_a_copy_of_recorded_speech_is_one_also_with_another_text(how: str) -> None:
    """A text in another language, or of numbers in digits, has no part that explains the sound."""
    for text, samples in recorded():
        copy = (ALTERED | WORN)[how](samples)
        assert is_copy(recording(samples, "words"), recording(copy, "1234")), (how, text)


@cache
def embedded(language: str) -> dict[str, tuple[str, bytes]]:
    """Text and sound of the clips in MISTAKEN, of one language."""
    rows = {"train": 4000, "validation": 160, "test": 240}
    voices = {"train": 46, "validation": 6, "test": 10}
    made = synthetic.read(language, 1, rows, voices, 999, (2, 3), (160, 205), (35, 65))
    wanted = {id for pair in MISTAKEN for id in pair[1:]}
    return {one.id: (one.text, one.audio()) for one in made.utterances if one.id in wanted}


@pytest.mark.parametrize("pair", MISTAKEN, ids=" ".join)
def test_other_numbers_in_other_voices_are_no_copies(pair: tuple[str, str, str]) -> None:
    language, *ids = pair
    clips = [
        (text, codec.decode(sound)) for text, sound in map(embedded(language).__getitem__, ids)
    ]
    ((one, other),) = found(clips)
    assert not is_copy(one, other)


@cache
def family(kind: str) -> list[tuple[Recording, Recording]]:
    """The pairs of a kind of clips whose fingerprints agree."""
    return found(FAMILY[kind]())


@pytest.mark.parametrize("kind", FAMILY)
def test_what_has_only_a_part_in_common_is_no_copy(kind: str) -> None:
    pairs = family(kind)
    assert pairs, "fingerprints alone would do"
    assert [(one.text, other.text) for one, other in pairs if is_copy(one, other)] == []


@pytest.mark.skipif(not CASE.exists(), reason="no such case beside this repository")
def test_recordings_that_were_taken_for_copies_are_none() -> None:
    for folder in sorted(CASE.glob("pairs-*")):
        clips = [(path.name, codec.decode(path.read_bytes())) for path in folder.glob("*.ogg")]
        pairs = [(one, other) for place, one in enumerate(clips) for other in clips[:place]]
        assert pairs
        assert not any(is_copy(recording(*one[::-1]), recording(*two[::-1])) for one, two in pairs)


@pytest.mark.parametrize(
    ("whole", "part", "is_one"),
    [
        ("five eight three", "five eight three", True),
        ("Five, eight - THREE!", "five eight three", True),
        ("five eight three", "five eight", False),
        ("five eight three", "fünf acht", True),
    ],
)
def test_a_part_is_a_copy_unless_the_texts_explain_it(whole: str, part: str, is_one: bool) -> None:
    first, rest = trimmed(heard("five eight")), trimmed(heard("three"))
    both = np.concatenate([first, rest])
    assert is_copy(recording(both, whole), recording(first, part)) == is_one


def test_a_long_part_is_a_copy_though_its_text_is_a_part_too() -> None:
    text = " ".join(SENTENCES)
    first, rest = trimmed(heard(text)), trimmed(heard("three"))
    one = recording(np.concatenate([first, rest]), f"{text} three")
    assert is_copy(one, recording(first, text))


def test_a_sound_that_is_too_large_to_be_read_is_left_to_its_fingerprint() -> None:
    large = Recording("", None, 1 << 26, "", None, None)
    assert is_copy(large, recording(spoken()[0][1]))


@pytest.mark.parametrize("length", [0, 1, 100, 3000])
def test_nothing_and_next_to_nothing_can_be_compared(length: int) -> None:
    overlap = same_sound.overlay(np.zeros(max(1, length), np.float32), spoken()[0][1])
    assert overlap.correlation == overlap.common == 0.0


# Controls: looks that are too easily content, or never.


def test_without_limits_the_second_look_would_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALIKE", "ALIKE_OTHERWISE", "ALIKE_STRETCH"):
        monkeypatch.setattr(same_sound, name, -1.0)
    monkeypatch.setattr(same_sound, "WORD", 60.0)
    for kind in FAMILY:
        assert any(is_copy(*pair) for pair in family(kind)), kind


def test_a_look_that_wants_the_same_samples_would_miss_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(same_sound, "ALIKE", 0.9999)
    text, samples = spoken()[0]
    missed = [
        how
        for how, alter in ALTERED.items()
        if not is_copy(recording(samples, text), recording(alter(samples), text))
    ]
    assert {"opus", "mp3 at 32 kbit/s", "noise"} <= set(missed)
