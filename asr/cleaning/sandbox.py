"""Work in processes that may crash, hang or claim memory, without losing other results.

Files from strangers are decoded here, because decoders are written in C. The item that a process
died of gets a result that says so; all other items get theirs. A worker sends each result as soon
as it has it, so that what it has done outlives it.

Passing a result costs 10 us, a fresh worker 0.5 s.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from queue import SimpleQueue
from threading import Lock
from typing import Any, Generic, TypeVar

import psutil

from asr.errors import DataError, UserError
from asr.runtime.limits import STANDSTILL, allow, confine
from asr.runtime.workers import SPAWN, count, in_order, one_thread_each

T = TypeVar("T")
ITEM_SECONDS = 5.0  # of CPU time for one item
ITEM_MEMORY = 448 << 20  # a worker's own data; with the libraries' pages it stays under 512 MB
OUT_OF_MEMORY = 71  # the exit code of a worker that was refused memory


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
        RuntimeError: the function raised anything else; the message is its traceback.
        DataError: a worker cannot even start.
    """
    one_thread_each()
    workers = [_Worker(function, died) for _ in range(min(count(), num_jobs))]
    idle: SimpleQueue[_Worker[T]] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def run(size: int, arguments: tuple[Any, ...]) -> list[T]:
        worker = idle.get()
        try:
            return worker.run(size, arguments)
        finally:
            idle.put(worker)

    threads = ThreadPoolExecutor(max(len(workers), 1), "guarded")
    try:
        for results in in_order(threads, run, jobs, 2 * len(workers)):
            yield from results
    finally:
        for worker in workers:
            worker.retire()
        threads.shutdown(cancel_futures=True)
        for worker in workers:
            worker.stop()


class _Worker(Generic[T]):
    """A guarded process and those that take its place, used by one thread at a time.

    Attributes:
        process: None before the first job, and after it died.
        retired: no process may start any more.
        lock: of all workers, since starting a process looks after those that have ended.
    """

    lock = Lock()

    def __init__(self, function: Callable[..., Iterator[T]], died: Callable[[str], T]):
        self.function = function
        self.died = died
        self.process: SpawnProcess | None = None
        self.retired = False

    def run(self, size: int, arguments: tuple[Any, ...]) -> list[T]:
        """The results of a job; see `guarded`."""
        results: list[T] = []
        suspect = -1  # the item at which a process died once
        if self.has_grown():
            self.stop()
        while len(results) < size:
            if self.process is None:
                self.start()
            try:
                self.connection.send((size, arguments, len(results)))
                while len(results) < size:
                    results.append(self.receive())
            except (EOFError, OSError):
                reason, certain = _reason(self.stop())
                if certain or suspect == len(results):
                    results.append(self.died(reason))
                else:
                    suspect = len(results)
        return results

    def start(self) -> None:
        self.connection, theirs = SPAWN.Pipe()
        with self.lock:
            if self.retired:
                raise RuntimeError("nobody wants the results any more")
            self.process = SPAWN.Process(
                target=_serve, args=(self.function, theirs, os.getpid()), daemon=True
            )
            self.process.start()
        theirs.close()  # the process has its own; its death ends ours only if no other is open
        try:
            self.receive()
        except (EOFError, OSError):
            reason, _ = _reason(self.stop())
            raise DataError(f"a worker process could not start: {reason}") from None

    def receive(self) -> T:
        """The next result; raises an error that was sent in its place."""
        result: T
        result, error = self.connection.recv()
        if error:
            raise error
        return result

    def retire(self) -> None:
        """Kill the process, from any thread; the thread that waits for it goes on."""
        with self.lock:
            self.retired = True
            if self.process:
                self.process.kill()

    def stop(self) -> int:
        """End the process if there is one; returns its exit code."""
        if self.process is None:
            return 0
        with self.lock:
            self.process.kill()
            self.process.join()
            exit_code = self.process.exitcode
            self.process = None
        self.connection.close()
        return exit_code or 0

    def has_grown(self) -> bool:
        """Whether the process holds half of the memory that an item may use: libraries leak."""
        if self.process is None:
            return False
        try:
            return bool(psutil.Process(self.process.pid).memory_info().rss > ITEM_MEMORY // 2)
        except psutil.Error:
            return False  # it has just died


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
    connection.send((None, None))  # ready
    while True:
        size, arguments, start = connection.recv()
        try:
            for result in _limited(function(*arguments, start), size - start):
                connection.send((result, None))
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except UserError as error:
            connection.send((None, error))
        except Exception:
            connection.send((None, RuntimeError(traceback.format_exc())))


def _limited(items: Iterator[T], number: int) -> Iterator[T]:
    """Yield so many results, each made within the limits; sending one may take any time."""
    for _ in range(number):
        allow(ITEM_SECONDS)
        try:
            result = next(items)
        finally:
            allow(0)
        yield result
