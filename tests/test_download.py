"""A corpus arrives whole, as delivered, and the same every time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from data_fixtures import REPOSITORY, SHIPPED, changed, encoded, encoded_by_av, load, sha256s, voice
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from asr import shards
from asr.audio import decode
from asr.faults import BadData, BadParams
from asr.params import Download
from asr.shards import SPLITS
from asr.sources import Utterance
from stages import download

TINY = {
    "download__synthetic__rows__train": "40",
    "download__synthetic__rows__validation": "3",
    "download__synthetic__rows__test": "3",
    "download__synthetic__voices__train": "4",
    "download__synthetic__voices__validation": "2",
    "download__synthetic__voices__test": "2",
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Download:
    return load(tmp_path_factory.mktemp("params"), **TINY).download


@pytest.fixture(scope="session")
def raw(tmp_path_factory, tiny) -> Path:
    """The tiny corpus of spoken numbers, fetched by one process."""
    root = tmp_path_factory.mktemp("download")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        patch.setenv("WORKERS", "1")
        download.run(root / "data" / "raw", tiny)
    return root / "data" / "raw"


def folder_corpus(place: Path, rows: list[tuple[str, str, str, str]], sounds: dict[str, bytes]) -> Path:
    place.mkdir()
    lines = ["file_name,transcription,speaker_id,split", *(",".join(row) for row in rows)]
    (place / "metadata.csv").write_text("\n".join([*lines, ""]))
    for name, content in sounds.items():
        (place / name).write_bytes(content)
    return place


def test_every_row_arrives_in_order(raw, tiny):
    for split in SPLITS:
        count = getattr(tiny.synthetic.rows, split)
        assert [row["id"] for row in shards.rows(raw / split, ["id"])] == [f"{split}-{number:05d}" for number in range(count)]


def test_rows_have_the_columns_others_build_on(raw):
    (path,) = shards.paths(raw / "train")
    table = Dataset.from_file(str(path))
    assert table.column_names == ["id", "audio", "text", "speaker", "attributes", "duration"]
    row = table[0]
    assert decode(row["audio"]).shape[0] / 16_000 == pytest.approx(row["duration"], abs=1e-3)
    assert set(json.loads(row["attributes"])) == {"pitch", "words_per_minute"}


def test_the_manifest_says_where_the_rows_come_from(raw, tiny):
    manifest = json.loads((raw / "manifest.json").read_text())
    assert (manifest["source"], manifest["rows"], list(manifest["splits"])) == ("synthetic", 46, list(SPLITS))
    assert manifest["name"] == f"spoken numbers in {tiny.language}"
    assert "GPL" in manifest["licence"]


def test_the_same_params_give_the_same_bytes_from_two_processes(raw, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKERS", "2")
    download.run(tmp_path / "elsewhere" / "raw", tiny)
    assert sha256s(tmp_path / "elsewhere" / "raw") == sha256s(raw)


def test_another_seed_gives_other_bytes(raw, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKERS", "1")
    download.run(tmp_path / "raw", load(tmp_path, **TINY, download__seed="2").download)
    mine, theirs = sha256s(tmp_path / "raw"), sha256s(raw)
    assert mine.keys() == theirs.keys()
    assert all(mine[name] != theirs[name] for name in mine)


def test_nothing_else_is_left(raw):
    assert sorted(path.name for path in raw.iterdir()) == sorted([*SPLITS, "manifest.json"])
    assert [path.name for path in raw.parent.iterdir()] == ["raw"]
    assert list(raw.parents[1].glob(".cache/*")) == []


def test_recordings_arrive_byte_for_byte_as_delivered(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKERS", "1")
    sounds = {
        "a.flac": encoded(voice(1.0), format="FLAC"),
        "b.m4a": encoded_by_av(voice(0.5), 16_000, "mp4", "aac"),
        "c.wav": b"text renamed to wav",
        "e.mp3": b"",
    }
    rows = [
        (name, "hello", "", split)
        for name, split in zip([*sounds, "missing.wav"], ["train", "train", "validation", "test", "test"], strict=True)
    ]
    place = folder_corpus(tmp_path / "mine", rows, sounds)
    download.run(tmp_path / "raw", load(tmp_path, download__source="folder", download__path=str(place)).download)
    found = {row["id"]: row for split in SPLITS for row in shards.rows(tmp_path / "raw" / split)}
    assert {name: row["audio"] for name, row in found.items()} == {**sounds, "missing.wav": None}
    assert {name: row["duration"] for name, row in found.items()} == {
        "a.flac": 1.0,
        "b.m4a": None,
        "c.wav": None,
        "e.mp3": None,
        "missing.wav": None,
    }
    assert {row["speaker"] for row in found.values()} == {None}


def test_a_path_is_meant_from_the_top_of_the_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKERS", "1")
    rows = [(f"{split}.wav", "hello", "", split) for split in SPLITS]
    folder_corpus(tmp_path / "mine", rows, {name: encoded(voice(0.5)) for name, *_ in rows})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    download.run(tmp_path / "raw", load(tmp_path, download__source="folder", download__path="mine").download)
    manifest = (tmp_path / "raw" / "manifest.json").read_text()
    assert json.loads(manifest)["rows"] == 3
    assert str(tmp_path) not in manifest


@pytest.mark.parametrize("source", ["folder", "common_voice"])
def test_a_corpus_that_is_not_there_is_refused(tmp_path, source):
    given = load(tmp_path, download__source=source, download__path="nowhere").download
    with pytest.raises(BadData, match=r"download\.path: .*nowhere is not there") as caught:
        download.run(tmp_path / "raw", given)
    assert caught.value.exit_code == 3
    assert not (tmp_path / "raw").exists()


def test_a_split_without_rows_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKERS", "1")
    place = folder_corpus(tmp_path / "mine", [("a.wav", "hello", "", "train")], {"a.wav": encoded(voice(0.5))})
    with pytest.raises(
        BadData, match="download: no utterance in validation, test; training needs all of train, validation, test"
    ) as caught:
        download.run(tmp_path / "out" / "raw", load(tmp_path, download__source="folder", download__path=str(place)).download)
    assert caught.value.exit_code == 3
    assert list((tmp_path / "out").iterdir()) == []


def test_a_download_that_fails_leaves_the_one_before(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "before").write_text("before")
    with pytest.raises(BadParams):
        download.run(tmp_path / "raw", load(tmp_path, **TINY, download__language="zh").download)
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["before"]


UTTERANCES = st.lists(st.tuples(st.integers(0, 200), st.sampled_from(SPLITS)), unique_by=lambda pair: pair[0], max_size=60)


def utterances(pairs: list[tuple[int, str]]) -> list[Utterance]:
    return [Utterance(id=f"clip-{number}", split=split, text="x", audio=lambda: None) for number, split in pairs]


@settings(deadline=None, max_examples=60)
@given(UTTERANCES, st.integers(1, 20), st.integers(0, 5))
def test_at_most_so_many_rows_of_each_split_are_kept_in_order(pairs, max_rows, seed):
    corpus = utterances(pairs)
    kept = download.select(corpus, max_rows, seed)
    assert [one for one in corpus if one in kept] == kept
    for split in SPLITS:
        there = sum(one.split == split for one in corpus)
        assert sum(one.split == split for one in kept) == min(max_rows, there)


@settings(deadline=None, max_examples=60)
@given(UTTERANCES, st.data(), st.integers(1, 20), st.integers(0, 5))
def test_the_choice_is_stable_while_a_corpus_grows(pairs, data, max_rows, seed):
    old = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    before = {one.id for one in download.select(utterances(old), max_rows, seed)}
    after = {one.id for one in download.select(utterances(pairs), max_rows, seed)}
    assert after & {one.id for one in utterances(old)} <= before


@settings(deadline=None, max_examples=30)
@given(UTTERANCES, st.integers(1, 20))
def test_growth_of_one_split_changes_nothing_in_another(pairs, max_rows):
    whole = [one.id for one in download.select(utterances(pairs), max_rows, 1) if one.split == "test"]
    alone = [one.id for one in download.select(utterances([pair for pair in pairs if pair[1] == "test"]), max_rows, 1)]
    assert whole == alone


def test_another_seed_chooses_other_rows():
    corpus = utterances([(number, "train") for number in range(200)])
    assert download.select(corpus, 20, 1) != download.select(corpus, 20, 2)
    assert download.select(corpus, None, 1) == corpus


def test_the_choice_is_made_before_anything_is_fetched(tmp_path, monkeypatch, raw):
    monkeypatch.setenv("WORKERS", "1")
    download.run(tmp_path / "raw", load(tmp_path, **TINY, download__max_rows_per_split="2").download)
    assert json.loads((tmp_path / "raw" / "manifest.json").read_text())["rows"] == 6
    everything = {row["id"]: row for split in SPLITS for row in shards.rows(raw / split)}
    for split in SPLITS:
        for row in shards.rows(tmp_path / "raw" / split):
            assert row == everything[row["id"]]


def test_text_that_is_not_utf_8_is_marked():
    broken = Utterance(id="a", split="train", text="x\udcffy", audio=lambda: None, speaker="s\udcff", attributes={"age": "\udcff"})
    row = download.row_of(broken)
    assert (row["text"], row["speaker"], row["attributes"]) == ("x\ufffdy", "s\ufffd", '{"age": "\ufffd"}')


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stages.download", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "DVC_ROOT": str(folder), "WORKERS": "1"},
        capture_output=True,
        text=True,
    )


def test_bad_params_end_the_command_before_any_work(tmp_path):
    (tmp_path / "params.yaml").write_text(changed(SHIPPED.read_text(), "train.max_steps", "0"))
    done = command(tmp_path, "data/raw", "reports/download")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error 2: params.yaml:")
    assert "train.max_steps: got 0, want: " in line
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_bad_data_end_the_command_with_three(tmp_path):
    load(tmp_path, download__source="folder", download__path="mine")
    folder_corpus(tmp_path / "mine", [("a.wav", "hello", "", "train")], {"a.wav": encoded(voice(0.5))})
    done = command(tmp_path, "data/raw", "reports/download")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("error 3: download: no utterance in validation, test")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data" / "raw").exists()
