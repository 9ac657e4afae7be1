"""Work in processes that may crash, hang or claim memory, without losing other results.

Files from strangers are decoded here, because decoders are written in C. The item that a process
died of gets a result that says so; all other items get theirs. A worker sends each result as soon
as it has it, so that what it has done outlives it.

Passing a result costs 20 us, a fresh worker 0.5 s.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

import psutil

from asr.errors import DataError, UserError
from asr.runtime.limits import STANDSTILL, allow, confine
from asr.runtime.workers import SPAWN, count, one_thread_each

T = TypeVar("T")
ITEM_SECONDS = 5.0  # of CPU time for one item
ITEM_MEMORY = 448 << 20  # a worker's own data; with the libraries' pages it stays under 512 MB
OUT_OF_MEMORY = 71  # the exit code of a worker that was refused memory


@dataclass
class _Job(Generic[T]):
    """Items for one call of the function, and the results that have come of them.

    Attributes:
        size: number of items.
        arguments: of the function.
        results: those that the caller has not taken yet.
        num_results: all that have come.
        blamed: index of the item at which a worker died once; -1 for none.
        error: what the function raised in place of its next result.
    """

    size: int
    arguments: tuple[Any, ...]
    results: deque[T] = field(default_factory=deque)
    num_results: int = 0
    blamed: int = -1
    error: Exception | None = None

    @property
    def ended(self) -> bool:
        return self.error is not None or self.num_results == self.size

    def add(self, result: T) -> None:
        self.results.append(result)
        self.num_results += 1

    def take(self) -> Iterator[T]:
        """Yield what has come since the last call; raise the error that ended the job."""
        while self.results:
            yield self.results.popleft()
        if self.error:
            raise self.error


def guarded(
    function: Callable[..., Iterator[T]],
    jobs: Iterable[tuple[int, tuple[Any, ...]]],
    num_jobs: int,
    died: Callable[[str], T],
) -> Iterator[T]:
    """Yield the results of all jobs in order, whatever becomes of the processes that make them.

    An item whose process dies or is refused memory is tried once more, since the cause may be an
    earlier one; an item that takes longer than ITEM_SECONDS (see `limits.allow`) is not. At most
    two jobs per worker wait, so memory stays flat.

    Args:
        function: `function(*arguments, start)` yields the results of a job from item `start` on.
        jobs: number of items and arguments of each.
        num_jobs: how many there are, or more.
        died: makes the result of an item that could not be done, from the reason in words.
    Raises:
        UserError: as the function raised it.
        RuntimeError: any other exception of the function, with its traceback.
        DataError: a worker cannot even start.
    """
    one_thread_each()
    workers = [_Worker(function, died) for _ in range(min(count(), num_jobs))]
    waiting: deque[_Job[T]] = deque()
    remaining = (_Job[T](*job) for job in jobs)
    try:
        while _hand_out(remaining, workers, waiting):
            yield from waiting[0].take()
            if waiting[0].ended:
                waiting.popleft()
            else:
                _receive(workers)
    finally:
        for worker in workers:
            worker.end()


def _hand_out(
    remaining: Iterator[_Job[T]], workers: list[_Worker[T]], waiting: deque[_Job[T]]
) -> bool:
    """Give idle workers the next jobs, unless many wait already; return whether any waits."""
    for worker in workers:
        if worker.job is None and len(waiting) < 2 * len(workers):
            for job in islice(remaining, 1):
                waiting.append(job)
                worker.begin(job)
    return bool(waiting)


def _receive(workers: list[_Worker[T]]) -> None:
    """Wait until a worker has sent something, and take it."""
    busy = [worker for worker in workers if worker.job]
    ready = wait([worker.connection for worker in busy])
    for worker in busy:
        if worker.connection in ready:
            worker.receive()


class _Worker(Generic[T]):
    """The parent's side of a guarded process.

    Attributes:
        job: None while the worker is idle.
        started: whether the process has sent anything.
    """

    def __init__(self, function: Callable[..., Iterator[T]], died: Callable[[str], T]):
        self.function = function
        self.died = died
        self.job: _Job[T] | None = None
        self.start()

    def start(self) -> None:
        self.started = False
        self.connection, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(
            target=_serve, args=(self.function, theirs, os.getpid()), daemon=True
        )
        self.process.start()
        theirs.close()  # the process has its own; `receive` sees its death only if ours is closed

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def begin(self, job: _Job[T]) -> None:
        """Begin a job, in a fresh process if libraries have leaked much memory in this one."""
        if self.has_grown():
            self.end()
            self.start()
        self.go_on(job)

    def go_on(self, job: _Job[T]) -> None:
        """Do what is left of a job."""
        self.job = None if job.ended else job
        if self.job:
            with suppress(BrokenPipeError):  # it has died, as `receive` will see
                self.connection.send((job.size, job.arguments, job.num_results))

    def has_grown(self) -> bool:
        """Whether it holds half of the memory that an item may use."""
        try:
            return bool(psutil.Process(self.process.pid).memory_info().rss > ITEM_MEMORY // 2)
        except psutil.Error:
            return False  # it has just died

    def receive(self) -> None:
        """Take one message: a result, an error, or the end of the process."""
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            self.replace()
            return
        self.started = True
        if self.job is None or kind == "alive":
            return
        if kind == "result":
            self.job.add(value)
        else:
            self.job.error = value
        if self.job.ended:
            self.job = None

    def replace(self) -> None:
        """Go on in a fresh process, at the item that the old one died of or at the next."""
        self.end()
        reason, certain = _reason(self.process.exitcode or 0)
        if not self.started:
            raise DataError(f"a worker process could not start: {reason}")
        self.start()
        job = self.job
        if job is None:
            return
        if certain or job.blamed == job.num_results:
            job.add(self.died(reason))
        else:
            job.blamed = job.num_results
        self.go_on(job)


def _reason(exit_code: int) -> tuple[str, bool]:
    """What a worker's end means in words, and whether its item has certainly caused it."""
    if exit_code == OUT_OF_MEMORY:
        return f"it wants more than {ITEM_MEMORY >> 20} MB", False
    if exit_code == -signal.SIGPROF:
        return f"it takes more than {ITEM_SECONDS:.0f} s", True
    if exit_code == -signal.SIGALRM:
        return f"it stood still for {STANDSTILL * ITEM_SECONDS:.0f} s", False
    cause = signal.Signals(-exit_code).name if exit_code < 0 else exit_code
    return f"its process died ({cause})", False


def _serve(function: Callable[..., Iterator[Any]], connection: Connection, parent: int) -> None:
    """The guarded process: do jobs and send each result, until the parent ends it."""
    confine(parent, ITEM_MEMORY)
    connection.send(("alive", None))
    while True:
        size, arguments, start = connection.recv()
        try:
            for result in _limited(function(*arguments, start), size - start):
                connection.send(("result", result))
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except UserError as error:
            connection.send(("error", error))
        except Exception:
            connection.send(("error", RuntimeError(traceback.format_exc())))


def _limited(items: Iterator[T], number: int) -> Iterator[T]:
    """Yield so many results, each made within the limits; sending it may take any time."""
    for _ in range(number):
        allow(ITEM_SECONDS)
        try:
            result = next(items)
        finally:
            allow(0)
        yield result
