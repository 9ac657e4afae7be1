"""What becomes of a process costs the item it was at and nothing else."""

import multiprocessing
import os
import signal
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from asr.cleaning.sandbox import guarded
from asr.errors import DataError
from asr.runtime.limits import STANDSTILL, allow
from support.hostile_items import act
from support.repository import PYTHONPATH
from support.waiting import HANG_SECONDS


def killed_once(place: str, start: int) -> Iterator[int]:
    """Something from outside kills the process at its second item, the first time."""
    for number in range(start, 4):
        if number == 1 and not Path(place).exists():
            Path(place).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield number


def count_up(size: int, start: int) -> Iterator[int]:
    yield from range(start, size)


def outcome(kinds: list[str]) -> list[str]:
    found = guarded(act, [(len(kinds), (kinds,))], 1, str)
    return ["done" if isinstance(one, int) else str(one) for one in found]


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setenv("WORKERS", "1")


@pytest.mark.parametrize("number", ["1", "3"])
def test_results_come_in_the_order_of_jobs(monkeypatch, number):
    monkeypatch.setenv("WORKERS", number)
    jobs = [(size, (size,)) for size in (3, 0, 700, 1, 0, 40)]
    assert list(guarded(count_up, iter(jobs), len(jobs), str)) == [
        one for size, _ in jobs for one in range(size)
    ]


def test_no_jobs_give_no_results():
    assert list(guarded(count_up, [], 0, str)) == []


def test_the_work_is_done_in_one_other_process():
    found = list(guarded(act, [(3, (["fine"] * 3,))] * 3, 3, str))
    assert len(set(found)) == 1
    assert os.getpid() not in found


ENDS = {
    "segfault": "its process died (SIGSEGV)",
    "exit": "its process died (3)",
    "memory": "it wants more than 448 MB",
    "loop": "it takes more than 5 s",
    "stand still": "it stood still for 100 s",
}


def test_an_item_that_ends_its_process_is_told_and_all_others_are_done():
    kinds = ["fine", *ENDS, "fine"]
    assert outcome(kinds) == [ENDS.get(kind, "done") for kind in kinds]


def test_an_item_may_ask_for_time_and_may_then_stand_still_for_longer():
    ((of_cpu, _), (by_clock, _)) = next(guarded(act, [(1, (["limits"],))], 1, str))
    assert of_cpu == pytest.approx(60, abs=1)
    assert by_clock == pytest.approx(60 * STANDSTILL, abs=60)


def test_what_one_job_loses_does_not_count_against_the_next():
    found = list(guarded(act, [(2, (["leak", "fine"],))] * 2, 2, str))
    assert [isinstance(one, int) for one in found] == [True] * 4
    assert [found[0], found[2]] == [found[1], found[3]]
    assert len(set(found)) == 2


def test_asking_for_time_does_nothing_elsewhere():
    allow(0.001)
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


def test_big_results_pass():
    found = list(guarded(act, [(2, (["big", "fine"],))], 1, str))
    assert found[0] == bytes(300_000)


def test_an_item_that_suffers_for_another_is_tried_again(tmp_path):
    assert list(guarded(killed_once, [(4, (str(tmp_path / "killed"),))], 1, str)) == [0, 1, 2, 3]


def test_a_process_that_dies_between_two_jobs_costs_no_item():
    killed = []

    def jobs() -> Iterator[tuple[int, tuple[list[str]]]]:
        yield 1, (["fine"],)
        (child,) = multiprocessing.active_children()
        killed.append(child.pid)
        child.kill()
        yield 2, (["fine", "fine"],)

    first, second, third = guarded(act, jobs(), 2, str)
    assert [first] == killed
    assert second == third != first


def test_a_fault_arrives_as_it_was_raised():
    results = guarded(act, [(3, (["fine", "fault", "fine"],))], 1, str)
    next(results)
    with pytest.raises(DataError, match=r"^item: broken$"):
        next(results)


@pytest.mark.parametrize("kind", ["bug", "no pickle"])
def test_a_bug_is_no_dead_process_and_says_where_it_is(kind):
    with pytest.raises(RuntimeError, match=r"(?s)^Traceback.*(nothing|pickle)"):
        outcome([kind])


def test_a_worker_that_cannot_start_is_a_fault(monkeypatch):
    """It cannot import the module of the function, which is known here alone."""
    here_alone = types.ModuleType("known_here_alone")
    exec("def count_up(size, start): yield from range(start, size)", here_alone.__dict__)
    monkeypatch.setitem(sys.modules, here_alone.__name__, here_alone)
    with pytest.raises(
        DataError, match=r"^a worker process could not start: its process died \(1\)$"
    ):
        list(guarded(here_alone.count_up, [(1, (1,))], 1, str))


def test_jobs_are_taken_as_they_are_needed(monkeypatch):
    monkeypatch.setenv("WORKERS", "2")
    taken = []
    jobs = ((10, (taken.append(number) or 10,)) for number in range(1000))
    results = guarded(count_up, jobs, 1000, str)
    assert [next(results) for _ in range(50)] == [*range(10)] * 5
    assert len(taken) <= 5 + 2 * 2
    results.close()


def test_whoever_stops_listening_leaves_no_process():
    results = guarded(count_up, [(10, (10,))] * 9, 9, str)
    next(results)
    assert multiprocessing.active_children()
    results.close()
    assert not multiprocessing.active_children()


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a child of its parent's death"
)
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_a_parent_that_ends_leaves_no_process(tmp_path, signum):
    code = tmp_path / "parent.py"
    code.write_text(
        "import signal\n"
        "from asr.cleaning.sandbox import guarded\nfrom support.hostile_items import act\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job may ignore it\n"
        "    jobs = [(1, (['fine'],)), (1, (['never end'],))]\n"
        "    for pid in guarded(act, jobs, 2, str): print(pid, flush=True)\n"
    )
    places = {"PYTHONPATH": f"{PYTHONPATH}:{Path(__file__).parent}"}
    with subprocess.Popen(
        [sys.executable, code],
        env={**os.environ, **places},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signum)
        parent.wait(HANG_SECONDS)
        assert psutil.wait_procs([child], timeout=HANG_SECONDS)[1] == []
