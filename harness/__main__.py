"""Shake the product: `python -m harness NAME [COUNT] [--seed N] [--only WORDS] [--broken]`.

    make harness NAME=fuzz COUNT=2000

Ends with 1 if harm was seen, and with 2 if NAME has no use for what it is given.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PLACES = [str(HERE.parent), str(HERE.parent / "tests")]
# Harnesses, imported below, and the processes that they start import the product and tests/support.
sys.path[:0] = PLACES
os.environ["PYTHONPATH"] = os.pathsep.join(PLACES)
HARM_SEEN = 1
MISUSE = 2
COUNTED = ("count", "seed", "broken")
TESTS = ("only",)


@dataclass(frozen=True)
class Harness:
    """One way to shake the product.

    Attributes:
        purpose: what it does, in a line of the list.
        takes: the options that it has a use for.
        count: how much of it where nothing is said.
    """

    purpose: str
    takes: tuple[str, ...]
    count: int = 0


HARNESSES = {
    "short": Harness("a slice of each of these with its control, as CI runs it (10 min)", ()),
    "training-kills": Harness(
        "COUNT kills of trainings; the same final bits (500: 20 min)", COUNTED, 500
    ),
    "data-kills": Harness("COUNT kills of data stages; the same bytes (100: 5 min)", COUNTED, 100),
    "faults": Harness(
        "every fault planted in trainings and MLflow servers (5 min)", ("only", "broken")
    ),
    "fuzz": Harness(
        "COUNT broken files of every format do no harm (100,000: 3 min)", COUNTED, 100_000
    ),
    "languages": Harness(
        "the embedded corpus in each language, COUNT utterances (4,000: 25 min)", COUNTED, 4000
    ),
    "copies": Harness(
        "COUNT clips in 21 alterations: copies found, others not called so (60: 2 min)", COUNTED, 60
    ),
    "memory": Harness(
        "a training over 10 chunks of COUNT rows; flat (2,000: 2 min)", COUNTED, 2000
    ),
    "scale": Harness(
        "COUNT rows through the data stages (500,000: 30 min, 15 GB)", COUNTED, 500_000
    ),
    "speech": Harness(
        "speech found in COUNT s of real recordings, noise not taken for it (600: 1 min)",
        COUNTED,
        600,
    ),
    "experiments": Harness(
        "DVC experiments of all kinds, each killed once on its way (2 min)", TESTS
    ),
    "outages": Harness("MLflow servers that fail in every way (3 min)", TESTS),
    "browser": Harness("each page in Chromium, beyond its main path (3 min)", TESTS),
    "watch": Harness(
        "the page Runs through experiments of all kinds: nothing that was never true (6 min)", TESTS
    ),
    "hearing": Harness(
        "whisper-base on real sound, which lies in ../shared: words, times, noise (10 min)", TESTS
    ),
    "visitors": Harness("twenty visitors, hostile texts, hours of mp3 (4 min)", TESTS),
}


def main() -> None:
    parser = _parser()
    options = parser.parse_args()
    if options.name:
        _refuse_what_is_of_no_use(parser, options)
        sys.exit(0 if _shake(options) else HARM_SEEN)
    print(*(f"{name:16}{one.purpose}" for name, one in HARNESSES.items()), sep="\n")


def _refuse_what_is_of_no_use(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    takes = HARNESSES[options.name].takes
    for option in ("count", "seed", "only", "broken"):
        if option not in takes and getattr(options, option):
            known = ", ".join(takes) or "nothing"
            parser.exit(MISUSE, f"harness {options.name} has no {option}; it takes {known}\n")


def _shake(options: argparse.Namespace) -> bool:
    """Whether no harm was seen."""
    if options.name == "short":
        return _pytest(HERE, "-m", "not whole", "--numprocesses", "auto")
    module = options.name.replace("-", "_")
    chosen = HARNESSES[options.name]
    if chosen.takes == TESTS:
        return _pytest(HERE / f"test_{module}.py", "-k", options.only)
    harness = importlib.import_module(f"harness.{module}")
    if options.name == "faults":
        return bool(harness.shake(options.only, options.broken))
    return bool(harness.shake(options.count or chosen.count, options.seed or 1, options.broken))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m harness", description="Shake the product.")
    parser.add_argument("name", nargs="?", choices=HARNESSES, help="without it, the list")
    parser.add_argument("count", nargs="?", type=_number, help="how much of it")
    parser.add_argument("--seed", type=_number, help="of what is drawn (1)")
    parser.add_argument("--only", default="", help="words of the tests to run, where it has tests")
    parser.add_argument("--broken", action="store_true", help="the control: harm must be seen")
    return parser


def _number(text: str) -> int:
    """At least 1.

    Raises:
        ArgumentTypeError: it is not.
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def _pytest(*arguments: str | Path) -> bool:
    """Whether these tests pass."""
    command = [sys.executable, "-m", "pytest", *map(str, arguments)]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    main()
