"""Which libraries a piece of code imports, told by a fresh interpreter that runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from support.repository import REPOSITORY

REPORT = "\nimport json, sys; print(json.dumps([name for name in {names} if name in sys.modules]))"


def imported(code: str, *names: str) -> list[str]:
    """The modules of these names that are imported when the code has ended.

    Costs what the code imports. The code may print; it must not fail.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code + REPORT.format(names=names)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))
