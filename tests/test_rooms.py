"""The rooms of `asr` are those of the list, in its order, and say the truth of themselves."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from asr.__main__ import COMMANDS
from asr.rooms import ROOMS
from support import module_graph
from support.repository import REPOSITORY

ASR = REPOSITORY / "asr"
NAMES = [room.name for room in ROOMS]
FILES = sorted(path for path in ASR.rglob("*.py") if path != ASR / "__init__.py")
OUTSIDE = ("stages", "dashboard")
# What a package may import besides Python's own modules; of torch and its kin no page knows.
MAY_IMPORT = {
    "asr": {
        "asr", "accelerate", "av", "datasets", "dvc", "espeakng_loader", "evaluate", "fsspec",
        "httpx2", "huggingface_hub", "jiwer", "matplotlib", "mlflow", "num2words", "numpy",
        "openvino",
        "pandas", "peft", "psutil", "pyarrow", "pydantic", "rapidfuzz", "regex", "requests",
        "ruamel", "safetensors", "scipy", "soundfile", "soxr", "tokenizers", "torch", "tqdm",
        "transformers", "whisper_normalizer", "yaml", "yt_dlp",
    },
    "stages": {"asr", "accelerate", "numpy", "pyarrow", "transformers"},
    "dashboard": {
        "asr", "dashboard", "altair", "espeakng_loader", "httpx2", "numpy", "openai", "pandas",
        "pyarrow", "soundfile", "streamlit",
    },
}  # fmt: skip
# Files that import by a name that is computed: commands, and packages that may not be installed.
IMPORTING_BY_NAME = {
    "asr/__main__.py", "asr/sources/data_collective.py", "asr/speech/silero.py",
    "asr/transcribe/settings.py", "asr/transcribe/youtube.py",
}  # fmt: skip
TORCH = {"accelerate", "peft", "safetensors", "torch", "transformers"}
NOT_FOR_STAGES = ("asr.runs", "asr.transcribe", "asr.doctor")


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


def files_with_torch(path: Path) -> set[str]:
    """Files started by this one that import torch, or what imports it, at their own start."""
    return {
        str(one.relative_to(REPOSITORY))
        for one in started_by(path)
        if module_graph.packages(one, at_start=True) & TORCH
    }


def files_of(package: str) -> list[Path]:
    return sorted((REPOSITORY / package).rglob("*.py"))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    """And all that it may, so that the list stays short."""
    imported = {name for path in files_of(package) for name in module_graph.packages(path)}
    assert imported == MAY_IMPORT[package]


def test_no_stage_imports_a_room_for_people() -> None:
    for path in files_of("stages"):
        names = module_graph.imports(path)
        assert not [name for name in names if name.startswith(NOT_FOR_STAGES)], path


def test_only_some_files_import_by_name() -> None:
    """What the tests of this file cannot follow."""
    found = {
        str(path.relative_to(REPOSITORY))
        for package in MAY_IMPORT
        for path in files_of(package)
        if module_graph.imports_unseen(path)
    }
    assert found == IMPORTING_BY_NAME


IMPORTING = {
    "def f():\n    from support import data\n": {"support"},
    "def f():\n    from harness.fuzz import run\n": {"harness"},
    "async def f():\n    import torch.nn\n": {"torch"},
    "import json\nfrom pathlib import Path\n": set(),
}
BY_NAME = {
    "import importlib\n": True,
    "from importlib import import_module as load\n": True,
    "def f():\n    return __import__('harness')\n": True,
    "exec('import harness')\n": True,
    "import json\n": False,
    "from importlib.metadata import version\n": False,
}


@pytest.mark.parametrize("source", IMPORTING)
def test_an_import_is_seen_wherever_it_stands(source: str, tmp_path: Path) -> None:
    """The control, with imports that run with the file itself and those that do not."""
    (tmp_path / "one.py").write_text(source)
    assert module_graph.packages(tmp_path / "one.py") == IMPORTING[source]
    assert module_graph.packages(tmp_path / "one.py", at_start=True) == set()


@pytest.mark.parametrize("source", BY_NAME)
def test_an_import_by_name_is_seen(source: str, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(source)
    assert module_graph.imports_unseen(tmp_path / "one.py") == BY_NAME[source]


@pytest.mark.parametrize("path", files_of("dashboard"), ids=str)
def test_no_page_starts_a_file_that_imports_torch(path: Path) -> None:
    assert files_with_torch(path) == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_waits_for_no_torch(command: str) -> None:
    path = REPOSITORY / f"{COMMANDS[command].module.replace('.', '/')}.py"
    assert files_with_torch(path) == set()


def test_torch_is_noticed_behind_another_file() -> None:
    """The control."""
    assert "asr/model/loader.py" in files_with_torch(ASR / "model/start.py")
