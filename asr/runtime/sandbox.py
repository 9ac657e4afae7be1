"""Work in processes that may crash, hang or claim memory: the item they were at gets a result that
says so, and all others are done.

Files from strangers are decoded here, for decoders are written in C. A result costs 3 us on its
way, a fresh worker 0.5 s. What a worker had found stays found when it dies, for it sends each
result as it comes, and the parent reads many at once.
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
ITEM_SECONDS = 5.0  # of work on one item, or of standing still at it
ITEM_MEMORY = 448 << 20  # a worker's own data; with the libraries' pages it stays under 512 MB
OUT_OF_MEMORY = 71  # the exit code of a worker that was refused memory
PIPE_BYTES = 1 << 16


@dataclass
class _Job(Generic[T]):
    """What a worker is asked for, and what has come of it and was not yet taken."""

    size: int
    arguments: tuple[Any, ...]
    results: deque[T] = field(default_factory=deque)
    num_results: int = 0
    blamed: int = -1  # the item at which a worker died once
    error: Exception | None = None  # what stands where the next result should

    def add(self, result: T) -> None:
        self.results.append(result)
        self.num_results += 1


def guarded(
    function: Callable[..., Iterator[T]],
    jobs: Iterable[tuple[int, tuple[Any, ...]]],
    num_jobs: int,
    died: Callable[[str], T],
) -> Iterator[T]:
    """Yield the results of all jobs in order, whatever becomes of the processes that make them.

    Args:
        function: `function(*arguments, start)` yields a job's results one by one, from item `start`
            on.
        jobs: number of items and arguments of each; at most two jobs per worker wait, so memory
            stays flat.
        num_jobs: how many there are, or more.
        died: the result of an item that, tried twice, killed its worker or was refused memory, or
            once took longer than ITEM_SECONDS (see `asr.runtime.limits.allow`); it is given the
            reason in words.
    Raises:
        Exception: as the function raised it; what is no Fault has its traceback as a note.
        BadData: a worker cannot even start.
    """
    one_thread_each()
    waiting: deque[_Job[T]] = deque()
    given, workers = iter(jobs), [_Worker[T](function, died) for _ in range(min(count(), num_jobs))]
    try:
        while True:
            for worker in workers:
                if (
                    worker.job is None
                    and len(waiting) < 2 * len(workers)
                    and (job := next(given, None))
                ):
                    waiting.append(_Job(*job))
                    worker.take(waiting[-1])
            if not waiting:
                return
            while waiting[0].results:
                yield waiting[0].results.popleft()
            if waiting[0].error:
                raise waiting[0].error
            if waiting[0].num_results == waiting[0].size:
                waiting.popleft()
            else:
                _attend(workers)
    finally:
        for worker in workers:
            worker.end()


def _attend(workers: list[_Worker[T]]) -> None:
    """Wait until a worker has something to tell, or for a second; then see whether one stands
    still.
    """
    ready = wait([worker.inbox for worker in workers if worker.job], timeout=1.0)
    for worker in workers:
        if worker.inbox in ready:
            worker.hear()
        elif worker.job and worker.stands_still():
            worker.replace(f"it stood still for {ITEM_SECONDS:.0f} s", certain=True)


class _Worker(Generic[T]):
    """The parent's side of a guarded process: the job it is at, and what it says."""

    def __init__(self, function: Callable[..., Iterator[T]], died: Callable[[str], T]):
        self.function, self.died = function, died
        self.job: _Job[T] | None = None
        self.start()

    def start(self) -> None:
        theirs, self.outbox = SPAWN.Pipe(duplex=False)
        self.inbox, results = SPAWN.Pipe(duplex=False)
        self.heard, self.lives = bytearray(), False
        self.process = SPAWN.Process(
            target=_serve, args=(self.function, theirs, results, os.getpid()), daemon=True
        )
        self.process.start()
        theirs.close()
        results.close()
        self.cpu, self.since = 0.0, time.monotonic()

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.inbox.close()
        self.outbox.close()

    def take(self, job: _Job[T]) -> None:
        """Begin a job, or go on with it; what libraries have lost of the memory does not count
        against a new one.
        """
        if job.num_results == 0 and self.has_grown():
            self.end()
            self.start()
        self.job = job if job.num_results < job.size else None
        if self.job:
            self.since = time.monotonic()
            with suppress(
                BrokenPipeError
            ):  # when it is dead already, the end of its inbox will tell
                self.outbox.send((job.size, job.arguments, job.num_results))

    def hear(self) -> None:
        """Take what has come: results, an error, or the end."""
        self.since = time.monotonic()
        content = os.read(self.inbox.fileno(), PIPE_BYTES)
        if not content:
            self.process.join()
            self.replace(*_reason(self.process.exitcode or 0))
            return
        self.heard += content
        at = 0
        while len(self.heard) >= at + 4 and len(self.heard) >= (
            end := at + 4 + int.from_bytes(self.heard[at : at + 4], "little")
        ):
            self.obey(*pickle.loads(self.heard[at + 4 : end]))
            at = end
        del self.heard[:at]

    def obey(self, kind: str, value: Any) -> None:
        self.lives = True
        if self.job and kind == "result":
            self.job.add(value)
        elif self.job and kind == "error":
            self.job.error = value
        if self.job and (self.job.error or self.job.num_results == self.job.size):
            self.job = None

    def replace(self, reason: str, certain: bool) -> None:
        """Go on in a fresh process: at the same item, which may have suffered for another, or at
        the next.
        """
        self.end()
        if not self.lives:
            raise DataError(f"a worker process could not start: {reason}")
        self.start()
        if job := self.job:
            if certain or job.blamed == job.num_results:
                job.add(self.died(reason))
            else:
                job.blamed = job.num_results
            self.take(job)

    def has_grown(self) -> bool:
        """Whether it holds on to half of what an item may have."""
        try:
            return bool(psutil.Process(self.process.pid).memory_info().rss > ITEM_MEMORY // 2)
        except psutil.Error:
            return False  # it has just died

    def stands_still(self) -> bool:
        """Whether it neither says nor computes anything, nor wants to, and has not for
        ITEM_SECONDS.
        """
        try:
            child = psutil.Process(self.process.pid)
            cpu, state = sum(child.cpu_times()[:2]), child.status()
        except psutil.Error:
            return False  # it has just died
        if cpu != self.cpu or state != psutil.STATUS_SLEEPING:
            self.cpu, self.since = cpu, time.monotonic()
        return time.monotonic() - self.since > ITEM_SECONDS


def _reason(exit_code: int) -> tuple[str, bool]:
    """What a worker's end means in words, and whether the item it was at has certainly caused it."""
    if exit_code == OUT_OF_MEMORY:
        return f"it wants more than {ITEM_MEMORY >> 20} MB", False
    if exit_code == -signal.SIGPROF:
        return f"it takes more than {ITEM_SECONDS:.0f} s", True
    return (
        f"its process died ({signal.Signals(-exit_code).name if exit_code < 0 else exit_code})",
        False,
    )


def _serve(
    function: Callable[..., Iterator[Any]], jobs: Connection, results: Connection, parent: int
) -> None:
    """A guarded process's life: it sends each result as it comes, so that nothing is lost with it,
    and the parent reads many at once.
    """
    confine(parent, ITEM_MEMORY)
    with open(results.fileno(), "wb", closefd=False) as file:

        def send(kind: str, value: Any = None) -> None:
            content = pickle.dumps((kind, value))
            file.write(len(content).to_bytes(4, "little") + content)
            file.flush()

        send("alive")
        while True:
            try:
                size, arguments, start = jobs.recv()
            except EOFError:
                return  # the parent wants no more
            try:
                made = function(*arguments, start)
                for _ in range(start, size):
                    allow(ITEM_SECONDS)
                    send("result", next(made))
            except BrokenPipeError:
                return
            except MemoryError:
                os._exit(OUT_OF_MEMORY)
            except Exception as error:
                send("error", _portable(error))


def _portable(error: Exception) -> Exception:
    """An exception that finds its way through a pipe; a bug with its traceback as a note."""
    told = traceback.format_exc()
    if not isinstance(error, UserError):
        error.add_note(told)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever a class of another library's does when it is pickled
        return RuntimeError(told)
    return error
