"""What a killed DVC, training or machine left behind: explained, and mended if asked.

    earshot doctor           # names what it finds and what mending would do; changes nothing; exit 1 if it found something
    earshot doctor --mend    # does that, and nothing else; exit 1 if something is left for a person to decide

What belongs to a living process is left alone. A training needs no doctor: it goes on from its
checkpoint. Costs a second, two with MLflow.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from asr import paths
from asr.errors import DataError, exit_with
from asr.runtime import command
from asr.storage import files
from asr.tracking import client, follower, journal

ROOMS = ("data", "models", "reports", "recordings", ".cache", ".dvc/cache")  # where drafts may lie
DRAFT = re.compile(r"\..*?(\.(?P<pid>\d+))?\.part|\.[\w-]{22}\.tmp")  # ours, and DVC's

EXEC_REFS = (
    "EXEC_BASELINE",
    "EXEC_MERGE",
    "EXEC_BRANCH",
    "EXEC_APPLY",
)  # EXEC_HEAD stays in health, too
WORKERS = ("dvc", "git", "streamlit")


def examine(root: Path) -> list[Finding]:
    """Everything that is wrong, in the order in which it is mended."""
    return [
        *(finding for look in LOOKS for finding in look(root)),
        *drafts(root),
        *sessions(root),
        *tracked_runs(),
    ]


def drafts(root: Path) -> Iterator[Finding]:
    """Files and folders that were being written beside their place."""
    for draft in sorted(
        path for room in ROOMS for path in (root / room).rglob(".*") if DRAFT.fullmatch(path.name)
    ):
        match = DRAFT.fullmatch(draft.name)
        pid = match["pid"] if match else None
        owned = is_alive(int(pid), since(draft)) if pid else bool(at_work(root))
        if (
            not owned
            and not follower.training_runs(draft.parent.name)
            and not draft.is_relative_to(root / ".cache/sessions")
        ):
            yield Finding(
                f"{relative_path(draft, root)}: its writer was killed half-way",
                since(draft),
                "removes it",
                partial(remove, draft),
            )


def sessions(root: Path) -> Iterator[Finding]:
    """What visitors of a dashboard brought that was killed: nobody may read it any more."""
    for folder in sorted((root / ".cache/sessions").glob("[0-9]*")):
        if not is_alive(int(folder.name), since(folder)):
            what = f"{relative_path(folder, root)}: recordings of visitors of a dashboard that was killed"
            yield Finding(what, since(folder), "removes them", partial(remove, folder))


def tracked_runs() -> Iterator[Finding]:
    """MLflow runs that no training writes any more."""
    store = client.store_file()
    if store is not None and not store.is_file():
        return
    try:
        running = [
            run
            for page in client.read_runs(client.connect(), "attributes.status = 'RUNNING'")
            for run in page
        ]
    except Exception as error:  # an outage of any kind is no finding of ours
        print(f"MLflow does not answer ({type(error).__name__}): its runs were not looked at")
        return
    for run in running:
        log = journal.path_of(run["fingerprint"] or "")
        if run["fingerprint"] and log.is_file() and not follower.training_runs(run["fingerprint"]):
            what = f"MLflow's run {run['name']} stands RUNNING, but no training runs"
            yield Finding(
                what,
                run["start"] or 0.0,
                "brings it up to its journal and closes it",
                partial(follower.sync, [log]),
            )


@dataclass(frozen=True)
class Finding:
    """One thing: what it is, since when (seconds), and what mending does; `mend` is None where a
    person must decide.
    """

    what: str
    since: float
    mending: str
    mend: Callable[[], None] | None


def at_work(folder: Path) -> list[psutil.Process]:
    """Processes of DVC, git or a stage that live in a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if (
                process.pid != os.getpid()
                and Path(process.cwd()).is_relative_to(folder)
                and _works(process.cmdline())
            ):
                found.append(process)
    return found


def _works(words: list[str]) -> bool:
    return any(
        Path(word).name in WORKERS or word.startswith(("stages.", "asr.")) for word in words[:4]
    )


