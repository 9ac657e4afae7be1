"""A Common Voice release: read as it is written, in any wrapping, and nothing hostile gets out of
its archive.
"""

import gzip
import io
import random
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import DataError, DiskError
from asr.sources import common_voice
from asr.sources.utterances import Corpus, Utterance
from asr.whisper import WHISPER_LANGUAGES
from support.data import encoded, real, sha256s, voice
from support.sources import by_split, disjoint, listed

MP3 = encoded(voice(0.3), format="MP3")
TSVS = {str(split): tsv for split, tsv in common_voice.TSVS["official"].items()}
COLUMNS = "client_id\tpath\tsentence\tage\tgender"


def release(place: Path, lines: dict[str, list[str]] | None = None, columns: str = COLUMNS) -> Path:
    """A small release: two clips of one speaker in each split."""
    (place / "clips").mkdir(parents=True)
    for split, tsv in TSVS.items():
        names = [f"{split}_{number}.mp3" for number in range(2)]
        rows = (lines or {}).get(split) or [
            f"speaker-{split}\t{name}\ttext of {name}\ttwenties\t" for name in names
        ]
        (place / tsv).write_bytes("\n".join([columns, *rows, ""]).encode(errors="surrogateescape"))
        for name in names:
            (place / "clips" / name).write_bytes(MP3 + name.encode())
    return place


def opened(
    place: Path, working: Path, splits: Literal["official", "validated"] = "official"
) -> Corpus:
    working.mkdir(exist_ok=True)
    return common_voice.read(place, working, splits)


def utterances(place: Path, working: Path) -> list[Utterance]:
    return list(opened(place, working).utterances)


def archive(
    path: Path, members: list[tuple[tarfile.TarInfo | str, bytes]], mode: str = "w:gz"
) -> Path:
    with tarfile.open(path, mode) as tar:
        for given, content in members:
            info = given if isinstance(given, tarfile.TarInfo) else tarfile.TarInfo(given)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def packed(tmp_path: Path, folder: Path) -> Path:
    with tarfile.open(tmp_path / "cv-corpus-99.tar.gz", "w:gz") as tar:
        tar.add(folder, "cv-corpus-99/sv-SE")
    return tmp_path / "cv-corpus-99.tar.gz"


def test_folder_parent_and_archive_give_the_same_corpus(tmp_path):
    place = release(tmp_path / "cv-corpus-99" / "sv-SE")
    work = tmp_path / "work"
    work.mkdir()
    one = listed(opened(place, work))
    assert one == listed(opened(tmp_path / "cv-corpus-99", work))
    corpus = opened(packed(tmp_path, place), work)
    assert one == listed(corpus)
    assert corpus.about["name"] == "cv-corpus-99"


def test_rows_carry_what_the_tsv_says(tmp_path):
    one = utterances(release(tmp_path / "sv"), tmp_path / "work")[2]
    assert (one.id, one.split, one.text) == (
        "validation_0.mp3",
        "validation",
        "text of validation_0.mp3",
    )
    assert (one.speaker, one.attributes) == ("speaker-validation", {"age": "twenties"})
    assert one.audio() == MP3 + b"validation_0.mp3"


@pytest.mark.parametrize("column", ["clip", "filename"])
def test_durations_are_read_under_both_headers(tmp_path, column):
    place = release(tmp_path / "sv")
    (place / "clip_durations.tsv").write_text(
        f"{column}\tduration[ms]\ntrain_0.mp3\t1536\ntest_1.mp3\t300\n"
    )
    found = {one.id: one.duration for one in utterances(place, tmp_path / "work")}
    assert {name: seconds for name, seconds in found.items() if seconds is not None} == {
        "train_0.mp3": 1.536,
        "test_1.mp3": 0.3,
    }


