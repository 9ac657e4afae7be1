"""Features are computed once for each chunk, survive any kill, and hold what others build on."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_fixtures import REPOSITORY, encoded, row, sha256s, voice, write_rows
from datasets import Dataset
from transformers import WhisperFeatureExtractor

from asr import audio, features, files, shards
from stages import featurize

SECONDS = {"train": [0.4, 1.0, 1.5, 2.0, 2.5], "validation": [1.0], "test": [1.2, 5.0]}


@pytest.fixture(scope="session")
def chunks(tmp_path_factory) -> Path:
    """Eight recordings in five chunks of two rows; the last test row fills a window of 5 s."""
    rows = {
        split: [
            {
                **row(f"{split}-{index}", encoded(voice(length, seed=index + 10 * len(split))), f"text {index}", split, length),
                "attributes": '{"a": 1}',
            }
            for index, length in enumerate(lengths)
        ]
        for split, lengths in SECONDS.items()
    }
    return write_rows(tmp_path_factory.mktemp("chunks"), "chunk", rows, 2)


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("WORKERS", "1")
    return tmp_path


@pytest.fixture
def silent(monkeypatch):
    """A decoder that hears nothing: whoever computes features now fails."""

    def refuse(_: bytes) -> np.ndarray:
        raise AssertionError("decoded again")

    return lambda: monkeypatch.setattr(audio, "decode", refuse)


def store(root: Path) -> dict[str, int]:
    """The store's files and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in (root / ".cache" / "shards").iterdir()}


def test_rows_have_the_columns_others_build_on(chunks, root):
    featurize.run(chunks, root / "features", 80)
    for split, lengths in SECONDS.items():
        found = []
        for path in shards.paths(root / "features" / split):
            table = Dataset.from_file(str(path))
            assert table.column_names == ["id", "copy", "mel", "num_frames", "floor", "edge", "duration", "text", "speaker", "attributes"]
            found += list(table)
        assert [one["id"] for one in found] == [f"{split}-{index}" for index in range(len(lengths))]
        for index, (one, length) in enumerate(zip(found, lengths, strict=True)):
            assert (one["copy"], one["num_frames"], one["duration"]) == (0, round(length * 100) + 2, length)
            assert (one["text"], one["speaker"], one["attributes"]) == (f"text {index}", split, '{"a": 1}')
            assert len(one["mel"]) == 80 * one["num_frames"] * 3 // 2


@pytest.mark.parametrize("mels", [80, 128])
def test_a_row_padded_to_the_window_is_what_the_extractor_gives(chunks, root, mels):
    featurize.run(chunks, root / "features", mels)
    extractor = WhisperFeatureExtractor(feature_size=mels, chunk_length=5)
    sounds = {one["id"]: one["audio"] for one in shards.rows(chunks / "test")}
    for one in shards.rows(root / "features" / "test"):
        edge = None if one["edge"] is None else features.unpack(one["edge"], mels, one["floor"])[:, 0]
        found = features.LogMel(features.unpack(one["mel"], mels, one["floor"]), one["floor"], edge)
        want = extractor(audio.decode(sounds[one["id"]]), sampling_rate=16_000, return_tensors="np").input_features[0]
        assert np.abs(features.pad(found, 500) - want).max() <= 5e-4


def test_manifests_name_every_file_and_its_hash(chunks, root):
    featurize.run(chunks, root / "features", 128)
    manifest = files.read_json(root / "features" / "manifest.json")
    assert (manifest["num_mel_bins"], manifest["rows"]) == (128, 8)
    named = {f"{split}/{one['name']}": one["sha256"] for split in SECONDS for one in shards.manifest(root / "features" / split)["files"]}
    assert named == {name: digest for name, digest in sha256s(root / "features").items() if name.endswith(".arrow")}
    assert [one["rows"] for one in shards.manifest(root / "features" / "train")["files"]] == [2, 2, 1]


def test_a_second_of_audio_takes_at_most_sixteen_kilobytes_on_disk(root, tmp_path):
    long = write_rows(
        tmp_path / "long", "chunk", {"train": [row(str(seed), encoded(voice(20.0, seed=seed)), duration=20.0) for seed in range(3)]}
    )
    featurize.run(long, root / "features", 80)
    (path,) = shards.paths(root / "features" / "train")
    assert path.stat().st_size <= 16_000 * 60


