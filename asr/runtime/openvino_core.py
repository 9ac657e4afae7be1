"""The one OpenVINO of this process.

A `Core` gives the main thread a stack for signal handlers. Of two of them the first takes its own
away while the second still counts on it, and the next signal ends the process (OpenVINO 2026.4).
"""

from __future__ import annotations

from functools import cache
from threading import Lock

import openvino

_making = Lock()  # two threads that ask at once would otherwise make two


def core() -> openvino.Core:
    """Made at its first use, and never released. Costs 0.1 s."""
    with _making:
        return _core()


@cache
def _core() -> openvino.Core:
    return openvino.Core()
