"""Fixtures of all tests (support/fixtures.py), and one thread a library, so that bits repeat."""

from __future__ import annotations

import os

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

pytest_plugins = [
    "support.fixtures",
    "support.pipeline",
    "support.experiments",
    "support.browser",
    "support.reporting",
]
