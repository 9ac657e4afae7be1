"""Work spread over processes gives what one process gives, in order."""

import operator
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import DataError, ParamsError
from asr.runtime import workers


def fail(number: int) -> int:
    if number == 3:
        raise DataError(f"item {number}: broken")
    return number


@pytest.mark.parametrize("given", ["1", "2", "16"])
def test_the_environment_says_how_many(monkeypatch, given):
    monkeypatch.setenv("WORKERS", given)
    assert workers.count() == int(given)


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5", "²", " "])
def test_what_is_no_number_of_processes_is_refused(monkeypatch, given):
    monkeypatch.setenv("WORKERS", given)
    with pytest.raises(ParamsError, match=r"WORKERS: got .*, want a number of processes") as caught:
        workers.count()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("given", [None, ""])
def test_without_it_there_are_as_many_as_cores_we_may_use(monkeypatch, given):
    monkeypatch.delenv("WORKERS", raising=False)
    if given is not None:
        monkeypatch.setenv("WORKERS", given)
    assert workers.count() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("number", ["1", "2"])
def test_results_come_in_the_order_of_jobs(monkeypatch, number):
    monkeypatch.setenv("WORKERS", number)
    jobs = [(2, power) for power in range(40)]
    assert list(workers.parallel(operator.pow, iter(jobs), len(jobs))) == [
        2**power for power in range(40)
    ]


def test_the_work_is_done_in_other_processes(monkeypatch):
    monkeypatch.setenv("WORKERS", "2")
    assert os.getpid() not in set(workers.parallel(os.getpid, [()] * 4, 4))


def test_one_job_needs_no_other_process(monkeypatch):
    monkeypatch.setenv("WORKERS", "2")
    assert list(workers.parallel(os.getpid, [()], 1)) == [os.getpid()]


def test_no_jobs_give_no_results():
    assert list(workers.parallel(os.getpid, [], 0)) == []


def test_jobs_are_taken_as_they_are_needed(monkeypatch):
    monkeypatch.setenv("WORKERS", "2")
    taken = []
    jobs = ((taken.append(number) or number, 1) for number in range(1000))
    results = workers.parallel(operator.add, jobs, 1000)
    assert [next(results) for _ in range(10)] == list(range(1, 11))
    assert len(taken) <= 10 + 2 * 2 + 1
    results.close()


@pytest.mark.parametrize("number", ["1", "2"])
def test_a_fault_in_a_worker_arrives_as_it_was_raised(monkeypatch, number):
    monkeypatch.setenv("WORKERS", number)
    results = workers.parallel(fail, ((item,) for item in range(8)), 8)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="item 3: broken"):
        next(results)


def test_a_worker_that_dies_is_a_fault_with_a_way_out(monkeypatch):
    monkeypatch.setenv("WORKERS", "2")
    with pytest.raises(
        DataError, match="a worker process died, perhaps for want of memory; WORKERS=1 shows where"
    ) as caught:
        list(workers.parallel(os._exit, [(1,)] * 4, 4))
    assert caught.value.exit_code == 3


@settings(max_examples=20)
@given(st.lists(st.integers()))
def test_progress_passes_every_item_through(items):
    assert list(workers.progress(items, len(items), "rows", "test")) == items


def test_progress_says_how_many_in_a_log(capsys):
    list(workers.progress(range(1234), 1234, "rows", "chunk train"))
    assert capsys.readouterr().out.startswith("chunk train: 1,234 rows in ")


def test_progress_says_what_is_left_while_it_goes_on(capsys, monkeypatch):
    monkeypatch.setattr(workers, "LOG_SECONDS", -1.0)
    list(workers.progress(range(4), 4, "rows", "chunk train"))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines[:4]] == [
        f"chunk train: {done} of 4 rows" for done in range(1, 5)
    ]
    assert lines[3].endswith(" 0 s left")
