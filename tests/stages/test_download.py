"""A corpus arrives whole, as delivered, and the same every time."""

import json
import os
import subprocess
import sys
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from asr.audio.codec import decode
from asr.errors import DataError, DiskError, ParamsError
from asr.params.schema import Download
from asr.runtime import disk
from asr.sources.utterances import Utterance
from asr.storage import shards
from asr.storage.shards import ALL_SPLITS, SPLITS
from stages import download
from support.data import changed, encoded, encoded_by_av, load, sha256s, voice
from support.repository import REPOSITORY, SHIPPED

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


def folder_corpus(
    place: Path, rows: list[tuple[str, str, str, str]], sounds: dict[str, bytes]
) -> Path:
    place.mkdir()
    lines = ["file_name,transcription,speaker_id,split", *(",".join(row) for row in rows)]
    (place / "metadata.csv").write_text("\n".join([*lines, ""]))
    for name, content in sounds.items():
        (place / name).write_bytes(content)
    return place


def test_every_row_arrives_in_order(raw, tiny):
    for split in SPLITS:
        count = getattr(tiny.synthetic.rows, split)
        assert [row["id"] for row in shards.rows(raw / split, ["id"])] == [
            f"{split}-{number:05d}" for number in range(count)
        ]


def test_rows_have_the_columns_others_build_on(raw):
    (path,) = shards.paths(raw / "train")
    table = Dataset.from_file(str(path))
    assert table.column_names == ["id", "audio", "text", "speaker", "attributes", "duration"]
    row = table[0]
    assert decode(row["audio"]).shape[0] / 16_000 == pytest.approx(row["duration"], abs=1e-3)
    assert set(json.loads(row["attributes"])) == {"pitch", "words_per_minute", "source"}


def test_the_manifest_says_where_the_rows_come_from(raw, tiny):
    manifest = json.loads((raw / "manifest.json").read_text())
    assert (manifest["source"], manifest["rows"], list(manifest["splits"])) == (
        "synthetic",
        46,
        list(ALL_SPLITS),
    )
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
    assert all(mine[name] != theirs[name] for name in mine if not name.startswith("holdout"))


def test_nothing_else_is_left(raw):
    assert sorted(path.name for path in raw.iterdir()) == sorted([*ALL_SPLITS, "manifest.json"])
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
        for name, split in zip(
            [*sounds, "missing.wav"], ["train", "train", "validation", "test", "test"], strict=True
        )
    ]
    place = folder_corpus(tmp_path / "mine", rows, sounds)
    download.run(
        tmp_path / "raw",
        load(tmp_path, download__source="folder", download__path=str(place)).download,
    )
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
    download.run(
        tmp_path / "raw", load(tmp_path, download__source="folder", download__path="mine").download
    )
    manifest = (tmp_path / "raw" / "manifest.json").read_text()
    assert json.loads(manifest)["rows"] == 3
    assert str(tmp_path) not in manifest


@pytest.mark.parametrize("source", ["folder", "common_voice"])
def test_a_corpus_that_is_not_there_is_refused(tmp_path, source):
    given = load(tmp_path, download__source=source, download__path="nowhere").download
    with pytest.raises(DataError, match=r"download\.path: .*nowhere is not there") as caught:
        download.run(tmp_path / "raw", given)
    assert caught.value.exit_code == 3
    assert not (tmp_path / "raw").exists()


