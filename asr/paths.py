"""Where things lie: the top of the repository, `.cache` below it, and paths from params.yaml.

Apart from `storage`, for a new path changes no byte of what lies there. Imports nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

# From the top of the repository, in the workspace as at any revision.
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
STEPS = "reports/train/steps.csv"
TRAIN_TIMING = "reports/train/timing.json"
METRICS = "reports/evaluate/metrics.json"
UTTERANCES = "reports/evaluate/utterances.parquet"


def root() -> Path:
    """The repository that owns `.cache`: DVC_ROOT also in `dvc exp run --temp`, whose own folder is
    thrown away.
    """
    return Path(os.environ.get("DVC_ROOT") or os.getcwd()).resolve()


def resolve(path: str) -> Path:
    """A path from params.yaml: relative ones are meant from the repository's top."""
    return (root() / Path(path).expanduser()).resolve()


def cache(*parts: str) -> Path:
    """A place under `.cache`, which neither git nor DVC looks into."""
    return root().joinpath(".cache", *parts)
