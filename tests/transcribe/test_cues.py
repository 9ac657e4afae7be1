"""Cues are what a person can read, and say what the segments say, whatever that is."""

from __future__ import annotations

import unicodedata
from itertools import accumulate, pairwise

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asr.decoding.segments import Segment, Word
from asr.transcribe.cues import (
    DEFAULT_LAYOUT,
    MAX_SECONDS,
    MIN_SECONDS,
    Cue,
    Layout,
    cues,
)

ENGLISH = (
    "I went to see Mr. Smith yesterday, because he had said that he would sell me his old car. "
    "He was not at home! So I left a note on the door, and walked back in the rain."
)
PERSIAN = (
    "سلام، حال شما چطور است؟ من دیروز به بازار رفتم و چند کتاب خریدم. "
    "هوا بسیار خوب بود، و مردم زیادی در خیابان بودند."
)
THAI = "สวัสดีครับ วันนี้เราจะมาพูดถึงเรื่องการเรียนภาษาไทยกันนะครับซึ่งเป็นเรื่องที่น่าสนใจมากสำหรับผู้ที่เริ่มต้น"
JAPANESE = (
    "今日はとても天気が良いので、公園に行って友達と一緒に遊びました。"
    "その後で、喫茶店に入ってコーヒーを飲みながらいろいろな話をしました。"
)
KHMER = "ខ្ញុំចង់រៀនភាសាខ្មែរដោយសារតែវាជាភាសាដែលស្រស់ស្អាតណាស់ហើយខ្ញុំចូលចិត្តវាយ៉ាងខ្លាំង។"
GERMAN = (
    "Die Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft "
    "wurde in Wien gegründet."
)
HINDI = "नमस्ते, आप कैसे हैं? मैं कल बाज़ार गया था और मैंने बहुत सारी किताबें ख़रीदीं।"
REAL = [ENGLISH, PERSIAN, THAI, JAPANESE, KHMER, GERMAN, HINDI]
HOSTILE = [
    "1 --> 2\n\n-->--> 00:00:00,000 --> 00:00:01,000",
    "?" * 200,
    "(" * 100 + "a" + ")" * 100,
    "e\u0301 \u0301x " * 30,
    "👩‍👩‍👧‍👦🏳️‍🌈👍🏽" * 12,
    "\u200b\u200d\ufeff",
    "\x00\x1b[31m \x1c \x85 \u2028 z",
    "\ud800 alone",
    "לא שמעתי \u202eמרחוק\u202c. 3.5 www.example.com",
    "",
    " \n ",
]
TEXTS = st.one_of(
    st.sampled_from([*REAL, *HOSTILE]),
    st.text(max_size=120),
    st.text(st.sampled_from("ab .,?!…-\n「」。、กำี่本"), max_size=120),
)
LAYOUTS = st.builds(
    Layout,
    max_line_width=st.one_of(st.none(), st.integers(1, 60)),
    max_line_count=st.one_of(st.none(), st.integers(1, 3)),
    max_words_per_line=st.one_of(st.none(), st.integers(1, 5)),
)
MOMENTS = st.integers(0, 200_000).map(lambda thousandths: thousandths / 1000)


def cut(text: str) -> st.SearchStrategy[list[str]]:
    """The text in pieces, as a decoder's words are: at spaces, or anywhere, marks apart."""
    anywhere = st.lists(st.integers(0, len(text)), max_size=20).map(
        lambda cuts: [text[a:b] for a, b in pairwise([0, *sorted(cuts), len(text)])]
    )
    return st.one_of(st.just(regex.findall(r"\s*\S+|\s+$", text)), anywhere)


