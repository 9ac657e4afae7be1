"""The language of a recording: heard at several places, doubted where it was set, followed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from asr.audio import codec, sample_file
from asr.audio.sample_file import SampleFile
from asr.decoding import language, loading
from asr.decoding.language import Spoken, detect, mismatch
from asr.decoding.recognizer import GREEDY, Recognizer
from asr.decoding.vocabulary import Vocabulary
from asr.engines.engine import FP32, OPENVINO
from asr.errors import ModelError
from asr.sources import synthetic
from asr.whisper import SAMPLE_RATE
from support.repository import REPOSITORY
from support.samples import stored

SHARED = REPOSITORY.parent / "shared"
WINDOW = 2  # seconds
CODES = ("en", "fa", "sv")
ENGLISH, PERSIAN, SWEDISH = np.eye(3) * 0.94 + 0.02
HALF_PERSIAN = np.array([0.25, 0.5, 0.25])


class Planned:
    """An engine and all it encodes, which hears a language after the other; they are counted."""

    name, precision = OPENVINO, FP32

    def __init__(self, plan: Sequence[np.ndarray]):
        self.plan = list(plan)
        self.heard = 0
        self.windows = 0

    def encode(self, features: np.ndarray) -> Planned:
        self.windows = len(features)
        return self

    def __len__(self) -> int:
        return self.windows

    def decoder(self, rows: Sequence[int]) -> Planned:
        assert list(rows) == list(range(self.windows))
        return self

    def step(self, tokens: np.ndarray) -> np.ndarray:
        scores = np.zeros((len(tokens), 10))
        first, self.heard = self.heard, self.heard + len(tokens)
        scores[:, 1:4] = np.log(self.plan[first : self.heard])
        return scores

    def select(self, rows: Sequence[int]) -> None: ...


def recognizer(engine: Planned, codes: Sequence[str] = CODES) -> Recognizer:
    tokens = {code: place for place, code in enumerate(codes, start=1)}
    vocabulary = Vocabulary(
        start=0,
        end=9,
        languages=tokens,
        tasks={},
        no_timestamps=8,
        size=10,
        no_speech=None,
        previous=None,
        suppressed=(),
        suppressed_first=(),
        language=None,
        task=None,
        predicts_timestamps=False,
        max_initial_timestamp=50,
        max_positions=40,
        window_seconds=WINDOW,
        num_mel_bins=80,
        alignment_heads=(),
    )
    return Recognizer(engine, vocabulary, Tokenizer(models.BPE()), GREEDY)


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    """(S,) a window of speech."""
    text = "the quick brown fox jumps over the lazy dog again"
    spoken = codec.decode(synthetic.speak(text, "en+m3", 170, 50)).reshape(-1)
    return spoken[: WINDOW * SAMPLE_RATE]


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


@pytest.mark.parametrize(
    ("plan", "best", "count"),
    [
        pytest.param([PERSIAN] * 4, "fa", 2, id="two sure places are enough"),
        pytest.param([ENGLISH, PERSIAN, PERSIAN, PERSIAN], "fa", 4, id="an odd first one"),
        pytest.param([HALF_PERSIAN] * 4, "fa", 4, id="four that are not sure"),
        pytest.param([SWEDISH, ENGLISH, SWEDISH, SWEDISH], "sv", 4, id="an odd later one"),
    ],
)
def test_a_recording_is_heard_at_several_places(
    tmp_path: Path, voice: np.ndarray, plan: list[np.ndarray], best: str, count: int
) -> None:
    sound = stored(tmp_path, np.tile(voice, 6))
    engine = Planned(plan)
    likeliest = detect(recognizer(engine), sound, 0.0, sound.duration)
    assert (likeliest[0][0], engine.heard) == (best, count)
    assert sum(share for _, share in likeliest) == pytest.approx(1)
    shares = [share for _, share in likeliest]
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize(
    ("windows", "count"),
    [(0.5, 1), (1.2, 1), (2, 2), (3, 3), (4, 4), (9, 4)],
)
def test_no_more_places_are_heard_than_the_sound_fills(
    tmp_path: Path, voice: np.ndarray, windows: float, count: int
) -> None:
    samples = np.tile(voice, 9)[: round(windows * len(voice))]
    sound = stored(tmp_path, samples)
    engine = Planned([HALF_PERSIAN] * 4)
    detect(recognizer(engine), sound, 0.0, sound.duration)
    assert engine.heard == count


def test_two_languages_share_a_recording_as_they_share_its_speech(
    tmp_path: Path, voice: np.ndarray
) -> None:
    sound = stored(tmp_path, np.tile(voice, 4))
    engine = Planned([ENGLISH, PERSIAN, ENGLISH, PERSIAN])
    (_, first), (_, second), _ = detect(recognizer(engine), sound, 0.0, sound.duration)
    assert first == pytest.approx(second, abs=0.05)
    assert first == pytest.approx(0.49, abs=0.03)


def test_speech_is_looked_for_behind_silence_and_heard_without_it(
    tmp_path: Path, voice: np.ndarray
) -> None:
    sound = stored(tmp_path, np.concatenate([silence(60), voice, silence(60), voice]))
    parts = language._speech(sound, 0.0, sound.duration, 10.0)
    assert len(parts) / SAMPLE_RATE == pytest.approx(2 * WINDOW, abs=0.5)
    assert np.square(parts).mean() > 0.8 * np.square(voice).mean()


def test_silence_alone_is_heard_once(tmp_path: Path) -> None:
    engine = Planned([HALF_PERSIAN] * 4)
    assert detect(recognizer(engine), stored(tmp_path, silence(20)), 0.0, 20.0)[0][0] == "fa"
    assert engine.heard == 1


def test_hours_are_not_read(
    tmp_path: Path, voice: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three hours of it, of which four windows are wanted."""
    path = tmp_path / "hours.f32"
    voice.tofile(path)
    with path.open("r+b") as file:
        file.truncate(3 * 3600 * SAMPLE_RATE * sample_file.SAMPLE_BYTES)  # takes no disk
    seconds = []
    read = SampleFile.read

    def counted(self: SampleFile, start: float, end: float) -> np.ndarray:
        seconds.append(end - start)
        return read(self, start, end)

    monkeypatch.setattr(SampleFile, "read", counted)
    monkeypatch.setattr(language, "SEARCH_SECONDS", 30.0)
    sound = SampleFile(path)
    detect(recognizer(Planned([HALF_PERSIAN] * 4)), sound, 0.0, sound.duration)
    assert sum(seconds) <= language.PLACES * (language.SEARCH_SECONDS + WINDOW + 1)


