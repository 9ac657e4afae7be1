"""Features are computed once for each chunk, survive any kill, and hold what others build on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from transformers import WhisperFeatureExtractor

from asr import augmentation, features
from asr.audio import codec
from asr.errors import DataError, DiskError
from asr.params import schema
from asr.runtime import disk
from asr.storage import files, hashing, shards
from stages import featurize
from support.data import encoded, load, row, sha256s, voice, write_rows
from support.repository import REPOSITORY

MEASURED = (("few", 100), ("many", 800), ("leaking", 400, "leak"))
SMALL = {"train": 3, "validation": 1}
SECONDS = {"train": [0.4, 1.0, 1.5, 2.0, 2.5], "validation": [1.0], "test": [1.2, 5.0]}


@pytest.fixture(scope="session")
def chunks(tmp_path_factory) -> Path:
    """Eight recordings in five chunks of two rows; the last test row fills a window of 5 s."""
    rows = {
        split: [
            {
                **row(
                    f"{split}-{index}",
                    encoded(voice(length, seed=index + 10 * len(split))),
                    f"text {index}",
                    split,
                    length,
                ),
                "attributes": '{"a": 1}',
            }
            for index, length in enumerate(lengths)
        ]
        for split, lengths in SECONDS.items()
    }
    return write_rows(tmp_path_factory.mktemp("chunks"), "chunk", rows, 2)


def changed(root: Path, **values: str) -> schema.Augment:
    """The shipped params of copies with a few other values, each kind of change always drawn."""
    chances = {
        f"{kind}__probability": "1.0" for kind in ("speed", "reverberation", "noise", "gain")
    }
    return load(
        root,
        **{f"featurize__augment__{key}": value for key, value in {**chances, **values}.items()},
    ).featurize.augment


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

    return lambda: monkeypatch.setattr(codec, "decode", refuse)


def store(root: Path) -> dict[str, int]:
    """The store's files of features and when they were written."""
    return {
        path.name: path.stat().st_mtime_ns for path in (root / ".cache" / "shards").glob("*.arrow")
    }


def test_rows_have_the_columns_others_build_on(chunks, root):
    featurize.run(chunks, root / "features", 80)
    for split, lengths in SECONDS.items():
        found = []
        for path in shards.paths(root / "features" / split):
            table = Dataset.from_file(str(path))
            assert table.column_names == [
                "id",
                "copy",
                "mel",
                "num_frames",
                "floor",
                "edge",
                "duration",
                "text",
                "speaker",
                "attributes",
            ]
            found += list(table)
        assert [one["id"] for one in found] == [f"{split}-{index}" for index in range(len(lengths))]
        for index, (one, length) in enumerate(zip(found, lengths, strict=True)):
            assert (one["copy"], one["num_frames"], one["duration"]) == (
                0,
                round(length * 100) + 2,
                length,
            )
            assert (one["text"], one["speaker"], one["attributes"]) == (
                f"text {index}",
                split,
                '{"a": 1}',
            )
            assert len(one["mel"]) == 80 * one["num_frames"] * 3 // 2


@pytest.mark.parametrize("mels", [80, 128])
def test_a_row_padded_to_the_window_is_what_the_extractor_gives(chunks, root, mels):
    featurize.run(chunks, root / "features", mels)
    extractor = WhisperFeatureExtractor(feature_size=mels, chunk_length=5)
    sounds = {one["id"]: one["audio"] for one in shards.rows(chunks / "test")}
    for one in shards.rows(root / "features" / "test"):
        edge = (
            None if one["edge"] is None else features.unpack(one["edge"], mels, one["floor"])[:, 0]
        )
        found = features.LogMel(features.unpack(one["mel"], mels, one["floor"]), one["floor"], edge)
        want = extractor(
            codec.decode(sounds[one["id"]]), sampling_rate=16_000, return_tensors="np"
        ).input_features[0]
        assert np.abs(features.pad(found, 500) - want).max() <= 5e-4


def test_manifests_name_every_file_and_its_hash(chunks, root):
    featurize.run(chunks, root / "features", 128)
    manifest = files.read_json(root / "features" / "manifest.json")
    assert (manifest["num_mel_bins"], manifest["rows"]) == (128, 8)
    named = {
        f"{split}/{one['name']}": one["sha256"]
        for split in SECONDS
        for one in shards.manifest(root / "features" / split)["files"]
    }
    assert named == {
        name: digest
        for name, digest in sha256s(root / "features").items()
        if name.endswith(".arrow")
    }
    assert [one["rows"] for one in shards.manifest(root / "features" / "train")["files"]] == [
        2,
        2,
        1,
    ]