def test_a_corpus_without_rows_is_refused_as_such(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKERS", "1")
    place = folder_corpus(tmp_path / "mine", [], {"a.wav": encoded(voice(0.5))})
    with pytest.raises(
        DataError,
        match=r"no utterance in train, validation, test; .*; the corpus has no rows at all$",
    ):
        download.run(
            tmp_path / "raw",
            load(tmp_path, download__source="folder", download__path=str(place)).download,
        )


def test_a_split_without_rows_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKERS", "1")
    place = folder_corpus(
        tmp_path / "mine", [("a.wav", "hello", "", "train")], {"a.wav": encoded(voice(0.5))}
    )
    match = (
        "download: no utterance in validation, test; training needs all of .*; the corpus "
        "has splits of its own, and not these$"
    )
    with pytest.raises(DataError, match=match) as caught:
        download.run(
            tmp_path / "out" / "raw",
            load(tmp_path, download__source="folder", download__path=str(place)).download,
        )
    assert caught.value.exit_code == 3
    assert list((tmp_path / "out").iterdir()) == []


def test_a_download_that_fails_leaves_the_one_before(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "before").write_text("before")
    with pytest.raises(ParamsError):
        download.run(tmp_path / "raw", load(tmp_path, **TINY, download__language="zh").download)
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["before"]


def test_the_choice_is_made_before_anything_is_fetched(tmp_path, monkeypatch, raw):
    monkeypatch.setenv("WORKERS", "1")
    download.run(
        tmp_path / "raw", load(tmp_path, **TINY, download__max_rows_per_split="2").download
    )
    assert json.loads((tmp_path / "raw" / "manifest.json").read_text())["rows"] == 6
    everything = {row["id"]: row for split in SPLITS for row in shards.rows(raw / split)}
    for split in SPLITS:
        for row in shards.rows(tmp_path / "raw" / split):
            assert row == everything[row["id"]]


def test_text_that_is_not_utf_8_is_marked():
    broken = Utterance(
        id="a",
        split="train",
        text="x\udcffy",
        audio=lambda: None,
        speaker="s\udcff",
        attributes={"age": "\udcff"},
    )
    row = download.row_of(broken)
    assert (row["text"], row["speaker"], row["attributes"]) == (
        "x\ufffdy",
        "s\ufffd",
        '{"age": "\ufffd"}',
    )


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
    folder_corpus(
        tmp_path / "mine", [("a.wav", "hello", "", "train")], {"a.wav": encoded(voice(0.5))}
    )
    done = command(tmp_path, "data/raw", "reports/download")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith(
        "error 3: download: no utterance in validation, test"
    )
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data" / "raw").exists()


def numbered(
    place: Path, names: str, split: str = "", text: str = "hello", extra: str = ""
) -> Path:
    """A folder of recordings, each unlike any other, with a speaker each."""
    place.mkdir(parents=True)
    rows = [
        f"{name}.wav,{text},{place.name}-{name},{split}{',' + extra if extra else ''}"
        for name in names
    ]
    columns = "file_name,transcription,speaker_id,split" + (",accent" if extra else "")
    (place / "metadata.csv").write_text("\n".join([columns, *rows, ""]))
    for number, name in enumerate(names):
        (place / f"{name}.wav").write_bytes(encoded(voice(0.3, seed=hash_of(place.name) + number)))
    return place


def hash_of(name: str) -> int:
    return zlib.crc32(name.encode()) % 1000


@pytest.fixture
def base(tmp_path, monkeypatch) -> Path:
    """A corpus with two rows in each split."""
    monkeypatch.setenv("WORKERS", "1")
    sounds = {
        f"{split}-{number}.wav": encoded(voice(0.3, seed=number))
        for number, split in enumerate(2 * SPLITS)
    }
    return folder_corpus(
        tmp_path / "base",
        [(name, "hello", name, name.partition("-")[0]) for name in sounds],
        sounds,
    )


def brought(folder: Path, base: Path, **more: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of each split of data/raw with these params besides."""
    given = load(
        folder / "params", download__source="folder", download__path=str(base), **more
    ).download
    download.run(folder / "raw", given)
    return {split: list(shards.rows(folder / "raw" / split)) for split in ALL_SPLITS}


def entry(path: Path, role: str, **more: Any) -> str:
    return json.dumps([{"source": "folder", "path": str(path), "share": 1.0, "role": role, **more}])


def test_a_source_that_is_mixed_in_trains_and_says_where_it_is_from(tmp_path, base):
    other = numbered(tmp_path / "other", "abc")
    found = brought(tmp_path, base, download__mix=entry(other, "train"))
    assert [row["id"] for row in found["train"]] == [
        "train-0.wav",
        "train-3.wav",
        "other//a.wav",
        "other//b.wav",
        "other//c.wav",
    ]
    assert [json.loads(row["attributes"])["source"] for row in found["train"]] == [
        "base",
        "base",
        "other",
        "other",
        "other",
    ]
    assert {split: len(rows) for split, rows in found.items()} == {
        "train": 5,
        "validation": 2,
        "test": 2,
        "holdout": 0,
    }
    assert len(shards.paths(tmp_path / "raw/train")) == 2, "each source begins a new file"


@pytest.mark.parametrize(
    ("role", "split", "place"),
    [
        ("train", "test", None),
        ("train", "train", "train"),
        ("holdout", "test", "holdout"),
        ("holdout", "train", None),
    ],
)
def test_official_splits_are_kept_to(tmp_path, base, role, split, place):
    """What another corpus is tested on is never trained on here, and what it trains on never held
    out.
    """
    other = numbered(tmp_path / "other", "abc", split)
    if place is None:
        with pytest.raises(
            DataError, match=r"download.mix: no utterance of other is left \(3 by other_split\)"
        ):
            brought(tmp_path, base, download__mix=entry(other, role))
        return
    found = brought(tmp_path, base, download__mix=entry(other, role))
    assert sum(row["id"].startswith("other//") for row in found[place]) == 3
    assert sum(row["id"].startswith("other//") for rows in found.values() for row in rows) == 3


def test_what_is_held_out_keeps_its_language(tmp_path, base):
    found = brought(
        tmp_path,
        base,
        download__mix=entry(numbered(tmp_path / "other", "ab"), "holdout", language="de"),
    )
    assert [json.loads(row["attributes"]) for row in found["holdout"]] == 2 * [
        {"source": "other", "language": "de"}
    ]


def test_two_sources_of_one_name_are_told_apart(tmp_path, base):
    other = numbered(tmp_path / "deeper/base", "ab")
    found = brought(tmp_path, base, download__mix=entry(other, "train"))
    assert [row["id"] for row in found["train"]][2:] == ["base-2//a.wav", "base-2//b.wav"]


def test_a_split_that_too_few_speakers_left_empty_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKERS", "1")
    place = folder_corpus(
        tmp_path / "mine", [("a.wav", "hello", "anna", "")], {"a.wav": encoded(voice(0.5))}
    )
    with pytest.raises(
        DataError,
        match=(
            r"each wants a speaker of its own, and there are not three; give splits of your own "
            r"\(a column split, folders train, "
        ),
    ):
        download.run(
            tmp_path / "raw",
            load(tmp_path, download__source="folder", download__path=str(place)).download,
        )


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("speaker_id", ""),
        ("reader", "mine: the column reader tells the voices apart, 60 of them"),
        (
            "who",
            "mine: voices cannot be kept apart: no row names a speaker, and no split is given, so "
            "one voice may stand in training and in the test, and the error rate come out too "
            "low; what could tell them: who (60, such as s0); name that column speaker_id, or put "
            "each voice into a folder of its own",
        ),
    ],
)
def test_which_column_tells_the_voices_is_said_before_the_work(tmp_path, capsys, column, said):
    lines = [f"file_name,text,{column}", *(f"{n}.wav,x,s{n % 60}" for n in range(180))]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/metadata.csv").write_text("\n".join([*lines, ""]))
    given = load(tmp_path, download__source="folder", download__path=str(tmp_path / "mine"))
    download.sources(given.download, tmp_path)
    assert capsys.readouterr().out == (f"download: {said}\n" if said else "")


def test_the_manifest_accounts_for_every_source(tmp_path, base):
    other = numbered(tmp_path / "other", "abcdefghijklmnop", extra="north")
    mixed = json.loads(entry(other, "train"))
    mixed[0]["share"] = 0.5
    rule = json.dumps([{"field": "accent", "any_of": ["south"], "weight": 1, "otherwise": 0}])
    brought(tmp_path, base, download__mix=json.dumps(mixed))
    one, two = json.loads((tmp_path / "raw/manifest.json").read_text())["sources"]
    assert (one["name"], one["role"], one["rows"], one["left_out"]) == (
        "base",
        "main",
        {"train": 2, "validation": 2, "test": 2},
        {},
    )
    assert two["rows"]["train"] + two["left_out"]["share"] == 16
    assert 3 < two["rows"]["train"] < 13
    with pytest.raises(
        DataError, match=r"no utterance in train, validation, test; .*; 6 by where were left out$"
    ):
        brought(tmp_path, base, download__mix=json.dumps(mixed), download__where=rule)


def test_a_rule_about_what_no_row_has_is_refused(tmp_path, base):
    rule = json.dumps([{"field": "acent", "any_of": ["south"], "weight": 2, "otherwise": 1}])
    with pytest.raises(
        ParamsError, match=r"download\.where: no row has acent; rows have source, speaker"
    ):
        brought(tmp_path, base, download__where=rule)


def test_a_weight_above_one_is_noted_on_training_rows_alone(tmp_path, base):
    rule = json.dumps([{"field": "source", "any_of": ["base"], "weight": 3, "otherwise": 1}])
    found = brought(tmp_path, base, download__where=rule)
    assert [
        json.loads(row["attributes"]).get("repeat") for rows in found.values() for row in rows
    ] == [3, 3, None, None, None, None]


def test_long_recordings_are_not_held_side_by_side(tmp_path, monkeypatch):
    """A hundred recordings of 3 MB pass in the memory of a few."""
    monkeypatch.setenv("WORKERS", "1")
    sounds = {
        f"{number:03}.wav": encoded(np.zeros(16_000 * 94, np.float32)) for number in range(100)
    }
    folder_corpus(
        tmp_path / "mine",
        [(name, "hello", name, SPLITS[number % 3]) for number, name in enumerate(sounds)],
        sounds,
    )
    sounds.clear()
    given = load(
        tmp_path, download__source="folder", download__path=str(tmp_path / "mine")
    ).download
    tracemalloc.start()
    download.run(tmp_path / "raw", given)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6


def test_a_disk_that_will_not_hold_the_corpus_is_refused_before_any_work(
    tmp_path, base, monkeypatch, capsys
):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10_000))
    with pytest.raises(
        DiskError, match=r"the corpus \(raw, chunks and features\) will take"
    ) as caught:
        brought(tmp_path, base)
    assert caught.value.exit_code == 7
    assert not (tmp_path / "raw").exists()
    assert (
        "forecast: 0.00 h; raw 0.1 MB, chunks the same, features 0.0 MB" in capsys.readouterr().out
    )


def test_the_forecast_is_near_what_is_written(raw, tiny, tmp_path):
    opened = download.sources(tiny, tmp_path)
    wanted = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "check_free_space", lambda _, num_bytes, __: wanted.append(num_bytes))
        download.forecast(opened, tmp_path)
    rows = [row for split in SPLITS for row in shards.rows(raw / split)]
    written = (
        2 * sum(len(row["audio"]) for row in rows) + sum(row["duration"] for row in rows) * 12_000
    )
    assert wanted[0] == pytest.approx(written, rel=0.05)


def test_a_header_that_promises_more_than_a_recording_can_hold_is_not_believed():
    forged = bytearray(encoded(voice(1.0), format="FLAC"))
    forged[21] |= 0x0F  # the upper bits of the number of samples: 1.1 million hours
    heard, lied = (
        download.row_of(Utterance("u", "train", "x", lambda given=given: bytes(given), None, {}))[
            "duration"
        ]
        for given in (encoded(voice(1.0)), forged)
    )
    assert (heard, lied) == (1.0, None)


def test_a_duration_that_a_table_has_wrong_does_not_make_the_corpus_too_large(tmp_path, capsys):
    """Milliseconds for seconds, or nonsense in one row: `chunk` says what is wrong, the disk is not
    to blame.
    """
    lied = [
        Utterance(f"u{number}", "train", "x", lambda: bytes(16_000), None, {}, 1e33)
        for number in range(3)
    ]
    gone = [Utterance("gone", "train", "x", lambda: None, None, {}, 3600.0)]
    source = SimpleNamespace(counts=SimpleNamespace(sample=lied + gone, rows=Counter(train=400)))
    download.forecast([source], tmp_path)
    assert "forecast: 2.67 h; raw " in capsys.readouterr().out