def test_a_model_of_english_alone_detects_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="English only"):
        detect(recognizer(Planned([]), codes=()), stored(tmp_path, silence(1)), 0.0, 1.0)


@pytest.mark.parametrize(
    ("likeliest", "wanted", "told"),
    [
        ([("sv", 0.97), ("fa", 0.025), ("en", 0.005)], "en", True),
        ([("sv", 0.85), ("fa", 0.149), ("en", 0.001)], "en", True),
        ([("sv", 0.97), ("en", 0.02), ("fa", 0.01)], "en", False),  # not clearly absent
        ([("sv", 0.6), ("fa", 0.395), ("en", 0.005)], "en", False),  # no clear language
        ([("en", 0.99), ("sv", 0.005), ("fa", 0.005)], "en", False),
        ([("sv", 0.99), ("fa", 0.01)], "yue", False),  # a language that the model does not know
    ],
)
def test_a_language_that_the_sound_does_not_have_is_told(
    likeliest: list[tuple[str, float]], wanted: str, told: bool
) -> None:
    text = mismatch(likeliest, wanted)
    assert (text is not None) == told
    if text is not None:
        assert "Swedish" in text
        assert "English" in text


SURE = 0.98


def leaning(code: str, share: float) -> np.ndarray:
    """(L,) probabilities of which a language has this share."""
    rest = (1 - share) / (len(CODES) - 1)
    return np.array([share if one == code else rest for one in CODES])


@pytest.mark.parametrize(
    ("pieces", "codes"),
    [
        pytest.param([("en", SURE, 20)] * 2 + [("sv", SURE, 20)] * 2, "en en sv sv", id="change"),
        pytest.param(
            [("en", SURE, 20), ("sv", 0.7, 20), ("en", SURE, 20)], "en en en", id="odd piece"
        ),
        pytest.param(
            [("en", SURE, 20), ("sv", SURE, 1), ("en", SURE, 20)], "en en en", id="short word"
        ),
        pytest.param(
            [("en", SURE, 20)] + [("sv", 0.8, 9)] * 3, "en sv sv sv", id="several that lean"
        ),
        pytest.param([("sv", 0.5, 9), ("sv", SURE, 9)], "sv sv", id="from the first"),
    ],
)
def test_a_language_is_followed_but_one_odd_piece_changes_nothing(
    pieces: list[tuple[str, float, float]], codes: str
) -> None:
    start = [(code, 1 / len(CODES)) for code in CODES]
    spoken = Spoken(recognizer(Planned([])), start)
    heard = np.array([leaning(code, share) for code, share, _ in pieces])
    assert spoken.after(heard, [seconds for _, _, seconds in pieces]) == codes.split()


def test_a_language_goes_on_from_batch_to_batch() -> None:
    spoken = Spoken(recognizer(Planned([])), [(code, 1 / len(CODES)) for code in CODES])
    assert spoken.after(np.array([leaning("sv", SURE)]), [20.0]) == ["sv"]
    assert spoken.after(np.array([leaning("en", 0.6)]), [20.0]) == ["sv"]
    assert spoken.after(np.array([leaning("en", SURE)] * 2), [20.0] * 2) == ["en"] * 2


def test_a_real_whisper_hears_persian_and_doubts_english(tmp_path: Path) -> None:
    """In a minute of it; whisper-base is not sure in less."""
    whisper, data = SHARED / "models/whisper-base", SHARED / "data"
    if not whisper.is_dir():
        pytest.skip("no whisper-base beside this repository")
    clips = sorted((data / "common-voice-fa/clips").glob("*.mp3"))[:16]
    persian = np.concatenate([codec.decode(clip.read_bytes()).reshape(-1) for clip in clips])
    sound = stored(tmp_path, persian)
    ready = loading.of_folder(whisper, OPENVINO, FP32, GREEDY)
    likeliest = detect(ready, sound, 0.0, sound.duration)
    assert likeliest[0][0] == "fa"
    assert mismatch(likeliest, "fa") is None
    assert mismatch(likeliest, "en") is not None
