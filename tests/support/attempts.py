"""Records of stages as DVC's stages write them, made up: a process that lives is a lock held."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from asr.runtime import attempts

NO_PROCESS = 2**22  # an id that Linux gives to none
BEGIN = 1_700_000_000.0
numbers = itertools.count()


def write(
    stage: str, ended: dict[str, Any] | None = None, fingerprint: str | None = None, **facts: Any
) -> Path:
    """The record of a stage whose process is dead.

    Args:
        ended: `code`, and `line` of an error; None for one that was killed.
        facts: `experiment`, `folder`, `dvc`, `begin`, where they are not the usual ones.
    """
    number = next(numbers)
    path = attempts.folder() / f"{number:020d}-1.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = {
        "stage": stage,
        "experiment": "",
        "folder": "/work",
        "dvc": [NO_PROCESS, 1],
        "begin": BEGIN + number,
        **facts,
    }
    lines = [begun, *([{"fingerprint": fingerprint}] if fingerprint else [])]
    if ended is not None:
        lines.append({"end": begun["begin"] + 1, "line": "", **ended})
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def this_process() -> list[float]:
    """This process in the place of DVC's."""
    return [os.getpid(), round(psutil.Process().create_time())]


@contextmanager
def living(path: Path) -> Iterator[None]:
    """The process of a record lives while the block lasts."""
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
