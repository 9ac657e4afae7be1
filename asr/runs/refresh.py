"""Bring the index of runs up to date with MLflow, through its API, and with DVC's revisions; in a
process of its own.

    earshot refresh once      # with progress on the terminal
    earshot refresh rebuild   # the same, from nothing
    earshot refresh follow    # as long as a page asks; the pages start it

A small store is read whole each time; of a large one (a whole pass over two seconds) only new runs,
running ones, and what ended since, and the whole once an hour, for what carries no time: deletions,
new names, runs that an outage delayed. 10,000 runs take 20 s. MLflow finds one run's curve by
passing over that metric's points of all runs (40 ms with 500,000), so curves are fetched for what
runs, the newest twenty, and what a page shows. A second refresher leaves.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from asr import paths
from asr.errors import ParamsError, exit_with
from asr.runs import revision_facts, revisions, run_index
from asr.runs.revisions import Revision
from asr.runtime.locks import locked
from asr.storage import files, hashing
from asr.tracking import client

SMALL_SECONDS = 2.0
WHOLE_SECONDS = 3600.0
LINGER_SECONDS = 20.0  # MLflow takes two seconds to import
REST_SECONDS = 2.0  # between two passes
RETRY_SECONDS = 3600.0  # a revision whose files DVC did not have
NEWEST = 20  # trainings whose curves are fetched before anyone asks
CHUNK = 20  # of them between two looks at the store


class Refresher:
    """One process's connections: to the index, and to MLflow once it is needed."""

    def __init__(self, index: sqlite3.Connection, talk: bool):
        self.index, self.talk = index, talk
        self.store: Any = None
        self.changed = False

    def step(self) -> bool:
        """One look at everything; gives whether there is more to do at once."""
        seen = run_index.signature()
        fault = ""
        local = client.store_file()
        try:
            if local is None or (
                local.is_file() and (self._get("signature") != seen or self._get("fault"))
            ):
                self._read_store()
        # a damaged store or a server in trouble raises of every kind out of MLflow's depths
        except Exception as error:
            self.store = None
            fault = f"MLflow's store cannot be read ({type(error).__name__}); shown is what was read before, and what DVC knows"
        if local is not None and not local.is_file():
            self._forget("id NOT NULL")
        self._read_revisions()
        self._set("fault", fault)
        self._set("updated", repr(time.time()))
        self._set("signature", seen)
        self._commit()
        more = False
        if not fault:
            try:
                more = self._read_curves()
            except Exception:  # as above; the next look at the store tells it
                self.store = None
        self._progress("", 0, 0)
        return more

    def _read_store(self) -> None:
        self.store = self.store or client.connect()
        last, cost = float(self._get("whole_at") or 0), float(self._get("whole_cost") or 0)
        if cost <= SMALL_SECONDS or time.time() - last > WHOLE_SECONDS:
            self._read_whole()
        else:
            self._read_changed()

    def _read_whole(self) -> None:
        began, ids = time.time(), set()
        for page in client.read_runs(self.store):
            ids |= {run["id"] for run in page}
            self._write(page)
            self._progress("runs", len(ids), 0)
        gone = [
            (id,) for (id,) in self.index.execute("SELECT id FROM runs").fetchall() if id not in ids
        ]
        self.index.executemany("DELETE FROM runs WHERE id = ?", gone)
        self.index.executemany("DELETE FROM curves WHERE id = ?", gone)
        self.changed |= bool(gone)
        self._set("whole_at", repr(time.time()))
        self._set("whole_cost", repr(time.time() - began))

    def _read_changed(self) -> None:
        """New runs page by page until one holds nothing new, then those that ran or ended since,
        then the parents of new tests.
        """
        for page in self._newest():
            if not self._write(page):
                break
        running = {
            id
            for (id,) in self.index.execute(
                "SELECT id FROM runs WHERE status = 'RUNNING'"
            ).fetchall()
        }
        (ended,) = self.index.execute('SELECT max("end") FROM runs').fetchone()
        for condition in (
            "attributes.status = 'RUNNING'",
            f"attributes.end_time > {int((ended or 0) * 1000)}",
        ):
            for page in client.read_runs(self.store, condition):
                self._write(page)
                running -= {run["id"] for run in page}
        for id in running:
            self._read_one(id)

    def _newest(self) -> Iterator[list[dict[str, Any]]]:
        """Small pages first: most often there is one new run, or none."""
        for most in (20, 200):
            yield from client.read_runs(self.store, most=most)
        yield from client.read_runs(self.store)

    def _read_one(self, id: str) -> None:
        """A run that is running no more: ended, or deleted."""
        run = client.read_run(self.store, id)
        if run is None:
            self._forget("id = ?", id)
        else:
            self._write([run])

    def _forget(self, condition: str, *values: str) -> None:
        gone = [
            (id,)
            for (id,) in self.index.execute(
                f"SELECT id FROM runs WHERE {condition}", values
            ).fetchall()
        ]
        self.index.executemany("DELETE FROM runs WHERE id = ?", gone)
        self.index.executemany("DELETE FROM curves WHERE id = ?", gone)
        self.changed |= bool(gone)
        self._commit()

    def _write(self, page: list[dict[str, Any]]) -> bool:
        """Store the runs that are new or changed; gives whether any was."""
        known = dict(
            self.index.execute(
                f"SELECT id, digest FROM runs WHERE id IN ({','.join('?' * len(page))})",
                [run["id"] for run in page],
            )
        )
        fresh = [
            (revision_facts.typed(run), digest)
            for run in page
            if known.get(run["id"]) != (digest := hashing.hash_of(run))
        ]
        self.index.executemany(
            'INSERT INTO runs (id, fingerprint, parent, status, start, "end", digest, whole) VALUES (?, ?, ?, ?, ?, ?, ?, ?) '
            "ON CONFLICT (id) DO UPDATE SET fingerprint = excluded.fingerprint, parent = excluded.parent, status = excluded.status, "
            'start = excluded.start, "end" = excluded."end", digest = excluded.digest, whole = excluded.whole',
            [
                (
                    run["id"],
                    run["fingerprint"],
                    run["parent"],
                    run["status"],
                    run["start"],
                    run["end"],
                    digest,
                    json.dumps(run),
                )
                for run, digest in fresh
            ],
        )
        self.changed |= bool(fresh)
        self._commit()
        return bool(fresh)

    def _read_revisions(self) -> None:
        """Which revisions there are, and what those say that were not read before."""
        found = revisions.list_revisions()
        before = self.index.execute(
            "SELECT name, sha, kind FROM revisions ORDER BY place"
        ).fetchall()
        if before != [(one.name, one.sha, one.kind) for one in found]:
            self.index.execute("DELETE FROM revisions")
            rows = [(place, one.name, one.sha, one.kind) for place, one in enumerate(found)]
            self.index.executemany("INSERT INTO revisions VALUES (?, ?, ?, ?)", rows)
            self.changed = True
        tried = {sha: at for sha, fingerprint, at in self.index.execute("SELECT sha, fingerprint, tried FROM facts").fetchall()
                 if fingerprint or time.time() - at < RETRY_SECONDS}  # fmt: skip
        waiting = [one for one in found if one.sha is None or one.sha not in tried]
        for number, one in enumerate(waiting):
            self._write_facts(one)
            if number % 10 == 0:
                self._progress("revisions", number, len(waiting))
        self._commit()

    def _write_facts(self, revision: Revision) -> None:
        sha = revision.sha or ""
        fingerprint, known, points = revision_facts.read(revision)
        told = json.dumps(known, sort_keys=True)
        before = self.index.execute(
            "SELECT fingerprint, known FROM facts WHERE sha = ?", [sha]
        ).fetchone()
        if before != (fingerprint, told):
            self.index.execute(
                "INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)",
                [sha, fingerprint, told, time.time()],
            )
            self.changed = True
        if fingerprint and points and before != (fingerprint, told):
            self.index.execute(
                "INSERT OR REPLACE INTO curves VALUES (?, ?)", [fingerprint, json.dumps(points)]
            )

    def _read_curves(self) -> bool:
        """Fetch the curves that changed since, of what a page waits for, else of what runs and the
        newest; gives whether any did.
        """
        wanted = self._wanted()
        newest = "SELECT id FROM runs WHERE parent IS NULL ORDER BY start DESC LIMIT ?"
        for chosen, values in ((",".join("?" * len(wanted)), wanted), (newest, [NEWEST])):
            stale = f"SELECT id, digest FROM runs WHERE parent IS NULL AND curves IS NOT digest AND (id IN ({chosen}) OR status = 'RUNNING')"
            digests = dict(self.index.execute(f"{stale} LIMIT {CHUNK}", values).fetchall())
            for number, (id, digest) in enumerate(digests.items()):
                self._progress("curves", number, len(digests))
                self._write_curves(id, digest)
            if digests:
                return True
        return False

    def _write_curves(self, id: str, digest: str) -> None:
        self.store = self.store or client.connect()
        points = {key: client.read_curve(self.store, id, key) for key in run_index.CURVES}
        self.index.execute("INSERT OR REPLACE INTO curves VALUES (?, ?)", [id, json.dumps(points)])
        self.index.execute("UPDATE runs SET curves = ? WHERE id = ?", [digest, id])
        self._set("curves", str(time.time_ns()))
        self.index.commit()

    def _wanted(self) -> list[str]:
        with contextlib.suppress(OSError, ValueError):
            found = files.read_json(paths.cache("runs.wanted"))
            return [str(one) for one in found[:100]] if isinstance(found, list) else []
        return []

    def _get(self, key: str) -> str | None:
        found = self.index.execute("SELECT value FROM meta WHERE key = ?", [key]).fetchone()
        return found[0] if found else None

    def _set(self, key: str, value: str) -> None:
        self.index.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", [key, value])

    def _progress(self, phase: str, done: int, total: int) -> None:
        self._set("progress", json.dumps([phase, done, total]))
        self._commit()
        if self.talk and phase:
            print(f"{phase}: {done:,}{f' of {total:,}' if total else ''}", flush=True)

    def _commit(self) -> None:
        if self.changed:
            self._set("generation", str(time.time_ns()))
            self.changed = False
        self.index.commit()