@pytest.mark.parametrize(
    "content",
    ["clip\tduration[ms]\na.mp3\tlong\n", "clip\tms\na.mp3\t1\n", "name\tduration[ms]\na.mp3\t1\n"],
)
def test_durations_that_are_none_are_refused(tmp_path, content):
    place = release(tmp_path / "sv")
    (place / "clip_durations.tsv").write_text(content)
    with pytest.raises(
        DataError, match=r"clip_durations\.tsv:2: want the columns clip and duration\[ms\], got "
    ):
        opened(place, tmp_path / "work")


TEXTS = st.text(
    st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), min_size=1, max_size=30
)


@settings(max_examples=25)
@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_sentences_are_kept_exactly_quotes_too(tmp_path_factory, texts):
    texts = [*texts, '"open quote', 'he said "no" twice', "it's", '""']
    folder = tmp_path_factory.mktemp("cv")
    place = release(
        folder / "sv",
        {"train": [f"anna\t{number}.mp3\t{text}\t\t" for number, text in enumerate(texts)]},
    )
    assert [one.text for one in utterances(place, folder / "work") if one.split == "train"] == texts


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    place = release(tmp_path / "sv", columns="\ufeff" + COLUMNS)
    assert utterances(place, tmp_path / "work")[0].speaker == "speaker-train"


def test_text_that_is_not_utf_8_is_carried_along(tmp_path):
    place = release(tmp_path / "sv", {"train": ["anna\ta.mp3\tbroken \udcff text\t\t"]})
    assert utterances(place, tmp_path / "work")[0].text == "broken \udcff text"


@pytest.mark.parametrize("tsv", ["dev.tsv", "test.tsv"])
def test_a_missing_tsv_is_refused(tmp_path, tsv):
    place = release(tmp_path / "sv")
    (place / tsv).unlink()
    with pytest.raises(
        DataError,
        match=rf"{tsv}: not there; a Common Voice release has train.tsv, dev.tsv, test.tsv",
    ) as caught:
        opened(place, tmp_path / "work")
    assert caught.value.exit_code == 3


def test_a_missing_column_is_refused(tmp_path):
    place = release(tmp_path / "sv", columns="client_id\tpath\ttext\tage\tgender")
    with pytest.raises(
        DataError, match=r"train\.tsv: no column sentence; it has client_id, path, text"
    ):
        opened(place, tmp_path / "work")


def test_a_missing_clip_is_a_row_without_sound(tmp_path):
    place = release(tmp_path / "sv")
    (place / "clips" / "train_1.mp3").unlink()
    sounds = {one.id: one.audio() for one in utterances(place, tmp_path / "work")}
    assert [name for name, sound in sounds.items() if sound is None] == ["train_1.mp3"]


def test_clips_that_no_tsv_names_are_counted(tmp_path):
    place = release(tmp_path / "sv")
    for number in range(3):
        (place / "clips" / f"more_{number}.mp3").write_bytes(MP3)
    assert opened(place, tmp_path / "work").about["clips_no_tsv_names"] == 3


def test_a_path_in_a_tsv_never_leaves_the_clips(tmp_path):
    (tmp_path / "secret.mp3").write_bytes(b"secret")
    place = release(tmp_path / "sv", {"train": ["anna\t../../secret.mp3\ttext\t\t"]})
    assert utterances(place, tmp_path / "work")[0].audio() is None


def test_a_folder_without_a_release_is_refused(tmp_path):
    with pytest.raises(
        DataError,
        match=(
            r"no Common Voice release in it; want a folder with clips/, train.tsv, dev.tsv, "
            r"test.tsv"
        ),
    ):
        opened(tmp_path, tmp_path / "work")


def test_a_folder_with_two_releases_is_refused(tmp_path):
    for name in ("de", "sv"):
        release(tmp_path / name)
    with pytest.raises(DataError, match=r"holds 2 releases \(de, sv\); name one of them"):
        opened(tmp_path, tmp_path / "work")


