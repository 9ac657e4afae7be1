"""Paths of data, models, reports and `.cache`; paths from params.yaml made absolute.

This is not part of `storage`, because a change here changes no byte of an output. Imports nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

# From the top of the repository, in the workspace and at any revision.
RAW = "data/raw"
CHUNKS = "data/chunks"
FEATURES = "data/features"
MODEL = "models/finetuned"
KEPT_MODELS = "models/kept"
REPORTS = "reports"
KEPT_REPORTS = "reports/kept"
STATS = "reports/stats/stats.json"
DURATIONS = "reports/stats/durations.csv"
WINDOWS = "reports/stats/windows.csv"
STATS_TIMING = "reports/stats/timing.json"
CHUNK_SUMMARY = "reports/chunk/summary.json"
REJECTS = "reports/chunk/rejects.parquet"
RUN = "reports/train/run.json"
SUMMARY = "reports/train/summary.json"
CHECKS = "reports/train/checks.json"
STEPS = "reports/train/steps.csv"
TRAIN_TIMING = "reports/train/timing.json"
METRICS = "reports/evaluate/metrics.json"
UTTERANCES = "reports/evaluate/utterances.parquet"
HOLDOUT = "reports/evaluate/holdout.parquet"


def root() -> Path:
    """The repository that owns `.cache`: DVC_ROOT, or else the working folder.

    `dvc exp run --temp` works in a folder that is thrown away, and sets DVC_ROOT to the real one.
    """
    return Path(os.environ.get("DVC_ROOT") or os.getcwd()).resolve()


def resolve(path: str) -> Path:
    """Make a path from params.yaml absolute; a relative one starts at the repository's top."""
    return (root() / Path(path).expanduser()).resolve()


def cache(*parts: str) -> Path:
    """A path under `.cache`, which git and DVC ignore."""
    return root().joinpath(".cache", *parts)