@contextmanager
def alone() -> Iterator[bool]:
    """The one refresher of this repository; a page that looks whether there is one holds the lock
    for a moment.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(paths.cache("runs.lock"), patience=1.0))
        except BlockingIOError:
            yield False
            return
        yield True


def opened(again: bool) -> sqlite3.Connection:
    """The index for writing; one that is damaged, or of another schema, gives way to a new one."""
    flag = paths.cache("runs.rebuild")
    if again or flag.exists() or not _is_whole(run_index.path()):
        for ending in ("", "-wal", "-shm", "-journal"):
            run_index.path().with_name(f"{run_index.path().name}{ending}").unlink(missing_ok=True)
        flag.unlink(missing_ok=True)
    if not run_index.path().is_file():
        _make()
    index = sqlite3.connect(run_index.path(), timeout=30)
    index.execute("PRAGMA synchronous = NORMAL")
    return index


def _make() -> None:
    """A new index with nothing in it, whole from its first moment."""
    with files.draft(run_index.path()) as part, closing(sqlite3.connect(part)) as index:
        index.execute("PRAGMA journal_mode = WAL")
        index.executescript(run_index.TABLES)
        index.execute("INSERT INTO meta VALUES ('schema', ?)", [str(run_index.SCHEMA)])
        index.commit()


def _is_whole(path: Path) -> bool:
    if not path.is_file():
        return True
    try:
        with closing(sqlite3.connect(path, timeout=30)) as index:
            schema = index.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
            return bool(
                schema == (str(run_index.SCHEMA),)
                and index.execute("PRAGMA quick_check").fetchone() == ("ok",)
            )
    except sqlite3.Error:
        return False


def refresh(again: bool = False, talk: bool = True) -> bool:
    """Bring the index up to date; gives whether we were alone."""
    with alone() as first:
        if not first:
            return False
        with closing(opened(again)) as index:
            worker = Refresher(index, talk)
            while worker.step():
                pass
        return True


def follow() -> None:
    """Refresh as long as a page asks, and a little longer."""
    os.nice(5)
    with alone() as first:
        while first and _follow():
            pass


def _follow() -> bool:
    """Until the index is damaged (true: begin again with a new one) or nobody asks."""
    try:
        with closing(opened(False)) as index:
            worker = Refresher(index, False)
            while not paths.cache("runs.rebuild").exists():
                began = time.time()
                if not worker.step() and not _asked_since(began):
                    return False
            return True
    except sqlite3.DatabaseError:
        paths.cache("runs.rebuild").touch()
        return True


def _asked_since(began: float) -> bool:
    """Wait for a page to ask."""
    time.sleep(REST_SECONDS)
    while time.time() - began < LINGER_SECONDS:
        if paths.cache("runs.asked").stat().st_mtime > began:
            return True
        time.sleep(0.25)
    return False


def main() -> None:
    command = sys.argv[1:]
    if command == ["follow"]:
        follow()
    elif command in (["once"], ["rebuild"]):
        alone = refresh(again=command == ["rebuild"])
        now = run_index.state()
        print(
            f"warning: {now.fault}"
            if now.fault
            else "the index is up to date"
            if alone
            else "another refresher is at work",
            flush=True,
        )
    else:
        raise ParamsError(f"usage: {(__doc__ or '').split(chr(10) + chr(10))[1].strip()}")


if __name__ == "__main__":
    exit_with(main)
