"""Every source lists the same utterances for the same corpus, in any process, and lets nothing hostile out of its folder."""

import csv
import gzip
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from data_fixtures import REPOSITORY, encoded, real, sha256s, voice
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio import decode, header_seconds
from asr.faults import BadData, BadParams
from asr.shards import SPLITS
from asr.sources import Corpus, common_voice, folder, fraction_of, split_of, synthetic

ROWS = {"train": 12, "validation": 4, "test": 4}
VOICES = {"train": 6, "validation": 2, "test": 2}
NUMBERS = {"max_number": 99, "numbers": (2, 3), "words_per_minute": (140, 190), "pitch": (30, 70)}
MP3 = encoded(voice(0.3), format="MP3")


@cache
def spoken(language: str = "sv", seed: int = 1) -> Corpus:
    return synthetic.read(language, seed, ROWS, VOICES, **NUMBERS)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def by_split(corpus: Corpus, field: str) -> dict[str, set[Any]]:
    return {split: {getattr(one, field) for one in corpus.utterances if one.split == split} for split in SPLITS}


def disjoint(sets: dict[str, set[Any]]) -> bool:
    return sum(map(len, sets.values())) == len(set.union(*sets.values()))


# spoken numbers


@pytest.mark.parametrize("language", ["en", "de", "fr", "sv", "no"])
def test_numbers_are_spoken_in_many_languages(language):
    corpus = spoken(language)
    heard = decode(corpus.utterances[0].audio())
    assert len(corpus.utterances) == sum(ROWS.values())
    assert 0.3 * 16_000 < len(heard) < 10 * 16_000
    assert abs(heard).max() > 0.05
    assert corpus.about["name"] == f"spoken numbers in {language}"


def test_languages_spell_their_own_numbers():
    assert len({spoken(language).utterances[0].text for language in ("en", "de", "fr", "sv")}) == 4


@pytest.mark.parametrize("language", ["zh", "yue"])
def test_a_language_without_spelling_is_refused(language):
    with pytest.raises(
        BadParams, match=rf"download\.language: num2words cannot spell {language}; want another source or language"
    ) as caught:
        spoken(language)
    assert caught.value.exit_code == 2


def test_a_voice_that_is_not_there_is_refused():
    with pytest.raises(BadParams, match=r"download.language: espeak-ng has no voice xx\+m1"):
        synthetic.speak("ett", "xx+m1", 150, 50)


def test_the_same_bytes_are_spoken_in_any_order():
    utterances = spoken().utterances
    forth = {one.id: digest(one.audio()) for one in utterances}
    back = {one.id: digest(one.audio()) for one in reversed(utterances)}
    assert forth == back
    assert len(set(forth.values())) == len(utterances)


