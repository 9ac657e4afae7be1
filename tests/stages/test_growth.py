"""A corpus that grows, shrinks and comes back, under real DVC: only what is new is computed, and
nothing lies on the disk twice.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from asr.storage.hashing import split_of
from support.data import encoded, sha256s, voice
from support.pipeline import Workspace
from support.repository import TINY, copy_repository, write_params

CHANGES = {
    **TINY,
    "download.source": "folder",
    "download.path": "corpora/one",
    "chunk.rows_per_chunk": 4,
}
TRAINS, VALIDATES, TESTS = (
    [name for name in (f"speaker-{number}" for number in range(60)) if split_of(name) == split]
    for split in ("train", "validation", "test")
)


def add_rows(folder: Path, speakers: list[str], first: int) -> None:
    """More recordings at the end of a folder's table, each unlike any other."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "metadata.csv"
    lines = [] if table.is_file() else ["file_name,transcription,speaker_id\n"]
    for number, speaker in enumerate(speakers, first):
        name = f"{number:04d}.flac"
        (folder / name).write_bytes(
            encoded(voice(0.4, seed=1000 * len(folder.name) + number), format="FLAC")
        )
        lines.append(f"{name},text {number},{speaker}\n")
    with table.open("a") as file:
        file.writelines(lines)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Ten training rows of one folder and five of another, chunked by four, and a few to validate
    and test on.
    """
    made = Workspace(tmp_path_factory.mktemp("growth"))
    made.root.mkdir()
    copy_repository(made.root)
    stages = (made.root / "dvc.yaml").read_text()
    (made.root / "dvc.yaml").write_text(
        stages[: stages.index("\n  train:\n") + 1]
    )  # an experiment without outs cannot be applied
    with (made.root / ".gitignore").open("a") as file:
        file.write("/corpora/\n")
    add_rows(made.root / "corpora/one", [*(10 * TRAINS)[:10], VALIDATES[0], TESTS[0]], 0)
    add_rows(made.root / "corpora/further", (5 * TRAINS)[:5], 0)
    mixed = [{"source": "folder", "path": "corpora/further", "share": 1.0, "role": "train"}]
    write_params(made.root / "params.yaml", {**CHANGES, "download.mix": mixed})
    for command in ("init -q -b main", "config user.email test@localhost", "config user.name test"):
        made.run("git", *command.split())
    made.commit("start")
    made.run("dvc", "repro")
    made.commit("first run")
    return made


def computed(said: str) -> dict[str, int]:
    """How many files of training rows, and of features, a run had to make."""
    found = {}
    for stage, what in (("chunk", "train chunks"), ("featurize", "chunks")):
        pattern = rf"{stage}: ([\d,]+) of ([\d,]+) {what} were"
        known, total = (int(one.replace(",", "")) for one in re.search(pattern, said).groups())
        found[stage] = total - known
    return found


def test_rows_at_the_end_of_a_source_cost_the_last_and_the_new_chunks(grown: Workspace) -> None:
    add_rows(grown.root / "corpora/one", (10 * TRAINS)[:3], 100)
    said = grown.run(
        "dvc", "exp", "run", "--temp", "--force", "--single-item", "download", "-n", "more"
    )
    assert "15 utterances" in said
    said = grown.run("dvc", "repro", "--force", "--single-item", "download") + grown.run(
        "dvc", "repro"
    )
    assert computed(said) == {"chunk": 2, "featurize": 2}
    grown.commit("grown")


def test_a_grown_corpus_has_the_bytes_of_one_that_was_always_so(
    grown: Workspace, tmp_path: Path
) -> None:
    other = tmp_path / "fresh"
    grown.run("git", "clone", "-q", str(grown.root), str(other))
    shutil.copytree(grown.root / "corpora", other / "corpora")
    environment = {
        **grown.environment,
        "PYTHONHASHSEED": "3",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
        "WORKERS": "1",
    }
    command = "umask 077 && dvc repro -q --force"
    subprocess.run(command, cwd=other, shell=True, env=environment, check=True, capture_output=True)
    assert sha256s(other / "data") == sha256s(grown.root / "data")


def test_a_source_that_is_removed_takes_its_rows_and_comes_back_for_nothing(
    grown: Workspace,
) -> None:
    before = sha256s(grown.root / "data")
    said = grown.run("dvc", "exp", "run", "--temp", "-S", "download.mix=null", "-n", "without")
    assert computed(said) == {"chunk": 0, "featurize": 0}
    assert sha256s(grown.root / "data") == before, "an experiment apart changes nothing here"
    grown.run("dvc", "exp", "apply", "without")
    manifest = json.loads((grown.root / "data/raw/manifest.json").read_text())
    assert [one["name"] for one in manifest["sources"]] == ["one"]
    assert not any(
        b"further//" in path.read_bytes() for path in (grown.root / "data").rglob("*.arrow")
    )
    grown.run("git", "checkout", "-q", ".")
    said = grown.run("dvc", "repro")
    assert said.count("is cached - skipping run, checking out outputs") == 4, (
        "DVC's run cache brings all four stages back"
    )
    assert sha256s(grown.root / "data") == before


def test_another_feature_param_recomputes_features_only(grown: Workspace) -> None:
    said = grown.run("dvc", "exp", "run", "--temp", "-S", "featurize.num_mel_bins=128", "-n", "mel")
    assert "Running stage 'featurize'" in said
    assert not re.search(r"Running stage '(download|chunk)'", said)


def used(root: Path, *names: str) -> int:
    """Bytes on the disk, each inode once."""
    there = [str(root / name) for name in names if (root / name).exists()]
    return int(
        subprocess.run(
            ["du", "-sc", "--apparent-size", "-B1", *there],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[-2]
    )


def test_nothing_lies_on_the_disk_twice(grown: Workspace) -> None:
    """Sound is made long enough for the files to outweigh manifests and directories."""
    folder = grown.root / "corpora/long"
    add_rows(folder, [*(40 * TRAINS)[:40], VALIDATES[0], TESTS[0]], 0)
    for number, path in enumerate(sorted(folder.glob("*.flac"))):
        path.write_bytes(encoded(voice(8.0, seed=number), format="FLAC"))
    before = used(grown.root, "data", ".cache", ".dvc/cache", ".dvc/tmp")
    outs = ("data/raw", "data/chunks", "data/features")
    grown.run(
        "dvc",
        "exp",
        "run",
        "--temp",
        "-S",
        "download.path=corpora/long",
        "-S",
        "download.mix=null",
        "-n",
        "long",
    )
    added = used(grown.root, "data", ".cache", ".dvc/cache", ".dvc/tmp") - before
    grown.run("dvc", "exp", "apply", "long")
    assert used(grown.root, *outs) > 10e6
    assert added <= 1.1 * used(grown.root, *outs), "an experiment adds what it computes"
    assert used(grown.root, "data", ".cache", ".dvc/cache", ".dvc/tmp") - before <= 1.1 * used(
        grown.root, *outs
    )
    queued = used(grown.root, ".cache", ".dvc/cache", ".dvc/tmp", "data")
    grown.run("dvc", "exp", "run", "--queue", "-S", "chunk.rows_per_chunk=5", "-n", "queued")
    assert used(grown.root, ".cache", ".dvc/cache", ".dvc/tmp", "data") - queued < 1e6, (
        "a queued experiment takes nothing before it runs"
    )
