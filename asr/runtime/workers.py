"""Work spread over processes, in order, with progress. WORKERS in the environment sets how many; it
changes no result.

Workers are spawned, not forked: Arrow and OpenMP keep threads that do not survive a fork. A pool
costs about 0.5 s.
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
LOG_SECONDS = 10.0
SPAWN = multiprocessing.get_context("spawn")


def count() -> int:
    """How many processes to use."""
    given = os.environ.get("WORKERS", "")
    if (given and not given.isdecimal()) or given == "0":
        raise ParamsError(f"WORKERS: got {given!r}, want a number of processes")
    return (
        int(given)
        if given
        else len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1
    )


def parallel(
    function: Callable[..., T], jobs: Iterable[tuple[Any, ...]], num_jobs: int
) -> Iterator[T]:
    """Yield `function(*job)` for each job in order; at most two jobs per worker wait, so memory
    stays flat.
    """
    workers = min(count(), num_jobs)
    if workers <= 1:
        yield from (function(*job) for job in jobs)
        return
    one_thread_each()
    with ProcessPoolExecutor(workers, SPAWN) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(function, *job))
                if len(waiting) > 2 * workers:
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
    """Workers read it as they start: one thread each, or they fight for cores."""
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")


def progress(items: Iterable[T], total: int, unit: str, title: str) -> Iterator[T]:
    """Pass items through; a bar on a terminal, a plain line every ten seconds and at the end in a
    log.
    """
    if not total:
        yield from items
        return
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, unit=f" {unit}", desc=title, smoothing=0)
        return
    start = shown = time.monotonic()
    done = 0
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - shown > LOG_SECONDS:
            shown = now
            left = (now - start) / done * (total - done)
            print(
                f"{title}: {done:,} of {total:,} {unit}, {done / (now - start):,.1f}/s, {left:,.0f} s left",
                flush=True,
            )
    print(f"{title}: {done:,} {unit} in {time.monotonic() - start:,.1f} s", flush=True)