def test_a_place_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(
        DataError,
        match=r"nowhere: not there; want a Common Voice folder or \.tar\.gz \(download\.path\)",
    ):
        opened(tmp_path / "nowhere", tmp_path / "work")


def test_a_very_long_sentence_is_kept_exactly(tmp_path):
    long = "word " * 40_000
    place = release(tmp_path / "sv", {"train": [f"anna\ta.mp3\t{long}\t\t"]})
    assert utterances(place, tmp_path / "work")[0].text == long


def test_a_real_release_is_read(tmp_path):
    place = real("digits-en")
    corpus = opened(place, tmp_path)
    found = list(corpus.utterances)
    for split, tsv in TSVS.items():
        assert (
            sum(one.split == split for one in found)
            == len((place / tsv).read_text().splitlines()) - 1
        )
    assert all(one.audio() for one in found[:20])
    assert {one.id: round(one.duration * 1000) for one in found} == {
        name: int(duration)
        for name, duration in (
            line.split("\t") for line in (place / "clip_durations.tsv").read_text().splitlines()[1:]
        )
    }
    assert disjoint(by_split(corpus, "speaker"))
    assert (corpus.about["language"], corpus.about["clips_no_tsv_names"]) == ("en", 0)


# all that is valid, split anew


def validated(place: Path, rows: list[str]) -> Path:
    """A release that also says which clips are valid; one of them stands in no split."""
    release(place)
    (place / "validated.tsv").write_text("\n".join([COLUMNS, *rows, ""]))
    (place / "clips" / "spare.mp3").write_bytes(MP3)
    return place


def test_validated_clips_have_no_split(tmp_path):
    rows = [
        "anna\ttrain_0.mp3\tone\t\t",
        "bo\ttest_1.mp3\ttwo\tfifties\t",
        "\tspare.mp3\tthree\t\t",
    ]
    place = validated(tmp_path / "sv", rows)
    corpus = opened(place, tmp_path / "work", "validated")
    found = [
        (one.id, one.split, one.text, one.speaker, one.attributes) for one in corpus.utterances
    ]
    assert found == [
        ("train_0.mp3", None, "one", "anna", {}),
        ("test_1.mp3", None, "two", "bo", {"age": "fifties"}),
        ("spare.mp3", None, "three", None, {}),
    ]
    assert corpus.about["clips_no_tsv_names"] == 4
    assert opened(place, tmp_path / "work").about["clips_no_tsv_names"] == 1


def test_a_release_that_does_not_say_what_is_valid_is_refused(tmp_path):
    with pytest.raises(
        DataError,
        match=r"sv: no Common Voice release in it; want a folder with clips/, validated\.tsv",
    ):
        opened(release(tmp_path / "sv"), tmp_path / "work", "validated")


# its language


@pytest.mark.parametrize(
    ("locale", "code"),
    [
        ("sv-SE", "sv"),
        ("zh-CN", "zh"),
        ("nn-NO", "nn"),
        ("nb-NO", "no"),
        ("yue", "yue"),
        ("pa-IN", "pa"),
        ("fil", "tl"),
        ("ga-IE", "ga"),
    ],
)
def test_a_locale_is_a_language(locale, code):
    assert common_voice.language_of(locale) == code
    assert code in WHISPER_LANGUAGES or code == "ga"


@pytest.mark.parametrize("folder", ["rm-sursilv", "hy-AM", "cv-corpus-99", "mine", "digits-en"])
def test_a_release_tells_its_language_by_its_table_else_by_its_folder(tmp_path, folder):
    by_folder = {"rm-sursilv": "rm", "hy-AM": "hy"}.get(folder)
    assert opened(release(tmp_path / folder), tmp_path / "work").about["language"] == by_folder
    rows = {"train": ["anna\ta.mp3\ttext\t\t\tsv-SE"]}
    place = release(tmp_path / "other" / folder, rows, f"{COLUMNS}\tlocale")
    assert opened(place, tmp_path / "work").about["language"] == "sv"


