"""The harness that kills the data stages, in small: what it finds, and that it finds it (make
kills: 100).
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support.repository import REPOSITORY


def kills(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(REPOSITORY / "tests/data_kills.py"), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.timeout(600)
def test_a_few_kills_change_no_byte() -> None:
    done = kills("4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kills (" in done.stdout.splitlines()[-1]


@pytest.mark.timeout(600)
def test_files_that_are_named_before_they_are_written_are_noticed() -> None:
    done = kills("30", "--broken")
    assert done.returncode == 1
    assert "a run failed" in done.stderr or "other bytes" in done.stderr
