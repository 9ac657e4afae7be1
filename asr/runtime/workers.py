"""Work spread over processes, in order, with progress.

WORKERS in the environment sets how many processes; it changes no result. They are spawned, not
forked: Arrow and OpenMP keep threads that do not survive a fork. A pool costs about 0.5 s.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from tqdm import tqdm

from asr.errors import DataError, ParamsError

T = TypeVar("T")
LOG_SECONDS = 10.0  # between two lines of progress in a log
SPAWN = multiprocessing.get_context("spawn")


def count() -> int:
    """How many processes to use: WORKERS, or else the cores that this process may use."""
    value = os.environ.get("WORKERS", "")
    if value == "0" or (value and not value.isdecimal()):
        raise ParamsError(f"WORKERS: got {value!r}, want a number of processes")
    if value:
        return int(value)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parallel(
    function: Callable[..., T], jobs: Iterable[tuple[Any, ...]], num_jobs: int
) -> Iterator[T]:
    """Yield `function(*job)` for each job, in order.

    At most two jobs per worker wait, so memory stays flat. With one worker or one job the work is
    done in this process.

    Raises:
        DataError: a worker died.
    """
    num_workers = min(count(), num_jobs)
    if num_workers <= 1:
        yield from (function(*job) for job in jobs)
        return
    one_thread_each()
    with ProcessPoolExecutor(num_workers, SPAWN) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(function, *job))
                if len(waiting) > 2 * num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise DataError(
                "a worker process died, perhaps for want of memory; WORKERS=1 shows where"
            ) from None
        finally:
            for future in waiting:
                future.cancel()


def one_thread_each() -> None:
    """Give each worker that starts from now on one thread, so that they do not fight for cores."""
    for library in ("OMP", "MKL"):  # NumPy has one anyway: see asr/__init__.py
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")


def progress(items: Iterable[T], total: int, unit: str, title: str) -> Iterator[T]:
    """Pass items through and show progress: a bar on a terminal, plain lines in a log.

    A log gets a line every LOG_SECONDS and one at the end. With `total` 0 nothing is shown.
    """
    if not total:
        yield from items
    elif sys.stderr.isatty():
        yield from tqdm(items, total=total, unit=f" {unit}", desc=title, smoothing=0)
    else:
        yield from _logged(items, total, unit, title)


def _logged(items: Iterable[T], total: int, unit: str, title: str) -> Iterator[T]:
    start = last_line = time.monotonic()
    done = 0
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last_line > LOG_SECONDS:
            last_line = now
            rate = done / (now - start)
            left = (now - start) / done * (total - done)
            print(
                f"{title}: {done:,} of {total:,} {unit}, {rate:,.1f}/s, {left:,.0f} s left",
                flush=True,
            )
    print(f"{title}: {done:,} {unit} in {time.monotonic() - start:,.1f} s", flush=True)
