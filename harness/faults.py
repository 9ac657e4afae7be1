"""Plant every fault that we know in trainings and MLflow servers; print what noticed each and what
it cost.

    make harness NAME=faults      # all of them, 5 minutes on one core

The tests are the harness: this runs those of planted training faults, of healthy trainings and of
failing MLflow servers, and shows what they found as tables. The suite plants most faults in
trainings that are prepared and run for a few steps; here each is planted in a whole training, too.
The control is checks and refusals that pass whatever they see; those of the servers are tests of
harness/test_outages.py.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

os.environ.update({"OMP_NUM_THREADS": "1", "WORKERS": "1", "EVERY_FAULT": "1"})

import pytest

from support.repository import REPOSITORY

FILES = (REPOSITORY / "tests/checks/test_checks.py", REPOSITORY / "harness/test_outages.py")


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
    """The control: whatever is checked is well."""

    def pytest_sessionstart(self) -> None:
        from asr.checks.check import Check
        from asr.preflight import refusals

        for name in [name for name in vars(refusals) if name.startswith("refuse_")]:
            setattr(refusals, name, lambda *_: None)
        make = Check.__init__
        Check.__init__ = lambda self, name, _, detail: make(self, name, True, detail)


def shake(only: str, broken: bool) -> bool:
    """Run the tests, and print their tables; whether all passed.

    Args:
        only: words of the tests to run, as pytest's -k takes them; empty for all.
    """
    tables = Tables()
    plugins = [tables, Content()] if broken else [tables]
    quiet = ["-p", "no:terminalreporter", "-p", "no:cacheprovider"]
    code = pytest.main([*map(str, FILES), *quiet, "-k", only], plugins=plugins)
    print(f"\n{tables.total()}", flush=True)
    return not code
