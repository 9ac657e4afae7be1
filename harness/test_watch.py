"""The page Runs, read every fifth of a second through experiments of all kinds: no cell ever shows
what was not true at that moment.

    make harness NAME=watch      # 6 minutes; CI watches those of SLICE
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page

from asr.tracking import journal
from harness import page_log
from harness.page_log import Snapshot, Truth
from support.browser import Visitor, serving
from support.experiments import learnt_copy
from support.pipeline import Workspace
from support.waiting import wait_for

SHORT = ("-S", "train.max_steps=20", "-S", "train.warmup_steps=4")
LATE_SECONDS = 15.0  # that MLflow hears of a training too late
LOOK_SECONDS = 8.0  # from the end of an experiment to the next: what shows late, shows meanwhile


@pytest.fixture
def story(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A workspace of its own, and the page Runs, wide enough for all columns."""
    with serving(learnt_copy(tmp_path_factory)) as server:
        one = Visitor(browser, server, width=3200)
        page_log.record(one.page)
        one.go("Runs")
        yield Story(server.workspace, one.page)
        found = one.faults()
        one.context.close()
    assert found == []


class Story:
    """Experiments in a workspace, and what was true of them.

    Attributes:
        stops: what happened to runs, by name: time and an item of `page_log.ENDS`, or `resumed`.
        untested: steps of the trainings that nothing shall test.
    """

    def __init__(self, workspace: Workspace, page: Page):
        self.workspace = workspace
        self.page = page
        self.stops: dict[str, list[tuple[float, str]]] = {}
        self.untested: set[int] = set()

    def happened(self, name: str, *what: str) -> None:
        self.stops.setdefault(name, []).extend((time.time(), one) for one in what)

    def run(self, *words: str, **more: str) -> str:
        """A command of DVC; the browser lives on meanwhile."""
        said: list[str] = []
        work = threading.Thread(
            target=lambda: said.append(
                self.workspace.run("dvc", *words, check=False, WORKERS="1", **more)
            )
        )
        work.start()
        while work.is_alive():
            self.page.wait_for_timeout(200)
        return said[0]

    def finish(self, name: str, *words: str) -> None:
        """An experiment that must end well, or what is seen of it says nothing."""
        said = self.run("exp", "run", "-n", name, *words)
        assert f"Ran experiment(s): {name}" in said, said

    def look(self) -> None:
        self.page.wait_for_timeout(1000 * LOOK_SECONDS)

    def truths(self) -> dict[str, Truth]:
        """By name of the run, from the journals and from what was done here."""
        truths = {name: Truth(stops=stops) for name, stops in self.stops.items()}
        for path in (self.workspace.root / ".cache/journal").glob("*.jsonl"):
            lines = [line for line, _ in journal.read(path)]
            begins = [line for line in lines if line["kind"] == "begin"]
            truth = truths.setdefault(begins[0]["name"], Truth())
            if begins[0]["params"]["train.max_steps"] in self.untested:
                truth.ended = lines[-1]["time"]
            truth.stops += [(line["time"], "resumed") for line in begins[1:]]
            truth.scores += [
                (line["time"], 100 * line["values"]["test/wer"])
                for line in lines
                if line["kind"] == "evaluation"
            ]
        return truths


def killed(story: Story, name: str, before: str, *words: str) -> None:
    """An experiment one of whose processes is killed before it puts a file in place."""
    flag = story.workspace.root.parent / f"died-{name}"
    watcher = threading.Thread(target=_note_death, args=(story, name, flag))
    watcher.start()
    story.run("exp", "run", "-n", name, *words, DIE_ONCE=str(flag), DIE_BEFORE=before)
    watcher.join()
    assert flag.is_file(), "the control: it was killed"


def _note_death(story: Story, name: str, flag: Path) -> None:
    while not flag.is_file():
        time.sleep(0.02)
    story.happened(name, "killed", "failed")


def plain(story: Story) -> None:
    story.finish("plain", *SHORT)


def queued(story: Story) -> None:
    for name, steps in (("first-queued", 21), ("second-queued", 22)):
        story.run("exp", "run", "--queue", "-n", name, "-S", f"train.max_steps={steps}")
    story.look()
    story.run("queue", "start", "-j", "1")
    while "Running" in (said := story.run("queue", "status")) or "Queued" in said:
        story.page.wait_for_timeout(500)


def temporary(story: Story) -> None:
    story.finish("apart", "--temp", "-S", "train.max_steps=23")


def killed_in_training(story: Story) -> None:
    words = ("-S", "train.max_steps=24", "-S", "train.save_steps=8")
    killed(story, "cut-short", "step-00000016", *words)


def resumed(story: Story) -> None:
    words = ("-S", "train.max_steps=24", "-S", "train.save_steps=8")
    story.finish("gone-on", *words)


def killed_in_evaluation(story: Story) -> None:
    killed(story, "untold", "evaluate/metrics.json", "-S", "train.max_steps=25")


def failed_check(story: Story) -> None:
    story.finish("lazy", *SHORT, "-S", "train.learning_rate=1e-12")


def refused(story: Story) -> None:
    story.happened("hasty", "refused", "failed")
    story.run("exp", "run", "-n", "hasty", *SHORT, "-S", "train.warmup_steps=2000")


def another_corpus(story: Story) -> None:
    words = ("-S", "download.source=synthetic", "-S", "download.language=de")
    story.finish("german", *SHORT, *words)
    story.run("exp", "apply", "learnt", "--force")


