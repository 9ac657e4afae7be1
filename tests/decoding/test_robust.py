"""Nothing is invented: loops are bounded, no speech is no text; a row hangs on no other row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from asr.decoding import loading, recognizer, robust
from asr.decoding.options import DEFAULT, Options
from asr.decoding.recognizer import Recognizer
from asr.decoding.search import Hypothesis
from asr.decoding.vocabulary import Vocabulary
from support import model

START, LANGUAGE, NO_SPEECH, END = 12, 13, 14, 11  # 0 to 10 are words
PROMPT = [START, LANGUAGE]
LIMIT = 60
VOCABULARY = Vocabulary(
    start=START,
    end=END,
    languages={"en": LANGUAGE},
    tasks={},
    no_timestamps=15,
    size=16,
    no_speech=NO_SPEECH,
    previous=None,
    suppressed=(),
    suppressed_first=(END,),
    language="en",
    task=None,
    predicts_timestamps=False,
    max_initial_timestamp=50,
    max_positions=100,
    window_seconds=2,
    num_mel_bins=80,
    alignment_heads=(),
)
SEEDS, SOUNDS = range(3), range(5)


class Says:
    """An engine whose every step scores the tokens alike, but for the step of the start token."""

    def __init__(self, behind_start: dict[int, float], then: dict[int, float]):
        self.behind_start, self.then = shares(behind_start), shares(then)
        self.decodings = 0

    def decoder(self, rows: Sequence[int]) -> Says:
        self.decodings += 1
        self.rows = len(rows)
        return self

    def select(self, rows: Sequence[int]) -> None:
        self.rows = len(rows)

    def step(self, tokens: np.ndarray) -> np.ndarray:
        said = self.behind_start if tokens[0, -1] == START else self.then
        return np.repeat(said[None], self.rows, 0)


def shares(of_tokens: dict[int, float]) -> np.ndarray:
    """(V,) scores, by the likelihood of some tokens; the rest is shared by the others."""
    rest = (1 - sum(of_tokens.values())) / (VOCABULARY.size - len(of_tokens))
    likelihoods = [of_tokens.get(token, rest) for token in range(VOCABULARY.size)]
    return np.log(np.array(likelihoods, np.float32) + 1e-30)


def heard(said: Says, vocabulary: Vocabulary = VOCABULARY) -> Hypothesis:
    prompt = [*PROMPT, vocabulary.no_timestamps]
    sound = np.zeros((1, 80, 200), np.float32)
    return robust.decode(said, [prompt], [LIMIT], sound, vocabulary)[0]


SPEECH, NOTHING = {LANGUAGE: 0.9, NO_SPEECH: 0.05}, {LANGUAGE: 0.35, NO_SPEECH: 0.6}
UNSURE, SURE = {3: 0.2, 5: 0.2, 6: 0.2, END: 0.25}, {3: 0.4, END: 0.55}


def test_what_is_only_unlikely_is_decoded_once():
    said = Says(SPEECH, UNSURE)
    assert heard(said).mean_log_probability < robust.LEAST_MEAN_LOG_PROBABILITY
    assert said.decodings == 1


def test_a_loop_is_drawn_anew_until_it_is_none():
    said = Says(SPEECH, {3: 0.6, END: 0.15})
    hypothesis = heard(said)
    assert said.decodings > 1
    assert hypothesis.temperature > 0
    assert not hypothesis.looped


def test_a_loop_at_every_temperature_is_said_once():
    said = Says(SPEECH, {3: 0.9999})
    hypothesis = heard(said)
    assert said.decodings == len(robust.TEMPERATURES)
    assert hypothesis.looped
    assert hypothesis.ids == (3,)


def test_a_row_that_looped_is_as_likely_as_all_that_it_said():
    hypothesis = heard(Says(SPEECH, {3: 0.9}))
    assert hypothesis.mean_log_probability == pytest.approx(np.log(0.9), abs=0.02)


@pytest.mark.parametrize(
    ("behind_start", "then", "is_dropped"),
    [
        (NOTHING, UNSURE, True),
        (NOTHING, SURE, False),  # the model knows what it heard
        (NOTHING, {3: 0.9999}, True),  # a loop is sure of itself
        (SPEECH, {3: 0.9999}, False),
        (SPEECH, UNSURE, False),
        ({LANGUAGE: 0.45, NO_SPEECH: 0.5}, UNSURE, False),
        ({4: 0.35, NO_SPEECH: 0.6}, UNSURE, True),
        ({4: 0.55, NO_SPEECH: 0.44}, UNSURE, False),  # was never taught to tell
    ],
)
def test_no_speech_is_what_the_model_says_and_half_believes(
    behind_start: dict[int, float], then: dict[int, float], is_dropped: bool
) -> None:
    assert (heard(Says(behind_start, then)).ids == ()) == is_dropped


def test_a_model_from_scratch_drops_no_sound_as_no_speech():
    for seed in SEEDS:
        start = model.scratch(seed)
        hears = loading.of_start(start, "openvino", "fp32", recognizer.ROBUST)
        knows_none = replace(hears, vocabulary=replace(hears.vocabulary, no_speech=None))
        assert ids(hears, SOUNDS) == ids(knows_none, SOUNDS)


def ids(
    hears: Recognizer, sounds: Sequence[int], options: Options = DEFAULT
) -> list[tuple[int, ...]]:
    """The tokens of some sounds, decoded together."""
    clips = [model.clip(2.0, sound) for sound in sounds]
    prompt = hears.vocabulary.prompt(None, None, timestamps=False)
    found = hears.hypotheses(clips, [2.0] * len(clips), [prompt] * len(clips), 40, options)
    return [one.ids for one in found]


@pytest.mark.parametrize("temperature", [None, 0.2, 0.6])
def test_a_row_says_the_same_alone_in_another_order_and_in_another_batch(
    temperature: float | None,
) -> None:
    options = Options(temperature=temperature)
    for seed in SEEDS:
        hears = loading.of_start(model.scratch(seed), "openvino", "fp32", recognizer.ROBUST)
        together = ids(hears, SOUNDS, options)
        assert [ids(hears, [sound], options)[0] for sound in SOUNDS] == together
        assert ids(hears, SOUNDS[::-1], options)[::-1] == together
        assert ids(hears, SOUNDS[1:4], options) == together[1:4]


def test_draws_that_follow_the_place_in_the_batch_are_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = iter(range(10_000))
    monkeypatch.setattr(robust, "_seed", lambda *_: next(place))
    with pytest.raises(AssertionError):
        test_a_row_says_the_same_alone_in_another_order_and_in_another_batch(0.6)


def of_words(texts: Sequence[str]) -> list[int]:
    """A number for each word, as most Whispers have a token."""
    words = " ".join(texts).split()
    return [sorted(set(words)).index(word) for word in words]


DIGITS = [str(number) for number in np.random.default_rng(1).integers(0, 10, 80)]
ASK = "ask not what your country can do for you ask what you can do for your country"
MENU = "press one for sales press two for service press three for the time press four to end"


@pytest.mark.parametrize(
    "text", [*[" ".join(DIGITS[:count]) for count in (5, 20, 80)], ASK, MENU, "no no no no", ""]
)
def test_what_people_say_does_not_count_as_repeating(text: str) -> None:
    assert robust.compression(of_words([text])) <= robust.MOST_COMPRESSION


@pytest.mark.parametrize(
    ("phrase", "times"), [("you", 16), ("a dog", 12), (ASK, 4), (" ".join(DIGITS[:9]), 6)]
)
def test_what_goes_round_in_circles_counts_as_repeating(phrase: str, times: int) -> None:
    assert robust.compression(of_words([phrase] * times)) > robust.MOST_COMPRESSION
