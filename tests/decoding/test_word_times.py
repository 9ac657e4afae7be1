"""Times of words with a real Whisper, beside those that faster-whisper gives for its weights."""

from __future__ import annotations

from dataclasses import replace
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from asr.audio.sample_file import SampleFile, decode_apart
from asr.decoding import loading
from asr.decoding.long_form import Transcription
from asr.decoding.options import Options
from asr.decoding.segments import Segment, Word
from asr.engines.engine import FP32, OPENVINO
from support.repository import REPOSITORY

SHARED = REPOSITORY.parent / "shared"
MODEL = SHARED / "models" / "whisper-base"
RECORDING = SHARED / "data" / "long-en" / "joined.flac"
SECONDS = 25.6  # four voices
# faster-whisper 1.2, float32, greedy: when each word begins. Measured once.
REFERENCE = """
0.00 When 0.26 church 0.72 yards 1.16 young, 2.30 Sherbin 2.86 run 3.10 his 3.38 eyes 3.66 slow
4.12 along 4.48 the 4.64 crowd, 5.56 and 5.78 wherever 6.18 it 6.50 struck 6.84 the 7.16 people
7.50 tried 7.86 a 8.04 little 8.32 to 8.48 outgaze 9.06 them, 9.74 but 9.90 they 10.10 couldn't.
11.14 They 11.38 dropped 11.62 their 11.88 eyes 12.18 and 12.44 looked 12.62 sneaky. 13.92 He
14.10 should 14.26 make 14.50 inquiries 15.16 as 15.50 to 15.62 symptoms, 16.72 and 16.80 time
17.12 at 17.28 which 17.40 food 17.72 a 17.92 medicine 18.18 was 18.46 last 18.70 taken. 19.74
But 19.88 she 20.08 said, 21.68 whomesoever 22.32 thou 22.64 ceased 23.16 awake, 24.28 he 24.48
is 24.76 the 24.90 reciter.
""".split()
MOST_APART = 0.15  # seconds, in the median


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> SampleFile:
    if not (MODEL.is_dir() and RECORDING.is_file()):
        pytest.skip("no whisper-base or no long-en beside this repository")
    return decode_apart(RECORDING, Path(tmp_path_factory.mktemp("sound")) / "samples.f32")


@pytest.fixture(scope="module")
def segments(sound: SampleFile, tmp_path_factory: pytest.TempPathFactory) -> list[Segment]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(tmp_path_factory.mktemp("converted")))
        ready = loading.of_folder(MODEL, OPENVINO, FP32, "robust")
    options = Options(word_timestamps=True)
    return list(Transcription(ready, sound, "en", "transcribe", 0.0, SECONDS, options).segments())


def apart(words: list[Word]) -> np.ndarray:
    """How far each word that both heard begins from faster-whisper's, in seconds."""
    theirs = REFERENCE[1::2]
    ours = [word.text.strip() for word in words]
    found = []
    for match in SequenceMatcher(None, theirs, ours, autojunk=False).get_matching_blocks():
        for place in range(match.size):
            begin = float(REFERENCE[2 * (match.a + place)])
            found.append(abs(words[match.b + place].start - begin))
    assert len(found) > 40
    return np.array(found)


def test_words_begin_where_faster_whisper_hears_them(segments):
    words = [word for segment in segments for word in segment.words]
    assert np.median(apart(words)) <= MOST_APART
    assert (apart(words) <= 0.5).mean() >= 0.95
    late = [replace(word, start=word.start + 1) for word in words]
    assert np.median(apart(late)) > MOST_APART  # the control


def test_words_lie_in_their_segment_and_joined_are_its_text(segments):
    for segment in segments:
        assert "".join(word.text for word in segment.words).strip() == segment.text
        assert segment.start <= segment.words[0].start
        assert segment.words[-1].end <= segment.end
        assert all(word.start <= word.end for word in segment.words)
        assert all(one.end <= after.start for one, after in pairwise(segment.words))