@st.composite
def segments(draw: st.DrawFn) -> list[Segment]:
    """Segments in order, that may touch; some with words whose times are in order, too."""
    edges = sorted(draw(st.lists(MOMENTS, max_size=8)))
    found = []
    for start, end in list(pairwise(edges))[:: draw(st.sampled_from([1, 2]))]:
        text = draw(TEXTS)
        pieces = draw(cut(text)) if draw(st.booleans()) else []
        shares = draw(
            st.lists(st.integers(0, 9), min_size=len(pieces) + 1, max_size=len(pieces) + 1)
        )
        total = sum(shares) or 1
        moments = [start + (end - start) * share / total for share in accumulate(shares)]
        words = tuple(
            Word(a, b, piece) for (a, b), piece in zip(pairwise(moments), pieces, strict=True)
        )
        found.append(Segment(start, end, text, words))
    return found


def letters(text: str) -> str:
    return "".join(text.split())


def columns(text: str) -> int:
    """The width on the screen, counted another way: whole graphemes, marks over others not."""
    marks = ("Mn", "Me", "Cf", "Cc")
    return sum(
        1 + (unicodedata.east_asian_width(one) in "WF")
        for one in text
        if unicodedata.category(one) not in marks
    )


def breakable(line: str) -> bool:
    """It holds two graphemes or more; a space with a mark over it begins none, for it is no end."""
    return sum(not one.startswith(" ") for one in regex.findall(r"\X", line)) > 1


def faults(found: list[Cue], said: list[Segment], layout: Layout = DEFAULT_LAYOUT) -> list[str]:
    """What is wrong with the cues of segments that are in order."""
    wrong = []
    if letters("".join(cue.text for cue in found)) != letters("".join(one.text for one in said)):
        wrong.append("not what was said")
    for cue, following in pairwise(found):
        if cue.end > following.start or cue.start > following.start:
            wrong.append("overlapping")
    for cue in found:
        lines = cue.text.split("\n")
        if not all(line.strip() == line != "" for line in lines):
            wrong.append("an empty line or space at its ends")
        if cue.end < cue.start:
            wrong.append("reversed")
        if not layout.is_unlimited and cue.end - cue.start > MAX_SECONDS + 0.002:
            wrong.append("too long")
        if layout.max_line_count and len(lines) > layout.max_line_count:
            wrong.append("too many lines")
        if layout.max_line_width and any(
            columns(line) > layout.max_line_width and breakable(line) for line in lines
        ):
            wrong.append("too wide")
    return wrong


def times_outside(found: list[Cue], said: list[Segment]) -> list[Cue]:
    """The cues that begin or end where nothing is said, but for a flash that was made longer."""

    def is_inside(moment: float) -> bool:
        return any(one.start - 0.001 <= moment <= one.end + 0.001 for one in said)

    return [
        cue
        for cue in found
        if not is_inside(cue.start)
        or not (is_inside(cue.end) or cue.end - cue.start <= MIN_SECONDS + 0.001)
    ]


@settings(max_examples=300, deadline=None)
@given(segments(), LAYOUTS)
@example([Segment(9.0 * n, 9.0 * n + 9, text) for n, text in enumerate(REAL)], DEFAULT_LAYOUT)
@example([Segment(9.0 * n, 9.0 * n + 9, text) for n, text in enumerate(HOSTILE)], DEFAULT_LAYOUT)
@example([Segment(float(n), float(n), "at once") for n in (1, 1, 1, 2)], DEFAULT_LAYOUT)
def test_whatever_is_said_is_shown_once_in_order_within_the_limits(
    said: list[Segment], layout: Layout
) -> None:
    found = cues(said, layout)
    assert faults(found, said, layout) == []
    assert times_outside(found, said) == []


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.integers(1, 30))
def test_no_grapheme_is_torn(text: str, width: int) -> None:
    found = cues([Segment(0.0, 60.0, text)], Layout(max_line_width=width))
    lines = [line for cue in found for line in cue.text.split("\n")]
    whole = " ".join(text.split())
    torn = {match.start() for match in regex.finditer(r"\X", whole)}
    place = 0
    for line in lines:
        place = whole.index(line, place)
        assert place in torn
        place += len(line)


def shown(said: Segment, layout: Layout = DEFAULT_LAYOUT) -> list[str]:
    return [cue.text for cue in cues([said], layout)]


