"""Chance that depends on a key alone, and hashes of code that no prose changes."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.rooms import KEPT
from asr.storage import hashing
from asr.storage.hashing import fraction_of, split_of
from asr.storage.shards import SPLITS
from support.repository import REPOSITORY


@settings(max_examples=50)
@given(st.text())
def test_a_fraction_depends_on_its_key_alone(key):
    assert 0 <= fraction_of(key) < 1
    assert fraction_of(key) == fraction_of(key)
    assert split_of(key) in SPLITS


def test_eight_in_ten_keys_train():
    splits = [split_of(f"speaker {number}") for number in range(5000)]
    assert splits.count("train") / 5000 == pytest.approx(0.8, abs=0.02)
    assert splits.count("test") / 5000 == pytest.approx(0.1, abs=0.02)


def test_splits_stay_what_they_were_when_published():
    held_out = {
        key: split_of(key)
        for key in ("anna", "bo", "eva", "hans", "s2", "s3")
        if split_of(key) != "train"
    }
    assert held_out == {"eva": "validation", "hans": "validation", "s2": "validation"}


SOURCE = '''"""What it is for."""

import os  # why


class Thing:
    """A thing."""  # of ours

    name: str = "a # b"

    def act(self):
        # because
        """Say
        more."""
        return """kept"""
'''


def copied(tmp_path: Path, code: str) -> ModuleType:
    """asr.storage.hashing as it would be in a repository whose asr/thing/one.py is this code."""
    place = tmp_path / "asr" / "storage" / "hashing.py"
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(hashing.__file__, place)
    (tmp_path / "asr" / "thing").mkdir(exist_ok=True)
    (tmp_path / "asr" / "thing" / "one.py").write_text(code)
    spec = importlib.util.spec_from_file_location("copied_hashing", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "same",
    [
        "x = 1  # one\n",
        "# head\n\n\nx = 1\n",
        '"""Prose."""\n\nx = 1\n',
        '"""Prose."""  # and more\nx = 1\n# end',
    ],
)
@pytest.mark.parametrize("place", ["asr/thing", "asr/thing/one.py"])
def test_prose_keeps_the_hash_of_code(tmp_path, same, place):
    before = copied(tmp_path, "x = 1\n").code_hash([place])
    assert copied(tmp_path, same).code_hash([place]) == before


def test_what_looks_like_layout_inside_a_string_is_content(tmp_path):
    texts = ["a\n\nb", "a\nb", "a \nb", "a\u2028b", "a\n# b", "a\nb #"]
    begins = ["x = ", "x = f", "print(1, "]
    ends = ["", "", ")"]
    sources = [
        f'{begin}"""{text}"""{end}\n'
        for text in texts
        for begin, end in zip(begins, ends, strict=True)
    ]
    hashes = {copied(tmp_path, source).code_hash(["asr/thing"]) for source in sources}
    assert len(hashes) == len(sources)


@pytest.mark.parametrize(
    "other", ["x = 2\n", "y = 1\n", "x = 1.0\n", "x = 1\ny = 1\n", "x = '1'\n", ""]
)
def test_other_code_has_another_hash(tmp_path, other):
    before = copied(tmp_path, "x = 1\n").code_hash(["asr/thing"])
    assert copied(tmp_path, other).code_hash(["asr/thing"]) != before


def test_a_file_that_joins_a_room_changes_its_hash(tmp_path):
    module = copied(tmp_path, "x = 1\n")
    before = module.code_hash(["asr/thing"])
    (tmp_path / "asr" / "thing" / "two.py").write_text("")
    assert module.code_hash(["asr/thing"]) != before
    assert module.code_hash(["asr/thing/one.py", "asr/thing/two.py"]) == module.code_hash(
        ["asr/thing"]
    )


def test_a_name_that_is_no_code_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"asr/gone\.py: no code is there"):
        copied(tmp_path, "").code_hash(["asr/gone.py"])


def test_what_is_left_of_a_file_is_all_but_its_prose():
    assert hashing.without_prose(SOURCE) == (
        'import os\nclass Thing:\n    name: str = "a # b"\n    def act(self):\n        '
        'return """kept"""'
    )


def without_docstrings(source: str) -> str:
    """The syntax tree, in which comments and layout do not count, without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def completed(bare: str) -> str:
    """With `pass` where nothing is left of a body that was prose alone."""
    lines = [*bare.splitlines(), ""]
    indents = [len(line) - len(line.lstrip()) for line in lines]
    return "\n".join(
        f"{line} pass" if line.endswith(":") and after <= indent else line
        for line, indent, after in zip(lines, indents, [*indents[1:], 0], strict=True)
    )


@pytest.mark.parametrize("kept", KEPT)
def test_nothing_but_prose_is_taken_out_of_our_own_code(kept):
    for name in KEPT[kept]:
        place = REPOSITORY / name
        for path in place.rglob("*.py") if place.is_dir() else [place]:
            source = path.read_text()
            bare = completed(hashing.without_prose(source))
            assert ast.dump(ast.parse(bare or "pass")) == without_docstrings(source), path


def test_every_interpreter_has_the_same_hash_of_the_same_code(tmp_path):
    """A constant, for one interpreter runs this test; each dumps syntax trees its own way."""
    assert copied(tmp_path, SOURCE).code_hash(["asr/thing"]) == (
        "ffd88ceb1ef1fee95fb3ab92d1d1fa229225364bf9a419008aa55ef7f88e6a04"
    )


def test_the_hash_of_code_is_the_same_in_another_process():
    names = ["asr/features.py", "asr/audio"]
    code = f"from asr.storage import hashing; print(hashing.code_hash({names}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == hashing.code_hash(names)
