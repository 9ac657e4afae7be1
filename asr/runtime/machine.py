"""What this machine is. Costs nothing."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")  # Linux has it
NAMES = ("model name", "Model", "cpu model")  # of the field that names the processor


@cache
def processor() -> str:
    """The processor's name as the system tells it, or its kind where it tells none."""
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            field, _, value = line.partition(":")
            if field.strip() in NAMES and value.strip():
                return " ".join(value.split())
    return platform.processor() or platform.machine()