def is_alive(pid: int, noted: float) -> bool:
    """Whether the process that wrote its number down at a time is still there; another may have its
    number by now.
    """
    try:
        process = psutil.Process(pid)
        return bool(process.create_time() <= noted + 1 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def git_locks(root: Path) -> Iterator[Finding]:
    """git refuses to work until they are gone."""
    folder = _git(root, "rev-parse", "--absolute-git-dir")
    for lock in sorted(Path(folder).rglob("*.lock")) if folder and not at_work(root) else []:
        what = f"{lock.name} in {relative_path(lock.parent, root)}: git was killed while it wrote; git and DVC refuse to work"
        yield Finding(what, since(lock), "removes the file", lock.unlink)


def dvc_locks(root: Path) -> Iterator[Finding]:
    """Reader and writer locks of the dead. DVC drops those that are in its way, unless another
    process has got the number.
    """
    for path in (root / ".dvc/tmp/rwlock", root / ".dvc/tmp/exps/rwlock"):
        if not path.is_file():
            continue
        when, place = since(path), relative_path(path, root)
        try:
            known = json.loads(path.read_bytes())
            dead = {entry["pid"] for entry in _entries(known) if not is_alive(entry["pid"], when)}
        except (ValueError, TypeError, KeyError, AttributeError):
            if not at_work(root):
                yield Finding(
                    f"{place} is cut short; DVC refuses to work",
                    when,
                    "removes the file",
                    path.unlink,
                )
            continue
        if dead:
            numbers = ", ".join(map(str, sorted(dead)))
            yield Finding(
                f"{place}: locks of dead processes ({numbers})",
                when,
                "drops these locks",
                partial(_release, path, dead),
            )


def _entries(known: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from known.get("write", {}).values()
    for readers in known.get("read", {}).values():
        yield from readers


def _release(path: Path, dead: set[int]) -> None:
    known = json.loads(path.read_bytes())
    kept: dict[str, Any] = {
        "write": {
            place: entry
            for place, entry in known.get("write", {}).items()
            if entry["pid"] not in dead
        },
        "read": {
            place: [one for one in entries if one["pid"] not in dead]
            for place, entries in known.get("read", {}).items()
        },
    }
    files.write_bytes(
        path,
        json.dumps(
            {**kept, "read": {place: found for place, found in kept["read"].items() if found}}
        ).encode(),
    )


def interrupted_setup(root: Path) -> Iterator[Finding]:
    """DVC puts edits of the workspace aside while it notes down an experiment; only a person knows
    which of them are wanted.
    """
    packed = root / ".dvc/tmp/repro.dat"
    if packed.is_file() and not at_work(root):
        what = "an experiment was killed while DVC set it up: the workspace holds what -S set, and your own edits may be in git's stash"
        hand = "git stash list; git checkout HEAD -- params.yaml; git stash pop; then rm .dvc/tmp/repro.dat"
        yield Finding(what, since(packed), hand, None)


def workspace_run(root: Path) -> Iterator[Finding]:
    """`dvc exp run` in the workspace."""
    note = root / ".dvc/tmp/exps/run/workspace/workspace.json"
    refs = [
        ref
        for ref in _git(root, "for-each-ref", "--format=%(refname)", "refs/exps/exec").split()
        if ref.rpartition("/")[2] in EXEC_REFS
    ]
    if (
        (note.is_file() or refs)
        and not is_alive(_json(note).get("pid", 0), since(note))
        and not at_work(root)
    ):
        story = note.with_suffix(".run")
        name = _json(story).get("name") or "without a name"
        what = f"the experiment {name} was killed in the workspace; what -S set is still in params.yaml (git diff)"
        yield Finding(
            what,
            since(story),
            "drops DVC's notes of the run, no file of yours",
            partial(_forget, root, refs, note.parent),
        )


def _forget(root: Path, refs: list[str], notes: Path) -> None:
    for ref in refs:
        _git(root, "update-ref", "-d", ref)
    remove(notes)


def temporary_runs(root: Path) -> Iterator[Finding]:
    """`dvc exp run --temp`: `dvc exp show` calls it Running for ever, and its folder takes disk."""
    top = root / ".dvc/tmp/exps/standalone"
    notes = {Path(_json(note).get("root_dir", "")).name: note for note in top.glob("run/*/*.run")}
    for folder in sorted(top.glob("tmp*")):
        owner = folder / ".dvc/tmp/lock"
        if _owned(owner) or at_work(folder) or (not owner.is_file() and at_work(root)):
            continue
        note = notes.get(folder.name)
        name = _json(note).get("name") if note else "without a name"
        gone = [
            folder,
            *([note.parent, root / ".dvc/tmp/exps/run" / note.parent.name] if note else []),
        ]
        what = f"the experiment {name} was killed in its temporary folder {relative_path(folder, root)}"
        yield Finding(
            what,
            since(folder),
            "removes the folder and DVC's notes of it; run it again to go on",
            partial(remove, *gone),
        )


def queue_tasks(root: Path) -> Iterator[Finding]:
    """Experiments of `dvc queue`: `dvc queue status` calls them Running for ever."""
    for note in sorted((root / ".dvc/tmp/exps/run").glob("*/*.json")):
        known, task = _json(note), _json(note.with_suffix(".run"))
        if (
            task.get("location") != "dvc-task"
            or known.get("returncode") is not None
            or is_alive(known.get("pid", 0), since(note))
        ):
            continue
        folder, name = (
            root / ".dvc/tmp/exps" / Path(task.get("root_dir", "")).name,
            task.get("name") or note.stem,
        )
        if at_work(folder):
            continue
        mend = partial(_fail, root, name, note, folder)
        what = f"the queued experiment {name} was killed with its worker"
        yield Finding(
            what,
            since(note),
            "tells DVC that it failed, and removes its folder; queue it again to go on",
            mend,
        )


def _fail(root: Path, name: str, note: Path, folder: Path) -> None:
    """Note down that its process is dead, or DVC would send a signal to whoever has the number by
    now; then it becomes a failed task.
    """
    files.write_json(note, {**_json(note), "returncode": -1})
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "queue", "kill", name],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DataError(f"dvc queue kill {name}: {done.stderr.strip()}")
    if folder.name.startswith("tmp"):
        remove(folder)


def _owned(lock: Path) -> bool:
    """Whether the process lives whose number stands in a lock of DVC's."""
    with suppress(OSError, ValueError):
        return is_alive(int(lock.read_text()), since(lock))
    return False


def _git(root: Path, *words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=root, capture_output=True, text=True, check=False
    ).stdout.strip()


def _json(path: Path) -> dict[str, Any]:
    try:
        found = files.read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def since(path: Path) -> float:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return time.time()


def relative_path(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def remove(*paths: Path) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


LOOKS = (
    git_locks,
    dvc_locks,
    interrupted_setup,
    workspace_run,
    temporary_runs,
    queue_tasks,
)


def main() -> None:
    """Explain, and mend if asked."""
    parser = command.parser(__doc__)
    parser.add_argument("--mend", action="store_true", help="do what is named, and nothing else")
    mend, root = parser.parse_args().mend, paths.root()
    found = examine(root)
    for process in at_work(root):
        with suppress(psutil.Error):
            print(
                f"at work, and left alone: process {process.pid}, {' '.join(process.cmdline()[:6])}"
            )
    for number, finding in enumerate(found, start=1):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(finding.since))
        print(
            f"{number}. since {when}: {finding.what}\n   {'mending' if finding.mend else 'by hand:'} {finding.mending}"
        )
        if mend and finding.mend:
            finding.mend()
            print("   mended")
    if not found:
        print("nothing is left behind")
    raise SystemExit(any(not (mend and finding.mend) for finding in found))


if __name__ == "__main__":
    exit_with(main)
