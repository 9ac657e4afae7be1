"""Items that end, stop or feed on the process that works on them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

from asr.errors import DataError
from asr.runtime.limits import allow

LOST: list[bytes] = []


def deed(kind: str) -> Any:
    """What hostile items do."""
    if kind == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "exit":
        os._exit(3)
    if kind == "loop":
        allow(0.05)
        while True:
            pass
    if kind == "never end":
        allow(3600.0)
        while True:
            pass
    if kind == "stand still":
        allow(0.05)
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
    if kind == "limits":
        allow(60.0)
        return signal.getitimer(signal.ITIMER_PROF), signal.getitimer(signal.ITIMER_REAL)
    return os.getpid()


def act(kinds: list[str], start: int) -> Iterator[Any]:
    for kind in kinds[start:]:
        yield deed(kind)
