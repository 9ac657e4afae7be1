"""Wait for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable

HANG_SECONDS = 300.0  # what is waited for takes seconds, also on a busy machine
LOOK_SECONDS = 0.02


def wait_for(ready: Callable[[], object], what: str = "it") -> None:
    """Return once `ready()` is true.

    Raises:
        AssertionError: it did not become true within HANG_SECONDS, which only a hang takes.
    """
    end = time.monotonic() + HANG_SECONDS
    while not ready():
        assert time.monotonic() < end, f"{what} did not come within {HANG_SECONDS:.0f} s"
        time.sleep(LOOK_SECONDS)
