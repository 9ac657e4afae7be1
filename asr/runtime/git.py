"""Calls of git, some milliseconds each."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any


def run(
    folder: Path, *arguments: str, stdin: str = "", **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run git in a folder, whether it fails or not.

    Args:
        stdin: what it reads from standard input.
        more: further arguments of `subprocess.run`, such as `timeout`.
    """
    command = ["git", *arguments]
    return subprocess.run(
        command, cwd=folder, input=stdin, capture_output=True, text=True, check=False, **more
    )
