"""Which process runs which tests, what a skip means in CI, and the seconds of each file."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from support.repository import ABSENT


class ByFile(LoadScopeScheduling):
    """Of several processes, one runs all tests of a file: their fixtures are made once."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


SECONDS: dict[str, float] = defaultdict(float)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """With CI=true a skipped test is a failed one, but for want of a GPU or of recordings we may
    not ship.
    """
    outcome = yield
    report = outcome.get_result()
    excused = (
        "gpu" in item.keywords or hasattr(report, "wasxfail") or ABSENT in str(report.longrepr)
    )
    if report.skipped and os.environ.get("CI") == "true" and not excused:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    SECONDS[report.location[0]] += report.duration


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section("seconds per file")
    for name, seconds in sorted(SECONDS.items(), key=lambda pair: -pair[1]):
        terminalreporter.write_line(f"{seconds:7.1f}  {name}")
