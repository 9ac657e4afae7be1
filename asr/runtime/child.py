"""A module of this program run as a child process, for a limited time.

Costs a start of Python and the module's imports, 0.2 s or more.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import IO

from asr.errors import DataError, from_child

POLL_SECONDS = 0.02
ERROR_BYTES = 4096  # of the end of the child's stderr, in which its error is looked for


def run_child(
    module: str,
    *arguments: str,
    seconds: float,
    late: str,
    died: str,
    input: bytes = b"",
    check: Callable[[], None] = lambda: None,
) -> bytes:
    """Run `python -m module arguments` and return what it prints.

    Args:
        seconds: that it may take.
        late: what to say of a child that takes longer.
        died: what to say of one that fails without a message of its own; {code} is its exit code.
        input: what it reads from its stdin.
        check: called every POLL_SECONDS; what it raises ends the child.
    Raises:
        DataError: it failed or took too long.
    """
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryFile() as stderr:  # not a pipe, so that it may get any length
        child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        with child:
            try:
                output = _output(child, input, deadline, check)
            finally:
                child.kill()
        error = from_child(_end_of(stderr))
    if output is None:
        raise DataError(late)
    if child.returncode:
        raise DataError(error[1] if error else died.format(code=child.returncode))
    return output


def _output(
    child: subprocess.Popen[bytes],
    input: bytes | None,
    deadline: float,
    check: Callable[[], None],
) -> bytes | None:
    """What the child has printed when it ends; None if it does not end in time."""
    while time.monotonic() < deadline:
        try:
            return child.communicate(input, POLL_SECONDS)[0]
        except subprocess.TimeoutExpired:
            input = None  # it may be given once
            check()
    return None


def _end_of(file: IO[bytes]) -> str:
    file.seek(max(file.seek(0, os.SEEK_END) - ERROR_BYTES, 0))
    return file.read().decode("utf-8", "replace")
