"""Bring the index of runs up to date with MLflow and with DVC's revisions, in a process of its own.

    earshot refresh once      # with progress on the terminal
    earshot refresh rebuild   # the same, from nothing
    earshot refresh follow    # as long as a page asks; the pages start it

10,000 runs take 20 s at first. A second process exits; a damaged index is replaced.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from asr import paths
from asr.errors import exit_with
from asr.runs import run_index, states
from asr.runs.refresher import Refresher
from asr.runtime import command
from asr.runtime.locks import locked
from asr.storage import files

LINGER_SECONDS = 20.0  # after the last request; to start anew costs importing MLflow, 2 s
REST_SECONDS = 1.0  # from the begin of a pass to that of the next, at least


@contextmanager
def only_refresher() -> Iterator[bool]:
    """Hold the lock of this repository's refresher; yield false if another process holds it.

    We wait a second for the lock, because pages take it for a moment to test whether it is held.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(paths.cache("runs.lock"), patience=1.0))
        except BlockingIOError:
            yield False
            return
        yield True


def opened(again: bool) -> sqlite3.Connection:
    """Open the index for writing; one that is damaged or of another schema is replaced.

    Args:
        again: replace it in any case.
    """
    path = run_index.path()
    flag = paths.cache("runs.rebuild")
    if again or flag.exists() or not _is_whole(path):
        for ending in ("", "-wal", "-shm", "-journal"):
            path.with_name(f"{path.name}{ending}").unlink(missing_ok=True)
        flag.unlink(missing_ok=True)
    if not path.is_file():
        _create(path)
    index = sqlite3.connect(path, timeout=30)
    index.execute("PRAGMA synchronous = NORMAL")
    return index


def _create(path: Path) -> None:
    """Create an empty index; the file appears when it is complete."""
    with files.draft(path) as part, closing(sqlite3.connect(part)) as index:
        index.execute("PRAGMA journal_mode = WAL")
        index.executescript(run_index.TABLES)
        index.execute("INSERT INTO meta VALUES ('schema', ?)", [str(run_index.SCHEMA)])
        index.commit()


def _is_whole(path: Path) -> bool:
    """Whether the index has our schema and no damage; true if there is none."""
    if not path.is_file():
        return True
    try:
        with closing(sqlite3.connect(path, timeout=30)) as index:
            schema = index.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
            if schema != (str(run_index.SCHEMA),):
                return False
            return bool(index.execute("PRAGMA quick_check").fetchone() == ("ok",))
    except sqlite3.Error:
        return False


def refresh(again: bool = False, talk: bool = True) -> bool:
    """Bring the index up to date; return false if another refresher is running."""
    with only_refresher() as ours:
        if not ours:
            return False
        with closing(opened(again)) as index:
            refresher = Refresher(index, talk)
            while refresher.step():
                pass
        return True


def follow() -> None:
    """Refresh while pages request it, and for LINGER_SECONDS after the last request."""
    os.nice(5)
    with only_refresher() as ours:
        while ours and _follow_one_index():
            pass


def _follow_one_index() -> bool:
    """Refresh until there is no request (return false), or the index must be replaced (true)."""
    try:
        with closing(opened(again=False)) as index:
            refresher = Refresher(index, talk=False)
            while not paths.cache("runs.rebuild").exists():
                began = time.time()
                if not refresher.step() and not _asked_since(began):
                    return False
            return True
    except sqlite3.DatabaseError:
        paths.cache("runs.rebuild").touch()
        return True


def _asked_since(began: float) -> bool:
    """Wait until a pass is due; return false if no page has asked for one for a while.

    It is due when a page has asked since `began`, and each second while DVC works.
    """
    while True:
        time.sleep(0.25)
        asked = paths.cache("runs.asked").stat().st_mtime
        if time.time() - max(asked, began) > LINGER_SECONDS:
            return False
        is_rested = time.time() - began >= REST_SECONDS
        if is_rested and (asked > began or states.is_dvc_working(states.present())):
            return True


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument(
        "how",
        nargs="?",
        choices=["once", "rebuild", "follow"],
        default="once",
        help="once with progress, anew from nothing, or as long as a page asks (default: once)",
    )
    how = parser.parse_args().how
    if how == "follow":
        follow()
        return
    refreshed = refresh(again=how == "rebuild")
    print(_result(refreshed), flush=True)


def _result(refreshed: bool) -> str:
    fault = run_index.state().fault
    if fault:
        return f"warning: {fault}"
    return "the index is up to date" if refreshed else "another refresher is at work"


if __name__ == "__main__":
    exit_with(main)
