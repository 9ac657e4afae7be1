"""Which results can be shown: those of each run whose utterances are on this computer.

Costs a look at one file for each run, and reading the index of runs once for each change of it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from asr import paths
from asr.errors import UserError
from asr.runs import dvc_cache, revisions, run_index, run_rows
from asr.runs.revisions import HERE, Revision
from asr.runs.run_rows import RunRow
from asr.runs.tested import LOCK_ERRORS, lock_of
from asr.runtime import formatting
from dashboard import widgets
from dashboard.runs import run_table
from dashboard.workspace import LOOK_SECONDS

YOUR_FILES = "your files now"


@dataclass(frozen=True)
class Offer:
    """The results of one run.

    Attributes:
        id: for the address; the same for life.
        revision: where its utterances lie.
        name: of the run.
        label: the name, with WER and date.
        stale: why they are not of the files in the workspace, though they lie there; else empty.
    """

    id: str
    revision: Revision
    name: str
    label: str
    stale: str = ""


@dataclass(frozen=True)
class Offers:
    """What can be opened, by its id, and what cannot.

    Attributes:
        absent: names of the runs that were tested and cannot be opened, by their ids.
        fetchable: those of them that a commit or an experiment holds.
    """

    here: dict[str, Offer]
    absent: dict[str, str]
    fetchable: frozenset[str]


def offers(root: Path) -> Offers:
    """The results in the workspace first, then those of other runs, the newest first."""
    rows = all_rows(root)
    found = of_runs(root, generation())
    if not (root / paths.UTTERANCES).is_file():
        return found
    first = in_workspace(rows, run_table.labels_of(rows))
    here = {first.id: first, **{id: one for id, one in found.here.items() if id != first.id}}
    absent = {id: name for id, name in found.absent.items() if id != first.id}
    return Offers(here, absent, found.fetchable - {first.id})


@st.cache_resource(ttl=LOOK_SECONDS, max_entries=4, show_spinner=False)
def of_runs(root: Path, generation: str) -> Offers:  # noqa: ARG001 (the cache key)
    """The results that lie outside the workspace; 0.1 s for 5,000 runs, 0.5 s if none is here."""
    rows = all_rows(root)
    names = run_table.labels_of(rows)
    here: dict[str, Offer] = {}
    absent: dict[str, str] = {}
    for row in rows:
        kept_first = sorted(row.results, key=lambda one: one.kind != revisions.RESULT)
        revision = next((one for one in kept_first if can_open(root, one)), None)
        if revision:
            label = described(row, names)
            here[row.key] = Offer(row.key, revision, names[row.key], label)
        elif row.scores:
            absent[row.key] = names[row.key]
    fetchable = {
        row.key for row in rows if row.key in absent and any(map(is_commit, row.revisions))
    }
    return Offers(here, absent, frozenset(fetchable))


def is_commit(revision: Revision) -> bool:
    return bool(revision.sha and revisions.SHA.fullmatch(revision.sha))


def can_open(root: Path, revision: Revision) -> bool:
    """Whether the utterances of a revision are here: fetched before, or in DVC's cache."""
    if revisions.is_here(revision, paths.UTTERANCES):
        return True
    if not revisions.is_here(revision, "dvc.lock"):
        return False
    with suppress(UserError, *LOCK_ERRORS):
        hash = lock_of(revision).written[paths.UTTERANCES]
        return dvc_cache.file_of(root, hash) is not None
    return False


def in_workspace(rows: list[RunRow], names: dict[str, str]) -> Offer:
    """What lies in the workspace, under the name of the run that it is of."""
    owner, stale = run_rows.workspace_results(rows)
    if owner:
        return Offer(owner.key, HERE, names[owner.key], described(owner, names), stale)
    name = "an earlier run" if stale else YOUR_FILES
    return Offer(revisions.WORKSPACE, HERE, name, name, stale)


def generation() -> str:
    """What changes with the index of runs; empty while there is none that can be read."""
    try:
        return run_index.state().generation
    except UserError:
        return ""


def all_rows(root: Path) -> list[RunRow]:
    """All runs of the index."""
    now = generation()
    try:
        return _rows(root, now) if now else []
    except UserError:
        return []


@st.cache_resource(max_entries=2, show_spinner=False)
def _rows(root: Path, generation: str) -> list[RunRow]:  # noqa: ARG001 (the cache key)
    return run_rows.rows()


def described(row: RunRow, names: dict[str, str]) -> str:
    """Name, WER and date of a run."""
    wer = row.scores.get("wer")
    facts = [names[row.key]]
    if isinstance(wer, int | float):
        facts.append(f"{formatting.percent(wer)} WER")
    if row.start:
        facts.append(widgets.day(row.start))
    return " · ".join(facts)