# hostile tables


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_another_encoding_is_refused(tmp_path, encoding):
    place = release(tmp_path / "sv")
    (place / "train.tsv").write_bytes((place / "train.tsv").read_text().encode(encoding))
    with pytest.raises(
        DataError, match=r"train\.tsv: not UTF-8 but perhaps UTF-16; save it again as UTF-8"
    ):
        opened(place, tmp_path / "work")


@pytest.mark.parametrize(
    "name", ["", "nul\0.mp3", "x" * 5000, "../clips/test_0.mp3", "/etc/passwd", "\udcff.mp3"]
)
def test_a_name_that_no_clip_has_is_a_row_without_sound(tmp_path, name):
    rows = {"train": [f"anna\t{name}\ttext\t\t", "anna\ttrain_1.mp3\ttext\t\t"]}
    (one, other) = utterances(release(tmp_path / "sv", rows), tmp_path / "work")[:2]
    assert (one.id, one.audio() is None, other.audio() is None) == (
        name,
        name != "../clips/test_0.mp3",
        False,
    )


def test_a_text_with_a_tab_is_refused_for_it_would_be_cut(tmp_path):
    place = release(tmp_path / "sv", {"train": ["anna\ta.mp3\tone\ttwo\t\tthirties"]})
    with pytest.raises(DataError, match=r"train\.tsv:2: more values than columns"):
        opened(place, tmp_path / "work")


def test_a_text_with_a_tab_is_refused_though_the_last_column_is_empty(tmp_path):
    place = release(tmp_path / "sv", {"train": ["anna\ttrain_0.mp3\tone\ttwo\t\t"]})
    with pytest.raises(DataError, match=r"train\.tsv:2: more values than columns"):
        opened(place, tmp_path / "work")


@pytest.mark.parametrize("end", ["\n", "\r"])
def test_a_text_that_is_cut_by_a_line_end_is_left_out(tmp_path, end):
    rows = {"train": [f"anna\ttrain_0.mp3\tone{end}two\t\t", "anna\ttrain_1.mp3\twhole\t\t"]}
    texts = [one.text for one in utterances(release(tmp_path / "sv", rows), tmp_path / "work")[:3]]
    assert texts == ["", "", "whole"]


def test_a_disk_that_will_not_hold_an_archive_is_refused_before_it_is_unpacked(
    tmp_path, monkeypatch
):
    path = archive(tmp_path / "sv.tar.gz", [("sv/clips/a.mp3", bytes(range(256)) * 64)])
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(DiskError, match=r"sv\.tar\.gz, unpacked, will take"):
        opened(path, tmp_path / "work")
    assert [one for one in (tmp_path / "work").rglob("*") if one.is_file()] == []


@pytest.mark.parametrize("duration", ["nan", "inf", "-1"])
def test_a_duration_that_is_no_time_is_refused(tmp_path, duration):
    place = release(tmp_path / "sv")
    (place / "clip_durations.tsv").write_text(f"clip\tduration[ms]\ntrain_0.mp3\t{duration}\n")
    with pytest.raises(DataError, match=r"clip_durations\.tsv:2: a duration of "):
        opened(place, tmp_path / "work")


# archives

