"""A mirror holds whole checkpoints or none, the newest whole one is brought back, and of two
machines one writes.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from asr.errors import ModelError
from asr.storage import files
from asr.tracking import mirror_copy
from asr.tracking.mirror_store import Store
from asr.training import checkpoints
from support.mirror import run_python, saved, whole

# Each change to the mirror's files is once the last thing that a copying process does.
KILLED_COPIES = """
import os, shutil, signal, sys
from pathlib import Path
from asr.tracking import mirror_copy
from asr.tracking.mirror_store import Store
from support.mirror import saved, whole
top = Path(sys.argv[1])
os.environ["EARSHOT_MIRROR"] = str(top / "mirror")
folder, log = top / "a/f", top / "a/log"

def copy(number):
    seen = [0]
    def hook(event, args):
        changes = ("open", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")
        if event in changes and str(top / "mirror") in str(args[0]):
            writes = event != "open" or (isinstance(args[1], str) and set(args[1]) & set("wax+"))
            seen[0] += bool(writes)
            if seen[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    mirror_copy.push(Store("f"), folder, log, "a", True)

number, killed = 0, True
while killed:
    number += 1
    shutil.rmtree(top, ignore_errors=True)
    saved(folder, 3, weights=3)
    saved(folder, 6, weights=3)
    mirror_copy.push(Store("f"), folder, log, "a", True)
    saved(folder, 9, weights=9)
    child = os.fork()
    if child == 0:
        copy(number)
        os._exit(0)
    killed = bool(os.waitpid(child, 0)[1])
    for name in ("b", "c"):
        mirror_copy.fetch(Store("f"), top / name / "f", top / name / "log", name)
        found = whole(top / name / "f")
        right = (([6], [3]), ([9], [9])) if name == "b" and killed else (([9], [9]),)
        assert found in right, (number, name, found)
        mirror_copy.push(Store("f"), folder, log, "a", True)
print(number)
"""


@pytest.fixture(params=["folder", "memory"])
def place(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty mirror: a folder, and a store without any."""
    at = str(tmp_path / "mirror") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"
    monkeypatch.setenv("EARSHOT_MIRROR", at)
    yield Store("f")
    if request.param == "memory":
        fsspec.filesystem("memory").rm("/", recursive=True)


def spoil(place: Store, name: str, way: str) -> None:
    content = place.fs.cat_file(f"{place.top}/{name}")
    if way == "lost":
        place.fs.rm(f"{place.top}/{name}")
    else:
        place.fs.pipe_file(
            f"{place.top}/{name}", content[:-1] if way == "short" else content[:-1] + b"?"
        )


def test_what_is_copied_comes_back_elsewhere_with_the_journal(tmp_path: Path, place: Store) -> None:
    here, there = tmp_path / "a/f", tmp_path / "b/f"
    for step, best in ((3, 3), (6, 3), (9, 9), (12, 9)):
        saved(here, step, best)
        mirror_copy.push(place, here, tmp_path / "a/log", "a")
    assert list(mirror_copy.read_indices(place)) == [12, 9]
    assert sorted(name for name in place.names() if "." not in name) == [
        "step-00000009",
        "step-00000012",
        "weights-00000009",
    ]
    mirror_copy.fetch(place, there, tmp_path / "b/log", "b")
    assert whole(there) == ([12], [9])
    assert (tmp_path / "b/log").read_bytes() == (tmp_path / "a/log").read_bytes()
    for file in there.rglob("*.*"):
        assert file.read_bytes() == (here / file.relative_to(there)).read_bytes()


@pytest.mark.parametrize("way", ["short", "changed", "lost"])
@pytest.mark.parametrize(
    "name",
    [
        "step-00000009/optimizer.safetensors",
        "weights-00000009/model.safetensors",
        "step-00000009.json",
    ],
)
def test_a_damaged_checkpoint_falls_back_says_what_it_costs_and_is_copied_anew(
    tmp_path: Path, place: Store, name: str, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = tmp_path / "a/f", tmp_path / "b/f"
    for step, best in ((6, 6), (9, 9)):
        saved(here, step, best)
        mirror_copy.push(place, here, tmp_path / "a/log", "a")
    spoil(place, name, way)
    mirror_copy.fetch(place, there, tmp_path / "b/log", "a")
    said = capsys.readouterr().out
    steps, weights = whole(there)
    assert steps == [6]
    assert 6 in weights
    if (
        name != "step-00000009.json" or way != "lost"
    ):  # without an index there is no checkpoint to speak of
        assert "the mirror's checkpoint of step 9" in said
        assert "costs 3 steps" in said
    mirror_copy.push(place, here, tmp_path / "a/log", "a")
    mirror_copy.fetch(place, there, tmp_path / "b/log", "a")
    assert whole(there) == ([9, 6], [9, 6])


def test_the_newest_whole_checkpoint_of_both_places_wins(tmp_path: Path, place: Store) -> None:
    here, there = tmp_path / "a/f", tmp_path / "b/f"
    saved(here, 6, 3)
    mirror_copy.push(place, here, tmp_path / "a/log", "a")
    saved(there, 9, 9)
    mirror_copy.fetch(place, there, tmp_path / "b/log", "b")
    assert whole(there) == ([9], [9]), "ours is newer"
    saved(there, 6, 3)
    (there / "step-00000009/state.json").write_bytes(b"")
    (there / "step-00000006/state.json").write_bytes(b"")
    mirror_copy.fetch(place, there, tmp_path / "b/log", "b")
    checkpoints.check(there / "step-00000006")


def test_what_is_newer_than_ours_is_never_dropped(tmp_path: Path, place: Store) -> None:
    """A mirror that could not be asked at the start may hold more than we know."""
    here, there = tmp_path / "a/f", tmp_path / "b/f"
    saved(here, 900, 900)
    mirror_copy.push(place, here, tmp_path / "a/log", "a")
    for step in (3, 6, 9):
        saved(there, step, 3)
        mirror_copy.push(place, there, tmp_path / "b/log", "b", force=True)
    assert list(mirror_copy.read_indices(place)) == [900, 9, 6]
    mirror_copy.fetch(place, tmp_path / "c/f", tmp_path / "c/log", "c")
    assert whole(tmp_path / "c/f") == ([900], [900])


def test_journals_are_joined_and_no_line_comes_twice(tmp_path: Path, place: Store) -> None:
    saved(tmp_path / "a/f", 6, 6)
    mirror_copy.push(place, tmp_path / "a/f", tmp_path / "a/log", "a")
    log = tmp_path / "b/log"
    files.write_text(log, "step 6\nonly here\n")
    mirror_copy.fetch(place, tmp_path / "b/f", log, "b")
    assert log.read_text() == "step 6\nonly here\n"


def test_of_two_machines_the_later_one_has_the_mirror_and_both_are_told(
    tmp_path: Path, place: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path / "a/f", 6, 6)
    mirror_copy.fetch(place, tmp_path / "a/f", tmp_path / "a/log", "a")
    mirror_copy.push(place, tmp_path / "a/f", tmp_path / "a/log", "a")
    assert capsys.readouterr().out == ""
    mirror_copy.fetch(place, tmp_path / "b/f", tmp_path / "b/log", "b")
    assert "held the mirror at" in capsys.readouterr().out
    saved(tmp_path / "a/f", 9, 9)
    with pytest.raises(ModelError, match="trains the same and has taken over the mirror"):
        mirror_copy.push(place, tmp_path / "a/f", tmp_path / "a/log", "a")
    assert list(mirror_copy.read_indices(place)) == [6]


def test_a_takeover_while_a_checkpoint_is_copied_leaves_no_half_of_it(
    tmp_path: Path, place: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "a/f", 6, 6)
    write = Store.write

    def taken_over(self: Store, name: str, source: Any) -> None:
        write(self, name, source)
        if name == mirror_copy.JOURNAL:
            mirror_copy.take_lease(place, "b", force=True)

    monkeypatch.setattr(Store, "write", taken_over)
    with pytest.raises(ModelError, match="taken over"):
        mirror_copy.push(place, tmp_path / "a/f", tmp_path / "a/log", "a")
    assert not mirror_copy.read_indices(place)


def test_a_foreign_index_writes_nowhere_else(
    tmp_path: Path, place: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    place.fs.makedirs(place.top, exist_ok=True)
    place.fs.pipe_file(
        f"{place.top}/step-00000009.json",
        json.dumps({"../../evil/model.safetensors": "0"}).encode(),
    )
    place.fs.pipe_file(f"{place.top}/lease.json", b"[1")
    mirror_copy.fetch(place, tmp_path / "b/f", tmp_path / "b/log", "b")
    assert "cannot be read" in capsys.readouterr().out
    assert not (tmp_path / "b").exists()


def test_a_copy_killed_at_any_change_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    done = run_python(KILLED_COPIES, str(tmp_path / "top"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) > 10
