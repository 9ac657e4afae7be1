"""What the page Runs showed at each moment, and what of it was never true.

A script in the browser notes every change of the page with its time. Afterwards each cell is held
against what was true then: scores against the reports that evaluations wrote and when they did,
states against their order and the kills that really happened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Page

# Notes a snapshot whenever the text of the page, or a cell of the table of runs, changes.
RECORDER = """
window.__seen = [];
window.__last = "";
setInterval(() => {
  const grid = document.querySelector('[data-testid=stDataFrame] table[role=grid]');
  const texts = row => [...row.querySelectorAll('th,td')].map(cell => cell.textContent);
  const table = grid ? [...grid.querySelectorAll('tr')].map(texts) : [];
  const main = document.querySelector('[data-testid=stMain]');
  const text = main ? main.innerText : '';
  const now = JSON.stringify([table, text]);
  if (now !== window.__last) {
    window.__last = now;
    window.__seen.push({time: Date.now() / 1000, table, text});
  }
}, 200);
"""
# The order of states; a run that goes on after a stop may begin again at any of them.
ORDER = ("waiting", "preparing", "training", "checking", "evaluating", "finished")
ENDS = ("stopped", "killed", "failed", "refused")
WER_COLUMN = "WER %"


@dataclass(frozen=True)
class Snapshot:
    """The page at one moment.

    Attributes:
        time: in seconds since 1970.
        rows: the cells of the table of runs, by the name of their column.
        text: all other text of the page.
    """

    time: float
    rows: tuple[dict[str, str], ...]
    text: str


@dataclass
class Truth:
    """What was true of one run, and from when on.

    Attributes:
        scores: time and WER in percent, of each evaluation that ended.
        ended: since when nothing goes on that would test it, where nothing does.
        stops: time, and what happened: an item of ENDS, or `resumed`.
    """

    scores: list[tuple[float, float]] = field(default_factory=list)
    ended: float = float("inf")
    stops: list[tuple[float, str]] = field(default_factory=list)


def record(page: Page) -> None:
    """Begin to note what the page shows; also after a reload."""
    page.add_init_script(RECORDER)


def snapshots(page: Page) -> list[Snapshot]:
    return [snapshot(one) for one in page.evaluate("window.__seen")]


def snapshot(seen: dict[str, Any]) -> Snapshot:
    """One item of what the script noted."""
    head, *lines = seen["table"] or [[]]
    rows = tuple(dict(zip(head, line, strict=False)) for line in lines)
    return Snapshot(seen["time"], rows, seen["text"])


def state_of(cell: str) -> str:
    """The state that a cell names, without its sign and its numbers."""
    words = re.findall(r"[a-z]+", cell.lower())
    return next((word for word in words if word in (*ORDER, *ENDS)), cell)


def falsehoods(seen: Iterable[Snapshot], truths: dict[str, Truth]) -> Iterator[str]:
    """What the page said that was not true when it said so.

    Args:
        truths: by the name of the run, as the table shows it.
    """
    states: dict[str, str] = {}
    for one in seen:
        for row in one.rows:
            name = row.get("Run", "")
            if name not in truths:
                continue
            yield from _false_score(one.time, name, row, truths[name])
            now = state_of(row.get("Status", ""))
            before = states.get(name)
            if now != before:
                yield from _false_state(one.time, name, before, now, truths[name])
            states[name] = now


def _false_score(time: float, name: str, row: dict[str, str], truth: Truth) -> Iterator[str]:
    text = row.get(WER_COLUMN, "")
    if not re.match(r"\d", text):
        return
    known = [wer for ended, wer in truth.scores if ended <= time]
    if not any(abs(float(text) - wer) < 0.06 for wer in known):
        yield f"{time:.1f} {name}: WER {text}, true were {known}"


def _false_state(
    time: float, name: str, before: str | None, now: str, truth: Truth
) -> Iterator[str]:
    happened = [what for when, what in truth.stops if when <= time]
    if now in ENDS and now not in happened:
        yield f"{time:.1f} {name}: {now}, which never happened"
    if now not in (*ORDER, *ENDS):
        yield f"{time:.1f} {name}: no state: {now!r}"
    if now == "finished" and time < min([truth.ended, *(ended for ended, _ in truth.scores)]):
        yield f"{time:.1f} {name}: finished before its evaluation was"
    if _goes_back(before, now) and "resumed" not in happened:
        yield f"{time:.1f} {name}: {now} after {before}"


def _goes_back(before: str | None, now: str) -> bool:
    """Whether a run shows an earlier state than it showed, or goes on after its end."""
    if now not in ORDER or before is None:
        return False
    return before in ENDS or (before in ORDER and ORDER.index(now) < ORDER.index(before))
