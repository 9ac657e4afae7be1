"""Texts before a recording and from piece to piece, one temperature, and times that are a guess."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asr.audio.sample_file import SampleFile
from asr.decoding import loading, long_form
from asr.decoding.long_form import Transcription
from asr.decoding.options import Options
from asr.decoding.recognizer import Recognizer
from asr.decoding.search import Hypothesis
from asr.engines.engine import FP32, OPENVINO
from asr.errors import ModelError
from asr.speech.detection import Stretch
from support.model import clip, noise, scratch

# Of a sound of 12 s for a model whose window is 2 s; a piece each.
SPOKEN = [Stretch(start, start + 1.5) for start in (0.25, 3.25, 6.25, 9.25)]
GLOSSARY = "ett hundra ett"


@pytest.fixture(scope="module")
def ready() -> Recognizer:
    return loading.of_start(scratch(), OPENVINO, FP32, "robust")


@pytest.fixture
def sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SampleFile:
    noise(12).tofile(tmp_path / "samples.f32")
    monkeypatch.setattr(long_form, "stretches", lambda *_: iter(SPOKEN))
    return SampleFile(tmp_path / "samples.f32")


def transcription(ready: Recognizer, sound: SampleFile, options: Options) -> Transcription:
    return Transcription(ready, sound, None, None, 0.0, 12.0, options)


def told(
    ready: Recognizer,
    sound: SampleFile,
    options: Options,
    timestamps: bool = True,
    temperature: float = 0.0,
    words: int = 2,
) -> list[list[list[int]]]:
    """The prompts of each batch, where every piece is heard as the same text."""
    vocabulary = ready.vocabulary
    first = vocabulary.first_timestamp
    text = ready.tokenizer.encode("t", add_special_tokens=False).ids * words
    ids = (first, *text, first + 80) if timestamps else tuple(text)
    batches: list[list[list[int]]] = []

    class Noting(Recognizer):
        def hypotheses(self, clips: Any, _durations: Any, prompts: Any, *_: Any) -> Any:
            batches.append([list(prompt) for prompt in prompts])
            return [Hypothesis(ids, -0.1, 0.0, False, temperature)] * len(clips)

    known = vocabulary if timestamps else replace(vocabulary, suppressed=(first,))
    noting = Noting(ready.engine, known, ready.tokenizer, ready.method)
    prompt = vocabulary.prompt(None, None, timestamps)
    list(transcription(noting, sound, options).segments())
    assert all(each[-len(prompt) :] == prompt for batch in batches for each in batch)
    return [[each[: -len(prompt)] for each in batch] for batch in batches]


def test_pieces_are_decoded_side_by_side_with_nothing_before_them(ready, sound):
    """The control."""
    assert told(ready, sound, Options()) == [[[]], [[], [], []]]


@pytest.mark.parametrize("timestamps", [True, False])
def test_an_initial_prompt_comes_before_every_piece(ready, sound, timestamps):
    vocabulary = ready.vocabulary
    text = ready.previous(GLOSSARY)
    assert ready.tokenizer.decode(text).strip() == GLOSSARY
    first = vocabulary.first_timestamp
    before = [first, *text, first + 100] if timestamps else text
    found = told(ready, sound, Options(initial_prompt=GLOSSARY), timestamps)
    assert len(found) > 1
    assert all(each == [vocabulary.previous, *before] for batch in found for each in batch)


def test_each_piece_has_the_text_before_it_on_demand(ready, sound):
    options = Options(condition_on_previous_text=True, initial_prompt=GLOSSARY)
    found = told(ready, sound, options)
    assert [len(batch) for batch in found] == [1, 1, 1, 1]
    lengths = [len(batch[0]) for batch in found]
    assert np.diff(lengths).tolist() == [4, 4, 4]
    assert found[1][0][: lengths[0]] == found[0][0]


def test_a_text_drawn_at_random_does_not_come_before_the_next_piece(ready, sound):
    options = Options(condition_on_previous_text=True, initial_prompt=GLOSSARY)
    assert [batch[0] for batch in told(ready, sound, options, temperature=0.6)][1:] == [[]] * 3


@pytest.mark.parametrize("words", [20, 60])
@pytest.mark.parametrize("given", ["", "ett " * 200])
def test_a_text_before_never_takes_more_than_half_of_what_fits(ready, sound, words, given):
    options = Options(condition_on_previous_text=True, initial_prompt=given)
    half = ready.vocabulary.max_positions // 2
    found = told(ready, sound, options, words=words)
    assert max(len(batch[0]) for batch in found) == half
    assert found[-1][0][-1] == ready.vocabulary.first_timestamp + 80  # the latest is kept


def test_blank_text_before_is_none(ready, sound):
    assert told(ready, sound, Options(initial_prompt=" \n")) == told(ready, sound, Options())


def test_special_tokens_in_a_text_before_are_left_out(ready):
    for text in ("<|endoftext|> ett", "<|sv|><|0.00|>ett", "<|startofprev|>"):
        assert all(token < ready.vocabulary.end for token in ready.previous(text))


def test_a_model_without_a_token_for_text_before_says_so(ready, sound):
    without = replace(ready, vocabulary=replace(ready.vocabulary, previous=None))
    with pytest.raises(ModelError, match="takes no text before"):
        Transcription(without, sound, None, None, 0.0, 12.0, Options(initial_prompt=GLOSSARY))
    conditioned = Options(condition_on_previous_text=True)
    assert [batch[0] for batch in told(without, sound, conditioned)] == [[]] * 4


@pytest.mark.parametrize("method", ["greedy", "robust"])
def test_one_temperature_is_the_only_one_and_its_draws_depend_on_the_sound_alone(ready, method):
    decoder = replace(ready, method=method)
    clips = [clip(1.5, seed) for seed in range(3)]
    prompt = ready.vocabulary.prompt(None, None, False)

    def drawn(rows: list[int], temperature: float) -> list[Hypothesis]:
        asked = [clips[row] for row in rows]
        options = Options(temperature=temperature)
        return decoder.hypotheses(asked, [1.5] * len(rows), [prompt] * len(rows), 20, options)

    assert {each.temperature for each in drawn([0, 1, 2], 0.7)} == {0.7}
    assert [each.ids for each in drawn([0, 1, 2], 0.7)] == [
        drawn([row], 0.7)[0].ids for row in range(3)
    ]
    assert drawn([0], 0.7)[0].ids != drawn([0], 0.0)[0].ids


def test_words_of_a_model_that_tells_no_heads_are_a_guess(ready, sound):
    known = replace(ready, vocabulary=replace(ready.vocabulary, alignment_heads=((0, 1),)))
    for recognizer, is_guess in ((ready, True), (known, False)):
        work = transcription(recognizer, sound, Options(word_timestamps=True))
        assert work.guesses_words is is_guess
        segments = list(work.segments())
        assert segments
        assert {segment.words_are_guessed for segment in segments} == {is_guess}
        assert all(segment.words for segment in segments)
    assert not transcription(ready, sound, Options()).guesses_words


def test_asking_for_words_changes_neither_text_nor_segments(ready, sound):
    timed, plain = (
        list(transcription(ready, sound, Options(word_timestamps=one)).segments())
        for one in (True, False)
    )
    assert [replace(each, words=(), words_are_guessed=False) for each in timed] == plain
    assert timed != plain  # the control
