"""`make faults` tells what it found, and its control finds that nothing was noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.repository import REPOSITORY

FAULTS = Path(__file__).with_name("faults.py")


def test_the_harness_sees_checks_that_are_content_with_everything() -> None:
    done = subprocess.run(
        [sys.executable, str(FAULTS), "-k", "frozen_optimiser", "--broken"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "caught by: nothing" in done.stdout
    assert done.stdout.endswith("1 failed\n")
