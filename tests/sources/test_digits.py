"""Connected digits: each speaker in one split, every recording used before any comes again, and
what is heard is what is written.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from asr.errors import DataError, ParamsError, UserError
from asr.sources import common_voice, digits
from asr.sources.synthetic import speak
from asr.sources.utterances import Corpus
from asr.storage.shards import SPLITS
from support.data import encoded, real, voice
from support.refusals import refused
from support.repository import REPOSITORY
from support.sources import by_split, disjoint, listed

NAMES = ("george", "jackson", "lucas", "theo")
WORDS = "zero one two three four five six seven eight nine".split()
ROWS = {"train": 12, "validation": 5, "test": 5}


def recorded(speaker: int, digit: int, take: int) -> np.ndarray:
    """A digit as espeak-ng says it, cut close, at the data set's 8 kHz."""
    import soxr

    samples, rate = soundfile.read(
        io.BytesIO(speak(WORDS[digit], f"en+m{speaker + 1}", 150 + 10 * take, 40))
    )
    return np.asarray(soxr.resample(samples, rate, 8_000), np.float32)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four speakers, two takes of each digit, in the layout of the Free Spoken Digit Dataset."""
    place = tmp_path_factory.mktemp("free-spoken-digit-dataset")
    (place / "recordings").mkdir()
    for number, name in enumerate(NAMES):
        for digit in range(10):
            for take in range(2):
                samples = recorded(number, digit, take)
                soundfile.write(
                    place / "recordings" / f"{digit}_{name}_{take}.wav", samples, 8_000, "PCM_16"
                )
    (place / "metadata.py").write_text("no recording")
    return place


ASKED: dict[str, Any] = {
    "rows": ROWS,
    "speakers_validation": ["lucas"],
    "speakers_test": ["theo"],
    "min_digits": 2,
    "max_digits": 6,
    "seed": 1,
    "language": "en",
}


def read(place: Path, **changes: Any) -> Corpus:
    return digits.read(place, **{**ASKED, **changes})


def used(corpus: Corpus) -> Counter[Path]:
    return Counter(path for one in corpus.utterances for path in one.audio.args[0])


def test_speakers_stand_in_one_split_and_all_rows_are_there(dataset: Path) -> None:
    corpus = read(dataset)
    assert by_split(corpus, "speaker") == {
        "train": {"george", "jackson"},
        "validation": {"lucas"},
        "test": {"theo"},
    }
    assert Counter(one.split for one in corpus.utterances) == ROWS
    assert disjoint(by_split(corpus, "id"))
    assert corpus.about["speakers"] == {
        "train": ["george", "jackson"],
        "validation": ["lucas"],
        "test": ["theo"],
    }
    assert corpus.about["language"] == "en"
    assert "CC BY-SA" in corpus.about["licence"]


def test_the_words_are_those_of_the_recordings(dataset: Path) -> None:
    for one in read(dataset).utterances:
        chosen = one.audio.args[0]
        assert one.text.split() == [WORDS[int(path.name[0])] for path in chosen]
        assert {path.name.split("_")[1] for path in chosen} == {one.speaker}
        assert 2 <= len(chosen) == one.attributes["digits"] <= 6
    assert len({len(one.text.split()) for one in read(dataset).utterances}) > 2


def test_the_sound_is_the_recordings_with_pauses_between(dataset: Path) -> None:
    for one in list(read(dataset).utterances)[:4]:
        content, (chosen, pauses) = one.audio(), one.audio.args
        info, heard = (
            soundfile.info(io.BytesIO(content)),
            soundfile.read(io.BytesIO(content), dtype="int16")[0],
        )
        assert (info.format, info.subtype, info.channels, info.samplerate) == (
            "FLAC",
            "PCM_16",
            1,
            8_000,
        )
        at = 0
        for path, pause in zip(chosen, [*pauses, 0.0], strict=True):
            part = soundfile.read(path, dtype="int16")[0]
            assert np.array_equal(heard[at : at + len(part)], part)
            at += len(part)
            assert not heard[at : at + round(pause * 8_000)].any()
            at += round(pause * 8_000)
        assert at == len(heard)
        assert all(0.05 <= pause <= 0.3 for pause in pauses)


@pytest.mark.parametrize("train", [1, 3, 8, 9, 20, 50])
def test_no_recording_comes_again_before_all_have_come(dataset: Path, train: int) -> None:
    counts = used(read(dataset, rows={"train": train, "validation": 1, "test": 1}))
    for speaker in ("george", "jackson"):
        own = [counts[path] for path in (dataset / "recordings").glob(f"*_{speaker}_*")]
        assert len(own) == 20
        assert max(own) - min(own) <= 1
    shares = [
        sum(counts[path] for path in counts if f"_{speaker}_" in path.name)
        for speaker in ("george", "jackson")
    ]
    assert abs(shares[0] - shares[1]) <= 6


def test_more_rows_leave_the_first_ones_as_they_are(dataset: Path) -> None:
    few, more = (
        listed(read(dataset)),
        listed(read(dataset, rows={"train": 20, "validation": 9, "test": 5})),
    )
    assert [row for row in more if row[0] in {row[0] for row in few}] == few
    assert len(more) == 34


def test_another_seed_deals_otherwise(dataset: Path) -> None:
    assert [one.text for one in read(dataset).utterances] != [
        one.text for one in read(dataset, seed=2).utterances
    ]


def test_the_order_of_the_folder_does_not_matter(dataset: Path, tmp_path: Path) -> None:
    paths = sorted((dataset / "recordings").iterdir())
    random.Random(3).shuffle(paths)
    (tmp_path / "recordings").mkdir()
    for path in paths:
        shutil.copy(path, tmp_path / "recordings")
    assert listed(read(tmp_path)) == listed(read(dataset)) == listed(read(dataset / "recordings"))


def test_another_process_gives_the_same_bytes(dataset: Path) -> None:
    code = f"""
