"""Times are believed after they were checked; a model that knows none is cut at pauses."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from asr.audio import codec
from asr.decoding import loading, times
from asr.decoding.long_form import PAUSED_SHARE, Transcription
from asr.decoding.recognizer import GREEDY, Recognizer
from asr.decoding.search import Hypothesis
from asr.decoding.times import AT_PAUSES, BY_MODEL, Trust, has_fault, leaves_out
from asr.decoding.vocabulary import Vocabulary, of_model
from asr.engines.engine import FP32, OPENVINO
from asr.sources import synthetic
from asr.speech.detection import Stretch, stretches
from asr.whisper import POSITIONS_PER_SECOND, SAMPLE_RATE
from support.model import scratch
from support.repository import REPOSITORY
from support.samples import stored

SHARED = REPOSITORY.parent / "shared"
WINDOW = 10  # seconds
TEXT = 5  # a token of text


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return of_model(scratch(window_seconds=WINDOW))


def text(ids: Sequence[int]) -> str:
    return "word " * len(ids)


def said(vocabulary: Vocabulary, *parts: float | int) -> list[int]:
    """Tokens of times, given in seconds as floats, and of so many words, given as integers."""
    ids: list[int] = []
    for part in parts:
        if isinstance(part, int):
            ids += [TEXT] * part
        else:
            ids.append(vocabulary.first_timestamp + round(part * POSITIONS_PER_SECOND))
    return ids


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        pytest.param((0.0, 8, 4.0), False, id="closed within the sound"),
        pytest.param((0.0, 8, 3.0, 3.2, 4, 6.0), False, id="two of them"),
        pytest.param((0.0, 8, 6.9), False, id="a whole second behind the sound"),
        pytest.param((0.0, 8), True, id="left open"),
        pytest.param((0.0, 8, 3.0, 3.0, 4), True, id="the last left open"),
        pytest.param((8,), True, id="no time at all"),
        pytest.param((0.0, 8, 10.0), True, id="the end of the window, not of the sound"),
        pytest.param((0.0, 8, 4.0, 8.0, 2, 9.0), True, id="one behind the sound"),
        pytest.param((0.0, 8, 0.2), True, id="faster than speech"),
        pytest.param((0.0, 2, 3.0, 5.98, 9, 6.0), True, id="one faster than speech"),
    ],
)
def test_times_that_cannot_be_right_are_not_believed(
    vocabulary: Vocabulary, parts: tuple[float | int, ...], fault: bool
) -> None:
    heard = Hypothesis(said(vocabulary, *parts), -0.1, 0.1, False, 0.0)
    assert has_fault(heard, 6.0, vocabulary, text) == fault


@pytest.mark.parametrize("parts", [[0.0], [1.2], [0.0, 6.0]])
def test_times_without_words_are_right_where_a_model_can_tell_that_nobody_speaks(
    vocabulary: Vocabulary, parts: list[float]
) -> None:
    for no_speech, fault in [(0.1, False), (0.9, False), (None, True)]:
        heard = Hypothesis(said(vocabulary, *parts), -0.1, no_speech, False, 0.0)
        assert has_fault(heard, 6.0, vocabulary, text) == fault


@pytest.mark.parametrize(
    ("parts", "left_out"),
    [
        pytest.param((0.0, 12, 4.0, 4.0, 14, 9.0), False, id="all is written"),
        pytest.param((0.0, 9, 9.5), True, id="nine tokens for ten seconds"),
        pytest.param((0.0, 12, 4.0, 4.0, 4, 9.0), True, id="the second is too short"),
        pytest.param((0.0, 2, 3.0), False, id="short, and of three seconds alone"),
        pytest.param((0.0, 2, 3.0, 9.0, 3, 9.9), False, id="where nobody speaks"),
        pytest.param((26,), False, id="without times, and whole"),
        pytest.param((6,), True, id="without times, and too short"),
    ],
)
def test_speech_that_was_not_written_is_noticed(
    vocabulary: Vocabulary, parts: tuple[float | int, ...], left_out: bool
) -> None:
    speech = [Stretch(100.0, 104.0), Stretch(104.2, 109.5)]
    ids = said(vocabulary, *parts)
    assert leaves_out(ids, Stretch(100.0, 110.0), speech, vocabulary) == left_out
    assert not leaves_out(ids, Stretch(200.0, 210.0), speech, vocabulary)


@pytest.mark.parametrize(
    ("faults", "asked", "settled", "told"),
    [
        ([], True, False, BY_MODEL),
        ([False], True, True, BY_MODEL),
        ([True], True, False, BY_MODEL),  # one odd piece proves nothing
        ([True, True], False, True, AT_PAUSES),
        ([True, False, True, True], False, True, AT_PAUSES),
        ([False] * 9 + [True] * 8, True, True, BY_MODEL),
    ],
)
def test_a_model_is_asked_until_its_pieces_have_shown_faults(
    vocabulary: Vocabulary, faults: list[bool], asked: bool, settled: bool, told: str
) -> None:
    trust = Trust.of(vocabulary)
    for fault in faults:
        trust.note(fault)
    assert (trust.holds, trust.is_settled, trust.text) == (asked, settled, told)


def test_a_model_without_tokens_for_times_is_not_asked(vocabulary: Vocabulary) -> None:
    trust = Trust.of(vocabulary.with_window(31))
    assert (trust.holds, trust.text) == (False, AT_PAUSES)


@pytest.fixture(scope="module")
def untaught() -> Recognizer:
    return loading.of_start(scratch(window_seconds=WINDOW), OPENVINO, FP32, GREEDY)


def spoken(count: int) -> np.ndarray:
    """(S,) sentences with pauses between them."""
    sentence = codec.decode(synthetic.speak("eleven hundred and seven", "en+m3", 160, 50))
    return np.tile(np.concatenate([sentence.reshape(-1), np.zeros(SAMPLE_RATE, np.float32)]), count)


def test_the_segments_of_a_model_that_knows_no_times_are_cut_at_pauses(
    tmp_path: Path, untaught: Recognizer
) -> None:
    """An untrained one, which says times at random."""
    sound = stored(tmp_path, spoken(4))
    work = Transcription(untaught, sound, "sv", None, 0.0, sound.duration)
    segments = list(work.segments())
    assert work.trust.text == AT_PAUSES
    assert len(segments) >= 2
    assert all(one.end - one.start <= PAUSED_SHARE * WINDOW for one in segments)
    assert all(before.end <= after.start for before, after in pairwise(segments))


def test_what_a_model_without_times_hears_does_not_depend_on_asking_it(
    tmp_path: Path, untaught: Recognizer
) -> None:
    sound = stored(tmp_path, spoken(4))
    asked = Transcription(untaught, sound, "sv", None, 0.0, sound.duration)
    told = Transcription(untaught, sound, "sv", None, 0.0, sound.duration)
    told.trust.balance = -times.DISTRUST
    assert [one.text for one in asked.segments()] == [one.text for one in told.segments()]


def persian(count: int) -> tuple[np.ndarray, list[float]]:
    """(S,) clips joined, and the seconds at which their speech starts."""
    folder = SHARED / "data/common-voice-fa"
    with (folder / "test.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[:count]
    parts, starts, at = [], [], 0.0
    for row in rows:
        clip = codec.decode((folder / "clips" / row["path"]).read_bytes()).reshape(-1)
        clip = np.append(clip, np.zeros(round(0.3 * SAMPLE_RATE), np.float32))
        starts += [at + one.start for one in list(stretches([clip]))[:1]]
        parts.append(clip)
        at += len(clip) / SAMPLE_RATE
    return np.concatenate(parts), starts


def test_a_real_whisper_tells_where_sentences_start(tmp_path: Path) -> None:
    """In Persian clips that are joined; a second later they must be found wrong."""
    whisper = SHARED / "models/whisper-base"
    if not whisper.is_dir():
        pytest.skip("no whisper-base beside this repository")
    samples, starts = persian(6)
    sound = stored(tmp_path, samples)
    ready = loading.of_folder(whisper, OPENVINO, FP32, GREEDY)
    work = Transcription(ready, sound, "fa", None, 0.0, sound.duration)
    heard = np.array([one.start for one in work.segments()])
    assert work.trust.text == BY_MODEL
    assert off(heard, starts) <= 0.5
    assert off(heard + 1, starts) > 0.5


def off(heard: np.ndarray, starts: list[float]) -> float:
    """Seconds from a sentence to the nearest start that was heard, in the median."""
    return float(np.median([np.abs(heard - start).min() for start in starts]))
