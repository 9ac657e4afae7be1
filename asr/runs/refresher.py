"""One pass over MLflow, journals and DVC's revisions, which brings the index of runs up to date.

MLflow is read through its API. A small store is read completely each time. Of a large store, which
takes over two seconds to read, only new runs, running ones and those that ended since are read.
Once an hour it is read completely, because deletions, new names and runs that an outage delayed
cannot be found by time. 10,000 runs take 20 s. To find the curve of one run, MLflow scans the
metric's points of all runs (40 ms with 500,000), so curves are read only for running trainings, the
newest twenty, and those that a page shows.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from asr import metrics, paths
from asr.runs import dvc_cache, journals, revision_facts, revisions, run_index
from asr.runs.revision_facts import Curves
from asr.runs.revisions import COMMIT, Revision
from asr.storage import files, hashing
from asr.tracking import client

SMALL_SECONDS = 2.0  # a store that is read completely in less is small
WHOLE_SECONDS = 3600.0  # between two complete readings of a large store
STORE_SHARE = 0.33  # of the time that a store is read, at most: the first seconds cost more
SERVER_SECONDS = 30.0  # after which a server is read again: it does not tell us of changes
RETRY_SECONDS = 3600.0  # until a revision is read again whose files DVC did not have
NEWEST_RUNS = 20  # trainings whose curves are fetched without a request
CURVES_PER_PASS = 20  # runs whose curves are fetched in one pass
MAX_REQUESTED = 100  # runs whose curves a page may request
FIRST_PAGES = (20, 200)  # sizes of the first pages: mostly there is one new run, or none

UPSERT_RUN = """
INSERT INTO runs (id, fingerprint, parent, status, start, "end", digest, whole)
VALUES (:id, :fingerprint, :parent, :status, :start, :end, :digest, :whole)
ON CONFLICT (id) DO UPDATE SET
    fingerprint = excluded.fingerprint, parent = excluded.parent, status = excluded.status,
    start = excluded.start, "end" = excluded."end",
    digest = excluded.digest, whole = excluded.whole
"""
STALE_CURVES = """
SELECT id, digest FROM runs WHERE parent IS NULL AND curves IS NOT digest
AND (id IN ({ids}) OR status = 'RUNNING') LIMIT ?
"""
UPSERT_JOURNAL = """
INSERT INTO journals (fingerprint, stamp, course, run, in_mlflow) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (fingerprint) DO UPDATE SET
    stamp = excluded.stamp, course = excluded.course, run = excluded.run,
    in_mlflow = max(in_mlflow, excluded.in_mlflow)
