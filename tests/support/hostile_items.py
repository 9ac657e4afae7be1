"""Items that crash, hang or fill the process that works on them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

from asr.cleaning import sandbox
from asr.errors import DataError
from asr.runtime.limits import allow

LOST: list[bytes] = []


def deed(kind: str) -> Any:
    """What an item of this kind does to its process; gives the process id where it does nothing."""
    if kind == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "exit":
        os._exit(3)
    if kind == "loop":
        while True:
            pass
    if kind == "stand still":
        signal.pause()
    if kind == "memory":
        return bytearray(600 << 20)
    if kind == "fault":
        raise DataError("item: broken")
    if kind == "bug":
        return {}["nothing"]
    if kind == "no pickle":
        return lambda: None
    if kind == "big":
        return bytes(300_000)
    if kind == "leak":
        LOST.append(b"x" * (250 << 20))
    if kind == "patient":
        allow(60.0)
        end = time.process_time() + sandbox.ITEM_SECONDS + 0.5
        while time.process_time() < end:
            pass
    return os.getpid()


def act(kinds: list[str], start: int) -> Iterator[Any]:
    """A job for `guarded`: one item of each kind."""
    for kind in kinds[start:]:
        yield deed(kind)
