"""Limits on time and memory that a process sets for itself. Costs nothing."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

from asr.runtime.signals import PR_SET_PDEATHSIG

STANDSTILL = 20  # so busy may a machine be, or so slow its disk, before a process counts as hung

_confined = False


def limit_self(
    cpu_seconds: int | None = None, memory: int | None = None, file_bytes: int | None = None
) -> None:
    """Limit this process for the rest of its life, and let it leave no core dump.

    None leaves a resource as it is. A stricter hard limit that is set already stays.

    Args:
        cpu_seconds: the system ends the process after so many seconds of work.
        memory: bytes of its own data; then allocating fails.
        file_bytes: size of the largest file it can write; beyond that it is ended.
    """
    limits = {
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_DATA: memory,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in limits.items():
        if most is None:
            continue
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(kind, (most, most))


def confine(parent: int, memory: int) -> None:
    """Make this process a worker that decodes files from strangers.

    It dies with its parent and when the time given by `allow` is over, and what C libraries print
    does not reach the terminal.

    Args:
        parent: process id of the parent.
        memory: bytes of its own data it may use.
    """
    global _confined
    _confined = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for ending in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(ending, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the line above.
    if os.getppid() != parent:
        os._exit(0)
    limit_self(memory=memory)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def allow(seconds: float) -> None:
    """Give a confined process so many seconds of CPU time from now; elsewhere do nothing.

    One that stands still ends too, after STANDSTILL times as long by the clock. 0 lifts the limits.
    """
    if _confined:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, STANDSTILL * seconds)
