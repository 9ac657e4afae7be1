"""Trainings killed at every kind of moment end with the bits of one never stopped. `make chaos` kills 500."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY

CHAOS = Path(__file__).with_name("chaos.py")


def chaos(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, for the harness forks, and a process that has run other tests has threads."""
    places = {"PYTHONPATH": f"{REPOSITORY}:{CHAOS.parent}"}
    command = [sys.executable, str(CHAOS), *arguments]
    return subprocess.run(command, env={**os.environ, **places}, capture_output=True, text=True, check=False, timeout=500)


def test_stops_of_every_kind_change_nothing() -> None:
    done = chaos("24", "7")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 committed steps lost; 0 trainings ended otherwise" in done.stdout
    for kind in ("kill at an operation", "kill at a moment", "kill in a resume", "disk full"):
        assert kind in done.stdout


def test_the_harness_sees_a_training_that_forgets_its_seed() -> None:
    done = chaos("2", "7", "--broken")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0 trainings ended otherwise" not in done.stdout
