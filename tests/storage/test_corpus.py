"""Recordings found by id are the rows written; hours are summed by hand; bytes are told by how they
begin; damage is a named fault.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio import media
from asr.errors import DataError
from asr.storage import corpus, files, shards
from support.data import encoded, encoded_by_av, row, voice, write_rows

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
ROWS = st.lists(
    st.tuples(st.sampled_from("abcdefgh") | TEXT, st.none() | st.binary(max_size=20), TEXT),
    max_size=30,
)


@settings(max_examples=30)
@given(ROWS, st.sets(st.sampled_from("abcdefgh") | TEXT, max_size=5), st.integers(1, 9))
def test_rows_are_found_by_id(tmp_path_factory, rows, wanted, max_rows):
    folder = write_rows(
        tmp_path_factory.mktemp("raw"), "part", {"train": [row(*one) for one in rows]}, max_rows
    )
    found = corpus.find(folder / "train", wanted)
    assert set(found) == {id for id, _, _ in rows} & wanted
    for id, several in found.items():
        written = [one for one in rows if one[0] == id]
        assert [(one.sound or b"", one.size, one.text) for one in several] == [
            (sound or b"", len(sound or b""), text) for _, sound, text in written
        ]


def test_a_recording_that_is_too_large_is_named_not_handed_on(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "MAX_BYTES", 10)
    folder = write_rows(tmp_path, "part", {"train": [row("a", b"x" * 11), row("b", b"x" * 10)]})
    found = corpus.find(folder / "train", ["a", "b"])
    assert (found["a"][0].sound, found["a"][0].size) == (None, 11)
    assert found["b"][0].sound == b"x" * 10


def test_hours_of_each_speaker(tmp_path):
    told = [
        ("x", 1800.0),
        (None, 3600.0),
        ("y", 7200.0),
        ("x", None),
        ("x", 1800.0),
        ("y", float("nan")),
        ("z", -5.0),
        ("z", 1e300),
    ]
    rows = [
        row(str(number), b"", speaker=speaker, duration=seconds)
        for number, (speaker, seconds) in enumerate(told)
    ]
    folder = write_rows(tmp_path, "chunk", {"train": rows, "test": []}, 3)
    assert corpus.hours_by_speaker(folder / "train") == [
        ("y", 2, 2.0),
        ("x", 3, 1.0),
        (None, 1, 1.0),
        ("z", 2, 0.0),
    ]
    assert corpus.hours_by_speaker(folder / "test") == []


def test_the_first_ids_are_those_of_the_first_rows(tmp_path):
    folder = write_rows(
        tmp_path, "chunk", {"train": [row(str(number), b"") for number in range(7)], "test": []}, 3
    )
    for count in (1, 3, 5, 7, 9):
        assert corpus.first_ids(folder / "train", count) == [
            str(number) for number in range(min(count, 7))
        ]
    assert corpus.first_ids(folder / "test", 3) == []


@pytest.mark.parametrize(
    ("sound", "kind"),
    [
        (encoded(voice(0.1)), "audio/wav"),
        (encoded(voice(0.1), format="FLAC"), "audio/flac"),
        (encoded(voice(0.1), format="OGG"), "audio/ogg"),
        (encoded(voice(0.1), format="MP3"), "audio/mpeg"),
        (encoded_by_av(voice(0.1), 16_000, "mp4", "aac"), "audio/mp4"),
        (encoded_by_av(voice(0.1, 48_000), 48_000, "webm", "libopus"), "audio/webm"),
        (encoded(voice(0.1), format="AIFF"), None),
        (b"<html>", None),
        (b"", None),
        (b"\xff", None),
        (b"RIFF", None),
    ],
)
def test_bytes_are_told_by_how_they_begin(sound, kind):
    assert media.media_type(sound) == kind


def test_damage_is_a_fault_with_a_name(tmp_path):
    with pytest.raises(DataError, match="not there"):
        corpus.find(tmp_path / "train", ["a"])
    folder = write_rows(tmp_path, "part", {"train": [row("a", b"sound")]}) / "train"
    before = corpus.split_hash(folder)
    part, manifest = folder / "part-00000.arrow", folder / "manifest.json"
    whole, told = part.read_bytes(), files.read_json(manifest)
    for damage in (whole[:100], b"", b"noise" * 100):
        part.write_bytes(damage)
        for read in (
            lambda: corpus.find(folder, ["a"]),
            lambda: corpus.hours_by_speaker(folder),
            lambda: corpus.first_ids(folder, 9),
        ):
            with pytest.raises(DataError, match=r"train: cannot be read|train: holds no"):
                read()
    part.write_bytes(whole)
    for name in ("../part.arrow", "/etc/passwd", ".."):
        files.write_json(manifest, {**told, "files": [{"name": name}]})
        with pytest.raises(DataError, match="cannot be read"):
            corpus.find(folder, ["a"])
        assert corpus.split_hash(folder) != before
    manifest.write_text("[1]")
    with pytest.raises(DataError, match="cannot be read"):
        corpus.split_hash(folder)
    with pytest.raises(DataError, match="cannot be read"):
        corpus.read_manifest(folder)


def test_a_table_of_other_columns_is_refused(tmp_path):
    import pyarrow as pa

    with (
        pa.OSFile(str(tmp_path / "part.arrow"), "wb") as file,
        pa.ipc.new_stream(file, pa.schema([("id", pa.int64())])) as writer,
    ):
        writer.write_table(pa.table({"id": [1]}))
    shards.write_manifest(tmp_path, [{"name": "part.arrow", "rows": 1}])
    with pytest.raises(DataError, match="cannot be read"):
        corpus.find(tmp_path, ["1"])


def test_the_test_a_model_was_scored_on_is_known_by_its_hash(tmp_path: Path):
    write_rows(tmp_path / "data/features", "chunk", {"test": [row("a", b"")]})
    right = shards.data_hash(tmp_path / "data/features/test")
    assert corpus.is_test_of({"test_hash": right}, tmp_path)
    assert not corpus.is_test_of({"test_hash": "other"}, tmp_path)
    assert not corpus.is_test_of({}, tmp_path)
    assert not corpus.is_test_of({"test_hash": right}, tmp_path / "elsewhere")


def test_a_row_deep_in_a_file_is_found(tmp_path):
    rows = [row(str(number), np.random.default_rng(number).bytes(2000)) for number in range(300)]
    found = corpus.find(write_rows(tmp_path, "part", {"train": rows}) / "train", ["250"])
    assert found["250"][0].sound == np.random.default_rng(250).bytes(2000)
