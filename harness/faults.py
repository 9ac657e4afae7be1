"""Plant every fault that we know in trainings and tracking servers, and print what noticed it and
what it cost.

    python tests/faults.py [-k WORDS] [--broken]     # make faults: all, 5 minutes on one core

The tests are the harness: this runs those of planted training faults, of healthy trainings and of
failing MLflow servers, more of them than the suite does, and shows what they found as tables. Ends
with 1 if one of them fails. `--broken` is the control: checks that are content with everything, and
a follower that keeps the training waiting; every planted fault must then be missed.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.update({"OMP_NUM_THREADS": "1", "WORKERS": "1", "EVERY_FAULT": "1"})

import pytest

HERE = Path(__file__).parent
FILES = ("test_checks.py", "test_outage.py")


class Tables:
    """What the tests tell of themselves, as lines."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Counter[str]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call" and not report.failed:
            return
        name, _, case = report.location[2].partition("[")
        counts = self.outcomes.setdefault(name, Counter())
        if not counts:
            print(f"\n{name.removeprefix('test_').replace('_', ' ')}", flush=True)
        counts[report.outcome] += 1
        found = "; ".join(f"{key}: {value}" for key, value in report.user_properties) or _why(
            report
        )
        print(
            f"  {report.outcome:7} {case.rstrip(']').strip('_').replace('_', ' '):32} {found}",
            flush=True,
        )

    def total(self) -> str:
        all_of_them = sum(self.outcomes.values(), Counter[str]())
        return (
            ", ".join(
                f"{count} {outcome}" for outcome, count in sorted(all_of_them.items(), reverse=True)
            )
            or "nothing was tried"
        )


def _why(report: Any) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return crash.message.splitlines()[0] if crash else ""


class Content:
    """The control: whatever is checked is well, and the training waits for MLflow."""

    def pytest_sessionstart(self) -> None:
        from asr.checks import check
        from asr.preflight import refusals
        from asr.tracking import follower

        for name in [name for name in vars(refusals) if name.startswith("refuse_")]:
            setattr(refusals, name, lambda *_: None)
        table = check.table
        check.table = lambda found: {
            name: {**one, "passed": True} for name, one in table(found).items()
        }
        follower.GRACE_SHARE = 0.5


def main() -> None:
    rest = [one for one in sys.argv[1:] if one != "--broken"]
    tables = Tables()
    plugins = [tables, Content()] if "--broken" in sys.argv else [tables]
    quiet = ["-p", "no:terminalreporter", "-p", "no:cacheprovider"]
    code = pytest.main([*(str(HERE / name) for name in FILES), *quiet, *rest], plugins=plugins)
    print(f"\n{tables.total()}", flush=True)
    sys.exit(bool(code))


if __name__ == "__main__":
    main()
