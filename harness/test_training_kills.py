"""Trainings killed at every kind of moment end with the bits of one never stopped."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.children import Nursery


def kills(nursery: Nursery, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the harness forks, and a process that has run tests has threads."""
    code = "from harness.__main__ import main; main()"
    return nursery.run(code, "training-kills", *arguments, "--seed", "7", root=root)


def test_stops_of_every_kind_change_nothing(nursery: Nursery, tmp_path: Path) -> None:
    done = kills(nursery, tmp_path, "24")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 committed steps lost; 0 trainings ended otherwise" in done.stdout
    for kind in ("kill at an operation", "kill at a moment", "kill in a resume", "disk full"):
        assert kind in done.stdout


def test_the_harness_sees_a_training_that_forgets_its_seed(
    nursery: Nursery, tmp_path: Path
) -> None:
    done = kills(nursery, tmp_path, "2", "--broken")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0 committed steps lost; " in done.stdout
    assert "0 trainings ended otherwise" not in done.stdout