def test_a_second_of_audio_takes_at_most_sixteen_kilobytes_on_disk(root, tmp_path):
    long = write_rows(
        tmp_path / "long",
        "chunk",
        {
            "train": [
                row(str(seed), encoded(voice(20.0, seed=seed)), duration=20.0) for seed in range(3)
            ]
        },
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


HARNESS = """
import functools, os, sys
from pathlib import Path
import numpy
import transformers.audio_utils
from asr.params import reader
from asr.rooms import KEPT
from asr.storage import hashing
from stages import featurize
hashing.code_hash = functools.cache(hashing.code_hash)
hashing.code_hash(KEPT["features"])
hashing.code_hash(KEPT["augmented features"])
top = Path(sys.argv[1])
given = reader.load(top / "params.yaml").featurize.augment
if "broken" in sys.argv:  # the control: chance hangs on what lies in the store, and so on kills
    default_rng = numpy.random.default_rng
    store = lambda: len(list(Path(os.environ["DVC_ROOT"], ".cache/shards").iterdir()))
    numpy.random.default_rng = lambda seed: default_rng(seed + store())
EVENTS = ("open", "os.rename", "os.link", "os.mkdir", "os.rmdir", "os.remove", "os.chmod")

def run(name, root, kill_at=None):
    seen = [0]
    def watch(event, args):  # a kill before each thing that touches a file
        if event in EVENTS and (event != "open" or "w" in str(args[1])):
            seen[0] += 1
            if seen[0] == kill_at:
                os.kill(os.getpid(), 9)
    os.environ["DVC_ROOT"] = str(root)
    sys.stdout = open(os.devnull, "w")
    sys.addaudithook(watch)
    featurize.run(top / "chunks", root / name, 80, given)
    return seen[0]

def apart(*given):
    pid = os.fork()
    if pid == 0:
        try:
            count = run(*given)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(count)
    return pid

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def shown(folder):
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashing.sha256(path) for path in paths}

count = ended(apart("whole", top / "clean"))
assert count > 20, count
wanted = shown(top / "clean/whole")
for kill_at in range(1, count + 1):
    root = top / f"killed-{kill_at % 4}"  # some go on from what several kills left
    root.mkdir(exist_ok=True)
    assert ended(apart("features", root, kill_at)) in (-9, *range(20, count)), kill_at
    if kill_at % 3 == 0:
        for draft in (root / ".cache/shards").glob(".*.part"):
            os.utime(draft, (1, 1))
        assert ended(apart("features", root)) >= 0
        assert shown(root / "features") == wanted, kill_at
        assert not list(root.rglob(".*.part")), kill_at
both = [apart("one", top / "shared"), apart("two", top / "shared")]
assert all(ended(pid) > 0 for pid in both)
assert shown(top / "shared/one") == shown(top / "shared/two") == wanted
print("killed at", count, "moments")
"""


@pytest.mark.parametrize("control", [[], ["broken"]])
def test_a_kill_at_any_moment_and_two_at_once_change_no_byte(root, nursery, control):
    """One process, which forks for each run before it has done anything itself."""
    changed(root, copies="1")
    rows = {
        split: [row(f"{split}{one}", encoded(voice(0.2, seed=one))) for one in range(count)]
        for split, count in SMALL.items()
    }
    write_rows(root / "chunks", "chunk", rows, 2)
    done = nursery.run(HARNESS, str(root), *control, root=root)
    if control:
        assert done.returncode == 1
        assert "AssertionError" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("killed at")


def test_the_same_bytes_come_from_two_processes(chunks, root, monkeypatch):
    given = changed(root, copies="1")
    featurize.run(chunks, root / "one", 80, given)
    monkeypatch.setenv("DVC_ROOT", str(root / "elsewhere"))
    monkeypatch.setenv("WORKERS", "2")
    featurize.run(chunks, root / "two", 80, given)
    assert len(store(root / "elsewhere")) == 8
    assert sha256s(root / "one") == sha256s(root / "two")


def test_the_out_shares_its_bytes_with_the_store(chunks, root):
    featurize.run(chunks, root / "features", 80)
    inodes = {path.stat().st_ino for path in (root / ".cache" / "shards").glob("*.arrow")}
    assert {path.stat().st_ino for path in (root / "features").rglob("*.arrow")} == inodes


def test_copies_stand_beside_training_rows_and_touch_nothing_else(chunks, root):
    featurize.run(chunks, root / "plain", 80)
    featurize.run(chunks, root / "features", 80, changed(root, copies="2"))
    plain, found = sha256s(root / "plain"), sha256s(root / "features")
    recordings = {name: digest for name, digest in plain.items() if name.endswith(".arrow")}
    assert recordings.items() <= found.items()
    for split in ("validation", "test"):
        assert shards.manifest(root / "features" / split) == shards.manifest(root / "plain" / split)
    named = [path.name for path in shards.paths(root / "features/train")]
    stems = [path.stem for path in shards.paths(root / "plain/train")]
    assert named == [f"{stem}{part}.arrow" for part in ("", "-copy-1", "-copy-2") for stem in stems]
    assert shards.manifest(root / "features/train")["rows"] == 3 * len(SECONDS["train"])
    rows = list(shards.rows(root / "features/train"))
    assert [(one["id"], one["copy"]) for one in rows] == [
        (f"train-{index}", copy) for copy in range(3) for index in range(5)
    ]
    assert [one["text"] for one in rows] == 3 * [f"text {index}" for index in range(5)]
    assert len({one["mel"] for one in rows}) == 15
    for one, length in zip(rows, 3 * SECONDS["train"], strict=True):
        assert one["copy"] or one["duration"] == length
        assert length / 1.11 <= one["duration"] <= length / 0.89
        assert one["duration"] != length or not one["copy"], "a copy has its own duration"
        assert one["num_frames"] == -(-round(one["duration"] * 16_000) // 160) + 2


def test_a_copy_is_what_the_command_lets_one_hear(chunks, root):
    given = changed(root, copies="1")
    featurize.run(chunks, root / "features", 80, given)
    chunk, own = augmentation.find(chunks / "train", "train-3")
    rows = augmentation.encoded_recordings(chunk)
    augmentation.write_examples(rows[own].as_py(), "train-3", given, rows, own, root / "heard")
    wanted = features.log_mel(codec.decode((root / "heard/copy-1.wav").read_bytes()), 80)
    (found,) = [
        one
        for one in shards.rows(root / "features/train")
        if (one["id"], one["copy"]) == ("train-3", 1)
    ]
    assert found["mel"] == features.pack(wanted.mel, wanted.floor)


def test_a_param_of_copies_computes_copies_alone(chunks, root, monkeypatch):
    featurize.run(chunks, root / "features", 80)
    computed, compute = [], featurize.featurize
    monkeypatch.setattr(
        featurize, "featurize", lambda job, *rest: computed.append(job.name) or compute(job, *rest)
    )
    ones, twos = ([f"chunk-0000{chunk}-copy-{copy}.arrow" for chunk in range(3)] for copy in (1, 2))
    (root / "noises").mkdir()
    (root / "noises/a.wav").write_bytes(encoded(voice(0.3)))
    with_noise = {"copies": "1", "noise__folder": "noises"}
    for values, wanted in (
        ({"copies": "1"}, ones),
        ({"copies": "2"}, twos),
        ({"copies": "1", "gain__max_db": "7.0"}, ones),
        ({"copies": "2"}, []),
        (with_noise, ones),
        ({"copies": "0", "seed": "4"}, []),
    ):
        computed.clear()
        featurize.run(chunks, root / "features", 80, changed(root, **values))
        assert computed == wanted, values
    (root / "noises/a.wav").write_bytes(encoded(voice(0.3, seed=1)))
    featurize.run(chunks, root / "features", 80, changed(root, **with_noise))
    assert computed == ones, "other noise under the same name"


def test_growth_moves_no_earlier_copy(chunks, root, tmp_path):
    given = changed(root, copies="1")
    featurize.run(chunks, root / "features", 80, given)
    grown = {split: list(shards.rows(chunks / split)) for split in SECONDS}
    grown["train"] += [
        row(f"more-{number}", encoded(voice(0.5, seed=number))) for number in range(3)
    ]
    featurize.run(
        write_rows(tmp_path / "grown", "chunk", grown, 2), root / "grown-features", 80, given
    )
    before, after = (
        sha256s(root / "features/train", "manifest.json"),
        sha256s(root / "grown-features/train", "manifest.json"),
    )
    same = {name for name in before if after[name] == before[name]}
    assert same == {
        f"chunk-0000{chunk}{copy}.arrow" for chunk in (0, 1) for copy in ("", "-copy-1")
    }


def test_a_split_without_rows_is_a_split(chunks, root, tmp_path):
    rows = {split: list(shards.rows(chunks / split)) for split in SECONDS} | {"holdout": []}
    featurize.run(
        write_rows(tmp_path / "four", "chunk", rows, 2),
        root / "features",
        80,
        changed(root, copies="1"),
    )
    assert files.read_json(root / "features/holdout/manifest.json") == {"rows": 0, "files": []}
    top = files.read_json(root / "features/manifest.json")
    assert list(top["splits"]) == [*SECONDS, "holdout"]
    assert top["splits"]["holdout"]["rows"] == 0


def test_what_the_disk_cannot_hold_is_refused_before_the_work(chunks, root, silent, monkeypatch):
    given, asked = changed(root, copies="2"), []
    with monkeypatch.context() as patch:
        patch.setattr(disk, "check_free_space", lambda _, size, what: asked.append((size, what)))
        for mels in (80, 128):
            before = sum(path.stat().st_size for path in (root / ".cache").rglob("*.arrow"))
            featurize.run(chunks, root / "features", mels, given)
            written = (
                sum(path.stat().st_size for path in (root / ".cache").rglob("*.arrow")) - before
            )
            size, what = asked.pop()
            assert what == "featurize"
            assert 0.9 * written <= size <= 1.25 * written
        featurize.run(chunks, root / "features", 80, given)
        assert asked.pop()[0] == 0, "what was computed before takes no room"
    monkeypatch.setenv("DVC_ROOT", str(root / "full"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100_000))
    silent()
    with pytest.raises(
        DiskError, match=r"featurize will take 0\.\d MB, and 0\.\d MB are free; make room"
    ) as caught:
        featurize.run(chunks, root / "features", 80, given)
    assert caught.value.exit_code == 7
    assert not list((root / "full/.cache/shards").iterdir())


def spoilt(path: Path, way: str) -> None:
    """Damage a file; its time stays as it was."""
    when, content = path.stat(), path.read_bytes()
    path.unlink()  # other names of the same bytes stay whole
    if way == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif way == "flipped":
        path.write_bytes(content[:-3000] + bytes([content[-3000] ^ 1]) + content[-2999:])
    if way != "gone":
        os.utime(path, ns=(when.st_atime_ns, when.st_mtime_ns))


@pytest.mark.parametrize("way", ["cut", "flipped", "gone"])
@pytest.mark.parametrize("suffix", [".arrow", ".json"])
def test_a_damaged_file_of_the_store_is_computed_anew(chunks, root, way, suffix):
    featurize.run(chunks, root / "features", 80)
    before = sha256s(root / "features")
    if suffix == ".json" and way == "flipped":
        path = min((root / ".cache/shards").glob("*.json"))
        path.write_text(path.read_text().replace('sha256": "', 'sha256": "0'))
    else:
        spoilt(min((root / ".cache/shards").glob(f"*{suffix}")), way)
    featurize.run(chunks, root / "features", 80)
    assert sha256s(root / "features") == before
    named = {
        path.stem: files.read_json(path)["sha256"]
        for path in (root / ".cache/shards").glob("*.json")
    }
    assert named == {
        path.stem: hashing.sha256(path) for path in (root / ".cache/shards").glob("*.arrow")
    }


def test_a_damaged_chunk_is_refused_and_leaves_nothing(chunks, root):
    shutil.copytree(chunks, root / "chunks")
    spoilt(root / "chunks/train/chunk-00001.arrow", "flipped")
    with pytest.raises(
        DataError,
        match=(
            r"chunk-00001.arrow: not the file its manifest names; run dvc checkout, or dvc "
            r"repro -f chunk"
        ),
    ):
        featurize.run(root / "chunks", root / "features", 80)
    featurize.run(chunks, root / "features", 80)
    featurize.run(chunks, root / "again", 80)
    assert sha256s(root / "features") == sha256s(root / "again")


MEMORY = """
import os, sys
from pathlib import Path
from stages import featurize
top, most, compute = Path(sys.argv[1]), 0, featurize.featurize
os.environ["DVC_ROOT"] = str(top)
kept = []
def watched(*given):
    global most
    found = compute(*given)
    if "leak" in sys.argv:
        kept.append(bytearray(600_000))
    # pages of libraries are anybody's, and come and go
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    most = max(most, next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")))
    return found
featurize.featurize = watched
featurize.run(top / "chunks", top / "features", 80)
print("most", most)
"""


def most_memory(folder: Path, rows: int, *words: str) -> float:
    """MiB of its own that a run in a process of its own had at most."""
    sound = encoded(voice(0.1))
    write_rows(
        folder / "chunks",
        "chunk",
        {"train": [row(f"r{number}", sound, duration=0.1) for number in range(rows)]},
        10,
    )
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{MEMORY}",
        str(folder),
        *words,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.partition("most ")[2]) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="a process's own pages are told on Linux only")
def test_memory_does_not_grow_with_the_corpus(tmp_path):
    few, many, leaking = (
        most_memory(tmp_path / name, rows, *words) for name, rows, *words in MEASURED
    )
    assert many <= 400
    assert many <= 1.1 * few, (few, many)
    assert leaking > 1.1 * few, "the control keeps something of every chunk"
