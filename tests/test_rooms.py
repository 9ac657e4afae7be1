"""The rooms of `asr` are those of the list, in its order, and say the truth of themselves."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from asr.rooms import ROOMS
from support import module_graph
from support.repository import REPOSITORY

ASR = REPOSITORY / "asr"
NAMES = [room.name for room in ROOMS]
FILES = sorted(path for path in ASR.rglob("*.py") if path != ASR / "__init__.py")
OUTSIDE = {"stages": {"asr", "stages"}, "dashboard": {"asr", "dashboard"}}
WITH_TORCH = ("training", "model", "preflight", "checks", "decoding")
NOT_FOR_STAGES = ("stages.", "asr.runs", "asr.transcribe", "asr.doctor")


def rooms_imported(path: Path) -> set[str]:
    """Other rooms that a file of `asr` imports."""
    files = {module_graph.path_of(name) for name in module_graph.imports(path)} - {
        ASR / "__init__.py"
    }
    return {module_graph.room_of(file) for file in files if file} - {module_graph.room_of(path)}


def against_the_order(path: Path, order: list[str]) -> set[str]:
    return {
        name
        for name in rooms_imported(path)
        if order.index(name) > order.index(module_graph.room_of(path))
    }


def test_the_list_names_every_room_once() -> None:
    there = {
        path.name
        for path in ASR.iterdir()
        if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))
    }
    assert sorted(NAMES) == sorted(there - {"__init__.py"})


def folders_of_no_room(tests: Path) -> set[str]:
    """Folders of tests that are named after nothing in the program."""
    there = {path.parent.name for path in tests.rglob("test_*.py") if path.parent != tests}
    return there - {*NAMES, *OUTSIDE}


def test_tests_stand_in_folders_of_the_same_names(tmp_path: Path) -> None:
    assert folders_of_no_room(REPOSITORY / "tests") == set()
    for name in ("audio", "helpers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "test_it.py").touch()
    assert folders_of_no_room(tmp_path) == {"helpers"}, "the control"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ASR)))
def test_a_room_imports_only_rooms_before_it(path: Path) -> None:
    wrong = against_the_order(path, NAMES)
    room = module_graph.room_of(path)
    assert not wrong, f"{path}: {room} imports {wrong}, which stand after it in asr/rooms.py"


def test_an_import_against_the_order_is_noticed() -> None:
    """The control: in the reverse of the order, nearly every file stands before what it imports."""
    assert against_the_order(ASR / "training/loop.py", NAMES[::-1]) == rooms_imported(
        ASR / "training/loop.py"
    )
    assert {"features.py", "model"} <= rooms_imported(ASR / "training/loop.py")


def circle_in(graph: dict[Path, set[Path]], files: set[Path]) -> set[Path]:
    """Without the files that only import from a circle."""
    while idle := {path for path in files if not any(path in graph[other] for other in files)}:
        files = files - idle
    return files


def test_there_are_no_circles() -> None:
    graph = {
        path: {module_graph.path_of(name) for name in module_graph.imports(path)}
        & set(FILES) - {path}
        for path in FILES
    }
    done: set[Path] = set()
    while len(done) < len(graph):
        free = {path for path, needs in graph.items() if path not in done and needs <= done}
        assert free, f"a circle among {sorted(map(str, circle_in(graph, set(graph) - done)))}"
        done |= free


@pytest.mark.parametrize("room", [name for name in NAMES if not name.endswith(".py")])
def test_a_room_opens_with_what_it_is_for_and_all_that_it_imports(room: str) -> None:
    text = ast.get_docstring(ast.parse((ASR / room / "__init__.py").read_text())) or ""
    told = re.search(r"Imports ((?:`\w+`(?:, | and )?)+)", " ".join(text.split()))
    assert told, f"asr/{room}/__init__.py says nothing of what the room imports"
    imported = {
        name.removesuffix(".py")
        for path in (ASR / room).glob("*.py")
        for name in rooms_imported(path)
    }
    assert set(re.findall(r"`(\w+)`", told[1])) == imported
    assert len(text.partition("Imports")[0].split()) > 5


def started_by(path: Path) -> set[Path]:
    """All our files that are imported when a file is."""
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            names = module_graph.imports(current, at_start=True)
            waiting += [found for name in names if (found := module_graph.path_of(name))]
    return seen


def rooms_with_torch(path: Path) -> set[str]:
    rooms = {module_graph.room_of(one) for one in started_by(path) if one.is_relative_to(ASR)}
    return rooms & set(WITH_TORCH)


def test_stages_and_pages_import_only_what_they_may() -> None:
    for package, allowed in OUTSIDE.items():
        for path in (REPOSITORY / package).rglob("*.py"):
            names = module_graph.imports(path)
            assert {name.split(".")[0] for name in names} <= allowed, path
            if package == "stages":
                others = [name for name in names if name.startswith(NOT_FOR_STAGES)]
                assert not others, f"{path} imports {others}"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "dashboard").rglob("*.py")), ids=str)
def test_no_page_starts_a_room_that_imports_torch(path: Path) -> None:
    assert rooms_with_torch(path) == set(), f"{path} brings torch into the pages"


def test_a_room_that_imports_torch_is_noticed_behind_another() -> None:
    """The control."""
    assert rooms_with_torch(ASR / "transcribe/recognizer.py") >= {"model"}
