"""whisper-base hears real sound: no word lost or invented, and times that subtitles can use.

    make harness NAME=hearing      # 10 minutes

It needs whisper-base and the recordings that lie in ../shared; elsewhere all is skipped. The
controls: a deaf gate, times a second late, a loop let through, a gate that takes all for speech.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from scipy.signal import resample_poly

from asr import features, wer
from asr.audio import sample_file
from asr.audio.sample_file import SampleFile
from asr.decoding import loading, long_form, recognizer, robust
from asr.decoding.long_form import Transcription
from asr.decoding.recognizer import Recognizer
from asr.decoding.segments import Segment
from asr.engines.openvino_engine import has_bf16
from asr.speech import detection
from asr.speech.detection import Stretch
from asr.whisper import SAMPLE_RATE
from support.repository import REPOSITORY

MODEL = REPOSITORY.parent / "shared/models/whisper-base"
DATA = REPOSITORY.parent / "shared/data"
pytestmark = pytest.mark.skipif(
    not (MODEL.is_dir() and DATA.is_dir()), reason="no whisper-base or recordings in ../shared"
)
SEQUENTIAL_WER = {"pauses": 0.109, "joined": 0.115}  # transformers' own way; reports/LOG.md
MINUTE = 60.0
Row = dict[str, str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hearing")


@pytest.fixture(scope="module")
def hears(folder: Path) -> Iterator[Recognizer]:
    """whisper-base, as it decodes by default."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))  # where the converted model is kept
        precision = "bf16" if has_bf16() else "fp32"
        yield loading.of_folder(MODEL, "openvino", precision, recognizer.ROBUST)


def hear(
    hears: Recognizer, sound: SampleFile, end: float | None = None, language: str = "en"
) -> list[Segment]:
    work = Transcription(hears, sound, language, None, 0.0, end or sound.duration)
    return list(work.segments())


def words(segments: Iterable[Segment]) -> str:
    return wer.normalize(" ".join(segment.text for segment in segments))