"""
TRACKED = "SELECT fingerprint FROM runs WHERE fingerprint NOT NULL"
NEWEST = "SELECT id FROM runs WHERE parent IS NULL ORDER BY start DESC LIMIT ?"


class Refresher:
    """Brings the index up to date, with connections to it and to MLflow.

    Attributes:
        talk: whether progress is printed.
        store: the client of MLflow; None until it is needed, and after an error.
        changed: whether rows changed since the last commit.
    """

    def __init__(self, index: sqlite3.Connection, talk: bool):
        self.index = index
        self.talk = talk
        self.store: Any = None
        self.store_rests_until = 0.0
        self.changed = False

    def step(self) -> bool:
        """Do one pass over everything; return whether another should follow without a pause.

        What lies on this machine comes first, for it is quicker and newer.
        """
        self._read_journals()
        if self._get("updated"):
            self._read_revisions()
            fault = self._read_store_if_changed()
        else:  # from nothing: MLflow's runs are most of what a page waits for
            fault = self._read_store_if_changed()
            self._read_revisions()
        self._note_what_mlflow_has()
        self._set("fault", fault)
        self._set("updated", repr(time.time()))
        self._commit()
        more = False
        if not fault:
            try:
                more = self._read_curves()
            except Exception:  # of any kind, as below; the next pass reports it
                self.store = None
        self._progress("", 0, 0)
        return more

    def _read_store_if_changed(self) -> str:
        """Read MLflow's store if it has changed; return why it cannot be read, or an empty text."""
        local = client.store_file()
        if local is not None and not local.is_file():
            self._forget("id NOT NULL")
            return ""
        stamp = _store_stamp(local)
        if not self._must_read(stamp):
            return self._get("fault") or ""
        began = time.time()
        fault = ""
        try:
            self.read_store()
        # A damaged store or a server in trouble makes MLflow raise errors of any kind.
        except Exception as error:
            self.store = None
            fault = (
                f"MLflow's store cannot be read ({type(error).__name__}); "
                "shown is what was read before, and what DVC knows"
            )
        self._set("store_stamp", stamp)
        self.store_rests_until = time.time() + (time.time() - began) * (1 / STORE_SHARE - 1)
        return fault

    def _must_read(self, stamp: str) -> bool:
        if time.time() < self.store_rests_until:
            return False
        return self._get("store_stamp") != stamp or bool(self._get("fault"))

    def read_store(self) -> None:
        """Read what has changed in MLflow's store since it was read last."""
        self.store = self.store or client.connect()
        last = float(self._get("whole_at") or 0)
        seconds = float(self._get("whole_cost") or 0)
        if seconds <= SMALL_SECONDS or time.time() - last > WHOLE_SECONDS:
            self._read_whole()
        else:
            self._read_changed()

    def _read_whole(self) -> None:
        began = time.time()
        ids = set()
        for page in client.read_runs(self.store):
            ids |= {run["id"] for run in page}
            self._write_runs(page)
            self._progress("runs", len(ids), 0)
        self._delete([id for id in self._ids("id NOT NULL") if id not in ids])
        self._set("whole_at", repr(time.time()))
        self._set("whole_cost", repr(time.time() - began))

    def _read_changed(self) -> None:
        """Read new runs, running runs, and runs that have ended since the last pass."""
        for page in self._newest_pages():
            if not self._write_runs(page):
                break
        running = set(self._ids("status = 'RUNNING'"))
        (ended,) = self.index.execute('SELECT max("end") FROM runs').fetchone()
        for condition in (
            "attributes.status = 'RUNNING'",
            f"attributes.end_time > {round((ended or 0) * 1000)}",
        ):
            for page in client.read_runs(self.store, condition):
                self._write_runs(page)
                running -= {run["id"] for run in page}
        for id in running:
            self._read_one(id)

    def _newest_pages(self) -> Iterator[list[dict[str, Any]]]:
        """Pages of the newest runs, small ones first."""
        for limit in FIRST_PAGES:
            yield from client.read_runs(self.store, limit=limit)
        yield from client.read_runs(self.store)

    def _read_one(self, id: str) -> None:
        """Read a run that is no longer running: it ended, or was deleted."""
        run = client.read_run(self.store, id)
        if run is None:
            self._forget("id = ?", id)
        else:
            self._write_runs([run])

    def _ids(self, condition: str, *values: str) -> list[str]:
        rows = self.index.execute(f"SELECT id FROM runs WHERE {condition}", values).fetchall()
        return [id for (id,) in rows]

    def _forget(self, condition: str, *values: str) -> None:
        self._delete(self._ids(condition, *values))
        self._commit()

    def _delete(self, ids: list[str]) -> None:
        self.index.executemany("DELETE FROM runs WHERE id = ?", [(id,) for id in ids])
        self.index.executemany("DELETE FROM curves WHERE id = ?", [(id,) for id in ids])
        self.changed |= bool(ids)

    def _write_runs(self, page: list[dict[str, Any]]) -> bool:
        """Store the runs that are new or changed; return whether there were any."""
        ids = [run["id"] for run in page]
        query = f"SELECT id, digest FROM runs WHERE id IN ({_question_marks(ids)})"
        stored = dict(self.index.execute(query, ids))
        rows = []
        for run in page:
            digest = hashing.hash_of(run)
            if stored.get(run["id"]) != digest:
                run = revision_facts.typed(run)
                rows.append({**run, "digest": digest, "whole": json.dumps(run)})
        self.index.executemany(UPSERT_RUN, rows)
        self.changed |= bool(rows)
        self._commit()
        return bool(rows)

    def _read_journals(self) -> None:
        """Store what the journals that have changed tell; one that is not there is forgotten."""
        stored = dict(self.index.execute("SELECT fingerprint, stamp FROM journals").fetchall())
        tracked = {fingerprint for (fingerprint,) in self.index.execute(TRACKED)}
        found = set()
        for path, stamp in _journals():
            found.add(path.stem)
            if stored.get(path.stem) != stamp:
                self._write_journal(path, stamp, path.stem in tracked)
        for fingerprint in stored.keys() - found:
            self.index.execute("DELETE FROM journals WHERE fingerprint = ?", [fingerprint])
            self.changed = True
        self._commit()

    def _write_journal(self, path: Path, stamp: str, is_tracked: bool) -> None:
        """Store one journal: its course, and the run and its curves if MLflow has no such run."""
        try:
            course, run, points = journals.read(path)
        except run_index.PARSE_ERRORS:  # it is damaged, and tells nothing
            course, run, points = None, {}, {}
        if course is None:
            return
        row = [path.stem, stamp, json.dumps(vars(course)), json.dumps(run), is_tracked]
        self.index.execute(UPSERT_JOURNAL, row)
        self.changed = True
        query = "SELECT count(*) FROM curves WHERE id = ?"
        (has_curves,) = self.index.execute(query, [path.stem]).fetchone()
        if course.end is None or not is_tracked or has_curves:
            self._write_points(path.stem, points)
            self._set("curves", str(time.time_ns()))

    def _note_what_mlflow_has(self) -> None:
        """Drop the runs of journals that MLflow has by now; if they go there, they are deleted."""
        self.index.execute(f"""
            UPDATE journals SET in_mlflow = 1, run = NULL
            WHERE NOT in_mlflow AND fingerprint IN ({TRACKED})
        """)

    def _read_revisions(self) -> None:
        """Store the list of revisions, and the facts of revisions that were not read before."""
        dvc_cache.bring_results(paths.root())
        listed = revisions.with_reports()
        rows = [
            (index, revision.name, revision.sha, revision.kind)
            for index, revision in enumerate(listed)
        ]
        query = "SELECT place, name, sha, kind FROM revisions ORDER BY place"
        if self.index.execute(query).fetchall() != rows:
            self.index.execute("DELETE FROM revisions")
            self.index.executemany("INSERT INTO revisions VALUES (?, ?, ?, ?)", rows)
            self.changed = True
        read = self._keys_read()
        unread = [
            revision for revision in listed if revision.sha is None or revision.key not in read
        ]
        unread.sort(key=lambda revision: revision.kind == COMMIT)  # mostly those tell nothing new
        for number, revision in enumerate(unread):
            self._write_facts(revision)
            if number % 10 == 0:
                self._progress("revisions", number, len(unread))
        self._commit()

    def _keys_read(self) -> set[str]:
        """Revisions that need not be read now: those read before, and those that failed lately."""
        facts = self.index.execute("SELECT sha, fingerprint, tried FROM facts").fetchall()
        return {
            key
            for key, fingerprint, tried in facts
            if fingerprint or time.time() - tried < RETRY_SECONDS
        }

    def _write_facts(self, revision: Revision) -> None:
        fingerprint, facts, points = revision_facts.read(revision)
        facts_json = json.dumps(facts, sort_keys=True)
        query = "SELECT fingerprint, known FROM facts WHERE sha = ?"
        if self.index.execute(query, [revision.key]).fetchone() == (fingerprint, facts_json):
            return
        self.index.execute(
            "INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)",
            [revision.key, fingerprint, facts_json, time.time()],
        )
        self.changed = True
        if points:
            self._write_points(fingerprint or revision.key, points)

    def _write_points(self, id: str, points: Curves) -> None:
        best_wer, best_step = best_so_far(points)
        self.index.execute(
            "INSERT OR REPLACE INTO curves VALUES (?, ?, ?, ?)",
            [id, json.dumps(points), best_wer, best_step],
        )

    def _read_curves(self) -> bool:
        """Fetch curves that changed; return whether there were any.

        First come the trainings that a page requested, then the newest. Running trainings are
        included in both.
        """
        requested = _requested_runs()
        for ids, values in ((_question_marks(requested), requested), (NEWEST, [NEWEST_RUNS])):
            query = STALE_CURVES.format(ids=ids)
            digests = dict(self.index.execute(query, [*values, CURVES_PER_PASS]).fetchall())
            for number, (id, digest) in enumerate(digests.items()):
                self._progress("curves", number, len(digests))
                self._read_curves_of(id, digest)
            if digests:
                self.changed = True  # the rows hold the best WER of these curves
                return True
        return False

    def _read_curves_of(self, id: str, digest: str) -> None:
        self.store = self.store or client.connect()
        points = {metric: client.read_curve(self.store, id, metric) for metric in run_index.CURVES}
        self._write_points(id, points)
        self.index.execute("UPDATE runs SET curves = ? WHERE id = ?", [digest, id])
        self._set("curves", str(time.time_ns()))
        self.index.commit()

    def _get(self, key: str) -> str | None:
        row = self.index.execute("SELECT value FROM meta WHERE key = ?", [key]).fetchone()
        return row[0] if row else None

    def _set(self, key: str, value: str) -> None:
        self.index.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", [key, value])

    def _progress(self, phase: str, done: int, total: int) -> None:
        """Store the progress for the pages, and print it; an empty phase means idle."""
        self._set("progress", json.dumps([phase, done, total]))
        self._commit()
        if self.talk and phase:
            print(f"{phase}: {done:,}{f' of {total:,}' if total else ''}", flush=True)

    def _commit(self) -> None:
        if self.changed:
            self._set("generation", str(time.time_ns()))
            self.changed = False
        self.index.commit()