READS_WELL = {
    "English": (
        Segment(0.0, 12.0, ENGLISH),
        [
            "I went to see Mr. Smith yesterday,",
            "because he had said that he\nwould sell me his old car.",
            "He was not at home!",
            "So I left a note on the door,\nand walked back in the rain.",
        ],
    ),
    "Persian": (
        Segment(0.0, 9.0, PERSIAN),
        [
            "سلام، حال شما چطور است؟",
            "من دیروز به بازار رفتم و چند کتاب خریدم.",
            "هوا بسیار خوب بود،\nو مردم زیادی در خیابان بودند.",
        ],
    ),
    "Japanese": (
        Segment(0.0, 12.0, JAPANESE),
        [
            "今日はとても天気が良いので、\n公園に行って友達と一緒に遊びました。",
            "その後で、喫茶店に入ってコーヒーを\n飲みながらいろいろな話をしました。",
        ],
    ),
    "German": (
        Segment(0.0, 6.0, GERMAN),
        [
            (
                "Die Donaudampfschifffahrtselektrizitätenha\n"
                "uptbetriebswerkbauunterbeamtengesellschaft"
            ),
            "wurde in Wien gegründet.",
        ],
    ),
    "French": (
        Segment(
            0.0, 6.0, "Quoi ? Vous dites « non » ? Alors je ne sais plus que faire, mes amis !"
        ),
        ["Quoi ? Vous dites « non » ?", "Alors je ne sais plus que faire,\nmes amis !"],
    ),
    "short sentences": (Segment(0.0, 3.0, "Yes. No. Maybe."), ["Yes. No. Maybe."]),
    "abbreviations": (
        Segment(0.0, 5.0, "On Monday at three o'clock we met Dr. Brown and St. John."),
        ["On Monday at three o'clock we\nmet Dr. Brown and St. John."],
    ),
    "one word for long": (Segment(0.0, 30.0, "はい"), ["はい"]),
    "one line": (Segment(0.0, 3.0, "a" * 42), ["a" * 42]),
    "a line and a letter": (Segment(0.0, 3.0, "a" * 43), ["a" * 21 + "\n" + "a" * 22]),
}


@pytest.mark.parametrize("kind", READS_WELL)
def test_it_reads_well(kind: str) -> None:
    said, wanted = READS_WELL[kind]
    assert shown(said) == wanted


def spoken(text: str, *moments: float) -> Segment:
    """A segment of words that are parted by |, each from one moment to the next."""
    pieces = text.split("|")
    spans = pairwise(moments)
    words = tuple(Word(a, b, piece) for (a, b), piece in zip(spans, pieces, strict=True))
    return Segment(moments[0], moments[-1], "".join(pieces).strip(), words)


def test_a_long_segment_is_cut_where_its_words_are() -> None:
    said = spoken(
        " Slowly| I| begin.| Then| very| fast| I| end.", 0, 3, 4, 6, 6.5, 7, 7.5, 7.8, 8.4
    )
    assert cues([said], DEFAULT_LAYOUT) == [
        Cue(0.0, 6.0, "Slowly I begin."),
        Cue(6.0, 8.4, "Then very fast I end."),
    ]
    first, second = cues(
        [Segment(0.0, 8.4, said.text)], DEFAULT_LAYOUT
    )  # without times: by letters
    assert (first.text, second.text) == ("Slowly I begin.", "Then very fast I end.")
    assert 3 < first.end == second.start < 4.5


def test_a_pause_parts_cues_where_words_have_times() -> None:
    words = (Word(0.0, 1.0, "wait"), Word(4.0, 5.0, " now"), Word(5.0, 6.0, " go"))
    said = Segment(0.0, 6.0, "wait now go", words)
    assert cues([said], DEFAULT_LAYOUT) == [Cue(0.0, 1.0, "wait"), Cue(4.0, 6.0, "now go")]