def table(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".tsv":
            return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        return list(csv.DictReader(file))


def samples(paths: Sequence[Path], folder: Path) -> list[np.ndarray]:
    """(S,) of each recording."""
    sounds = sample_file.decode_together(paths, folder)
    return [sound.read(0, sound.duration) for sound in sounds if isinstance(sound, SampleFile)]


def stored(name: str, sound: np.ndarray, folder: Path) -> SampleFile:
    path = folder / f"{name}.f32"
    sound.astype(np.float32).tofile(path)
    return SampleFile(path)


# Ten minutes in ten voices


@pytest.fixture(scope="module")
def recordings(folder: Path) -> dict[str, SampleFile]:
    return {
        name: sample_file.decode_apart(DATA / f"long-en/{name}.flac", folder / f"{name}.f32")
        for name in SEQUENTIAL_WER
    }


def said(name: str, end: float) -> list[Row]:
    """The sentences before `end`."""
    return [row for row in table(DATA / f"long-en/{name}.csv") if float(row["end"]) <= end]


def error_rate(rows: Sequence[Row], heard: str) -> float:
    counts = wer.count_words(wer.normalize(" ".join(row["text"] for row in rows)), heard)
    return counts.errors / counts.words


def error_rate_apart(hears: Recognizer, sound: SampleFile, rows: Sequence[Row]) -> float:
    """Each sentence cut out, with 0.1 s around it."""
    prompt = hears.vocabulary.prompt("en", "transcribe", timestamps=True)
    texts = []
    for first in range(0, len(rows), 8):
        spans = [
            (max(float(row["start"]) - 0.1, 0), float(row["end"]) + 0.1)
            for row in rows[first : first + 8]
        ]
        clips = [features.stored_log_mel(sound.read(*span), 80) for span in spans]
        lengths = [end - start for start, end in spans]
        found = hears.hypotheses(clips, lengths, [prompt] * len(clips), 444)
        texts += [hears.text(hypothesis.ids) for hypothesis in found]
    wanted = [wer.normalize(row["text"]) for row in rows]
    return wer.error_rates(wanted, [wer.normalize(text) for text in texts])["wer"]


def check_words(rows: Sequence[Row], segments: Sequence[Segment], most: float) -> None:
    found = error_rate(rows, words(segments))
    assert found <= most, f"WER {found:.3f}, more than {most:.3f}"


def check_times(rows: Sequence[Row], segments: Sequence[Segment], near_share: float) -> None:
    assert 3 <= median(segment.end - segment.start for segment in segments) <= 7
    starts = np.array([segment.start for segment in segments])
    away = np.array([np.abs(starts - float(row["start"])).min() for row in rows])
    assert np.median(away) <= 0.5
    assert (away <= 0.5).mean() >= near_share


def check_order(segments: Sequence[Segment], end: float) -> None:
    """One after the other, inside the sound, and none said twice."""
    assert all(0 <= segment.start < segment.end <= end for segment in segments)
    for before, after in pairwise(segments):
        assert before.start <= after.start
        assert (before.text, before.end) != (after.text, after.end)


@pytest.mark.whole
@pytest.mark.parametrize(("name", "near_share"), [("pauses", 0.8), ("joined", 0.7)])
def test_ten_minutes_are_heard_as_well_as_their_sentences_alone(
    hears: Recognizer, recordings: dict[str, SampleFile], name: str, near_share: float
) -> None:
    sound = recordings[name]
    rows, segments = said(name, sound.duration), hear(hears, sound)
    apart = error_rate_apart(hears, sound, rows)
    check_words(rows, segments, min(apart + 0.01, SEQUENTIAL_WER[name] + 0.005))
    check_times(rows, segments, near_share)
    check_order(segments, sound.duration)


@pytest.fixture(scope="module")
def most_wrong(hears: Recognizer, recordings: dict[str, SampleFile]) -> float:
    """The highest WER of the first minute."""
    sound = recordings["pauses"]
    return error_rate_apart(hears, sound, said("pauses", MINUTE)) + 0.01


def test_a_minute_is_heard_as_well_as_its_sentences_alone(
    hears: Recognizer, recordings: dict[str, SampleFile], most_wrong: float
) -> None:
    rows = said("pauses", MINUTE)
    segments = hear(hears, recordings["pauses"], float(rows[-1]["end"]) + 0.1)
    check_words(rows, segments, most_wrong)
    check_times(rows, segments, 0.7)  # of seven sentences
    check_order(segments, MINUTE)


def test_a_deaf_gate_is_noticed(
    hears: Recognizer,
    recordings: dict[str, SampleFile],
    most_wrong: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(long_form, "stretches", lambda *args: list(detection.stretches(*args))[::2])
    segments = hear(hears, recordings["pauses"], MINUTE)
    with pytest.raises(AssertionError, match="WER"):
        check_words(said("pauses", MINUTE), segments, most_wrong)


def test_cues_a_second_late_are_noticed() -> None:
    rows = said("pauses", MINUTE)
    exact = [Segment(float(row["start"]), float(row["end"]), row["text"]) for row in rows]
    check_times(rows, exact, 0.8)
    late = [replace(one, start=one.start + 1, end=one.end + 1) for one in exact]
    with pytest.raises(AssertionError):
        check_times(rows, late, 0.8)


# Sound without words


@cache
def noises() -> list[Path]:
    return sorted(path for path in (DATA / "noise").iterdir() if path.suffix in (".ogg", ".flac"))


def chords(seconds: int) -> np.ndarray:
    """A triad a second on a tone of its own, struck as on a piano."""
    draw = np.random.default_rng(1)
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    struck = [
        sum(np.sin(2 * np.pi * tone * ratio * time) for ratio in (1, 1.25, 1.5, 2))
        * np.exp(-time * draw.uniform(0, 3))
        for tone in draw.uniform(110, 440, seconds)
    ]
    return 0.1 * np.concatenate(struck)


def wordless(kind: str, seconds: int, folder: Path) -> SampleFile:
    if kind == "recorded":
        sound = np.concatenate(samples(noises(), folder))[: seconds * SAMPLE_RATE]
    elif kind == "chords":
        sound = chords(seconds)
    else:
        loudness = {"silence": 0.0, "faint": 10 ** (-72 / 20)}[kind]
        sound = np.random.default_rng(1).normal(0, 1, seconds * SAMPLE_RATE) * loudness
    return stored(kind, sound, folder)


def check_invented(segments: Sequence[Segment], seconds: float) -> None:
    count = len(words(segments).split())
    assert count <= seconds / 60, f"{count} words in {seconds:.0f} s"


KINDS = ("silence", "faint", "chords", "recorded")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_heard_where_nobody_speaks(hears: Recognizer, folder: Path, kind: str) -> None:
    sound = wordless(kind, 60, folder)
    check_invented(hear(hears, sound), sound.duration)


@pytest.mark.whole
@pytest.mark.parametrize("kind", KINDS)
def test_ten_minutes_of_nobody_are_empty(hears: Recognizer, folder: Path, kind: str) -> None:
    sound = wordless(kind, 600, folder)
    check_invented(hear(hears, sound), sound.duration)


@pytest.mark.whole
def test_nothing_is_heard_in_clips_of_noise(hears: Recognizer, folder: Path) -> None:
    sounds = [stored("noise", sound, folder) for sound in samples(noises(), folder)]
    segments = [segment for sound in sounds for segment in hear(hears, sound)]
    check_invented(segments, sum(sound.duration for sound in sounds))


def all_is_speech(blocks: Iterable[np.ndarray], start: float = 0.0) -> Iterator[Stretch]:
    """A gate that lets everything through."""
    yield Stretch(start, start + sum(map(len, blocks)) / SAMPLE_RATE)


def test_words_that_nobody_said_are_noticed(
    hears: Recognizer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_form, "stretches", all_is_speech)
    sound = wordless("recorded", 60, folder)
    segments = hear(replace(hears, method=recognizer.GREEDY), sound)
    with pytest.raises(AssertionError, match="words in 60 s"):
        check_invented(segments, sound.duration)


# Speech that is hard to hear


def with_noise(speech: np.ndarray, noise: np.ndarray, decibels: float) -> np.ndarray:
    power = np.square(speech).mean() / np.square(noise).mean() / 10 ** (decibels / 10)
    mixed: np.ndarray = speech + noise * np.sqrt(power)
    return mixed


def babble(speech: np.ndarray) -> np.ndarray:
    """Six others who speak at once: the same speech from other moments."""
    draw = np.random.default_rng(1)
    others: np.ndarray = np.sum([np.roll(speech, draw.integers(len(speech))) for _ in range(6)], 0)
    return others


HARD = {
    "quiet": lambda speech: speech * 10 ** (-30 / 20),
    "white noise": lambda speech: with_noise(
        speech, np.random.default_rng(1).normal(0, 1, len(speech)), 5
    ),
    "babble": lambda speech: with_noise(speech, babble(speech), 5),
    "telephone": lambda speech: resample_poly(resample_poly(speech, 1, 2), 2, 1),
}


GUESSED = ("white noise",)  # every third word is a wrong one, and some are nobody's


def check_not_lost(heard: wer.Counts, greedy: wer.Counts, how: str) -> None:
    """At most a point of the words; where greedy decoding guesses, only right words count."""
    point = 0.01 * heard.words
    assert heard.hits >= greedy.hits - point, f"{heard}, {greedy}"
    if how not in GUESSED:
        assert heard.deletions <= greedy.deletions + point, f"{heard}, {greedy}"


@pytest.mark.whole
@pytest.mark.parametrize("how", HARD)
def test_no_more_words_are_lost_than_greedily_without_the_gate(
    hears: Recognizer,
    recordings: dict[str, SampleFile],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    speech = recordings["joined"].read(0, 180)
    sound, rows = stored("hard", HARD[how](speech), folder), said("joined", 180)
    reference = wer.normalize(" ".join(row["text"] for row in rows))
    heard = wer.count_words(reference, words(hear(hears, sound)))
    monkeypatch.setattr(long_form, "stretches", all_is_speech)
    greedy = words(hear(replace(hears, method=recognizer.GREEDY), sound))
    check_not_lost(heard, wer.count_words(reference, greedy), how)


def test_words_lost_are_noticed() -> None:
    greedy = wer.Counts(hits=80, substitutions=15, deletions=5, insertions=9)
    check_not_lost(replace(greedy, hits=79, deletions=6), greedy, "quiet")
    for how in HARD:
        with pytest.raises(AssertionError):
            check_not_lost(replace(greedy, hits=78, deletions=7), greedy, how)
    with pytest.raises(AssertionError):
        check_not_lost(replace(greedy, substitutions=13, deletions=7), greedy, "quiet")


# Loops


def check_bounded(rows: Sequence[str], heard: Sequence[str]) -> None:
    """No row says far more than was said."""
    for wanted, found in zip(rows, heard, strict=True):
        assert len(found) <= 3 * len(wanted) + 30, f"{len(found)} letters for {len(wanted)}"


def hear_rows(hears: Recognizer, clips: Sequence[np.ndarray], language: str) -> list[str]:
    prompt = hears.vocabulary.prompt(language, "transcribe", timestamps=False)
    mels = [features.stored_log_mel(clip, 80) for clip in clips]
    lengths = [len(clip) / SAMPLE_RATE for clip in clips]
    found = hears.hypotheses(mels, lengths, [prompt] * len(clips), 444)
    return [hears.text(hypothesis.ids) for hypothesis in found]


@pytest.fixture(scope="module")
def looping(folder: Path) -> tuple[list[str], list[np.ndarray]]:
    """Persian of which whisper-base makes loops."""
    rows = [table(DATA / "common-voice-fa/test.tsv")[place] for place in LOOPING]
    paths = [DATA / "common-voice-fa/clips" / row["path"] for row in rows]
    return [row["sentence"] for row in rows], samples(paths, folder)


LOOPING = (258, 280)


def test_loops_are_bounded(hears: Recognizer, looping: tuple[list[str], list[np.ndarray]]) -> None:
    sentences, clips = looping
    check_bounded(sentences, hear_rows(hears, clips, "fa"))


def test_a_loop_let_through_is_noticed(
    hears: Recognizer, looping: tuple[list[str], list[np.ndarray]]
) -> None:
    sentences, clips = looping
    heard = hear_rows(replace(hears, method=recognizer.GREEDY), clips, "fa")
    with pytest.raises(AssertionError, match="letters for"):
        check_bounded(sentences, heard)


@pytest.mark.whole
@pytest.mark.parametrize("name", ["read-de", "common-voice-fa"])
def test_another_language_than_asked_for_makes_no_loops(
    hears: Recognizer, folder: Path, name: str
) -> None:
    paths = sorted(path for path in (DATA / name).rglob("*") if path.suffix in (".flac", ".mp3"))
    sound = stored("foreign", np.concatenate(samples(paths[:40], folder)), folder)
    for segment in hear(hears, sound):
        ids = hears.tokenizer.encode(segment.text, add_special_tokens=False).ids
        assert robust.compression(ids) <= robust.MOST_COMPRESSION, segment
        assert len(segment.text) <= 30 * (segment.end - segment.start) + 30, segment


REFERENCES = {
    "common-voice-fa/train.tsv": "sentence",
    "digits-en/train.tsv": "sentence",
    "prompts-it/metadata.csv": "transcription",
    "prompts-ru/metadata.csv": "transcription",
    "read-de/metadata.csv": "transcription",
    "long-en/joined.csv": "text",
}


@pytest.mark.parametrize("name", REFERENCES)
def test_no_reference_counts_as_repeating(hears: Recognizer, name: str) -> None:
    texts = [row[REFERENCES[name]] for row in table(DATA / name)]
    windows = texts + [
        " ".join(texts[first : first + 10]) for first in range(0, len(texts), 10)
    ] * name.startswith(("common", "digits"))  # short ones also as many as a window may hold
    for text in windows:
        ids = hears.tokenizer.encode(f" {text}", add_special_tokens=False).ids
        assert robust.compression(ids) <= robust.MOST_COMPRESSION, text