def best_so_far(points: Curves) -> tuple[float | None, int | None]:
    """WER and step of the best evaluation so far, as the training itself tells it.

    It goes by more than the WER (`asr.training.validation.compared_by`). Where nothing tells it, as
    in a training of before, the lowest WER is the best.
    """
    wers = {
        step: wer
        for step, wer in points.get(metrics.VALIDATION_WER, [])
        if step > 0 and math.isfinite(wer)  # at step 0 it is the start model's
    }
    for _, best_step in reversed(points.get(metrics.VALIDATION_BEST_STEP, [])):
        if best_step in wers:  # the WER may have been read a moment earlier
            return wers[int(best_step)], int(best_step)
    return min(((wer, step) for step, wer in wers.items()), default=(None, None))


def _journals() -> Iterator[tuple[Path, str]]:
    """Each journal with a text that changes with it."""
    with suppress(FileNotFoundError):
        for entry in os.scandir(paths.cache("journal")):
            if entry.name.endswith(".jsonl"):
                stat = entry.stat()
                yield Path(entry.path), f"{stat.st_size} {stat.st_mtime_ns}"


def _store_stamp(store: Path | None) -> str:
    """A text that changes with MLflow's store; with a server, each SERVER_SECONDS."""
    if store is None:
        return str(time.time() // SERVER_SECONDS)
    parts = (store, store.with_name(f"{store.name}-wal"))
    return hashing.hash_of([run_index.stamp(part) for part in parts])


def _question_marks(values: list[Any]) -> str:
    """Placeholders of an SQL query."""
    return ",".join("?" * len(values))


def _requested_runs() -> list[str]:
    """The runs whose curves a page requested."""
    try:
        ids = files.read_json(paths.cache("runs.wanted"))
    except (OSError, ValueError):
        return []
    return [str(id) for id in ids[:MAX_REQUESTED]] if isinstance(ids, list) else []