def test_a_finished_chunk_is_never_computed_twice(chunks, root, silent, capsys):
    featurize.run(chunks, root / "features", 80)
    before, written = sha256s(root / "features"), store(root)
    for path in sorted((root / "features").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    silent()
    featurize.run(chunks, root / "features", 80)
    assert sha256s(root / "features") == before
    assert store(root) == written
    assert "featurize: 5 of 5 chunks were computed before" in capsys.readouterr().out


def test_a_chunk_that_is_not_finished_is_computed(chunks, root, silent):
    silent()
    with pytest.raises(AssertionError, match="decoded again"):
        featurize.run(chunks, root / "features", 80)
    assert not (root / "features").exists()


def test_only_what_is_missing_is_computed(chunks, root):
    featurize.run(chunks, root / "features", 80)
    before, written = sha256s(root / "features"), store(root)
    gone = sorted(written)[2]
    (root / ".cache" / "shards" / gone).unlink()
    featurize.run(chunks, root / "features", 80)
    assert sha256s(root / "features") == before
    assert {name: when for name, when in store(root).items() if name != gone} == {
        name: when for name, when in written.items() if name != gone
    }
    assert store(root).keys() == written.keys()


def test_other_mel_bins_are_another_computation(chunks, root):
    featurize.run(chunks, root / "features", 80)
    few = set(store(root))
    featurize.run(chunks, root / "features", 128)
    assert len(set(store(root)) - few) == 5
    assert files.read_json(root / "features" / "manifest.json")["num_mel_bins"] == 128


def test_a_chunk_with_another_row_is_another_computation(chunks, root, tmp_path):
    featurize.run(chunks, root / "features", 80)
    grown = {split: list(shards.rows(chunks / split)) for split in SECONDS}
    grown["train"].append(row("more", encoded(voice(0.5)), duration=0.5))
    before = set(store(root))
    featurize.run(write_rows(tmp_path / "grown", "chunk", grown, 2), root / "features", 80)
    assert len(set(store(root)) - before) == 1


def test_what_a_kill_left_does_not_matter(chunks, root):
    featurize.run(chunks, root / "clean", 80)
    names = sorted(store(root))
    for name in names:
        (root / ".cache" / "shards" / name).unlink()
        (root / ".cache" / "shards" / f".{name}.99.part").write_bytes(b"half a file")
    (root / ".features.x.part").mkdir()
    (root / ".features.x.part" / "train").write_text("half a folder")
    featurize.run(chunks, root / "features", 80)
    assert sha256s(root / "features") == sha256s(root / "clean")
    assert {name for name in store(root) if not name.startswith(".")} == set(names)
    assert not (root / ".features.x.part").exists()


KILLED = """
import os, sys
from pathlib import Path
from asr import audio
from stages import featurize
decode, left = audio.decode, [3]
def hear(encoded):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), 9)
    return decode(encoded)
audio.decode = hear
featurize.run(Path(sys.argv[1]), Path("features"), 80)
"""


def test_a_killed_stage_goes_on_with_the_chunks_it_has(chunks, root, capsys):
    killed = subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{KILLED}", str(chunks)], cwd=root)
    assert killed.returncode == -9
    assert not (root / "features").exists()
    featurize.run(chunks, root / "features", 80)
    assert "featurize: 1 of 5 chunks were computed before" in capsys.readouterr().out
    featurize.run(chunks, root / "fresh", 80)
    assert sha256s(root / "features") == sha256s(root / "fresh")


def test_the_same_bytes_come_from_two_processes(chunks, root, monkeypatch):
    featurize.run(chunks, root / "one", 80)
    monkeypatch.setenv("DVC_ROOT", str(root / "elsewhere"))
    monkeypatch.setenv("WORKERS", "2")
    featurize.run(chunks, root / "two", 80)
    assert len(store(root / "elsewhere")) == 5
    assert sha256s(root / "one") == sha256s(root / "two")


def test_the_out_shares_its_bytes_with_the_store(chunks, root):
    featurize.run(chunks, root / "features", 80)
    inodes = {path.stat().st_ino for path in (root / ".cache" / "shards").iterdir()}
    assert {path.stat().st_ino for path in (root / "features").rglob("*.arrow")} == inodes
