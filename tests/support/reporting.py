"""Which process runs which tests, what a skip means in CI, and the seconds of each file."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import suppress
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from asr.runtime import workers
from support.repository import ABSENT

# Files that take longest, so that no process is left alone with one of them at the end. The first
# makes what the third and the fourth share.
LONG_FIRST = (
    "test_pipeline.py",
    "test_growth.py",
    "test_browser.py",
    "test_visitors.py",
    "test_outages.py",
    "test_experiments.py",
    "test_distributed.py",
    "test_train.py",
)


class ByFile(LoadScopeScheduling):
    """Of several processes, one runs all tests of a file: their fixtures are made once."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0]

    def remove_node(self, node: WorkerController) -> str | None:
        """Give the tests of a process that died to the others, but for the one that it died of."""
        files = self.assigned_work[node]
        left = [name for tests in files.values() for name, done in tests.items() if not done]
        for name in left[:1]:
            files[self._split_scope(name)][name] = True
        super().remove_node(node)
        return left[0] if left else None

    def _assign_work_unit(self, node: WorkerController) -> None:
        with suppress(OSError):  # it has just died, and `remove_node` will give them to another
            super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        """Give a process two tests or more, for it begins none before it knows the next.

        xdist 3.8 gives it one file, of which a process that died may have left one test or none:
        then it would wait for ever.
        """
        super()._reschedule(node)
        while (
            self.workqueue
            and not node.shutting_down
            and self._pending_of(self.assigned_work[node]) < 2
        ):
            self._assign_work_unit(node)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a fifth of the time a test waits for a child or a server."""
    return workers.count() + 1


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    config.option.loadscopereorder = False  # by the number of tests, which says little
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONG_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


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
