"""One script per DVC stage; none imports another."""

import sys

import asr  # noqa: F401  its settings, before a stage imports NumPy or torch
from asr.runtime import attempts

# Recorded before a stage's own imports, which take seconds; processes that it starts have another
# command line.
if "-m" in sys.orig_argv:
    attempts.begin()
