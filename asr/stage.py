"""What every stage's command line does: take its paths, keep its time, leave with the right exit code."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asr import files


def paths(doc: str | None, *names: str) -> list[Path]:
    """The command line's paths, in this order; `--help` shows the stage's own description."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in names:
        parser.add_argument(name, type=Path)
    given = vars(parser.parse_args())
    return [given[name] for name in names]


@contextmanager
def timing(reports: Path) -> Iterator[None]:
    """Write the block's wall time to timing.json, the one report that may differ from run to run."""
    start = time.monotonic()
    yield
    files.write_json(reports / "timing.json", {"seconds": round(time.monotonic() - start, 3)})