def test_the_same_bytes_are_spoken_in_another_process():
    code = f"""
import hashlib, json
from asr.sources import synthetic
corpus = synthetic.read("sv", 1, {ROWS}, {VOICES}, **{NUMBERS})
print(json.dumps([[one.id, one.text, one.speaker, hashlib.sha256(one.audio()).hexdigest()] for one in corpus.utterances[::-3]]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONHASHSEED": "3", "LC_ALL": "C", "TZ": "Asia/Tokyo"},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == [[one.id, one.text, one.speaker, digest(one.audio())] for one in spoken().utterances[::-3]]


def test_what_is_spoken_is_mono_flac():
    content = spoken().utterances[0].audio()
    assert content[:4] == b"fLaC"
    assert header_seconds(content) == pytest.approx(len(decode(content)) / 16_000, abs=1e-3)


def test_another_seed_says_other_things_with_other_voices():
    one, other = spoken(), spoken(seed=2)
    assert [u.text for u in one.utterances] != [u.text for u in other.utterances]
    assert by_split(one, "speaker") != by_split(other, "speaker")


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.tuples(*[st.integers(1, 20)] * 3), st.tuples(*[st.integers(1, 15)] * 3))
def test_splits_share_no_sentence_and_no_voice(seed, rows, voices):
    corpus = synthetic.read("en", seed, dict(zip(SPLITS, rows, strict=True)), dict(zip(SPLITS, voices, strict=True)), **NUMBERS)
    assert disjoint(by_split(corpus, "speaker"))
    assert len({one.text for one in corpus.utterances}) == len({one.id for one in corpus.utterances}) == sum(rows)
    assert all(len(by_split(corpus, "speaker")[split]) <= count for split, count in zip(SPLITS, voices, strict=True))


def test_attributes_stay_inside_their_limits():
    for one in spoken().utterances:
        assert 140 <= one.attributes["words_per_minute"] <= 190
        assert 30 <= one.attributes["pitch"] <= 70


def test_more_voices_than_there_are_are_refused():
    with pytest.raises(BadParams, match=r"download\.synthetic\.voices: got 300 in all, want at most \d+"):
        synthetic.read("en", 1, ROWS, dict.fromkeys(SPLITS, 100), **NUMBERS)


def test_more_sentences_than_there_are_are_refused():
    with pytest.raises(BadParams, match=r"download\.synthetic: more rows than different sentences; raise max_number or max_numbers"):
        synthetic.read("en", 1, {**ROWS, "train": 11}, VOICES, **{**NUMBERS, "max_number": 9, "numbers": (1, 1)})


def test_hyphens_are_spoken_as_spaces():
    assert not any("-" in one.text for one in spoken("en").utterances)


# splitting by hash


@settings(deadline=None, max_examples=50)
@given(st.text())
def test_a_fraction_depends_on_its_key_alone(key):
    assert 0 <= fraction_of(key) < 1
    assert fraction_of(key) == fraction_of(key)
    assert split_of(key) in SPLITS


def test_eight_in_ten_keys_train():
    splits = [split_of(f"speaker {number}") for number in range(5000)]
    assert splits.count("train") / 5000 == pytest.approx(0.8, abs=0.02)
    assert splits.count("test") / 5000 == pytest.approx(0.1, abs=0.02)


def test_splits_stay_what_they_were_when_published():
    held_out = {key: split_of(key) for key in ("anna", "bo", "eva", "hans", "s2", "s3") if split_of(key) != "train"}
    assert held_out == {"eva": "validation", "hans": "validation", "s2": "validation"}


# Common Voice

COLUMNS = "client_id\tpath\tsentence\tage\tgender"


def release(place: Path, lines: dict[str, list[str]] | None = None, columns: str = COLUMNS) -> Path:
    """A small release: two clips of one speaker in each split."""
    (place / "clips").mkdir(parents=True)
    for split, tsv in common_voice.TSVS.items():
        names = [f"{split}_{number}.mp3" for number in range(2)]
        rows = (lines or {}).get(split) or [f"speaker-{split}\t{name}\ttext of {name}\ttwenties\t" for name in names]
        (place / tsv).write_bytes("\n".join([columns, *rows, ""]).encode(errors="surrogateescape"))
        for name in names:
            (place / "clips" / name).write_bytes(MP3 + name.encode())
    return place


def listed(corpus: Corpus) -> list[tuple[Any, ...]]:
    return [(one.id, one.split, one.text, one.speaker, one.attributes, one.duration, one.audio()) for one in corpus.utterances]


def archive(path: Path, members: list[tuple[tarfile.TarInfo | str, bytes]], mode: str = "w:gz") -> Path:
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
    one = listed(common_voice.read(place, work))
    assert one == listed(common_voice.read(tmp_path / "cv-corpus-99", work))
    corpus = common_voice.read(packed(tmp_path, place), work)
    assert one == listed(corpus)
    assert corpus.about["name"] == "cv-corpus-99"


def test_rows_carry_what_the_tsv_says(tmp_path):
    one = common_voice.read(release(tmp_path / "sv"), tmp_path).utterances[2]
    assert (one.id, one.split, one.text) == ("validation_0.mp3", "validation", "text of validation_0.mp3")
    assert (one.speaker, one.attributes) == ("speaker-validation", {"age": "twenties"})
    assert one.audio() == MP3 + b"validation_0.mp3"


@pytest.mark.parametrize("column", ["clip", "filename"])
def test_durations_are_read_under_both_headers(tmp_path, column):
    place = release(tmp_path / "sv")
    (place / "clip_durations.tsv").write_text(f"{column}\tduration[ms]\ntrain_0.mp3\t1536\ntest_1.mp3\t300\n")
    found = {one.id: one.duration for one in common_voice.read(place, tmp_path).utterances}
    assert {name: seconds for name, seconds in found.items() if seconds is not None} == {"train_0.mp3": 1.536, "test_1.mp3": 0.3}


@pytest.mark.parametrize("content", ["clip\tduration[ms]\na.mp3\tlong\n", "clip\tms\na.mp3\t1\n", "name\tduration[ms]\na.mp3\t1\n"])
def test_durations_that_are_none_are_refused(tmp_path, content):
    place = release(tmp_path / "sv")
    (place / "clip_durations.tsv").write_text(content)
    with pytest.raises(BadData, match=r"clip_durations\.tsv: want the columns clip and duration\[ms\], got "):
        common_voice.read(place, tmp_path)


TEXTS = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), min_size=1, max_size=30)


@settings(deadline=None, max_examples=25)
@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_sentences_are_kept_exactly_quotes_too(tmp_path_factory, texts):
    texts = [*texts, '"open quote', 'he said "no" twice', "it's", '""']
    folder = tmp_path_factory.mktemp("cv")
    place = release(folder / "sv", {"train": [f"anna\t{number}.mp3\t{text}\t\t" for number, text in enumerate(texts)]})
    assert [one.text for one in common_voice.read(place, folder).utterances if one.split == "train"] == texts


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    place = release(tmp_path / "sv", columns="\ufeff" + COLUMNS)
    assert common_voice.read(place, tmp_path).utterances[0].speaker == "speaker-train"


def test_text_that_is_not_utf_8_is_carried_along(tmp_path):
    place = release(tmp_path / "sv", {"train": ["anna\ta.mp3\tbroken \udcff text\t\t"]})
    assert common_voice.read(place, tmp_path).utterances[0].text == "broken \udcff text"


@pytest.mark.parametrize("tsv", ["dev.tsv", "test.tsv"])
def test_a_missing_tsv_is_refused(tmp_path, tsv):
    place = release(tmp_path / "sv")
    (place / tsv).unlink()
    with pytest.raises(BadData, match=rf"{tsv}: not there; a Common Voice release has train.tsv, dev.tsv and test.tsv") as caught:
        common_voice.read(place, tmp_path)
    assert caught.value.exit_code == 3


def test_a_missing_column_is_refused(tmp_path):
    place = release(tmp_path / "sv", columns="client_id\tpath\ttext\tage\tgender")
    with pytest.raises(BadData, match=r"train\.tsv: no column sentence; it has client_id, path, text"):
        common_voice.read(place, tmp_path)


def test_a_missing_clip_is_a_row_without_sound(tmp_path):
    place = release(tmp_path / "sv")
    (place / "clips" / "train_1.mp3").unlink()
    sounds = {one.id: one.audio() for one in common_voice.read(place, tmp_path).utterances}
    assert [name for name, sound in sounds.items() if sound is None] == ["train_1.mp3"]


def test_clips_that_no_tsv_names_are_counted(tmp_path):
    place = release(tmp_path / "sv")
    for number in range(3):
        (place / "clips" / f"more_{number}.mp3").write_bytes(MP3)
    assert common_voice.read(place, tmp_path).about["clips_no_tsv_names"] == 3


def test_a_path_in_a_tsv_never_leaves_the_clips(tmp_path):
    (tmp_path / "secret.mp3").write_bytes(b"secret")
    place = release(tmp_path / "sv", {"train": ["anna\t../../secret.mp3\ttext\t\t"]})
    assert common_voice.read(place, tmp_path).utterances[0].audio() is None


def test_a_folder_without_a_release_is_refused(tmp_path):
    with pytest.raises(BadData, match=r"no Common Voice release in it; want a folder with clips/, train.tsv, dev.tsv and test.tsv"):
        common_voice.read(tmp_path, tmp_path)


def test_a_folder_with_two_releases_is_refused(tmp_path):
    for name in ("de", "sv"):
        release(tmp_path / name)
    with pytest.raises(BadData, match=r"holds 2 releases \(de, sv\); name one of them"):
        common_voice.read(tmp_path, tmp_path)


def test_a_place_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadData, match=r"nowhere: not there; want a Common Voice folder or \.tar\.gz \(download\.path\)"):
        common_voice.read(tmp_path / "nowhere", tmp_path)


def test_a_very_long_sentence_is_kept_exactly(tmp_path):
    long = "word " * 40_000
    place = release(tmp_path / "sv", {"train": [f"anna\ta.mp3\t{long}\t\t"]})
    assert common_voice.read(place, tmp_path).utterances[0].text == long


def test_a_real_release_is_read():
    place = real("digits-en")
    corpus = common_voice.read(place, place)
    for split, tsv in common_voice.TSVS.items():
        assert sum(one.split == split for one in corpus.utterances) == len((place / tsv).read_text().splitlines()) - 1
    assert all(one.audio() for one in corpus.utterances[:20])
    assert disjoint(by_split(corpus, "speaker"))


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
    with pytest.raises(BadData, match=match) as caught:
        common_voice.unpack(path, work)
    assert caught.value.exit_code == 3
    assert len(str(caught.value).splitlines()) == 1
    assert [name for name in sha256s(tmp_path / "around") if not name.startswith("work/")] == ["mine"]
    assert all(one.is_file() or one.is_dir() for one in work.rglob("*"))
    assert not any(one.is_symlink() for one in work.rglob("*"))


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_member_is_refused(tmp_path, kind):
    path = archive(tmp_path / "a.tar.gz", [("cv/good", b"good"), (special(*HOSTILE[kind]), b"")])
    refuse(tmp_path, path, r"a\.tar\.gz: .* is not a regular file inside the archive; refused")


def test_an_absolute_member_is_refused(tmp_path):
    outside = tmp_path / "around" / "outside"
    refuse(tmp_path, archive(tmp_path / "a.tar.gz", [(str(outside), b"x")]), "is not a regular file inside the archive; refused")
    assert not outside.exists()


def test_a_file_through_a_link_of_the_same_archive_is_refused(tmp_path):
    path = archive(tmp_path / "a.tar.gz", [(special("cv/out", tarfile.SYMTYPE, "../../.."), b""), ("cv/out/outside", b"x")])
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
    common_voice.unpack(archive(tmp_path / "a.tar.gz", [("a/b/c", b"1"), ("d", b"")]), tmp_path / "work")
    assert {name: (tmp_path / "work" / name).read_bytes() for name in sha256s(tmp_path / "work")} == {"a/b/c": b"1", "d": b""}


# a folder with metadata.csv


def table(place: Path, rows: list[dict[str, str]], columns: list[str] | None = None) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    with (place / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return place


def raw_table(place: Path, content: bytes) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / "metadata.csv").write_bytes(content)
    return place


def test_a_folder_is_read(tmp_path):
    rows = [{"file_name": "sub/a.wav", "transcription": 'he said "hi", once', "speaker_id": "anna", "split": "test", "age": "30"}]
    place = table(tmp_path / "mine", rows)
    (place / "sub").mkdir()
    (place / "sub" / "a.wav").write_bytes(b"sound")
    corpus = folder.read(place)
    (one,) = corpus.utterances
    assert (one.id, one.split, one.text, one.speaker) == ("sub/a.wav", "test", 'he said "hi", once', "anna")
    assert (one.attributes, one.audio()) == ({"age": "30"}, b"sound")
    assert corpus.about["name"] == "mine"


def test_without_split_the_speaker_decides(tmp_path):
    rows = [{"file_name": f"{number}.wav", "transcription": "x", "speaker_id": f"speaker {number % 30}"} for number in range(300)]
    corpus = folder.read(table(tmp_path, rows))
    assert all(one.split == split_of(one.speaker) for one in corpus.utterances)
    assert disjoint(by_split(corpus, "speaker"))
    assert all(by_split(corpus, "id").values())


def test_without_speaker_the_file_name_decides(tmp_path):
    rows = [{"file_name": f"{number}.wav", "transcription": "x"} for number in range(100)]
    corpus = folder.read(table(tmp_path, rows))
    assert all((one.speaker, one.split) == (None, split_of(one.id)) for one in corpus.utterances)
    assert all(by_split(corpus, "id").values())


@settings(deadline=None, max_examples=15)
@given(st.sets(st.integers(0, 999), min_size=1, max_size=30), st.sets(st.integers(0, 999), max_size=30), st.booleans())
def test_a_folder_that_grows_moves_nobody(tmp_path_factory, old, new, with_speaker):
    def splits(numbers: list[int]) -> dict[str, str]:
        rows = [{"file_name": f"{n}.wav", "transcription": "x", **({"speaker_id": f"s{n % 7}"} if with_speaker else {})} for n in numbers]
        return {one.id: one.split for one in folder.read(table(tmp_path_factory.mktemp("grow"), rows)).utterances}

    before = splits(sorted(old))
    after = splits(sorted(old | new, reverse=True))
    assert {id: after[id] for id in before} == before


def test_recordings_without_text_are_counted(tmp_path):
    place = table(tmp_path, [{"file_name": "a.wav", "transcription": "x"}])
    for name in ("a.wav", "b.wav", "sub/c.wav"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(b"x")
    assert folder.read(place).about["recordings_without_text"] == 2


def test_text_without_a_recording_is_a_row_without_sound(tmp_path):
    assert folder.read(table(tmp_path, [{"file_name": "a.wav", "transcription": "x"}])).utterances[0].audio() is None


@pytest.mark.parametrize(
    ("content", "want"),
    [
        (b"", r"metadata\.csv: no column file_name, transcription; it has none"),
        (b"file_name,text\na.wav,x\n", r"metadata\.csv: no column transcription; it has file_name, text"),
        (
            b"file_name,transcription,split\na.wav,x,test\nb.wav,x,dev\n",
            r"metadata\.csv:3: split 'dev', want one of train, validation, test",
        ),
        (b"file_name,transcription\n../a.wav,x\n", r"metadata\.csv:2: \.\./a\.wav lies outside the folder"),
        (b"file_name,transcription\n/etc/passwd,x\n", r"metadata\.csv:2: /etc/passwd lies outside the folder"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(tmp_path, content, want):
    with pytest.raises(BadData, match=want) as caught:
        folder.read(raw_table(tmp_path / "mine", content))
    assert caught.value.exit_code == 3


def test_a_folder_without_a_table_is_refused(tmp_path):
    with pytest.raises(BadData, match=r"metadata\.csv: not there; want a CSV with the columns file_name and transcription"):
        folder.read(tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    place = table(tmp_path / "mine", [{"file_name": "a.wav", "transcription": "x"}])
    (place / "a.wav").symlink_to(tmp_path / "secret")
    with pytest.raises(BadData, match=r"a\.wav lies outside the folder"):
        folder.read(place)


def test_a_file_name_that_is_not_utf_8_still_has_a_split(tmp_path):
    place = raw_table(tmp_path / "mine", b"file_name,transcription\nbroken-\xff.wav,x\n")
    (one,) = folder.read(place).utterances
    assert one.split in SPLITS


def test_a_file_name_with_nul_is_a_row_without_sound_or_refused(tmp_path):
    place = raw_table(tmp_path / "mine", b"file_name,transcription\na\x00.wav,x\n")
    try:
        (one,) = folder.read(place).utterances
    except BadData:
        return
    assert one.audio() is None


def test_a_quote_that_never_closes_is_read_or_refused_not_a_crash(tmp_path):
    place = raw_table(tmp_path / "mine", b'file_name,transcription\na.wav,"open\n' + b"b.wav,a plain sentence\n" * 10_000)
    try:
        folder.read(place)
    except BadData:
        return
