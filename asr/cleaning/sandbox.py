"""Work in processes that may crash, hang or claim memory, without losing other results.

Files from strangers are decoded here, because decoders are written in C. The item that a process
died of gets a result that says so; all other items get theirs. A worker sends each result as soon
as it has it, so that what it has done outlives it.

Passing a result costs 3 us, a fresh worker 0.5 s.
"""

from __future__ import annotations

import os
import pickle
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

import psutil

from asr.errors import DataError, UserError
from asr.runtime.limits import allow, confine
from asr.runtime.workers import SPAWN, count, one_thread_each

T = TypeVar("T")
ITEM_SECONDS = 5.0  # of CPU time for one item, or of doing nothing at all
ITEM_MEMORY = 448 << 20  # a worker's own data; with the libraries' pages it stays under 512 MB
OUT_OF_MEMORY = 71  # the exit code of a worker that was refused memory
PIPE_BYTES = 1 << 16  # read at once
HEADER_BYTES = 4  # in front of each message: its length


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

    def add(self, result: T) -> None:
        self.results.append(result)
        self.num_results += 1

    @property
    def complete(self) -> bool:
        return self.num_results == self.size


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
        Exception: as the function raised it; all but a UserError with its traceback as a note.
        DataError: a worker cannot even start.
    """
    one_thread_each()
    remaining = iter(jobs)
    waiting: deque[_Job[T]] = deque()
    workers = [_Worker[T](function, died) for _ in range(min(count(), num_jobs))]
    try:
        while True:
            _hand_out(remaining, workers, waiting)
            if not waiting:
                return
            first = waiting[0]
            while first.results:
                yield first.results.popleft()
            if first.error:
                raise first.error
            if first.complete:
                waiting.popleft()
            else:
                _attend(workers)
    finally:
        for worker in workers:
            worker.end()


def _hand_out(
    remaining: Iterator[tuple[int, tuple[Any, ...]]],
    workers: list[_Worker[T]],
    waiting: deque[_Job[T]],
) -> None:
    """Give each idle worker the next job, unless many are unfinished already."""
    for worker in workers:
        if worker.job is not None or len(waiting) >= 2 * len(workers):
            continue
        if size_and_arguments := next(remaining, None):
            job = _Job[T](*size_and_arguments)
            waiting.append(job)
            worker.take(job)


def _attend(workers: list[_Worker[T]]) -> None:
    """Wait for messages for at most a second, then replace workers that hang."""
    ready = wait([worker.inbox for worker in workers if worker.job], timeout=1.0)
    for worker in workers:
        if worker.inbox in ready:
            worker.receive()
        elif worker.job and worker.hangs():
            worker.replace(f"it stood still for {ITEM_SECONDS:.0f} s", certain=True)


class _Worker(Generic[T]):
    """The parent's side of a guarded process: its pipes, and the job it is doing.

    Attributes:
        job: None while the worker is idle.
        received: bytes of messages that are not complete yet.
        started: whether the process has sent anything.
        cpu: its CPU time when it was last looked at, in seconds.
        active_at: when it last sent something or used the CPU.
    """

    def __init__(self, function: Callable[..., Iterator[T]], died: Callable[[str], T]):
        self.function = function
        self.died = died
        self.job: _Job[T] | None = None
        self.start()

    def start(self) -> None:
        orders, self.outbox = SPAWN.Pipe(duplex=False)
        self.inbox, results = SPAWN.Pipe(duplex=False)
        self.received = bytearray()
        self.started = False
        self.process = SPAWN.Process(
            target=_serve, args=(self.function, orders, results, os.getpid()), daemon=True
        )
        self.process.start()
        # The process has its own ends now; `receive` sees its death only if we close ours.
        orders.close()
        results.close()
        self.cpu = 0.0
        self.active_at = time.monotonic()

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.inbox.close()
        self.outbox.close()

    def take(self, job: _Job[T]) -> None:
        """Begin a job, or go on with it after the process was replaced.

        Memory that libraries have leaked must not count against a new job, so it gets a fresh
        process where they have leaked much.
        """
        if job.num_results == 0 and self.has_grown():
            self.end()
            self.start()
        if job.complete:
            self.job = None
            return
        self.job = job
        self.active_at = time.monotonic()
        # Of a process that is dead already, `receive` gets to know.
        with suppress(BrokenPipeError):
            self.outbox.send((job.size, job.arguments, job.num_results))

    def receive(self) -> None:
        """Read what has come: results, an error, or the end of the process."""
        self.active_at = time.monotonic()
        content = os.read(self.inbox.fileno(), PIPE_BYTES)
        if not content:
            self.process.join()
            self.replace(*_reason(self.process.exitcode or 0))
            return
        self.received += content
        for message in _messages(self.received):
            self.handle(*pickle.loads(message))

    def handle(self, kind: str, value: Any) -> None:
        """Act on one message of the process."""
        self.started = True
        if self.job is None:
            return
        if kind == "result":
            self.job.add(value)
        elif kind == "error":
            self.job.error = value
        if self.job.error or self.job.complete:
            self.job = None

    def replace(self, reason: str, certain: bool) -> None:
        """Go on in a fresh process, at the same item or at the next.

        Args:
            reason: why the old process is of no use, in words.
            certain: the item caused it; otherwise it is blamed only when it happens twice.
        """
        self.end()
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
        self.take(job)

    def has_grown(self) -> bool:
        """Whether it holds half of the memory that an item may use."""
        try:
            return bool(psutil.Process(self.process.pid).memory_info().rss > ITEM_MEMORY // 2)
        except psutil.Error:
            return False  # it has just died

    def hangs(self) -> bool:
        """Whether for ITEM_SECONDS it has sent nothing, used no CPU, and slept.

        A process that waits for the CPU or for a disk does not count as hanging.
        """
        try:
            child = psutil.Process(self.process.pid)
            cpu = sum(child.cpu_times()[:2])
            state = child.status()
        except psutil.Error:
            return False  # it has just died
        if cpu != self.cpu or state != psutil.STATUS_SLEEPING:
            self.cpu = cpu
            self.active_at = time.monotonic()
        return time.monotonic() - self.active_at > ITEM_SECONDS


def _messages(received: bytearray) -> Iterator[bytes]:
    """Take the complete messages out of what was received."""
    start = 0
    while len(received) >= start + HEADER_BYTES:
        header_end = start + HEADER_BYTES
        end = header_end + int.from_bytes(received[start:header_end], "little")
        if len(received) < end:
            break
        yield bytes(received[header_end:end])
        start = end
    del received[:start]


def _reason(exit_code: int) -> tuple[str, bool]:
    """What a worker's end means in words, and whether its item has certainly caused it."""
    if exit_code == OUT_OF_MEMORY:
        return f"it wants more than {ITEM_MEMORY >> 20} MB", False
    if exit_code == -signal.SIGPROF:
        return f"it takes more than {ITEM_SECONDS:.0f} s", True
    cause = signal.Signals(-exit_code).name if exit_code < 0 else exit_code
    return f"its process died ({cause})", False


def _serve(
    function: Callable[..., Iterator[Any]], orders: Connection, results: Connection, parent: int
) -> None:
    """The guarded process: do jobs and send each result, until the parent closes its pipe."""
    confine(parent, ITEM_MEMORY)
    with open(results.fileno(), "wb", closefd=False) as file:

        def send(kind: str, value: Any = None) -> None:
            content = pickle.dumps((kind, value))
            file.write(len(content).to_bytes(HEADER_BYTES, "little") + content)
            file.flush()

        send("alive")
        while True:
            try:
                size, arguments, start = orders.recv()
            except EOFError:
                return
            try:
                item_results = function(*arguments, start)
                for _ in range(start, size):
                    allow(ITEM_SECONDS)
                    send("result", next(item_results))
            except BrokenPipeError:
                return
            except MemoryError:
                os._exit(OUT_OF_MEMORY)
            except Exception as error:
                send("error", _portable(error))


def _portable(error: Exception) -> Exception:
    """An exception that can be sent through a pipe; a bug gets its traceback as a note."""
    trace = traceback.format_exc()
    if not isinstance(error, UserError):
        error.add_note(trace)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # a class of another library may raise anything when it is pickled
        return RuntimeError(trace)
    return error