import hashlib, json, pathlib
from asr.sources import digits
corpus = digits.read(pathlib.Path({str(dataset)!r}), **{ASKED!r})
for one in list(corpus.utterances)[:6]:
    print(json.dumps([one.id, one.text, hashlib.sha256(one.audio()).hexdigest()]))
"""
    environment = {**os.environ, "PYTHONHASHSEED": "3", "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        check=True,
    )
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        [one.id, one.text, hashlib.sha256(one.audio()).hexdigest()]
        for one in list(read(dataset).utterances)[:6]
    ]


def assert_refused(
    place: Path, match: str, kind: type[UserError] = DataError, **changes: Any
) -> None:
    with refused(kind, match):
        listed(read(place, **changes))


@pytest.mark.parametrize(
    ("changes", "kind", "match"),
    [
        (
            {"speakers_test": ["teo"]},
            DataError,
            r"download\.digits\.speakers\.test: no teo; there are george, jackson, lucas, theo",
        ),
        (
            {"speakers_validation": list(NAMES[:3])},
            DataError,
            "all of george, jackson, lucas, theo validate or test; nobody is left to train",
        ),
        (
            {"speakers_test": ["lucas", "theo"]},
            ParamsError,
            r"download\.digits\.speakers: lucas cannot both validate and test",
        ),
        (
            {"min_digits": 7},
            ParamsError,
            r"download\.digits\.min_digits: got 7, want at most max_digits \(6\)",
        ),
        (
            {"language": "sv"},
            ParamsError,
            r"download\.language: got sv, want en, which is what the digits are spoken in",
        ),
    ],
)
def test_params_that_do_not_fit_the_recordings_are_refused(
    dataset: Path, changes: Any, kind: type[UserError], match: str
) -> None:
    assert_refused(dataset, match, kind, **changes)


def test_folders_without_the_digits_are_refused(dataset: Path, tmp_path: Path) -> None:
    assert_refused(
        tmp_path / "nowhere",
        r"nowhere: not there; want the folder of the Free Spoken Digit Dataset",
    )
    assert_refused(tmp_path, "no recordings named as 7_jackson_32.wav: digit, speaker, number")
    place = tmp_path / "recordings"
    shutil.copytree(dataset / "recordings", place)
    for path in place.glob("[37]_theo_*"):
        path.unlink()
    assert_refused(
        tmp_path, r"recordings: theo does not say 3, 7; want each of the ten digits at least once"
    )


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"text renamed", r"_theo_0\.wav: not a recording we can read"),
        (b"", r"_theo_0\.wav: not a recording we can read"),
        (
            encoded(np.zeros(0, np.float32), 8_000),
            r"_theo_0\.wav: 1 channels, 0\.0 s; want one digit, mono",
        ),
        (
            encoded(np.zeros((80, 2), np.float32), 8_000),
            r"_theo_0\.wav: 2 channels, 0\.0 s; want one digit, mono",
        ),
        (
            encoded(voice(11.0, 8_000), 8_000),
            r"_theo_0\.wav: 1 channels, 11\.0 s; want one digit, mono",
        ),
        (encoded(voice(0.3), 16_000), r"_theo_\d\.wav: \d+ samples a second, want \d+ as in "),
    ],
)
def test_a_recording_that_is_no_digit_is_refused_by_name(
    dataset: Path, tmp_path: Path, content: bytes, match: str
) -> None:
    place = tmp_path / "recordings"
    shutil.copytree(dataset / "recordings", place)
    for path in place.glob("?_theo_0.wav"):
        path.write_bytes(content)
    assert_refused(tmp_path, match, rows={"train": 1, "validation": 1, "test": 9})


def test_a_link_is_no_recording(dataset: Path, tmp_path: Path) -> None:
    place = tmp_path / "recordings"
    shutil.copytree(dataset / "recordings", place)
    (place / "5_mallory_0.wav").symlink_to(dataset / "recordings" / "5_theo_0.wav")
    assert "mallory" not in read(tmp_path).about["speakers"]["train"]


def test_digits_cut_from_real_speech_are_joined_anew(tmp_path: Path) -> None:
    """Real clips of one digit each, laid out as the data set is: their very samples are heard, at
    the clips' own rate.
    """
    place = real("digits-en")
    (tmp_path / "work").mkdir()
    alone = [
        one
        for one in common_voice.read(place, tmp_path / "work", "official").utterances
        if one.text in WORDS
    ]
    (tmp_path / "recordings").mkdir()
    for number, one in enumerate(alone):
        samples, rate = soundfile.read(io.BytesIO(one.audio() or b""))
        for speaker in NAMES[:3]:
            for digit in range(10) if number == 0 else [WORDS.index(one.text)]:
                soundfile.write(
                    tmp_path / "recordings" / f"{digit}_{speaker}_{number}.wav",
                    samples,
                    rate,
                    "PCM_16",
                )
    corpus = read(
        tmp_path,
        speakers_validation=["lucas"],
        speakers_test=["jackson"],
        rows=dict.fromkeys(SPLITS, 3),
    )
    for one in corpus.utterances:
        heard, own = soundfile.read(io.BytesIO(one.audio() or b""), dtype="int16")
        first, last = (soundfile.read(one.audio.args[0][at], dtype="int16")[0] for at in (0, -1))
        assert own == rate
        assert np.array_equal(heard[: len(first)], first)
        assert np.array_equal(heard[-len(last) :], last)
        assert first.any()