HOSTILE = {
    "traversal": ("../outside", tarfile.REGTYPE, ""),
    "deep traversal": ("cv/clips/../../../outside", tarfile.REGTYPE, ""),
    "symbolic link": ("cv/link", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": ("cv/link", tarfile.LNKTYPE, "../outside"),
    "character device": ("cv/null", tarfile.CHRTYPE, ""),
    "block device": ("cv/disk", tarfile.BLKTYPE, ""),
    "pipe": ("cv/pipe", tarfile.FIFOTYPE, ""),
}


def refuse(tmp_path: Path, path: Path, match: str) -> None:
    """The archive is refused, in one line, and nothing appears outside the working folder."""
    work = tmp_path / "around" / "work"
    work.mkdir(parents=True)
    (tmp_path / "around" / "mine").write_text("mine")
    with pytest.raises(DataError, match=match) as caught:
        common_voice.unpack(path, work)
    assert caught.value.exit_code == 3
    assert len(str(caught.value).splitlines()) == 1
    assert [name for name in sha256s(tmp_path / "around") if not name.startswith("work/")] == [
        "mine"
    ]
    assert all(one.is_file() or one.is_dir() for one in work.rglob("*"))
    assert not any(one.is_symlink() for one in work.rglob("*"))


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_member_is_refused(tmp_path, kind):
    path = archive(tmp_path / "a.tar.gz", [("cv/good", b"good"), (special(*HOSTILE[kind]), b"")])
    refuse(tmp_path, path, r"a\.tar\.gz: .* is not a regular file inside the archive; refused")


def test_an_absolute_member_is_refused(tmp_path):
    outside = tmp_path / "around" / "outside"
    refuse(
        tmp_path,
        archive(tmp_path / "a.tar.gz", [(str(outside), b"x")]),
        "is not a regular file inside the archive; refused",
    )
    assert not outside.exists()


def test_a_file_through_a_link_of_the_same_archive_is_refused(tmp_path):
    path = archive(
        tmp_path / "a.tar.gz",
        [(special("cv/out", tarfile.SYMTYPE, "../../.."), b""), ("cv/out/outside", b"x")],
    )
    refuse(tmp_path, path, "cv/out is not a regular file inside the archive; refused")


def test_a_bomb_is_refused(tmp_path):
    path = archive(tmp_path / "a.tar.gz", [("zeros", bytes(25 << 20))])
    refuse(tmp_path, path, "unpacks to more than 20 times its size; refused")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_archive_is_refused(tmp_path, share):
    path = archive(tmp_path / "a.tar.gz", [("a", random.Random(1).randbytes(50_000)), ("b", b"b")])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refuse(tmp_path, path, r"a\.tar\.gz: not a whole archive \(.*\); fetch it again")


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404</html>" * 100, gzip.compress(b"text" * 1000), b"\x1f\x8b" + bytes(100)],
    ids=["empty", "html", "gz", "zeros"],
)
def test_what_is_no_archive_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "a.tar.gz").write_bytes(content)
    refuse(tmp_path, tmp_path / "a.tar.gz", r"a\.tar\.gz: not a whole archive")


def test_an_archive_with_changed_bytes_is_refused(tmp_path):
    path = archive(tmp_path / "a.tar.gz", [("a", random.Random(1).randbytes(50_000)), ("b", b"b")])
    content = bytearray(path.read_bytes())
    content[20_000:20_010] = bytes(10)
    path.write_bytes(bytes(content))
    refuse(tmp_path, path, "not a whole archive")


@pytest.mark.parametrize(
    "names",
    [["."], ["a", "a/b"], ["a/b", "a"], ["x" * 300], ["\x00"]],
    ids=["the folder", "file then folder", "folder then file", "long", "nul"],
)
def test_names_that_no_disk_takes_are_refused(tmp_path, names):
    members = []
    for name in names:
        info = tarfile.TarInfo("plain")
        info.pax_headers = {"path": name}
        members.append((info, b"x"))
    refuse(tmp_path, archive(tmp_path / "a.tar.gz", members), r"a\.tar\.gz: ")


def test_a_good_archive_is_unpacked_whole(tmp_path):
    (tmp_path / "work").mkdir()
    common_voice.unpack(
        archive(tmp_path / "a.tar.gz", [("a/b/c", b"1"), ("d", b"")]), tmp_path / "work"
    )
    assert {
        name: (tmp_path / "work" / name).read_bytes() for name in sha256s(tmp_path / "work")
    } == {"a/b/c": b"1", "d": b""}
