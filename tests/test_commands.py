"""The command `earshot`: every name leads to a function, and help costs no heavy import."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from asr import __main__ as earshot
from asr.__main__ import COMMANDS, Command
from asr.errors import ParamsError, from_child
from support.repository import REPOSITORY

HEAVY = {"torch", "transformers", "mlflow", "streamlit", "dvc", "datasets", "numpy"}

# The imported modules stand in the last line, below the help.
SHOW_HEAVY_IMPORTS = """
import json, runpy, sys
{before}
sys.argv = ["earshot", "--help"]
runpy.run_module("asr", run_name="__main__")
print(json.dumps(sorted({heavy} & set(sys.modules))))
"""


def unresolved(commands: Mapping[str, Command]) -> list[str]:
    """Names whose module or function is not there."""
    missing = []
    for name, command in commands.items():
        try:
            module = importlib.import_module(command.module)
        except ImportError:
            missing.append(name)
            continue
        if not callable(getattr(module, command.function, None)):
            missing.append(name)
    return missing


def run(*arguments: str, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "asr", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "DVC_ROOT": str(root)},
        capture_output=True,
        text=True,
    )


def heavy_imports(before: str = "") -> list[str]:
    """Heavy modules in a process that has shown `earshot --help`."""
    code = SHOW_HEAVY_IMPORTS.format(before=before, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_every_name_leads_to_a_function() -> None:
    assert unresolved(COMMANDS) == []


def test_a_name_that_leads_nowhere_is_noticed() -> None:
    """The control."""
    wrong = {
        "no module": Command("asr.nowhere", "help"),
        "no function": Command("asr.doctor", "help", "nothing"),
        "no callable": Command("asr.doctor", "help", "DRAFT_FOLDERS"),
    }
    assert unresolved({**COMMANDS, **wrong}) == [*wrong]


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",)])
def test_help_lists_every_command_with_what_it_does(
    arguments: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["earshot", *arguments])
    earshot.main()
    first, empty, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("usage: earshot NAME")
    assert empty == ""
    listed = dict(line.split(maxsplit=1) for line in lines)
    assert listed == {name: command.help for name, command in COMMANDS.items()}
    assert all(command.help for command in COMMANDS.values())


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("transcibe", "did you mean transcribe?"),
        ("prompt_language", "did you mean prompt-language?"),
        ("zzz", "earshot --help lists them"),
        ("", "earshot --help lists them"),
        ("two\nlines", "earshot --help lists them"),
    ],
)
def test_an_unknown_name_is_one_line_with_the_nearest_known_one(
    word: str, hint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["earshot", word])
    with pytest.raises(SystemExit) as caught:
        earshot.main()
    assert caught.value.code == ParamsError.exit_code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"error 2: earshot: there is no command {word!r}; {hint}\n"


def test_whoever_starts_a_command_can_read_its_error_back(tmp_path: Path) -> None:
    done = run("zzz", root=tmp_path)
    message = "earshot: there is no command 'zzz'; earshot --help lists them"
    assert from_child(done.stderr) == (done.returncode, message) == (2, message)
    assert from_child("") is None
    assert from_child("error 2: first\nand then it died") is None


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_how_it_is_used_by_the_name_it_was_called(
    name: str, tmp_path: Path
) -> None:
    done = run(name, "--help", root=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout + done.stderr
    assert f"earshot {name}" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_list_of_commands_costs_no_heavy_import() -> None:
    assert heavy_imports() == []


def test_a_heavy_import_is_noticed() -> None:
    """The control."""
    assert heavy_imports("import numpy") == ["numpy"]


def test_a_reader_that_has_seen_enough_causes_no_traceback() -> None:
    """As in `earshot results --kept | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "asr", "results", "--kept"],
        cwd=REPOSITORY,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")
