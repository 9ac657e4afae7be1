"""A process that keeps within limits of time and memory, and does not outlive its parent. Costs
nothing.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

from asr.runtime.signals import PR_SET_PDEATHSIG

_confined = False


def allow(seconds: float) -> None:
    """Let what this process is at, where it is confined, take so many seconds of work from now;
    else do nothing.
    """
    if _confined:
        signal.setitimer(signal.ITIMER_PROF, seconds)


def confine(parent: int, memory: int) -> None:
    """Die with the parent and at the end of the time allowed, own so many bytes at most, and let no
    decoder write to the terminal.
    """
    global _confined
    _confined = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    for kind, most in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(
            kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
        )
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
