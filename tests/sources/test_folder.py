"""A folder of recordings: the same utterances in any layout it may have, and nothing outside it."""

from __future__ import annotations

import csv
import json
import os
import pickle
import unicodedata
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio import codec
from asr.decoding.segments import Segment
from asr.errors import DataError
from asr.sources import folder, utterances
from asr.sources.utterances import Corpus, Utterance
from asr.storage.hashing import split_of
from asr.transcribe import formats
from support.data import encoded, real, voice
from support.refusals import refused
from support.sources import listed

WAV = encoded(voice(0.2))


def read(place: Path) -> Corpus:
    """The folder's corpus, with a working folder beside it."""
    working = place.with_name(f"{place.name}.working")
    working.mkdir(exist_ok=True)
    return folder.read(place, working)


def rows_of(place: Path) -> list[Utterance]:
    return list(read(place).utterances)


def files(place: Path, contents: dict[str, bytes | str]) -> Path:
    for name, content in contents.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return place


def assert_refused(place: Path, match: str) -> None:
    with refused(DataError, match):
        rows_of(place)


# with a table


def table(place: Path, rows: list[dict[str, Any]], suffix: str = ".csv") -> Path:
    place.mkdir(parents=True, exist_ok=True)
    if suffix == ".jsonl":
        return files(place, {"metadata.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})
    with (place / f"metadata{suffix}").open("w", newline="", encoding="utf-8") as file:
        dialect = (
            {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}
            if suffix == ".tsv"
            else {}
        )
        writer = csv.DictWriter(file, list(rows[0]), **dialect)
        writer.writeheader()
        writer.writerows(rows)
    return place


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize("column", ["transcription", "text", "sentence"])
def test_a_folder_is_read(tmp_path, suffix, column):
    rows = [
        {
            "file_name": "sub/a.wav",
            column: 'he said "hi", once',
            "speaker_id": "anna",
            "split": "test",
            "age": "30",
            "sex": "",
        }
    ]
    place = files(table(tmp_path / "mine", rows, suffix), {"sub/a.wav": b"sound"})
    corpus = read(place)
    (one,) = corpus.utterances
    assert (one.id, one.split, one.text, one.speaker) == (
        "sub/a.wav",
        "test",
        'he said "hi", once',
        "anna",
    )
    assert (one.attributes, one.audio()) == ({"age": "30"}, b"sound")
    assert (
        corpus.about["name"],
        corpus.about["layout"],
        corpus.about["recordings_without_text"],
    ) == ("mine", f"metadata{suffix}", 0)


def test_of_several_texts_the_transcription_is_the_text(tmp_path):
    (one,) = rows_of(
        table(
            tmp_path / "mine",
            [{"file_name": "a.wav", "text": "raw", "transcription": "said", "sentence": "s"}],
        )
    )
    assert (one.text, one.attributes) == ("said", {"text": "raw", "sentence": "s"})


def test_values_of_json_keep_their_kind(tmp_path):
    row = {
        "file_name": "a.wav",
        "text": None,
        "speaker_id": 7,
        "age": 30,
        "pitch": 0.5,
        "native": True,
        "tags": ["a"],
        "none": None,
    }
    (one,) = rows_of(table(tmp_path / "mine", [row], ".jsonl"))
    assert (one.text, one.speaker, one.attributes) == (
        "",
        "7",
        {"age": 30, "pitch": 0.5, "native": True, "tags": '["a"]'},
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_tables_in_folders_named_as_splits_give_the_split(tmp_path, suffix):
    for split in ("validation", "train", "test"):
        place = table(
            tmp_path / "mine" / split,
            [
                {
                    "file_name": "a.wav",
                    "text": split,
                    **({"split": split} if split == "test" else {}),
                }
            ],
            suffix,
        )
        files(place, {"a.wav": split})
    corpus = read(tmp_path / "mine")
    assert [(one.id, one.split, one.text, one.audio()) for one in corpus.utterances] == [
        (f"{split}/a.wav", split, split, split.encode())
        for split in ("train", "validation", "test")
    ]
    assert corpus.about["recordings_without_text"] == 0


def test_a_table_that_contradicts_its_folder_is_refused(tmp_path):
    table(tmp_path / "mine" / "train", [{"file_name": "a.wav", "text": "x", "split": "test"}])
    assert_refused(tmp_path / "mine", r"train/metadata\.csv:2: split test, want train")


@pytest.mark.parametrize(
    "names",
    [
        ["metadata.csv", "metadata.jsonl"],
        ["metadata.csv", "train/metadata.csv"],
        ["train/metadata.csv", "dev/metadata.csv"],
        ["train/metadata.csv", "test/metadata.jsonl"],
        ["a/metadata.csv"],
    ],
)
def test_tables_of_which_some_would_not_be_read_are_refused(tmp_path, names):
    files(tmp_path / "mine", dict.fromkeys(names, "file_name,text\na.wav,x\n"))
    assert_refused(
        tmp_path / "mine",
        (
            rf"mine: holds {', '.join(sorted(names))}; want one such table on top, or one in "
            r"each of train"
        ),
    )


def test_a_table_is_taken_whatever_texts_lie_beside(tmp_path):
    place = files(
        table(tmp_path / "mine", [{"file_name": "a.wav", "text": "table"}]),
        {"a.wav": WAV, "a.txt": "other", "a.srt": "none"},
    )
    assert [one.text for one in rows_of(place)] == ["table"]
    assert read(place).about["layout"] == "metadata.csv"


@pytest.mark.parametrize("key", ["speaker_id", "id"])
def test_without_split_there_is_none_and_who_grows_moves_nobody(tmp_path, key):
    rows = [
        {
            "file_name": f"{number}.wav",
            "transcription": "x",
            "speaker_id": f"s{number % 30}" if key == "speaker_id" else "",
        }
        for number in range(300)
    ]
    few, all = (
        rows_of(table(tmp_path / "few", rows[:200])),
        rows_of(table(tmp_path / "all", rows[::-1])),
    )
    assert {one.split for one in all} == {None}
    placed = {one.id: split_of(one.speaker or one.id) for one in all}
    assert {one.id: split_of(one.speaker or one.id) for one in few}.items() <= placed.items()
    assert set(placed.values()) == {"train", "validation", "test"}


def test_a_column_without_a_name_is_no_attribute(tmp_path):
    place = files(
        tmp_path / "mine", {"metadata.csv": ",file_name,text,,\n0,a.wav,x,,\n1,b.wav,y,,\n"}
    )  # as pandas and spreadsheets write
    assert [(one.id, one.text, one.attributes) for one in rows_of(place)] == [
        ("a.wav", "x", {}),
        ("b.wav", "y", {}),
    ]


@pytest.mark.parametrize("name", ["nowhere", "file.csv"])
def test_what_is_no_folder_is_refused(tmp_path, name):
    (tmp_path / "file.csv").touch()
    assert_refused(tmp_path / name, rf"{name}: no folder; want one with recordings and their words")


def test_recordings_without_text_are_counted(tmp_path):
    place = table(
        tmp_path / "mine",
        [
            {"file_name": "./x/../a.wav", "transcription": "x"},
            {"file_name": "gone.wav", "transcription": "y"},
        ],
    )
    files(
        place,
        {
            "a.wav": b"x",
            "b.wav": b"x",
            "sub/c.MP3": b"x",
            ".hidden.wav": b"x",
            "README.md": b"x",
            "notes.txt": b"x",
        },
    )
    assert read(place).about["recordings_without_text"] == 2


def test_text_without_a_recording_is_a_row_without_sound(tmp_path):
    rows = [{"file_name": name, "transcription": "x"} for name in ("a.wav", "", "x" * 5000, "sub")]
    place = table(tmp_path / "mine", rows)
    (place / "sub").mkdir()
    assert [one.audio() for one in rows_of(place)] == [None] * 4


@pytest.mark.parametrize(
    ("content", "want"),
    [
        (b"", r"metadata\.csv: no column file_name; it has none"),
        (b"path,text\na.wav,x\n", r"metadata\.csv: no column file_name; it has path, text"),
        (
            b"file_name,words\na.wav,x\n",
            r"metadata\.csv:2: no column transcription; it has file_name, words",
        ),
        (
            b"file_name;text\na.wav;x\n",
            (
                r"metadata\.csv: no column file_name; it has file_name;text; separate them "
                r"with commas$"
            ),
        ),
        (
            b"file_name,text,split\na.wav,x,test\nb.wav,x,dev\n",
            r"metadata\.csv:3: split dev, want one of train, validation, test",
        ),
        (b"file_name,text\n../a.wav,x\n", r"metadata\.csv:2: \.\./a\.wav lies outside the folder"),
        (
            b"file_name,text\n/etc/passwd,x\n",
            r"metadata\.csv:2: /etc/passwd lies outside the folder",
        ),
        (b"file_name,text\na\0.wav,x\n", r"metadata\.csv:2: NUL in a file name"),
        (b"file_name,text\na.wav,hello, world\n", r"metadata\.csv:2: more values than columns"),
        (
            "file_name,text\na.wav,x\n".encode("utf-16"),
            r"metadata\.csv: not UTF-8 but perhaps UTF-16",
        ),
        (
            b'file_name,text\na.wav,"open\n' + b"b.wav,a plain sentence\n" * 10_000,
            r"metadata\.csv:10002: unexpected end of data",
        ),
    ],
)
def test_a_bad_table_is_refused_with_its_line(tmp_path, content, want):
    assert_refused(files(tmp_path / "mine", {"metadata.csv": content}), want)


@pytest.mark.parametrize(
    ("row", "want"),
    [
        ({"file_name": 3, "text": "x"}, r"metadata\.jsonl:1: file_name 3, want a text"),
        ({"file_name": "a.wav", "text": ["x"]}, r"metadata\.jsonl:1: text \['x'\], want a text"),
        ({"text": "x", "words": 1}, r"metadata\.jsonl:1: no column file_name; it has text, words"),
        (
            {"file_name": "a.wav", "text": "x", "split": 1},
            r"metadata\.jsonl:1: split 1, want one of train",
        ),
    ],
)
def test_a_bad_line_of_json_is_refused(tmp_path, row, want):
    assert_refused(table(tmp_path / "mine", [row], ".jsonl"), want)


def test_a_file_name_that_is_not_utf_8_is_found(tmp_path):
    place = files(
        tmp_path / "mine", {"metadata.csv": b"file_name,transcription\nbroken-\xff.wav,x\n"}
    )
    (place / os.fsdecode(b"broken-\xff.wav")).write_bytes(WAV)
    (one,) = rows_of(place)
    assert one.audio() == WAV
    assert read(place).about["recordings_without_text"] == 0


def test_real_recordings_are_read(tmp_path):
    place = real("clips")
    found = list(folder.read(place, tmp_path).utterances)
    assert len(found) == len(list(place.glob("*.flac"))) == 9
    assert all(
        len(codec.decode(one.audio() or b"")) > 16_000 and len(one.text) > 20 for one in found
    )


# with a text beside each recording


def test_texts_beside_recordings_are_read(tmp_path):
    contents = {"a.wav": WAV, "a.txt": "\ufeffone\r\n two\n", "84/12/b.FLAC": b"b",
                "84/12/b.txt": "three", "test/7/c.mp3": b"c", "test/7/c.txt": "",
                "test/d.mp3": b"d", "test/d.txt": "four",
                "alone.wav": WAV, "README.txt": "words", ".git/x.txt": "x",
                "._a.wav": "x", "._a.txt": "x"}  # fmt: skip
    corpus = read(files(tmp_path / "mine", contents))
    assert listed(corpus) == [
        ("84/12/b.FLAC", None, "three", "84", {}, None, b"b"),
        ("a.wav", None, "one two", None, {}, None, WAV),
        ("test/7/c.mp3", "test", "", "7", {}, None, b"c"),
        ("test/d.mp3", "test", "four", None, {}, None, b"d"),
    ]
    counted = {"layout": ".txt", "recordings_without_text": 1, "texts_without_recording": 1}
    assert corpus.about == {"name": "mine", "licence": "as the folder's owner says", **counted}


@settings(max_examples=10)
@given(st.randoms())
def test_the_order_of_a_folder_does_not_matter(tmp_path_factory, draw):
    place, names = (
        tmp_path_factory.mktemp("order"),
        [f"{folder}{name}" for folder in ("", "b/", "a/", "a-b/") for name in "xyzåÅ"],
    )
    files(place, {f"{name}{suffix}": name for name in names for suffix in (".wav", ".txt")})
    scandir = os.scandir

    def shuffled(folder):
        with scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        draw.shuffle(found)
        return nullcontext(found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", shuffled)
        ids = [one.id for one in rows_of(place)]
    assert ids == sorted((f"{name}.wav" for name in names), key=lambda name: name[:-4].encode())


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"na\xefve", "na\udcefve"),
        ("hej".encode("utf-16-le"), "h\ufffde\ufffdj\ufffd"),
        (b"\xff\xfeh\0", "\udcff\udcfeh\ufffd"),
    ],
)
def test_a_text_in_another_encoding_costs_its_row(tmp_path, content, text):
    place = files(
        tmp_path / "mine", {"a.wav": WAV, "a.txt": content, "b.wav": WAV, "b.txt": "good"}
    )
    assert [one.text for one in rows_of(place)] == [text, "good"]


def test_a_text_that_is_a_book_is_refused(tmp_path):
    assert_refused(
        files(tmp_path / "mine", {"a.wav": WAV, "a.txt": b"x" * 2_000_000}),
        r"a\.txt: a text of more than 1,048,576 bytes",
    )


@pytest.mark.parametrize(
    ("contents", "match"),
    [
        (
            ["a.wav", "b.txt"],
            (
                r"mine: no metadata\.csv, metadata\.tsv, metadata\.jsonl, and no recording "
                r"with a \.txt, \.srt or \.vtt"
            ),
        ),
        (
            ["a.wav", "a.txt", "b.wav", "b.srt"],
            r"mine: recordings have \.txt beside them, and \.srt or \.vtt too",
        ),
        (
            ["sub/a.wav", "sub/a.mp3", "sub/a.txt"],
            r"mine: sub/a: two recordings or two texts of this name; keep one of each",
        ),
        (["a.wav", "a.srt", "a.vtt"], r"mine: a: two recordings or two texts of this name"),
    ],
)
def test_a_folder_that_could_be_meant_in_two_ways_or_none_is_refused(tmp_path, contents, match):
    assert_refused(files(tmp_path / "mine", dict.fromkeys(contents, b"x")), match)


# what leads out


@pytest.mark.parametrize("name", ["a.wav", "a.txt", "metadata.csv", "sub"])
@pytest.mark.parametrize("layout", ["texts", "table"])
def test_a_link_out_of_the_folder_is_refused(tmp_path, name, layout):
    files(tmp_path / "outside", {"a.wav": b"secret"})
    contents = (
        {"a.wav": WAV, "a.txt": "x"}
        if layout == "texts"
        else {"a.wav": WAV, "metadata.csv": "file_name,text\na.wav,x\n"}
    )
    place = files(tmp_path / "mine", contents)
    (place / name).unlink(missing_ok=True)
    (place / name).symlink_to(tmp_path / "outside" / ("" if name == "sub" else "a.wav"))
    assert_refused(place, rf"mine: {name} leads out of the folder; copy what it names into it")


def test_a_link_within_the_folder_is_a_file_like_any_other(tmp_path):
    place = files(tmp_path / "mine", {"sub/a.wav": WAV, "b.txt": "x"})
    (place / "b.wav").symlink_to("sub/a.wav")
    (place / "loop").symlink_to(".")
    (place / "itself.wav").symlink_to("itself.wav")
    (place / "metadata.csv").symlink_to("metadata.csv")
    (tmp_path / "link").symlink_to(place)
    assert [one.audio() for one in rows_of(tmp_path / "link")] == [WAV]


def test_a_pipe_is_no_file(tmp_path):
    place = files(tmp_path / "mine", {"a.wav": WAV, "a.txt": "x", "b.wav": WAV})
    os.mkfifo(place / "b.txt")
    assert [one.id for one in rows_of(place)] == ["a.wav"]


# long recordings with subtitles


def spoken(place: Path, names: Iterable[str], suffix: str = ".srt") -> np.ndarray:
    """Recordings of 6 s with three cues of 2 s each."""
    samples = voice(6.0)
    write = formats.srt if suffix == ".srt" else formats.vtt
    for name in names:
        said = [Segment(float(start), start + 2.0, f"{name} at {start}") for start in (0, 2, 4)]
        files(
            place, {f"{name}.flac": encoded(samples, format="FLAC"), f"{name}{suffix}": write(said)}
        )
    return samples


@pytest.mark.parametrize("suffix", [".srt", ".vtt"])
def test_each_cue_is_an_utterance_with_its_sound(tmp_path, suffix):
    samples = spoken(tmp_path / "mine", ["talk"], suffix)
    corpus = read(tmp_path / "mine")
    found = list(corpus.utterances)
    assert [(one.id, one.split, one.text, one.speaker, one.duration) for one in found] == [
        (f"talk.flac#0000{number}", None, f"talk at {2 * number - 2}", "talk.flac", 2.0)
        for number in (1, 2, 3)
    ]
    heard = np.concatenate([codec.decode(one.audio() or b"") for one in found])
    assert np.abs(heard - samples).max() <= 2 / 32768
    assert corpus.about["layout"] == "subtitles"


def test_all_of_a_recording_is_in_one_split_and_folders_part_speakers(tmp_path):
    spoken(
        tmp_path / "mine",
        ["talk", "other", "anna/one", "anna/deep/two", "test/three", "test/bo/four"],
    )
    found = rows_of(tmp_path / "mine")
    assert {one.id.partition("#")[0]: (one.split, one.speaker) for one in found} == {
        "talk.flac": (None, "talk.flac"),
        "other.flac": (None, "other.flac"),
        "anna/one.flac": (None, "anna"),
        "anna/deep/two.flac": (None, "anna"),
        "test/three.flac": ("test", "test/three.flac"),
        "test/bo/four.flac": ("test", "bo"),
    }
    assert len({one.id for one in found}) == 18


def test_a_voice_is_an_attribute_for_another_recording_may_give_its_name_to_another_person(
    tmp_path,
):
    place = files(
        tmp_path / "mine",
        {"talk.wav": WAV, "talk.vtt": "WEBVTT\n\n00:00.000 --> 00:00.100\n<v Ann>Hello\n"},
    )
    (one,) = rows_of(place)
    assert (one.text, one.speaker, one.attributes) == ("Hello", "talk.wav", {"voice": "Ann"})


def test_cues_without_text_or_sound_stay_as_rows(tmp_path):
    said = (
        "1\n00:00,000 --> 00:00,100\n[music]\n\n2\n00:05,000 --> "
        "00:06,000\nlate\n\n3\n00:00,100 --> 00:00,050\nback\n"
    )
    found = rows_of(files(tmp_path / "mine", {"talk.wav": WAV, "talk.srt": said}))
    assert [(one.text, one.duration) for one in found] == [
        ("", pytest.approx(0.1)),
        ("late", 1.0),
        ("back", 0.0),
    ]
    assert [bool(one.audio()) for one in found] == [True, False, False]


def test_broken_subtitles_are_refused_with_their_line(tmp_path):
    assert_refused(
        files(tmp_path / "mine", {"talk.wav": WAV, "talk.srt": "1\n00:00 -> 00:01\nA\n"}),
        r"talk\.srt:1: text above the first times",
    )


def test_utterances_can_be_handed_to_another_process(tmp_path):
    spoken(tmp_path / "mine", ["talk"])
    for one in rows_of(tmp_path / "mine")[:1] + rows_of(
        files(tmp_path / "texts", {"a.wav": WAV, "a.txt": "x"})
    ):
        assert pickle.loads(pickle.dumps(one)).audio() == one.audio()


@pytest.mark.parametrize(("on_disk", "in_table"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_name_with_accents_is_found_however_they_are_written(
    tmp_path: Path, on_disk: str, in_table: str
) -> None:
    (tmp_path / f"{unicodedata.normalize(on_disk, 'Åsa é')}.wav").write_bytes(b"sound")
    assert (
        utterances.read_bytes(tmp_path / f"{unicodedata.normalize(in_table, 'Åsa é')}.wav")
        == b"sound"
    )
    assert utterances.read_bytes(tmp_path / "Åsa e.wav") is None
