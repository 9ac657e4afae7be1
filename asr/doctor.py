"""What a killed DVC, training or machine left behind: explained, and mended if asked.

    python -m asr.doctor           # names what it finds and what mending would do; changes nothing; exit 1 if it found something
    python -m asr.doctor --mend    # does that, and nothing else; exit 1 if something is left for a person to decide

What belongs to a living process is left alone. A training needs no doctor: it goes on from its checkpoint. Costs a second, two with MLflow.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from asr import leftovers
from asr.errors import exit_with
from asr.leftovers import Finding, at_work, lives, remove, shown, since
from asr.storage import paths
from asr.tracking import client, journal

ROOMS = ("data", "models", "reports", "recordings", ".cache", ".dvc/cache")  # where drafts may lie
DRAFT = re.compile(r"\..*?(\.(?P<pid>\d+))?\.part|\.[\w-]{22}\.tmp")  # ours, and DVC's
LOOKS = (
    leftovers.git_locks,
    leftovers.dvc_locks,
    leftovers.interrupted_setup,
    leftovers.workspace_run,
    leftovers.temporary_runs,
    leftovers.queue_tasks,
)


def examine(root: Path) -> list[Finding]:
    """Everything that is wrong, in the order in which it is mended."""
    return [*(finding for look in LOOKS for finding in look(root)), *drafts(root), *sessions(root), *tracked_runs()]


def drafts(root: Path) -> Iterator[Finding]:
    """Files and folders that were being written beside their place."""
    for draft in sorted(path for room in ROOMS for path in (root / room).rglob(".*") if DRAFT.fullmatch(path.name)):
        match = DRAFT.fullmatch(draft.name)
        pid = match["pid"] if match else None
        owned = lives(int(pid), since(draft)) if pid else bool(at_work(root))
        if not owned and not client.training_runs(draft.parent.name) and not draft.is_relative_to(root / ".cache/sessions"):
            yield Finding(f"{shown(draft, root)}: its writer was killed half-way", since(draft), "removes it", partial(remove, draft))


def sessions(root: Path) -> Iterator[Finding]:
    """What visitors of a dashboard brought that was killed: nobody may read it any more."""
    for folder in sorted((root / ".cache/sessions").glob("[0-9]*")):
        if not lives(int(folder.name), since(folder)):
            what = f"{shown(folder, root)}: recordings of visitors of a dashboard that was killed"
            yield Finding(what, since(folder), "removes them", partial(remove, folder))


def tracked_runs() -> Iterator[Finding]:
    """MLflow runs that no training writes any more."""
    store = client.store_file()
    if store is not None and not store.is_file():
        return
    try:
        running = [run for page in client.read_runs(client.client(), "attributes.status = 'RUNNING'") for run in page]
    except Exception as error:  # an outage of any kind is no finding of ours
        print(f"MLflow does not answer ({type(error).__name__}): its runs were not looked at")
        return
    for run in running:
        log = journal.path_of(run["fingerprint"] or "")
        if run["fingerprint"] and log.is_file() and not client.training_runs(run["fingerprint"]):
            what = f"MLflow's run {run['name']} stands RUNNING, but no training runs"
            yield Finding(what, run["start"] or 0.0, "brings it up to its journal and closes it", partial(client.sync, [log]))


def main() -> None:
    """Explain, and mend if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mend", action="store_true", help="do what is named, and nothing else")
    mend, root = parser.parse_args().mend, paths.root()
    found = examine(root)
    for process in at_work(root):
        with suppress(psutil.Error):
            print(f"at work, and left alone: process {process.pid}, {' '.join(process.cmdline()[:6])}")
    for number, finding in enumerate(found, start=1):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(finding.since))
        print(f"{number}. since {when}: {finding.what}\n   {'mending' if finding.mend else 'by hand:'} {finding.mending}")
        if mend and finding.mend:
            finding.mend()
            print("   mended")
    if not found:
        print("nothing is left behind")
    raise SystemExit(any(not (mend and finding.mend) for finding in found))


if __name__ == "__main__":
    exit_with(main)