def trained_alone(story: Story) -> None:
    story.finish("tested", "-S", "train.max_steps=60")
    params = story.workspace.root / "params.yaml"
    params.write_text(params.read_text().replace("max_steps: 60", "max_steps: 26"))
    story.untested.add(26)
    story.run("repro", "train")


def told_late(story: Story) -> None:
    """A process that tells MLflow, and that stands still for a while."""
    with _trackers_stopped(story.workspace.root) as stopped:
        story.finish("late", "-S", "train.max_steps=27")
        story.look()
    assert stopped, "the control: a tracker stood still"


@contextmanager
def _trackers_stopped(root: Path) -> Iterator[dict[int, float]]:
    """Stop each follower of journals below `root` as soon as it is there, and let it go
    LATE_SECONDS later.

    Not for longer: DVC waits for the end of what its stages print, which followers share.

    Yields:
        when they were stopped, by `time.monotonic` and their process id.
    """
    ended = threading.Event()
    stopped: dict[int, float] = {}

    def stop() -> None:
        while not ended.wait(0.05):
            for process in psutil.process_iter(["cmdline"]):
                words = process.info["cmdline"] or []
                is_ours = "asr.tracking.follower" in words and words[-1].startswith(str(root))
                if is_ours and process.pid not in stopped:
                    _signal(process.pid, signal.SIGSTOP)
                    stopped[process.pid] = time.monotonic()
            for pid, since in stopped.items():
                if time.monotonic() - since > LATE_SECONDS:
                    _signal(pid, signal.SIGCONT)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        yield stopped
    finally:
        ended.set()
        thread.join()
        for pid in stopped:
            _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _stand_in(root: Path) -> subprocess.Popen[str]:
    """A process that is called as a follower is, and works for a second."""
    work = "import time; end = time.process_time() + 1\nwhile time.process_time() < end: pass"
    return subprocess.Popen([sys.executable, "-c", work, "asr.tracking.follower", str(root / "x")])


def test_a_tracker_is_stopped_and_let_go_while_others_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the clock lets it go: its end is waited for while trackers are being stopped."""
    monkeypatch.setattr("harness.test_watch.LATE_SECONDS", 3.0)
    with _trackers_stopped(tmp_path / "ours") as stopped:
        ours, other = _stand_in(tmp_path / "ours"), _stand_in(tmp_path / "other")
        wait_for(lambda: psutil.Process(ours.pid).status() == psutil.STATUS_STOPPED)
        assert other.wait(60) == 0
        assert ours.wait(60) == 0
        assert list(stopped) == [ours.pid]


KINDS: tuple[Callable[[Story], None], ...] = (
    plain,
    queued,
    temporary,
    killed_in_training,
    resumed,
    killed_in_evaluation,
    failed_check,
    refused,
    another_corpus,
    trained_alone,
    told_late,
)

SLICE = (trained_alone, killed_in_evaluation, refused)


def watch(story: Story, kinds: tuple[Callable[[Story], None], ...]) -> list[Snapshot]:
    """What the page showed through these experiments."""
    for kind in kinds:
        kind(story)
        story.look()
    seen = page_log.snapshots(story.page)
    for name, seconds in lateness(seen, story.truths()).items():
        print(f"{name}: WER shown {seconds:.1f} s after its evaluation")
    return seen


def lateness(seen: list[Snapshot], truths: dict[str, Truth]) -> dict[str, float]:
    """Seconds from the end of the first evaluation of a run to its score on the page."""
    late = {}
    for name, truth in truths.items():
        shown = [
            one.time
            for one in seen
            for row in one.rows
            if row.get("Run") == name and row.get(page_log.WER_COLUMN, "")[:1].isdigit()
        ]
        if truth.scores and shown and seen[0].time < truth.scores[0][0]:
            late[name] = shown[0] - truth.scores[0][0]
    return late


@pytest.mark.whole
def test_no_cell_ever_shows_what_was_never_true(story: Story) -> None:
    check(story, KINDS)


def test_no_cell_shows_what_was_never_true_of_runs_that_did_not_end(story: Story) -> None:
    check(story, SLICE)


def check(story: Story, kinds: tuple[Callable[[Story], None], ...]) -> None:
    seen = watch(story, kinds)
    truths = story.truths()
    false = list(page_log.falsehoods(seen, truths))
    print(*false, sep="\n")
    assert not false
    shown = {row.get("Run") for one in seen for row in one.rows}
    assert set(truths) <= shown
    for lie in _lies(seen, truths):
        assert list(page_log.falsehoods(lie, truths)), "the control: this was not seen"


def _lies(seen: list[Snapshot], truths: dict[str, Truth]) -> Iterator[list[Snapshot]]:
    """What a page would have shown that is wrong: each a change of one cell."""
    healthy = next(name for name, truth in truths.items() if truth.scores and not truth.stops)
    last = seen[-1]
    index = next(index for index, row in enumerate(last.rows) if row.get("Run") == healthy)
    changes = (
        {page_log.WER_COLUMN: "12.34"},
        {"Status": "killed"},
        {"Status": "training 3 of 20"},
        {"Status": "failed in stage train"},
        {"Status": "healthy"},
    )
    for change in changes:
        rows = list(last.rows)
        rows[index] = {**rows[index], **change}
        yield [*seen, replace(last, rows=tuple(rows))]
    early = min(ended for ended, _ in truths[healthy].scores) - 1
    yield [replace(last, time=early)]
