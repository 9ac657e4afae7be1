"""Stop between two batches after SIGTERM or SIGINT.

On Linux the death of the parent counts as SIGTERM. Costs nothing.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import Any

PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


class Interrupted(Exception):
    """Raised between two batches after a signal; leaves the work half done."""


class Signals:
    """Notes the signals that this process gets, in place of dying of them.

    Attributes:
        received: number of the first signal; 0 before.
    """

    def __init__(self) -> None:
        self.received = 0
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._note)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    def _note(self, signum: int, _: Any) -> None:
        self.received = self.received or signum

    def obey(self, groups: Iterable[Any], _: int = 0) -> Iterator[Any]:
        """Pass groups through until a signal has come, then raise Interrupted."""
        for group in groups:
            if self.received:
                raise Interrupted
            yield group
