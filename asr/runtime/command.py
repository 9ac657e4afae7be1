"""What every stage's command line does: take its paths, keep its time, leave with the right exit
code.
"""

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
    given = vars(arguments.parse_args())
    return [given[name] for name in names]


@contextmanager
def timing(reports: Path) -> Iterator[dict[str, Any]]:
    """Write the block's wall time, and what else it timed, to timing.json, the one report that may
    differ from run to run.
    """
    start = time.monotonic()
    timed: dict[str, Any] = {}
    yield timed
    files.write_json(
        reports / "timing.json", {"seconds": round(time.monotonic() - start, 3), **timed}
    )
