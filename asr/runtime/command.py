"""The command line of a stage: its paths, its help, its timing report."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asr.storage import files


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A command line whose `--help` shows the description as it was written."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def paths(doc: str | None, *names: str) -> list[Path]:
    """The command line's paths, in this order; `--help` shows the stage's own description."""
    arguments = parser(doc)
    for name in names:
        arguments.add_argument(name, type=Path)
    values = vars(arguments.parse_args())
    return [values[name] for name in names]


@contextmanager
def timing(reports: Path) -> Iterator[dict[str, Any]]:
    """Write the block's wall time to timing.json, the one report that may differ from run to run.

    Yields:
        a dict for further timings, written into the same file.
    """
    start = time.monotonic()
    timings: dict[str, Any] = {}
    yield timings
    seconds = round(time.monotonic() - start, 3)
    files.write_json(reports / "timing.json", {"seconds": seconds, **timings})
