"""`python -m harness NAME [COUNT] [--seed N] [--only WORDS] [--broken]`: 1 if harm was seen.

Wants tests/ on PYTHONPATH, as `make harness` has it.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
HARM_SEEN = 1


@dataclass(frozen=True)
class Harness:
    """One way to shake the product.

    Attributes:
        purpose: what it does, in a line of the list.
        count: how much of it where nothing is said; 0 for those that are tests.
    """

    purpose: str
    count: int = 0


HARNESSES = {
    "short": Harness("a slice of each of these with its control, as CI runs it (10 min)"),
    "training-kills": Harness("COUNT kills of trainings; the same final bits (500: 20 min)", 500),
    "data-kills": Harness("COUNT kills of data stages; the same bytes (100: 5 min)", 100),
    "faults": Harness("every fault planted in trainings and MLflow servers (5 min)"),
    "fuzz": Harness("COUNT broken files of every format do no harm (100,000: 3 min)", 100_000),
    "memory": Harness("a training over 10 chunks of COUNT rows; flat (2,000: 2 min)", 2000),
    "scale": Harness("COUNT rows through the data stages (500,000: 30 min, 15 GB)", 500_000),
    "experiments": Harness("DVC experiments of all kinds, each killed once on its way (2 min)"),
    "outages": Harness("MLflow servers that fail in every way (3 min)"),
    "browser": Harness("each page in Chromium, beyond its main path (3 min)"),
    "visitors": Harness("twenty visitors, hostile texts, hours of mp3 (4 min)"),
}


def main() -> None:
    options = _parser().parse_args()
    if options.name:
        sys.exit(0 if _shake(options) else HARM_SEEN)
    print(*(f"{name:16}{one.purpose}" for name, one in HARNESSES.items()), sep="\n")


def _shake(options: argparse.Namespace) -> bool:
    """Whether no harm was seen."""
    if options.name == "short":
        return _pytest(HERE, "--numprocesses", "auto")
    module = options.name.replace("-", "_")
    if not (HERE / f"{module}.py").is_file():
        return _pytest(HERE / f"test_{module}.py", "-k", options.only)
    harness = importlib.import_module(f"harness.{module}")
    if options.name == "faults":
        return bool(harness.shake(options.only, options.broken))
    count = options.count or HARNESSES[options.name].count
    return bool(harness.shake(count, options.seed, options.broken))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m harness", description="Shake the product.")
    parser.add_argument("name", nargs="?", choices=HARNESSES, help="without it, the list")
    parser.add_argument("count", nargs="?", type=int, help="how much of it")
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn")
    parser.add_argument("--only", default="", help="words of the tests to run, where it has tests")
    parser.add_argument("--broken", action="store_true", help="the control: harm must be seen")
    return parser


def _pytest(*arguments: str | Path) -> bool:
    """Whether these tests pass."""
    command = [sys.executable, "-m", "pytest", *map(str, arguments)]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    main()
