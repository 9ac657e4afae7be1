"""A copy is a copy also at the second look, in whatever shape; what fingerprints are mistaken in is
not.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from asr.audio import codec
from asr.cleaning import same_sound
from asr.cleaning.audio_fingerprint import fingerprint
from asr.cleaning.near_duplicates import NearDuplicateIndex
from asr.cleaning.same_sound import is_copy
from asr.sources import synthetic
from asr.sources.synthetic import speak
from asr.storage.corpus import Recording
from support.altered_audio import ALTERED, by_av, noisy, padded
from support.data import encoded, real
from support.repository import SHARED

RATE = 16_000
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
# Ways in which a copy loses more than in ALTERED.
WORN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mp3 at 8 kbit/s and 8 kHz": lambda samples: by_av(samples, "mp3", "libmp3lame", 8000, 8000),
    "opus at 8 kbit/s": lambda samples: by_av(samples, "ogg", "libopus", 8000, 48_000),
    "noise of 10 dB": lambda samples: noisy(samples, 10),
    "inverted": lambda samples: -samples,
    "50 ms shorter": lambda samples: samples[800:],
    "100 ms shorter at both ends": lambda samples: samples[1600:-1600],
    "trimmed, opus, in silence": lambda samples: padded(
        by_av(samples[3200:-1600], "ogg", "libopus", 16_000, 48_000)
    ),
}
NUMBERS = "zero one two three four five six seven eight nine".split()
SENTENCES = (
    "seven thousand four hundred twenty three",
    "nineteen sixty six",
    "two hundred",
    "five eight",
)
Clip = tuple[str, np.ndarray]  # text and samples


def recording(samples: np.ndarray, text: str = "") -> Recording:
    sound = encoded(samples, RATE, "WAV", "FLOAT")
    return Recording("", sound, len(sound), text, None, None)


def heard(text: str, voice: str = "en+m3", rate: int = 170, pitch: int = 50) -> np.ndarray:
    return codec.decode(speak(text, voice, rate, pitch))


HIDES_WORDS = "noise of 10 dB"  # so that another word could be spoken


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


def found(clips: list[Clip]) -> list[tuple[Recording, Recording]]:
    """The pairs of clips whose fingerprints agree, each clip in a split of its own."""
    with (
        TemporaryDirectory() as folder,
        closing(NearDuplicateIndex(Path(folder) / "index")) as index,
    ):
        for number, (_, samples) in enumerate(clips):
            index.add(str(number), str(number), fingerprint(samples))
        pairs = [(int(pair.id), int(pair.other_id)) for pair in index.found()]
    told = [recording(samples, text) for text, samples in clips]
    return [(told[one], told[other]) for one, other in pairs]


def joined(count: int, words: tuple[int, int], gap: float) -> list[Clip]:
    """Sentences of words whose samples are the same in each."""
    samples = {word: trimmed(heard(word)) for word in NUMBERS}
    draw = random.Random(f"{words} {gap}")
    texts = {" ".join(draw.choices(NUMBERS, k=draw.randint(*words))) for _ in range(count)}
    pause = np.zeros(round(gap * RATE), np.float32)
    return [
        (text, np.concatenate([part for word in text.split() for part in (samples[word], pause)]))
        for text in sorted(texts)
    ]


def trimmed(samples: np.ndarray) -> np.ndarray:
    sounding = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    return samples[sounding[0] : sounding[-1] + 1]


def told(count: int) -> list[Clip]:
    """Numbers in four voices."""
    draw = random.Random(2)
    texts = [" ".join(draw.choices(NUMBERS, k=2)) for _ in range(count)]
    voices = ("en+m1", "en+f3", "en+m4", "en+f1")
    return [
        (text, heard(text, voices[number % 4], 150 + number))
        for number, text in enumerate(sorted(set(texts)))
    ]


def with_jingle(number: int, samples: np.ndarray) -> np.ndarray:
    jingle = heard("you are listening to radio one", "en+f2")
    return np.concatenate([jingle, samples] if number % 2 else [samples, jingle])


def one_voice() -> list[Clip]:
    draw = random.Random(5)
    numbers = [draw.sample(range(1000), draw.randint(1, 2)) for _ in range(80)]
    texts = {" ".join(synthetic._spell(one, "en") for one in some) for some in numbers}
    return [(text, heard(text)) for text in sorted(texts)]


@cache
def family(kind: str) -> list[tuple[Recording, Recording]]:
    """The pairs of a kind of clips whose fingerprints agree."""
    return found(FAMILY[kind]())


FAMILY: dict[str, Callable[[], list[Clip]]] = {
    "words of the same samples": lambda: joined(60, (2, 4), 0.0),
    "words of the same samples, with pauses": lambda: joined(60, (2, 4), 0.08),
    "a jingle before or after": lambda: [
        (text, with_jingle(number, samples)) for number, (text, samples) in enumerate(told(20))
    ],
    "one voice, always as fast and high": one_voice,
    "the same by telephone": lambda: [(text, ALTERED["telephone"](x)) for text, x in one_voice()],
}


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
