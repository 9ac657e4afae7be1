"""Child processes: forks, their own memory, and trainings that tell MLflow nothing."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def fork(work: Callable[[], int | None]) -> int:
    """The pid of a child that does this work.

    Its exit code is what the work returns, or 1 if that raises; then it prints the traceback.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = work() or 0
        except BaseException:  # a child must not fall into its parent's code
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return pid


def own_memory(pid: int) -> int:
    """Bytes that are a process's own: pages of files that it has mapped do not count, for the
    machine can take those back. Pages still shared with the parent after a fork do.

    Raises:
        OSError: the process is gone.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def without_mlflow(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Have no training of this process start a follower.

    Args:
        replace: what sets the attributes; pytest's `monkeypatch.setattr` sets them back, too.
    """
    from asr.tracking.follower import Follower

    replace(Follower, "__init__", lambda *_: None)
    replace(Follower, "finish", lambda _: None)
