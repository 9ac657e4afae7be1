"""Times of tokens and words: the cheapest way, the splitting of texts, and a real Whisper."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from asr.decoding import words
from asr.speech.detection import Stretch

COSTS = arrays.arrays(
    np.float64,
    st.tuples(st.integers(1, 8), st.integers(1, 12)),
    elements=st.integers(-20, 20).map(float),
)


def textbook(costs: np.ndarray) -> float:
    """The cost of the cheapest way from corner to corner, cell by cell."""
    total = np.full(costs.shape, np.inf)
    for row, column in np.ndindex(*costs.shape):
        before = [
            total[row - up, column - left]
            for up, left in ((1, 1), (1, 0), (0, 1))
            if row >= up and column >= left
        ]
        total[row, column] = costs[row, column] + min(before, default=0.0)
    return float(total[-1, -1])


def cost_of(costs: np.ndarray, begins: np.ndarray) -> float:
    """The cost of the way whose rows begin at these columns, each row as short as it can be."""
    last = costs.shape[1] - 1
    ends = [*begins[1:], last]
    total = 0.0
    for row, (begin, after) in enumerate(zip(begins, ends, strict=True)):
        whole, short = costs[row, begin : after + 1].sum(), costs[row, begin:after].sum()
        is_last = row == len(costs) - 1 or after == begin
        total += whole if is_last else min(whole, short)
    return float(total)


@given(COSTS)
def test_the_way_through_costs_what_the_textbooks_way_costs(costs):
    begins = words.begins(costs)
    assert begins[0] == 0
    assert all(one <= after for one, after in pairwise(begins))
    assert cost_of(costs, begins) == textbook(costs)


@given(COSTS)
def test_another_way_costs_no_less(costs):
    """The control: a way with one row moved is never cheaper."""
    begins = words.begins(costs)
    for row in range(1, len(begins)):
        moved = begins.copy()
        moved[row] = min(moved[row] + 1, costs.shape[1] - 1)
        if all(one <= after for one, after in pairwise(moved)):
            assert cost_of(costs, moved) >= cost_of(costs, begins)


def test_tokens_begin_where_attention_moves_on():
    costs = np.ones((3, 9))
    costs[0, :2] = costs[1, 2:7] = costs[2, 7:] = -1
    assert words.begins(costs).tolist() == [0, 2, 7]


SPEECH = [Stretch(0.0, 1000.0)]


def as_tokens(text: str, lengths: Sequence[int]) -> tuple[list[int], dict[int, bytes]]:
    """A text in tokens of some bytes; one that begins inside a character ends with it at latest."""
    raw = text.encode()
    whole = np.cumsum([0, *(len(character.encode()) for character in text)])
    cuts = [0]
    for length in [*lengths, *[len(raw)] * len(text)]:
        last = cuts[-1]
        limit = len(raw) if last in whole else int(whole[whole > last].min())
        cuts.append(min(last + length, limit))
    pieces = [raw[begin:end] for begin, end in pairwise(cuts) if end > begin]
    return list(range(len(pieces))), dict(enumerate(pieces))


def split(text: str, lengths: Sequence[int] = (), end: float | None = None) -> list[words.Word]:
    """The words of a text in tokens of these lengths, by default its characters; 1 s a token."""
    ids, known = as_tokens(text, lengths or [len(character.encode()) for character in text])

    def decode(tokens: Sequence[int]) -> str:
        return b"".join(known[token] for token in tokens).decode(errors="replace")

    begins = np.arange(len(ids) + 1, dtype=float)
    return list(words.words(ids, begins, 0.0, begins[-1] if end is None else end, SPEECH, decode))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (" Hello, world.", " Hello,| world."),
        (" It's well-known, isn't it?", " It's| well-known,| isn't| it?"),
        (" He said: “Go!” and left", " He| said:| “Go!”| and| left"),
        (" « Ça va ? » dit-il", " « Ça| va ? »| dit-il"),
        (" ¿Qué tal? (bien)", " ¿Qué| tal?| (bien)"),
        (" It cost $5.50, i.e. 3%", " It| cost| $5.50,| i.e.| 3%"),
        (" – Yes – no", " – Yes| – no"),
        ("Oj ...", "Oj ..."),
        ("...", "..."),
        ("今日は、良い。", "今|日|は、|良|い。"),
        ("「はい」と言う", "「は|い」|と|言|う"),
        ("สวัสดี ครับ", "ส|วั|ส|ดี| ค|รั|บ"),
        ("می‌روم به خانه.", "می‌روم| به| خانه."),
        ("안녕하세요 여러분", "안녕하세요| 여러분"),
        ("请用 Python 吧", "请|用| Python| 吧"),
    ],
)
def test_a_text_is_split_as_its_script_is_read(text, wanted):
    assert [word.text for word in split(text)] == wanted.split("|")


ALPHABET = st.sampled_from(list(" .,?!-'\"«»ab éÅ¿(漢かー。กัดี안e\u0301🎉👩‍👧می\u200c"))


@given(st.lists(ALPHABET, max_size=30).map("".join), st.lists(st.integers(1, 7), max_size=80))
def test_words_joined_are_the_text_and_begin_with_whole_characters(text, lengths):
    found = split(text, lengths or [1])
    assert "".join(word.text for word in found) == text
    graphemes = {match.start() for match in regex.finditer(r"\X", text)} | {0}
    place = 0
    for word in found:
        assert place in graphemes
        place += len(word.text)


@given(
    st.lists(ALPHABET, max_size=20).map("".join),
    st.lists(st.integers(1, 7), max_size=60),
    st.floats(0.1, 30),
)
def test_words_lie_in_their_segment_one_after_the_other(text, lengths, end):
    times = [time for word in split(text, lengths or [1], end) for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(0 <= time <= round(end, 3) for time in times)


@pytest.mark.parametrize("text", [" one.", " “one", " one ?!", "«one»..."])
def test_a_words_times_are_those_of_its_letters(text):
    (word,) = split(text)
    first = text.index("o")
    assert (word.start, word.end) == (first, first + 3)


@pytest.mark.parametrize(
    "raw", [b"\xe0\xb8", b"ab\xff cd", b"\xff\xff\xff\xff\xff", b" a\x80\x80\x80\x80\x80 b"]
)
def test_bytes_that_are_no_text_cost_no_word_around_them(raw):
    def decode(tokens: Sequence[int]) -> str:
        return bytes(tokens).decode(errors="replace")

    begins = np.arange(len(raw) + 1, dtype=float)
    found = words.words(list(raw), begins, 0.0, 99.0, SPEECH, decode)
    said = "".join(word.text for word in found)
    assert [letter for letter in said if letter in "abcd"] == [
        letter for letter in raw.decode(errors="ignore") if letter in "abcd"
    ]


@pytest.mark.parametrize(
    ("speech", "wanted"),
    [
        ([(0.0, 9.0)], (2.0, 4.0)),
        ([(0.0, 2.2), (3.0, 9.0)], (3.0, 4.0)),  # a pause, and what rings on from before
        ([(0.0, 3.2), (3.9, 9.0)], (2.0, 3.2)),
        ([(0.0, 2.5), (2.7, 9.0)], (2.0, 4.0)),  # the gap before a plosive
        ([(0.0, 2.5), (2.7, 3.1), (3.6, 9.0)], (2.0, 3.1)),
        ([(0.0, 1.0), (5.0, 9.0)], (2.0, 4.0)),  # nobody speaks
        ([], (2.0, 4.0)),
    ],
)
def test_a_pause_is_no_part_of_a_word(speech, wanted):
    stretches = [Stretch(*times) for times in speech]
    (word,) = words.words([0], np.array([2.0, 4.0]), 0.0, 9.0, stretches, lambda _: " ask")
    assert (word.start, word.end) == wanted
