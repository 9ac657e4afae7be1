"""Which results can be shown: those of each run whose utterances are on this computer.

Costs a look at one file for each run, and reading the index of runs once for each change of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from asr import paths
from asr.errors import UserError
from asr.runs import revisions, run_index
from asr.runs.revisions import HERE, Revision
from asr.runs.run_index import RunRow
from asr.runtime import formatting
from dashboard import widgets

YOUR_FILES = "your files now"
MAX_OFFERED = 300
ID_DIGITS = 8  # characters of a fingerprint that tell two runs of one name apart


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
    names = labels(rows)
    here: dict[str, Offer] = {}
    absent: dict[str, str] = {}
    if (root / paths.UTTERANCES).is_file():
        offer = in_workspace(rows, names)
        here[offer.id] = offer
    for row in rows:
        revision = next(
            (one for one in row.results if revisions.is_here(one, paths.UTTERANCES)), None
        )
        if revision and len(here) < MAX_OFFERED:
            here.setdefault(
                row.key, Offer(row.key, revision, names[row.key], described(row, names))
            )
        elif row.scores and row.key not in here:
            absent[row.key] = names[row.key]
    fetchable = {row.key for row in rows if row.key in absent and row.revisions}
    return Offers(here, absent, frozenset(fetchable))


def in_workspace(rows: list[RunRow], names: dict[str, str]) -> Offer:
    """What lies in the workspace, under the name of the run that it is of."""
    owner, stale = run_index.workspace_results(rows)
    if owner:
        return Offer(owner.key, HERE, names[owner.key], described(owner, names), stale)
    name = "an earlier run" if stale else YOUR_FILES
    return Offer(revisions.WORKSPACE, HERE, name, name, stale)


def all_rows(root: Path) -> list[RunRow]:
    """All runs of the index; none while there is no index that can be read."""
    try:
        state = run_index.state()
        return _rows(str(root), state.generation) if state.generation else []
    except UserError:
        return []


@st.cache_resource(max_entries=2, show_spinner=False)
def _rows(root: str, generation: str) -> list[RunRow]:  # noqa: ARG001 (the cache key)
    return run_index.rows()


def labels(rows: list[RunRow]) -> dict[str, str]:
    """The name of each run by its key; with the start of its fingerprint where names repeat."""
    times = Counter(row.name for row in rows)
    return {
        row.key: row.name
        if times[row.name] == 1
        else f"{row.name} {(row.fingerprint or row.key)[:ID_DIGITS]}"
        for row in rows
    }


def described(row: RunRow, names: dict[str, str]) -> str:
    """Name, WER and date of a run."""
    wer = row.scores.get("wer")
    facts = [names[row.key]]
    if isinstance(wer, int | float):
        facts.append(f"{formatting.percent(wer)} WER")
    if row.start:
        facts.append(widgets.day(row.start))
    return " · ".join(facts)
