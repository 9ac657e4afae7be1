"""A training's memory is flat, chunk after chunk and evaluation after evaluation. `make size` takes
20 chunks of 1,000 rows.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.repository import REPOSITORY

SIZE = Path(__file__).with_name("size.py")


@pytest.mark.skipif(sys.platform != "linux", reason="a process's own pages are told on Linux only")
@pytest.mark.parametrize(
    ("control", "code"), [([], 0), (["--leak"], 1)], ids=["healthy", "leaking"]
)
def test_memory_is_flat_unless_batches_are_kept(control: list[str], code: int) -> None:
    """In a process of its own, for the harness forks."""
    places = {"PYTHONPATH": f"{REPOSITORY}:{SIZE.parent}"}
    command = [sys.executable, str(SIZE), "6", "100", *control]
    done = subprocess.run(
        command, env={**os.environ, **places}, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "chunks: 5 figures" in done.stdout
    assert "evaluations: 12 figures" in done.stdout
