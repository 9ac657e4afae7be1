"""The tests that runs were tested in: what each is called, and its best run.

Runs are comparable only within one test: the same recordings, which is the same hash.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from asr.runs.run_rows import RunRow

HASH_DIGITS = 8  # of a test, in the address
MAX = 1e12  # of a number in a report
NO_NAME = "an unknown test"
UNKNOWN = "unknown"  # the test of scores that do not say what they were tested on


@dataclass(frozen=True)
class Test:
    """A test, and the runs that were tested in it, of the lowest WER first."""

    id: str
    name: str
    ranking: tuple[RunRow, ...]


def tests_of(rows: list[RunRow]) -> list[Test]:
    """The tests of these runs, that of the most runs first."""
    tested: dict[str, list[RunRow]] = defaultdict(list)
    for row in rows:
        if wer_of(row) is not None:
            tested[test_id(row)].append(row)
    order = sorted(tested, key=lambda id: -len(tested[id]))  # stable: then of the newest run
    names = {id: next(filter(None, map(test_name, tested[id])), NO_NAME) for id in order}
    several = {name for name in names.values() if [*names.values()].count(name) > 1}
    return [
        Test(
            id,
            f"{names[id]} ({id})" if names[id] in several else names[id],
            tuple(sorted(tested[id], key=_rank)),
        )
        for id in order
    ]


def _rank(row: RunRow) -> tuple[float, bool]:
    """The lowest WER comes first; of two, that of the run whose checks passed."""
    return wer_of(row) or 0.0, bool(row.failed_checks)


def wer_of(row: RunRow) -> float | None:
    """The test WER; None if there is none, or none that is a number."""
    return row.scores["wer"] if _is_number(row.scores.get("wer")) else None


def test_id(row: RunRow) -> str:
    """The first digits of the hash of the recordings that a run was tested on."""
    return str(row.test_hash)[:HASH_DIGITS] if row.test_hash else UNKNOWN


def test_name(row: RunRow) -> str:
    """What a run was tested on, as far as it tells: 240 recordings, 0.11 h, synthetic sv."""
    count, hours = row.scores.get("rows"), row.scores.get("hours")
    parts = [
        f"{count:,.0f} recordings" if _is_number(count) else "",
        f"{hours:,.2g} h" if _is_number(hours) else "",
        corpus_name(row.params),
    ]
    return ", ".join(filter(None, parts))


def corpus_name(params: dict[str, Any]) -> str:
    """Source, name and language of a corpus, as far as a run's params tell."""
    path = params.get("download.path")
    parts = [
        params.get("download.source"),
        PurePath(path).name if isinstance(path, str) else None,
        params.get("download.language"),
    ]
    return " ".join(part for part in parts if isinstance(part, str) and part != "None")


def test_names(rows: list[RunRow], tests: list[Test]) -> list[str | None]:
    """The name of each run's test; None for a run without scores."""
    names = {test.id: test.name for test in tests}
    return [names[test_id(row)] if wer_of(row) is not None else None for row in rows]


def _is_number(value: Any) -> bool:
    """Whether a damaged report left this a number that can be shown."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MAX
