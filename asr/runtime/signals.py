"""SIGTERM and SIGINT are noted, and obeyed between two batches; the parent's death counts as
SIGTERM. Costs nothing.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import Any

PR_SET_PDEATHSIG = 1


class Interrupted(Exception):
    """Leaves whatever is being done half-way; the training stops at its step."""


class Signals:
    """What this process was told; `received` is the first signal's number, 0 before."""

    def __init__(self) -> None:
        self.received = 0
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._note)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    def _note(self, signum: int, _: Any) -> None:
        self.received = self.received or signum

    def until_signal(self, groups: Iterable[Any], _: int = 0) -> Iterator[Any]:
        """Pass groups through; after a signal raise `Interrupted` instead."""
        for group in groups:
            if self.received:
                raise Interrupted
            yield group
