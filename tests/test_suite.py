"""The suite itself: a test that kills its process fails, and the others are run all the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.repository import REPOSITORY

FILE = """
import os, signal
import pytest

@pytest.mark.parametrize("number", range(4))
def test_it(number):
    {work}
"""
DIES = "number == 2 and os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize("processes", [2, 3])
def test_one_test_fails_where_a_process_dies(processes: int, tmp_path: Path) -> None:
    for number in range(9):
        work = DIES if number == 4 else "pass"
        (tmp_path / f"test_{number}.py").write_text(FILE.format(work=work), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "support.reporting", "-n", str(processes), "."],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(REPOSITORY / "tests")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert re.search(r"\b1 failed, 35 passed", ended.stdout), ended.stdout
    assert "test_4.py::test_it[2]" in ended.stdout
