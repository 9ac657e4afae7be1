"""Loops are found in any script; what people really repeat is none."""

from __future__ import annotations

import pytest

from asr.evaluation import loops
from asr.evaluation.loops import Loop

# Text, phrase, times: what models wrote, in words, letters, or within one word.
LOOPS = {
    "Persian": ("از " * 30, "از", 30),
    "digits": ("8 1 7 6 7 " * 12, "8 1 7 6 7", 12),
    "English": ("so " + "I'm going to go. " * 5, "i m going to go", 5),
    "ends within the phrase": ("thank you " * 7 + "thank", "thank you", 7),
    "after speech": ("min hund heter Bo " + "ja " * 9, "ja", 9),
    "before speech": ("och så " * 6 + "gick vi hem till oss", "och så", 6),
    "with punctuation": ("No-no, no! " * 4, "no", 12),
    "Russian": ("спасибо за просмотр " * 4, "спасибо за просмотр", 4),
    "Hindi": ("और " * 11, "और", 11),
    "Arabic": ("شكرا لكم " * 6, "شكرا لكم", 6),
    "Amharic": ("አመሰግናለሁ " * 8, "አመሰግናለሁ", 8),
    "Korean": ("감사합니다 여러분 " * 4, "감사합니다 여러분", 4),
    "Chinese": ("你好" * 10, "你好", 10),
    "Japanese": ("ご視聴ありがとうございました" * 4, "ご視聴ありがとうございました", 4),
    "Thai": ("ขอบคุณ" * 5, "ขอบคุณ", 5),
    "Burmese": ("ကျေးဇူး" * 6, "ကျေးဇူး", 6),
    "within a word": ("ha" * 40, "ha", 40),
    "within one of two words": ("rara " + "ra" * 13, "ra", 13),
    "long words": (
        "Bundesverfassungsgericht entscheidet " * 8,
        "bundesverfassungsgericht entscheidet",
        8,
    ),
    "one digit": ("1" * 60, "1", 60),
}
SPEECH = {
    "nothing": "",
    "a sentence": "the dog that saw the dog that saw the dog ran home",
    "digits read out": "one one one one two one one",
    "a telephone number": "zero seven zero zero zero zero zero zero five",
    "six times no": "no no no no no no",
    "a chorus": "we will we will rock you we will we will rock you",
    "three sentences": "stand up for your rights " * 3,
    "laughter": "hahahaha",
    "Japanese laughter": "ははははは",
    "a large number": "1,000,000,000",
    "a German word": "Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz",
    "Thai speech": "ขอบคุณมากมากที่มาวันนี้",
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_phrase_over_and_over_is_a_loop_in_any_script(name: str) -> None:
    text, phrase, times = LOOPS[name]
    assert loops.find(text) == Loop(phrase, times)


@pytest.mark.parametrize("name", SPEECH)
def test_what_people_repeat_is_no_loop(name: str) -> None:
    assert loops.find(SPEECH[name]) is None


def test_a_repetition_that_was_said_is_no_loop() -> None:
    """Hypothesis, reference, and whether the model added the loop."""
    for hypothesis, reference, is_loop in (
        ("one " * 9, "one " * 9, False),
        ("one " * 9, "One, one, " * 4, False),
        ("谢谢" * 5, "谢谢" * 5, False),
        ("ha " * 8, "ha " * 5, False),
        ("ha " * 40, "ha " * 8, True),
        ("eight one " * 6, "eight one seven", True),
        ("ja " * 9, "nej " * 9, True),
    ):
        assert (loops.find(hypothesis, reference) is not None) == is_loop, hypothesis


def test_writing_without_spaces_is_looked_through_by_letters() -> None:
    """The control is a word of Latin letters."""
    for text in ("好", "な", "ワ", "ก", "ກ", "ក", "က"):
        assert loops.find(text * 8) == Loop(text, 8)
    assert loops.find("a" * 8) is None


def test_a_text_of_ten_thousand_words_is_looked_through() -> None:
    words = [str(number) for number in range(10_000)]
    assert loops.find(" ".join(words)) is None
    assert loops.find(" ".join([*words, *["no"] * 8, *words])) == Loop("no", 8)