def test_words_without_spaces_are_broken_between_those_that_have_times() -> None:
    said = spoken("東京都知事|選挙|は|来年の|夏に|行われます", 0, 1, 2, 3, 4, 5, 6)
    layout = Layout(max_line_width=12)
    assert shown(said, layout) == ["東京都知事\n選挙は", "来年の夏に\n行われます"]
    untimed = Segment(said.start, said.end, said.text)
    assert shown(untimed, layout) == ["東京都知\n事選挙は来", "年の夏に\n行われます"]


@pytest.mark.parametrize("words", [(), (Word(0.0, 2.0, " another text"),)])
def test_words_of_another_text_are_not_believed(words: tuple[Word, ...]) -> None:
    assert cues([Segment(0.0, 2.0, "what it says", words)], DEFAULT_LAYOUT) == [
        Cue(0.0, 2.0, "what it says")
    ]


def test_a_flash_is_shown_longer_up_to_the_next_cue() -> None:
    said = [Segment(0.0, 0.2, "Yes."), Segment(0.9, 1.0, "No."), Segment(5.0, 5.1, "Perhaps.")]
    assert cues(said, DEFAULT_LAYOUT) == [
        Cue(0.0, 0.8, "Yes."),
        Cue(0.9, 1.7, "No."),
        Cue(5.0, 5.8, "Perhaps."),
    ]


FLASHES = {
    "touching": [(0.0, 0.3, "Yes."), (0.3, 3.0, "I do.")],
    "of no length": [(0.0, 0.0, "Yes."), (0.0, 3.0, "I do.")],
    "several": [(0.0, 0.2, "Yes"), (0.2, 0.4, "I"), (0.4, 0.6, "do")],
    "near": [(0.0, 0.2, "Yes."), (0.6, 3.0, "I do.")],
}


@pytest.mark.parametrize("kind", FLASHES)
def test_a_flash_that_cannot_be_longer_is_shown_with_what_follows(kind: str) -> None:
    said = [Segment(*values) for values in FLASHES[kind]]
    (found,) = cues(said, DEFAULT_LAYOUT)
    assert found.text == " ".join(one.text for one in said)
    assert found.end - found.start >= MIN_SECONDS


WORDS = spoken("one| two| three| four| five", 0, 1, 2, 3, 4, 5)
LIMITS = {
    "one word each": (Layout(42, 1, 1), ["one", "two", "three", "four", "five"]),
    "three words, two lines": (Layout(42, 2, 3), ["one two\nthree four five"]),
    "any number of lines": (Layout(9, None, None), ["one two\nthree\nfour five"]),
    "any width": (Layout(None, 1, 4), ["one two", "three four five"]),
    "as they are": (Layout(None, 1, None), ["one two three four five"]),
}


@pytest.mark.parametrize("kind", LIMITS)
def test_limits_are_kept_and_none_is_no_limit(kind: str) -> None:
    layout, wanted = LIMITS[kind]
    assert shown(WORDS, layout) == wanted


def test_what_is_wrong_with_cues_is_noticed() -> None:
    said = [Segment(0.0, 4.0, "one two"), Segment(4.0, 8.0, "three")]
    good = [Cue(0.0, 4.0, "one two"), Cue(4.0, 8.0, "three")]
    assert faults(good, said) == []
    for bad, fault in [
        ([good[0]], "not what was said"),
        ([good[0], *good], "not what was said"),
        ([Cue(0.0, 4.1, "one two"), good[1]], "overlapping"),
        ([Cue(0.0, 4.0, "one\n\ntwo"), good[1]], "an empty line or space at its ends"),
        ([good[0], Cue(4.0, 3.0, "three")], "reversed"),
        ([good[0], Cue(4.0, 12.0, "three")], "too long"),
        ([Cue(0.0, 4.0, "o\nne\ntwo"), good[1]], "too many lines"),
    ]:
        assert fault in faults(bad, said)
    assert "too wide" in faults(good, said, Layout(max_line_width=6))
    assert times_outside([Cue(3.0, 9.0, "x")], said)
