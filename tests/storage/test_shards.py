"""Rows written are rows read, in order, and a folder's manifest names them."""

import json
import tracemalloc

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import DataError
from asr.storage import hashing, shards
from support.data import row, sha256s, write_rows

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": TEXT,
            "audio": st.none() | st.binary(max_size=50),
            "text": TEXT,
            "speaker": st.none() | TEXT,
            "attributes": TEXT,
            "duration": st.none() | st.floats(0, 100),
        }
    ),
    max_size=12,
)


@settings(max_examples=25)
@given(ROWS, st.integers(1, 5))
def test_rows_written_are_rows_read(tmp_path_factory, rows, max_rows):
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder, "part", {"train": rows}, max_rows)
    assert list(shards.rows(folder / "train")) == rows
    assert shards.manifest(folder)["rows"] == len(rows)
    assert len(shards.paths(folder / "train")) == -(-len(rows) // max_rows)


def test_a_file_holds_at_most_so_many_rows(tmp_path):
    write_rows(tmp_path, "chunk", {"train": [row(str(number), b"x") for number in range(7)]}, 3)
    manifest = shards.manifest(tmp_path / "train")
    assert [(entry["name"], entry["rows"]) for entry in manifest["files"]] == [
        ("chunk-00000.arrow", 3),
        ("chunk-00001.arrow", 3),
        ("chunk-00002.arrow", 1),
    ]


def test_a_file_of_the_raw_corpus_ends_at_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "PART_BYTES", 1000)
    write_rows(tmp_path, "part", {"train": [row(str(number), bytes(400)) for number in range(7)]})
    assert [entry["rows"] for entry in shards.manifest(tmp_path / "train")["files"]] == [3, 3, 1]


def test_every_file_opens_with_datasets(tmp_path):
    rows = [row(str(number), bytes([number]), duration=number / 2) for number in range(5)]
    write_rows(tmp_path, "part", {"train": rows}, 2)
    read = [
        one for path in shards.paths(tmp_path / "train") for one in Dataset.from_file(str(path))
    ]
    assert read == rows


def test_record_batches_stay_small(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "BATCH_BYTES", 1000)
    write_rows(tmp_path, "part", {"train": [row(str(number), bytes(400)) for number in range(7)]})
    (path,) = shards.paths(tmp_path / "train")
    assert [batch.num_rows for batch in shards.batches(path)] == [3, 3, 1]


def test_rows_without_sound_still_end_their_record_batch(tmp_path):
    write_rows(tmp_path, "part", {"train": [row(str(number), None) for number in range(250)]})
    (path,) = shards.paths(tmp_path / "train")
    assert [batch.num_rows for batch in shards.batches(path)] == [100, 100, 50]


def test_batch_places_lead_to_every_row_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "BATCH_ROWS", 3)
    write_rows(tmp_path, "part", {"train": [row(str(number), None) for number in range(20)]}, 7)
    places = list(shards.batch_locations(tmp_path / "train"))
    ids = [one["id"] for place in places for one in shards.read_batch(*place[:2]).to_pylist()]
    assert ids == [str(number) for number in range(20)]
    assert len(places) == 3 + 3 + 2


def test_a_record_batch_that_is_not_there_is_a_fault(tmp_path):
    write_rows(tmp_path, "part", {"train": [row("a", b"x")]})
    (path,) = shards.paths(tmp_path / "train")
    with pytest.raises(
        DataError, match=r"part-00000\.arrow: no record batch at byte 17; the file is not whole"
    ):
        shards.read_batch(path, 17)


def test_columns_are_picked(tmp_path):
    write_rows(tmp_path, "part", {"train": [row("a", b"x", "hello")]})
    assert list(shards.rows(tmp_path / "train", ["text"])) == [{"text": "hello"}]


def test_memory_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "BATCH_BYTES", 1 << 18)
    write_rows(
        tmp_path, "part", {"train": [row(str(number), bytes(1 << 16)) for number in range(300)]}
    )
    tracemalloc.start()
    assert sum(len(one["audio"]) for one in shards.rows(tmp_path / "train")) == 300 << 16
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_folder_without_a_manifest_was_never_finished(tmp_path):
    with pytest.raises(
        DataError, match=r"manifest\.json: not there; run the stage that makes it \(dvc repro\)"
    ) as caught:
        shards.manifest(tmp_path)
    assert caught.value.exit_code == 3


def test_the_top_manifest_names_splits_files_and_their_hashes(tmp_path):
    write_rows(
        tmp_path,
        "part",
        {"train": [row("a", b"x")], "validation": [], "test": [row("b", b"y"), row("c", b"z")]},
    )
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["rows"], manifest["source"], shards.splits(tmp_path)) == (
        3,
        "test",
        ["train", "validation", "test"],
    )
    assert {split: one["rows"] for split, one in manifest["splits"].items()} == {
        "train": 1,
        "validation": 0,
        "test": 2,
    }
    on_disk = {
        path: digest for path, digest in sha256s(tmp_path).items() if path.endswith(".arrow")
    }
    assert {
        f"{split}/{one['name']}": one["sha256"]
        for split, named in manifest["splits"].items()
        for one in named["files"]
    } == on_disk
    assert manifest["splits"]["test"]["sha256"] == hashing.hash_of(
        shards.manifest(tmp_path / "test")
    )


@settings(max_examples=15)
@given(ROWS, ROWS)
def test_the_data_hash_is_that_of_the_rows(tmp_path_factory, one, other):
    folder = tmp_path_factory.mktemp("hash")
    for name, rows in (("one", one), ("again", one), ("other", other)):
        write_rows(folder / name, "part", {"train": rows})
    hashes = {name: shards.data_hash(folder / name / "train") for name in ("one", "again", "other")}
    assert hashes["one"] == hashes["again"]
    assert (hashes["one"] == hashes["other"]) == (one == other)


def test_the_data_hash_depends_on_the_order_of_splits(tmp_path):
    write_rows(tmp_path, "part", {"train": [row("a", b"x")], "test": [row("b", b"x")]})
    train, test = tmp_path / "train", tmp_path / "test"
    assert shards.data_hash(train, test) != shards.data_hash(test, train)


def test_a_shard_left_by_an_error_is_closed(tmp_path):
    def write() -> None:
        with shards.Shard(tmp_path / "a.arrow", shards.ROW) as shard:
            opened.append(shard)
            shard.add(row("a", b"x"))
            raise RuntimeError("half way")

    opened: list[shards.Shard] = []
    with pytest.raises(RuntimeError, match="half way"):
        write()
    assert opened[0].file.closed


def test_text_of_any_script_is_kept_exactly(tmp_path):
    texts = [
        "שלום",
        "नमस्ते",
        "e\u0301",
        "👩‍👩‍👧",
        "tab\there",
        "line\nbreak",
        "nul\x00byte",
        "?!",
        "",
        " ",
    ]
    write_rows(
        tmp_path,
        "part",
        {"train": [row(str(number), b"x", text) for number, text in enumerate(texts)]},
    )
    assert [one["text"] for one in shards.rows(tmp_path / "train")] == texts
