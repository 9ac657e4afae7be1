"""Whatever is said, each format gives it back: read here by small parsers that follow the formats,
not our writers.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from dataclasses import asdict
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asr.decoding.segments import Segment, Word
from asr.transcribe import formats
from asr.transcribe.cues import DEFAULT_LAYOUT, Layout, cues
from asr.transcribe.formats import FORMATS

WHOLE = Layout(max_line_width=None)  # every segment is a cue

HOSTILE = [
    "1\n00:00:00,000 --> 00:00:01,000\nfalse\n\n2",
    "--->-->",
    "<b>fet</b> &amp; <c.red>röd</c> &lt;",
    "\n\n\nWEBVTT\n\nNOTE x",
    "a,\"b\"\r\nc;'d'\t=1+1",
    "שלום \u202eעולם\u202c مرحبا",
    "e\u0301 👍🏽 \x00 \x1c \x85 \u2028 z",
    "\ud800 alone",
    "",
    " \n ",
]
TEXTS = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(max_size=30),
    st.text(st.sampled_from("->\n\r <&,\"'0:"), max_size=20),
)
MOMENTS = st.integers(0, 100 * 3_600_000).map(lambda thousandths: thousandths / 1000)


@st.composite
def segments(draw: st.DrawFn) -> list[Segment]:
    edges = sorted(draw(st.lists(MOMENTS, max_size=8)))
    return [Segment(start, end, draw(TEXTS)) for start, end in pairwise(edges)]


MARK = re.compile(r"(\d{2,}):([0-5]\d):([0-5]\d)([,.])(\d{3})")


def moment(written: str, point: str) -> float:
    found = MARK.fullmatch(written)
    assert found
    assert found[4] == point
    return (
        int(found[1]) * 3600_000 + int(found[2]) * 60_000 + int(found[3]) * 1000 + int(found[5])
    ) / 1000


def parsed(block: list[str], point: str) -> Segment:
    times, *lines = block
    start, end = times.split(" --> ")
    return Segment(moment(start, point), moment(end, point), "\n".join(lines))


def read_srt(written: str) -> list[Segment]:
    """SubRip: blocks parted by empty lines, each a number that counts, times, text."""
    blocks = [block.split("\n") for block in re.split(r"\n\n+", written.strip("\n")) if block]
    assert [block[0] for block in blocks] == [str(number) for number in range(1, len(blocks) + 1)]
    assert written.count("-->") == len(blocks)  # readers that look for arrows find no false one
    return [parsed(block[1:], ",") for block in blocks]


def read_vtt(written: str) -> list[Segment]:
    """WebVTT: a header, then blocks; text may hold no bare `&`, `<` or arrow."""
    header, *blocks = re.split(r"\n\n+", written.strip("\n"))
    assert header == "WEBVTT"
    found = [parsed(block.split("\n"), ".") for block in blocks]
    for one in found:
        assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", one.text)
    return [Segment(one.start, one.end, html.unescape(one.text)) for one in found]


def read_csv(written: str) -> list[Segment]:
    header, *rows = csv.reader(io.StringIO(written, newline=""), strict=True)
    assert header == ["start", "end", "text"]
    return [Segment(float(start), float(end), text) for start, end, text in rows]


def read_json(written: str) -> list[Segment]:
    found = json.loads(written)
    assert found["text"] == " ".join(one["text"] for one in found["segments"] if one["text"])
    return [Segment(**one) for one in found["segments"]]


def spoken(given: list[Segment]) -> list[Segment]:
    """On one line each, without those in which nothing was said: what subtitles can hold."""
    lines = [Segment(one.start, one.end, " ".join(one.text.split())) for one in given]
    return [one for one in lines if one.text]


@settings(max_examples=300)
@given(segments())
@example([Segment(float(start), start + 1.0, text) for start, text in enumerate(HOSTILE)])
def test_subtitles_are_read_back(given: list[Segment]) -> None:
    wanted = spoken(given)
    assert read_vtt(formats.vtt(given, WHOLE)) == wanted
    found = read_srt(formats.srt(given, WHOLE))
    assert [(one.start, one.end) for one in found] == [(one.start, one.end) for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.text.replace(" ", "") == other.text.replace(" ", "")
        assert one.text == other.text or "-->" in other.text


@settings(max_examples=150)
@given(segments())
@example([Segment(float(start), start + 1.0, text) for start, text in enumerate(HOSTILE)])
def test_subtitles_hold_the_cues_that_are_cut(given: list[Segment]) -> None:
    """What a format cannot hold is escaped after the cut, so it breaks no cue."""
    wanted = [Segment(cue.start, cue.end, cue.text) for cue in cues(given, DEFAULT_LAYOUT)]
    assert read_vtt(formats.vtt(given)) == wanted
    found = read_srt(formats.srt(given))
    assert [one.text.replace("-- >", "-->") for one in found] == [
        one.text.replace("-- >", "-->") for one in wanted
    ]
    assert [(one.start, one.end) for one in found] == [(one.start, one.end) for one in wanted]


@settings(max_examples=300)
@given(segments())
@example([Segment(float(start), start + 1.0, text) for start, text in enumerate(HOSTILE)])
def test_tables_and_json_are_read_back_letter_for_letter(given: list[Segment]) -> None:
    assert read_json(formats.as_json(given)) == given
    assert read_csv(formats.table(given)) == given


WORDS = (Word(0.0, 0.5, " ett"), Word(0.5, 1.0, " två"))


def test_json_has_the_words_of_segments_that_have_them() -> None:
    given = [Segment(0.0, 1.0, "ett två", WORDS), Segment(1.0, 2.0, "tre")]
    first, second = json.loads(formats.as_json(given))["segments"]
    assert first["words"] == [
        {"start": 0.0, "end": 0.5, "text": " ett"},
        {"start": 0.5, "end": 1.0, "text": " två"},
    ]
    assert "words" not in second
    assert [Segment.parse(first), Segment.parse(second)] == given


@pytest.mark.parametrize("given", [Segment(0.0, 1.0, "ett två", WORDS), Segment(0.0, 1.0, "")])
def test_segments_come_back_from_json(given: Segment) -> None:
    assert Segment.parse(json.loads(json.dumps(asdict(given)))) == given


def test_a_corrected_text_has_no_word_times() -> None:
    said = Segment(0.0, 1.0, "ett två", WORDS)
    assert said.with_text("ett tu") == Segment(0.0, 1.0, "ett tu")
    assert said.with_text("ett två") == said


@settings(max_examples=100)
@given(segments())
def test_plain_text_has_a_line_for_each_segment_in_which_something_was_said(
    given: list[Segment],
) -> None:
    assert formats.text(given).split("\n") == [*(one.text for one in spoken(given)), ""]


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_heard_is_written_too(name: str) -> None:
    written = FORMATS[name]([])
    readers = {
        "srt": read_srt,
        "vtt": read_vtt,
        "csv": read_csv,
        "json": read_json,
        "txt": str.split,
    }
    assert readers[name](written) == []


@settings(max_examples=200)
@given(st.floats(0, 500_000))
def test_times_are_rounded_to_thousandths(seconds: float) -> None:
    assert abs(moment(formats.timestamp(seconds, ","), ",") - seconds) <= 0.0005 + 1e-9


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        (0, "00:00:00.000"),
        (0.0004, "00:00:00.000"),
        (0.9996, "00:00:01.000"),
        (59.9996, "00:01:00.000"),
        (3599.9999, "01:00:00.000"),
        (3723.4, "01:02:03.400"),
        (360_000, "100:00:00.000"),
    ],
)
def test_a_moment_that_rounds_up_carries_over(seconds: float, wanted: str) -> None:
    assert formats.timestamp(seconds, ".") == wanted


def test_the_readers_see_what_is_wrong() -> None:
    naive = "1\n00:00:00,000 --> 00:00:01,000\na --> b\n\n"
    with pytest.raises(AssertionError):
        read_srt(naive)
    with pytest.raises(AssertionError):
        read_vtt("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n<b>x\n")
    with pytest.raises(AssertionError):
        moment("00:00:60,000", ",")
