"""A training's memory is flat, chunk after chunk and evaluation after evaluation.

make harness NAME=memory COUNT=2000     # larger chunks
"""

from __future__ import annotations

import sys

import pytest

from support.children import run_harness

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


def test_memory_is_flat() -> None:
    done = run_harness("memory", "100")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "chunks: 9 figures" in done.stdout
    assert "evaluations: 10 figures" in done.stdout


def test_a_training_that_keeps_its_batches_is_noticed() -> None:
    done = run_harness("memory", "100", "--broken")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "chunks: 9 figures" in done.stdout
