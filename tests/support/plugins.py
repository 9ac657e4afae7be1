"""The fixtures of suite and harness, and one thread a library, so that bits repeat."""

from __future__ import annotations

import os

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

PLUGINS = [
    "support.fixtures",
    "support.pipeline",
    "support.experiments",
    "support.browser",
    "support.outage",
    "support.reporting",
]
