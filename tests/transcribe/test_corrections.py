"""What visitors correct becomes a corpus: saved, read by the folder source, downloaded as rows,
with nothing lost between.
"""

from __future__ import annotations

import csv
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio import codec
from asr.audio.sample_file import SampleFile
from asr.decoding.segments import Segment
from asr.errors import DataError
from asr.params import reader
from asr.sources import folder as source
from asr.storage import shards
from asr.storage.shards import SPLITS
from asr.transcribe import corrections
from asr.whisper import SAMPLE_RATE
from stages import download
from support.data import voice
from support.repository import REPOSITORY, write_params

ODD = ["a, \"b\"\n\n c;\r\n'd'", "שלום\tעולם", "=1+1", "<b>&amp;</b>", "åäö 👍🏽", "-->", "\\", "-"]


@pytest.fixture
def heard(tmp_path: Path) -> SampleFile:
    path = tmp_path / "samples.f32"
    voice(60.0).tofile(path)
    return SampleFile(path)


def segments(*texts: str) -> list[Segment]:
    return [Segment(float(start), start + 0.9, text) for start, text in enumerate(texts)]


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(
        encoding="utf-8", errors="surrogateescape", newline=""
    ) as file:
        return list(csv.DictReader(file))


def left_over(folder: Path) -> list[str]:
    """Files that are neither the table nor a recording in it."""
    named = {row["file_name"] for row in lines(folder)}
    return [path.name for path in folder.iterdir() if path.name not in {*named, "metadata.csv"}]


def test_what_is_saved_is_downloaded_with_its_text_and_sound(
    tmp_path: Path, heard: SampleFile
) -> None:
    target = tmp_path / "recordings"
    given = segments(*(f"{text} {n}" for n, text in enumerate(ODD * 5)), "", " \n ")
    assert (
        sum(corrections.save(target, heard, [one], f"voice {n}") for n, one in enumerate(given))
        == len(given) - 2
    )
    corpus = source.read(target, tmp_path)
    assert corpus.about["recordings_without_text"] == 0
    assert [one.text for one in corpus.utterances] == [
        " ".join(one.text.split()) for one in given[:-2]
    ]
    changes = {"download.source": "folder", "download.path": str(target)}
    download.run(
        tmp_path / "raw", reader.load(write_params(tmp_path / "params.yaml", changes)).download
    )
    rows = {row["text"]: row for split in SPLITS for row in shards.rows(tmp_path / "raw" / split)}
    for number, one in enumerate(given[:-2]):
        row = rows.pop(" ".join(one.text.split()))
        assert row["speaker"] == f"voice {number}"
        assert (
            np.abs(codec.decode(row["audio"]) - heard.read(one.start, one.end)).max()
            <= 1 / 32768 + 1e-6
        )
        assert row["duration"] == pytest.approx(0.9)
    assert rows == {}
    assert left_over(target) == []


def test_a_damaged_sound_would_be_seen(tmp_path: Path, heard: SampleFile) -> None:
    corrections.save(tmp_path / "r", heard, segments("ett"), "")
    (only,) = source.read(tmp_path / "r", tmp_path).utterances
    assert np.abs(codec.decode(only.audio() or b"") - heard.read(0.1, 1.0)).max() > 0.01
    assert only.speaker is None


def test_saving_again_replaces_the_text(tmp_path: Path, heard: SampleFile) -> None:
    target = tmp_path / "r"
    assert corrections.save(target, heard, segments("ett", "två"), "ann") == 2
    assert corrections.save(target, heard, segments("ett och ett"), "bob") == 1
    assert [(row["transcription"], row["speaker_id"]) for row in lines(target)] == [
        ("ett och ett", "bob"),
        ("två", "ann"),
    ]
    assert len(list(target.glob("*.flac"))) == 2


def test_nothing_to_save_writes_no_table(tmp_path: Path, heard: SampleFile) -> None:
    assert corrections.save(tmp_path / "r", heard, segments("", " "), "ann") == 0
    assert list((tmp_path / "r").iterdir()) == []


def test_many_who_save_at_once_lose_nothing(tmp_path: Path, heard: SampleFile) -> None:
    target, failed = tmp_path / "r", []

    def save(number: int) -> None:
        try:
            for turn in range(3):
                own = Segment(number + turn / 4, number + turn / 4 + 0.2, f"{number} {turn}")
                corrections.save(
                    target, heard, [own, Segment(30.0, 31.0, "the same")], f"voice {number}"
                )
        except Exception as error:  # a thread's fault must reach the test
            failed.append(error)

    savers = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for one in savers:
        one.start()
    for one in savers:
        one.join()
    assert failed == []
    assert sorted(row["transcription"] for row in lines(target)) == sorted(
        [*(f"{n} {t}" for n in range(8) for t in range(3)), "the same"]
    )
    assert left_over(target) == []


def test_a_table_that_was_there_keeps_its_rows_and_columns(
    tmp_path: Path, heard: SampleFile
) -> None:
    target = tmp_path / "r"
    target.mkdir()
    table = (
        b'\xef\xbb\xbffile_name,split,transcription,dialect,note\nold.wav,test,"ett, '
        b'tv\xc3\xa5",sk\xe5nska,"a\rb\n""c"""\n'
    )
    (target / "metadata.csv").write_bytes(table)
    corrections.save(target, heard, segments("tre"), "ann")
    old, new = lines(target)
    assert (old["file_name"], old["split"], old["transcription"], old["speaker_id"]) == (
        "old.wav",
        "test",
        "ett, två",
        "",
    )
    assert (old["dialect"], old["note"]) == ("sk\udce5nska", 'a\rb\n"c"')
    assert (new["transcription"], new["split"], new["dialect"]) == ("tre", "", "")
    (target / "metadata.csv").write_bytes(
        (target / "metadata.csv").read_bytes().replace(b",,,", b",train,north,", 1)
    )
    before = lines(target)[1]
    corrections.save(target, heard, segments("tre och fyra"), "bob")
    after = lines(target)[1]
    assert after == before | {"transcription": "tre och fyra", "speaker_id": "bob"}


@pytest.mark.parametrize("table", [b"", b"a;b\n1;2\n"], ids=["empty", "other"])
def test_a_table_that_is_none_of_ours_is_left_alone(
    tmp_path: Path, heard: SampleFile, table: bytes
) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r/metadata.csv").write_bytes(table)
    with pytest.raises(DataError, match=r"metadata\.csv"):
        corrections.save(tmp_path / "r", heard, segments("ett"), "")
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["metadata.csv"]
    assert (tmp_path / "r/metadata.csv").read_bytes() == table


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
            st.text(max_size=10).map(ascii),
        ),
        max_size=5,
    )
)
def test_any_text_is_read_back_on_one_line(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[str, str]]
) -> None:
    root = tmp_path_factory.mktemp("any")
    np.random.default_rng(0).uniform(-1, 1, 6 * SAMPLE_RATE).astype(np.float32).tofile(
        root / "samples.f32"
    )
    for start, (text, speaker) in enumerate(said):
        corrections.save(
            root / "r",
            SampleFile(root / "samples.f32"),
            [Segment(float(start), start + 0.1, text)],
            speaker,
        )
    wanted = [(" ".join(text.split()), speaker) for text, speaker in said if text.split()]
    found = source.read(root / "r", root).utterances if wanted else []
    assert [(one.text, one.speaker) for one in found] == wanted


def test_git_leaves_the_recordings_alone() -> None:
    assert "/recordings/" in (REPOSITORY / ".gitignore").read_text().split()
