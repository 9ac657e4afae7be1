"""Subtitles: what our own writers write comes back, what people's files do wrong is read or
refused, and the sound is that of each cue.
"""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio import codec, sample_file
from asr.decoding.segments import Segment
from asr.errors import DataError, DiskError
from asr.sources import subtitles, utterances
from asr.sources.subtitles import Cue, cues, cut
from asr.transcribe import formats
from asr.transcribe.cues import Layout
from support.data import encoded, encoded_by_av, real, voice

# Words that neither format gives a meaning: no tags, braces, square brackets, music or arrows.
WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="<>[]{}♩♪♫♬\0"),
    max_size=20,
).filter(lambda text: "--" not in text and not text.strip().isdecimal())
MOMENTS = st.floats(0, 36_000).map(lambda seconds: round(seconds, 3))


def file(folder: Path, content: str | bytes, suffix: str = ".srt") -> Path:
    path = folder / f"talk{suffix}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(
    folder: Path, content: str | bytes, suffix: str = ".srt"
) -> list[tuple[float, float, str]]:
    return [(one.start, one.end, one.text) for one in cues(file(folder, content, suffix))]


@settings(max_examples=60)
@given(
    st.lists(st.builds(Segment, MOMENTS, MOMENTS, WORDS), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, said: list[Segment], ending: str, mark: bool
) -> None:
    folder = tmp_path_factory.mktemp("any")
    wanted = [
        (one.start, one.end, utterances.one_line(one.text)) for one in said if one.text.strip()
    ]
    for suffix, write in ((".srt", formats.srt), (".vtt", formats.vtt)):
        whole = write(said, Layout(max_line_width=None))
        text = ("\ufeff" if mark else "") + whole.replace("\n", ending)
        if not wanted:
            with pytest.raises(DataError, match="no subtitle in it"):
                read(folder, text, suffix)
        else:
            assert read(folder, text, suffix) == wanted


ODD = {
    "dots": ("1\n00:00:01.000 --> 00:00:02.500\nA\n", [(1, 2.5, "A")]),
    "no hours": ("1\n00:01,000 --> 00:02,5\nA\n", [(1, 2.5, "A")]),
    "no fraction": ("1\n00:00:01 --> 00:00:02\nA\n", [(1, 2, "A")]),
    "a hundred hours": ("1\n100:00:01,000 --> 100:00:02,000\nA\n", [(360_001, 360_002, "A")]),
    "places": ("1\n00:00:01,000 --> 00:00:02,000  X1:100 X2:200\nA\n", [(1, 2, "A")]),
    "tight": ("1\n00:00:01,000-->00:00:02,000\nA\n", [(1, 2, "A")]),
    "no numbers": (
        "00:01,000 --> 00:02,000\nA\n\n00:03,000 --> 00:04,000\nB\n",
        [(1, 2, "A"), (3, 4, "B")],
    ),
    "wrong numbers": (
        "7\n00:01,000 --> 00:02,000\nA\n\n7\n00:03,000 --> 00:04,000\nB\n",
        [(1, 2, "A"), (3, 4, "B")],
    ),
    "no empty lines": (
        "1\n00:01,000 --> 00:02,000\nA\n2\n00:03,000 --> 00:04,000\nB\n",
        [(1, 2, "A"), (3, 4, "B")],
    ),
    "numbers said": (
        "1\n00:01,000 --> 00:02,000\nWe\n42\n\n2\n00:03,000 --> 00:04,000\n1984\n",
        [(1, 2, "We 42"), (3, 4, "1984")],
    ),
    "number apart": (
        "1\n\n00:01,000 --> 00:02,000\nA\n\n2\n\n00:03,000 --> 00:04,000\nB\n",
        [(1, 2, "A"), (3, 4, "B")],
    ),
    "gap in a text": (
        "1\n00:01,000 --> 00:02,000\nA\n\nand B\n\n2\n00:03,000 --> 00:04,000\nC\n",
        [(1, 2, "A and B"), (3, 4, "C")],
    ),
    "empty": (
        "1\n00:01,000 --> 00:02,000\n\n2\n00:03,000 --> 00:04,000\nB\n",
        [(1, 2, ""), (3, 4, "B")],
    ),
    "reversed and of no length": (
        "1\n00:03,000 --> 00:02,000\nA\n\n2\n00:03,000 --> 00:03,000\nB\n",
        [(3, 2, "A"), (3, 3, "B")],
    ),
    "overlapping": (
        "1\n00:01,000 --> 00:05,000\nA\n\n2\n00:03,000 --> 00:04,000\nB\n",
        [(1, 5, "A"), (3, 4, "B")],
    ),
    "not in order": (
        "1\n00:05,000 --> 00:06,000\nA\n\n2\n00:03,000 --> 00:04,000\nB\n",
        [(5, 6, "A"), (3, 4, "B")],
    ),
    "ends in a number": ("1\n00:01,000 --> 00:02,000\nA\n\n2\n", [(1, 2, "A")]),
    "tags": (
        '1\n00:01,000 --> 00:02,000\n{\\an8}<i>Oh</i>, <FONT color="red">3 < 4</FONT> {a} <3\n',
        [(1, 2, "Oh, 3 < 4 {a} <3")],
    ),
    "noises": (
        (
            "1\n00:01,000 --> 00:02,000\n[door slams]\n[Ann] Oh (yes)\n\n2\n00:03,000 --> "
            "00:04,000\n♪♪\n"
        ),
        [(1, 2, "Oh (yes)"), (3, 4, "")],
    ),
    "no escapes": ("1\n00:01,000 --> 00:02,000\na &amp; b\n", [(1, 2, "a &amp; b")]),
    "old Mac": ("1\r00:01,000 --> 00:02,000\rA\rB\r\r", [(1, 2, "A B")]),
    "bytes": (b"1\n00:01,000 --> 00:02,000\nna\xefve\n", [(1, 2, "na\udcefve")]),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_people_write_is_read(tmp_path: Path, kind: str) -> None:
    content, wanted = ODD[kind]
    assert read(tmp_path, content) == wanted


WEBVTT = """WEBVTT - a title
Kind: captions

STYLE
::cue { color: red }

REGION
id:fred

NOTE
not said
nor this

one
00:01.000 --> 00:02.000 align:start position:0%
<v Mary Ann>Hello &amp; <b.loud>you</b> <00:00:01.500>there

NOTE not said

00:00:03.000 --> 00:00:04.000
- <v.x Bob>No</v>
- <v Ann>Yes</v>

2
00:00:05,000 --> 00:00:06,000
 \t
&lt;v Not&gt; [sighs] <c.x>a</c>&nbsp;b

1:00:00.000 --> 1:00:01.000
"""


def test_webvtt_is_read_with_its_voices(tmp_path: Path) -> None:
    assert list(cues(file(tmp_path, WEBVTT, ".vtt"))) == [
        Cue(1, 2, "Hello & you there", "Mary Ann"),
        Cue(3, 4, "- No - Yes", None),
        Cue(5, 6, "<v Not> a b", None),
        Cue(3600, 3601, "", None),
    ]


@pytest.mark.parametrize(
    ("content", "suffix", "match"),
    [
        (
            "1\n00:00:0x,000 --> 00:00:02,000\nA\n",
            ".srt",
            r"talk\.srt:2: got 00:00:0x,000 --> 00:00:02,000, want times such as 00:01:02,500",
        ),
        (
            "1\n00:00:01,000 --> 00:00:02,000\nA\n\n2\n00:00:03,000 -->",
            ".srt",
            r"talk\.srt:6: got 00:00:03,000 -->, want times",
        ),
        ("1\n00:61:01,000 --> 00:62:02,000\nA\n", ".srt", r"talk\.srt:2: got 00:61:01"),
        ("1\n-00:00:01,000 --> 00:00:02,000\nA\n", ".srt", r"talk\.srt:2: got -00:00:01"),
        (
            "1\n00:00:01,000 --> 00:00:02,000\na --> b\n",
            ".srt",
            r"talk\.srt:3: got a --> b, want times",
        ),
        (
            "hello\n\n1\n00:00:01,000 --> 00:00:02,000\nA\n",
            ".srt",
            r"talk\.srt:1: text above the first times: hello",
        ),
        (
            "WEBVTT\n\n00:01.000 --> 00:02.000\nA\n",
            ".srt",
            r"talk\.srt:1: text above the first times: WEBVTT",
        ),
        ("hello world\n", ".srt", r"talk\.srt:1: text above the first times: hello world"),
        ("", ".srt", r"talk\.srt: no subtitle in it; remove it, or the recording beside it"),
        ("", ".vtt", r"talk\.vtt:1: want WEBVTT, by which such a file begins"),
        ("00:01.000 --> 00:02.000\nA\n", ".vtt", r"talk\.vtt:1: want WEBVTT"),
        (
            "WEBVTT\n\n00:01.000 --> 00:02.000\nA\n\nB\nC\n\n00:03.000 --> 00:04.000\nD\n",
            ".vtt",
            r"talk\.vtt:9: above this line .*: B",
        ),
        (
            "WEBVTT\n\n00:01.000 --> 00:02.000\nA\n\nB",
            ".vtt",
            r"talk\.vtt:6: above this line stands text that is in no cue: B",
        ),
        (
            "1\n00:01,000 --> 00:02,000\nA\n".encode("utf-16"),
            ".srt",
            r"talk\.srt: not UTF-8 but perhaps UTF-16; save it again as UTF-8",
        ),
        (
            "1\n00:01,000 --> 00:02,000\n" + "A\n" * (1 << 20),
            ".srt",
            r"talk\.srt:\d+: more than 1,048,576 characters without times",
        ),
        (
            "1\n00:01,000 --> 00:02,000\n" + "A" * 10_000_000,
            ".srt",
            r"talk\.srt:3: more than 1,048,576 characters without times",
        ),
        ("1\n" + " " * 10_000_000 + "-->", ".srt", r"talk\.srt:2: got -->, want times"),
        (
            "WEBVTT\n\n00:01.000 --> 00:02.000\n" + "<v" + " " * 500_000 + "[" * 500_000 + "\n--> ",
            ".vtt",
            r"talk\.vtt:5: got -->",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(
    tmp_path: Path, content: str | bytes, suffix: str, match: str
) -> None:
    with pytest.raises(DataError, match=match) as caught:
        read(tmp_path, content, suffix)
    assert (caught.value.exit_code, len(str(caught.value).splitlines())) == (3, 1)


@settings(max_examples=100)
@given(
    st.lists(
        st.sampled_from(
            [
                "1",
                "",
                "00:01,000 --> 00:02,000",
                "00:01.0 --> 01.0",
                "A",
                "WEBVTT",
                "NOTE",
                "<v",
                "[",
                "\0",
            ]
        ),
        max_size=12,
    )
)
def test_any_lines_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, said: Sequence[str]
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    for suffix in (".srt", ".vtt"):
        try:
            found = read(folder, "\n".join(said), suffix)
        except DataError:
            continue
        assert len(found) == sum("-->" in line for line in said)


# the sound of a cue


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds that are other at every moment."""
    path = tmp_path_factory.mktemp("talk") / "talk.flac"
    path.write_bytes(encoded(voice(10.0), format="FLAC"))
    return path


def decodings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Decode in this process, and say what; the child itself is tested elsewhere."""
    seen: list[Path] = []

    def decode(recording: Path, samples: Path) -> sample_file.SampleFile:
        seen.append(recording)
        return sample_file.decode(recording, samples)

    monkeypatch.setattr(subtitles, "decode_apart", decode)
    return seen


def test_a_cut_is_the_stretch_itself(talk: Path, tmp_path: Path) -> None:
    whole = codec.decode(talk.read_bytes())
    for start, end in ((0.0, 1.0), (3.21, 4.567), (9.5, 10.0)):
        content = cut(talk, tmp_path, start, end)
        info = soundfile.info(io.BytesIO(content))
        assert (info.format, info.subtype, info.channels, info.samplerate) == (
            "FLAC",
            "PCM_16",
            1,
            16_000,
        )
        assert (
            np.abs(codec.decode(content) - whole[round(start * 16_000) : round(end * 16_000)]).max()
            <= 1 / 32768 + 1e-6
        )


def test_a_cut_elsewhere_would_be_seen(talk: Path, tmp_path: Path) -> None:
    whole, content = codec.decode(talk.read_bytes()), cut(talk, tmp_path, 3.0, 4.0)
    assert np.abs(codec.decode(content) - whole[48_080:64_080]).max() > 0.01


@pytest.mark.parametrize(
    ("start", "end", "seconds"),
    [(9.0, 12.0, 1.0), (10.0, 11.0, 0), (50.0, 60.0, 0), (5.0, 5.0, 0), (5.0, 4.0, 0)],
)
def test_where_there_is_no_sound_there_are_no_bytes(
    talk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start: float,
    end: float,
    seconds: float,
) -> None:
    decodings(monkeypatch)
    content = cut(talk, tmp_path, start, end)
    assert content is not None
    assert (len(codec.decode(content)) / 16_000 if content else 0) == seconds


def test_a_recording_is_decoded_once_for_all_its_cues(
    talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = decodings(monkeypatch)
    first = [cut(talk, tmp_path, start, start + 0.5) for start in range(9)]
    assert seen == [talk]
    assert first == [cut(talk, tmp_path, start, start + 0.5) for start in range(9)]


def test_old_samples_give_way_and_come_back_the_same(
    talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subtitles, "MAX_DECODED_BYTES", 1_000_000)  # one recording and a half
    seen = decodings(monkeypatch)
    first = cut(talk, tmp_path, 1, 2)
    others = [talk.with_name(f"other{number}.flac") for number in range(3)]
    for other in others:
        other.write_bytes(talk.read_bytes())
    assert [cut(path, tmp_path, 1, 2) for path in (*others, talk, talk)] == [first] * 5
    assert seen == [talk, *others, talk]
    assert sorted(path.suffix for path in tmp_path.iterdir()).count(".samples") == 2


def test_a_recording_that_is_broken_costs_its_cues_and_is_named_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talk.wav").write_bytes(b"text renamed")
    assert [cut(tmp_path / "talk.wav", tmp_path, start, start + 1) for start in range(3)] == [
        b""
    ] * 3
    assert capfd.readouterr().out == (
        "download: talk.wav: not a recording we can read (InvalidDataError); its "
        "subtitles stay without sound\n"
    )


def test_a_disk_without_room_is_not_taken_for_a_broken_recording(
    talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DataError("no space left")

    monkeypatch.setattr(subtitles, "decode_apart", full)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1_000})())
    with pytest.raises(DiskError, match=r"talk\.flac, decoded, will take 691\.\d MB"):
        cut(talk, tmp_path, 0, 1)


def test_a_recording_that_is_not_there_has_no_sound(tmp_path: Path) -> None:
    assert cut(tmp_path / "nothing.mp3", tmp_path, 0, 1) is None


def test_a_cue_of_hours_is_cut_short(
    talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decodings(monkeypatch)
    monkeypatch.setattr(subtitles, "MAX_CUE_SECONDS", 2.0)
    assert len(codec.decode(cut(talk, tmp_path, 1, 3_601) or b"")) == 2 * 16_000


def _cut_by_another(job: tuple[Path, Path, int]) -> bytes | None:
    recording, working, start = job
    return cut(recording, working, start, start + 1)


def test_processes_that_cut_at_once_get_the_same(talk: Path, tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(3) as pool:
        found = pool.map(
            _cut_by_another, [(talk, tmp_path, start) for start in range(9)], chunksize=1
        )
    assert found == [cut(talk, tmp_path, start, start + 1) for start in range(9)]
    assert len(set(found)) == 9
    assert len(list(tmp_path.glob("*.samples"))) == 1


def test_a_video_is_cut_too(tmp_path: Path) -> None:
    (tmp_path / "talk.m4a").write_bytes(encoded_by_av(voice(3.0, 48_000), 48_000, "mp4", "aac"))
    assert len(codec.decode(cut(tmp_path / "talk.m4a", tmp_path, 1, 2.5) or b"")) == 24_000


def test_a_real_recording_is_cut_at_its_real_words(tmp_path: Path) -> None:
    """A known speech with subtitles as our own transcripts have them: all of its sound comes back
    in order.
    """
    recording = real("clips", "jfk.flac")
    whole = codec.decode(recording.read_bytes())
    said = [
        (0.0, 3.2, "And so my fellow Americans,"),
        (3.2, 7.6, "ask not what your country can do for you,"),
    ]
    said += [(7.6, len(whole) / 16_000, "ask what you can do for your country.")]
    path = file(tmp_path, formats.srt([Segment(*one) for one in said]))
    found = list(cues(path))
    assert [one.text for one in found] == [text for _, _, text in said]
    joined = np.concatenate(
        [codec.decode(cut(recording, tmp_path, one.start, one.end) or b"") for one in found]
    )
    assert abs(len(joined) - len(whole)) <= 16
    assert np.abs(joined - whole[: len(joined)]).max() <= 1 / 32768 + 1e-6
