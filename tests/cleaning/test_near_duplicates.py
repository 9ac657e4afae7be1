"""Leaks: planted copies are all found, in whatever shape; what is not a copy is not."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from asr.audio import codec
from asr.cleaning import near_duplicates
from asr.cleaning.audio_fingerprint import codes, fingerprint
from asr.cleaning.near_duplicates import NearDuplicate, NearDuplicateIndex
from asr.sources import common_voice
from asr.sources.synthetic import speak
from support.altered_audio import ALTERED, RATE, noisy
from support.data import REAL, real

Clip = tuple[str, str, np.ndarray]  # split, id, samples
SENTENCES = (
    "seven thousand four hundred twenty three",
    "two hundred nine five sixty one",
    "nineteen sixty six eleven",
    "five hundred and eight three",
    "eleven three hundred ninety",
    "forty one two thousand six",
)


def search(path: Path, clips: Iterable[tuple[str, str, bytes]]) -> list[NearDuplicate]:
    with closing(NearDuplicateIndex(path)) as index:
        for clip in clips:
            index.add(*clip)
        found = list(index.found())
    path.unlink()
    return found


FINGERPRINTS: dict[bytes, bytes] = {}  # by a digest of the samples; many tests hear the same clips


def fingerprint_once(samples: np.ndarray) -> bytes:
    digest = hashlib.sha256(samples.tobytes()).digest()
    if digest not in FINGERPRINTS:
        FINGERPRINTS[digest] = fingerprint(samples)
    return FINGERPRINTS[digest]


def told(
    clips: Iterable[Clip], tell: Callable[[np.ndarray], bytes] = fingerprint_once
) -> Iterator[tuple[str, str, bytes]]:
    return ((split, id, tell(samples)) for split, id, samples in clips)


def planted(clips: list[Clip], how: str) -> list[Clip]:
    """Clips in the training split, and altered copies of them in the test split."""
    copies = [("test", f"copy of {id}", ALTERED[how](samples)) for _, id, samples in clips]
    return [("train", id, samples) for _, id, samples in clips] + copies


def names(found: list[NearDuplicate]) -> list[tuple[str, str]]:
    return [(leak.id, leak.other_id) for leak in found]


def wanted(clips: list[Clip]) -> list[tuple[str, str]]:
    return [(id, f"copy of {id}") for _, id, _ in clips]


@cache
def spoken() -> list[Clip]:
    return [
        ("", text, codec.decode(speak(text, voice, 140 + 5 * place, 30 + 7 * place)))
        for place, (text, voice) in enumerate(
            zip(SENTENCES, ("en+m3", "en+f2", "en+ed", "en+linda", "en+m7", "en+john"), strict=True)
        )
    ]


@cache
def read_aloud() -> list[Clip]:
    return [
        ("", path.stem, codec.decode(path.read_bytes()))
        for path in sorted(real("clips").glob("*.flac"))
    ]


@cache
def digits() -> list[Clip]:
    with TemporaryDirectory() as working:
        corpus = common_voice.read(real("digits-en"), Path(working), "official")
        return [(row.split or "", row.id, codec.decode(row.audio())) for row in corpus.utterances]


@pytest.mark.parametrize("how", ALTERED)
def test_every_planted_copy_is_found(how: str, tmp_path: Path) -> None:
    found = search(tmp_path / "index", told(planted(spoken(), how)))
    assert names(found) == wanted(spoken())
    assert all(
        leak.split == "train" and leak.other_split == "test" and 0.7 <= leak.share <= 1
        for leak in found
    )


@pytest.mark.parametrize("how", ALTERED)
def test_every_planted_copy_of_recorded_speech_is_found(how: str, tmp_path: Path) -> None:
    """Read sentences, a speech of 1961, and digits; all that say something for a second."""
    clips = read_aloud() + [
        clip for clip in digits()[::10] if np.count_nonzero(codes(fingerprint_once(clip[2]))) >= 60
    ]
    assert len(clips) >= 40
    assert names(search(tmp_path / "index", told(planted(clips, how)))) == wanted(clips)


def test_a_clean_corpus_raises_none(tmp_path: Path) -> None:
    clips = digits()
    assert len(clips) == 556
    assert search(tmp_path / "index", told(clips)) == []


@pytest.mark.skipif(not REAL.exists(), reason="no recordings beside this repository")
def test_a_copy_hides_nowhere_in_a_corpus(tmp_path: Path) -> None:
    """Nine copies, altered in all ways at once, among 556 clips; nothing else is found."""
    copies = [
        (split, id, samples)
        for split, id, samples in planted(read_aloud(), "all at once")
        if split == "test"
    ]
    found = search(
        tmp_path / "index",
        told(
            digits()[:300]
            + [("train", *clip[1:]) for clip in read_aloud()]
            + digits()[300:]
            + copies
        ),
    )
    assert names(found) == wanted(read_aloud())


def test_the_same_words_in_the_same_voice_are_no_copy(tmp_path: Path) -> None:
    """Speed and pitch are the same too: a number sounds the same beside any neighbours."""
    texts = (
        "four hundred nine",
        "nine four hundred six",
        "six two thousand four hundred",
        "sixty three nine",
        "two thousand nine sixty",
    )
    for voice in ("en+m3", "en+f2", "en+Alex"):
        clips = [(text, text, codec.decode(speak(text, voice, 150, 50))) for text in texts]
        assert names(search(tmp_path / "index", told(clips))) == []


def test_the_same_sentence_by_others_is_no_copy(tmp_path: Path) -> None:
    voices = {"en+m3": 40, "en+f2": 70, "en+Alex": 50, "en+linda": 60, "en+croak": 30}
    for text in SENTENCES[:3]:
        clips = [
            (voice, voice, codec.decode(speak(text, voice, 150, pitch)))
            for voice, pitch in voices.items()
        ]
        assert names(search(tmp_path / "index", told(clips))) == []


def test_sounds_without_speech_are_no_copies(tmp_path: Path) -> None:
    """Tones and hums of one pitch, switched on and off; silence; different noise."""
    time = np.arange(3 * RATE) / RATE
    clips = []
    for number in range(4):
        hum = sum(
            0.1 / tone * np.sin(2 * np.pi * 97.3 * tone * time + tone * number)
            for tone in range(1, 9)
        ).astype(np.float32)
        tone = (0.1 * (1 + number) * np.sin(2 * np.pi * 440 * time + number)).astype(np.float32)
        noise = np.random.default_rng(number).normal(0, 0.1, len(time)).astype(np.float32)
        sounds = {
            "hum": np.pad(noisy(hum), (4000, 500 * number)),
            "tone": np.pad(tone, (999 * number, 7000)),
            "noise": noise,
        }
        sounds["silence"] = np.zeros(len(time), np.float32)
        clips += [
            (f"split {number}", f"{name} {number}", samples) for name, samples in sounds.items()
        ]
    assert search(tmp_path / "index", told(clips)) == []


def test_copies_within_a_split_are_no_leak(tmp_path: Path) -> None:
    clips = [("train", id, samples) for _, id, samples in planted(spoken(), "half")]
    assert search(tmp_path / "index", told(clips)) == []


def test_order_is_that_of_adding(tmp_path: Path) -> None:
    clips = list(
        told(
            planted(spoken(), "half")
            + [("validation", id + "!", samples) for _, id, samples in spoken()]
        )
    )
    once, again = (search(tmp_path / "index", clips) for _ in range(2))
    assert once == again
    assert len(once) == 3 * len(SENTENCES)
    place = {id: number for number, (_, id, _) in enumerate(clips)}
    order = [(place[leak.id], place[leak.other_id]) for leak in once]
    assert order == sorted(order)
    assert all(first < second for first, second in order)


def test_the_share_is_of_the_shorter_clip() -> None:
    told = drawn(0, 200)[::2]
    assert near_duplicates.common(told, told[40:], 40) == 1.0
    assert near_duplicates.common(told[40:], told, -40) == 1.0
    assert near_duplicates.common(told[:80], told[20:], 20) == 0.75
    assert near_duplicates.common(told, told, 1) == 0.0
    assert near_duplicates.common(told, told[:13], 0) == 0.0  # too few to tell


# What follows is of codes drawn by chance, as many clips of 3 s as are needed.


def drawn(seed: int, frames: int = 120) -> np.ndarray:
    return np.repeat(
        np.random.default_rng(seed).integers(1, 1 << 16, frames // 2, dtype=np.uint16), 2
    )


def packed(codes: np.ndarray) -> bytes:
    return zlib.compress(codes.astype("<u2").tobytes())


def worn(codes: np.ndarray, seed: int = 0) -> np.ndarray:
    """Half of the codes have one bit wrong."""
    draw = np.random.default_rng(seed)
    return codes ^ (
        np.uint16(1) << draw.integers(0, 16, len(codes)).astype(np.uint16)
    ) * draw.integers(0, 2, len(codes)).astype(np.uint16)


def test_a_sound_that_all_share_costs_little_and_hides_nothing(tmp_path: Path) -> None:
    """A thousand clips begin with one jingle; a quarter of a million pairs agree in it, but only
    neighbours are looked at.
    """
    jingle = drawn(0, 60)
    clips = [
        (("train", "test")[number % 2], f"{number}", np.concatenate([jingle, drawn(number + 1)]))
        for number in range(1000)
    ]
    copy = ("validation", "copy", worn(clips[500][2][60:]))
    with closing(NearDuplicateIndex(tmp_path / "index")) as index:
        for split, id, told in (*clips, copy):
            index.add(split, id, packed(told))
        found = list(index.found())
        looked_at = index.database.execute("SELECT count(*) FROM agreed").fetchone()[0]
    assert names(found) == [("500", "copy")]
    assert 0 < looked_at < 250_000


def test_every_copy_is_named_where_a_clip_was_copied_a_hundred_times(tmp_path: Path) -> None:
    """Not with every other: that would be ten thousand pairs."""
    clips = [
        (("train", "test")[number % 20 == 0], f"{number}", packed(worn(drawn(0), number % 7)))
        for number in range(400)
    ]
    found = search(tmp_path / "index", clips)
    assert {id for _, id, _ in clips if int(id) % 20 == 0} <= {leak.id for leak in found} | {
        leak.other_id for leak in found
    }


def test_parts_that_are_too_large_are_taken_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_duplicates, "PARTS", 2)
    monkeypatch.setattr(near_duplicates, "MAX_SORTED_LANDMARKS", 1000)
    clips = [("train", f"{number}", packed(drawn(number))) for number in range(200)]
    copies = [
        ("test", f"copy of {number}", packed(worn(drawn(number)))) for number in range(0, 200, 20)
    ]
    assert len(search(tmp_path / "index", clips + copies)) == 10


def test_memory_does_not_grow_with_the_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tracemalloc

    monkeypatch.setattr(near_duplicates, "WAITING", 1 << 12)

    def peak(num_clips: int) -> int:
        tracemalloc.start()
        clips = (
            (("train", "test")[number % 2], f"{number}", packed(drawn(number)))
            for number in range(num_clips)
        )
        assert search(tmp_path / "index", clips) == []
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(900) < 1.1 * peak(300)


# Negative controls: what a detector would do that forgets, or that hears everything alike.

FORGETFUL: dict[str, Callable[[np.ndarray], bytes]] = {
    "constant": lambda _: packed(np.full(100, 4711)),
    "nothing": lambda _: packed(np.zeros(0)),
    "digest": lambda samples: packed(drawn(zlib.crc32(samples.tobytes()))),
    "sizes": lambda samples: packed(
        (np.abs(samples[: len(samples) // 384 * 384]).reshape(-1, 384).max(1) * 100 + 1).astype(
            np.uint16
        )
    ),
}


@pytest.mark.parametrize("how", FORGETFUL)
def test_forgetful_fingerprints_fail(how: str, tmp_path: Path) -> None:
    missed = [
        alteration
        for alteration in ("opus", "quieter", "half")
        if names(search(tmp_path / "index", told(planted(spoken(), alteration), FORGETFUL[how])))
        != wanted(spoken())
    ]
    assert missed == ["opus", "quieter", "half"]


def test_careless_rules_raise_false_alarms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the count of signs, a clean corpus would not be clean: it is that which tells a word
    said twice from a copy.
    """
    for name, value in {"AGREE": 0.5, "DIFFER": 0.5, "DIFFER_STRETCH": 1.0, "CERTAIN": 0.0}.items():
        monkeypatch.setattr(near_duplicates, name, value)
    assert search(tmp_path / "index", told([(id, id, samples) for _, id, samples in spoken()]))
