"""What a killed DVC, training or machine left behind, and what would be lost: explained, and mended
if asked.

    earshot doctor           # names what it finds and what mending would do; changes nothing;
                             # exit 1 if it found something
    earshot doctor --mend    # does that, and nothing else; exit 1 if something is left for a
                             # person to decide

What belongs to a living process is left alone. A training needs no doctor: it goes on from its
checkpoint. Costs a second, two with MLflow. Where experiments know no remote for data, git's
remotes are asked which of these they have.
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
from asr.runs import share
from asr.runtime import clone, command, git
from asr.runtime.processes import is_alive
from asr.storage import files
from asr.tracking import client, follower, journal

DRAFT_FOLDERS = ("data", "models", "reports", "recordings", ".cache", ".dvc/cache")
DRAFT_NAME = re.compile(r"\..*?(\.(?P<pid>\d+))?\.part|\.[\w-]{22}\.tmp")  # ours, and DVC's
EXPERIMENTS = ".dvc/tmp/exps"

# Git refs that DVC deletes when an experiment ends. EXEC_HEAD always stays, so it says nothing.
EXEC_REFS = ("EXEC_BASELINE", "EXEC_MERGE", "EXEC_BRANCH", "EXEC_APPLY")
MAX_SHOWN = 5  # experiments in a line
PROGRAMS = ("dvc", "git", "streamlit")


@dataclass(frozen=True)
class Finding:
    """One thing that was left behind.

    Attributes:
        what: its description.
        since: when it was left, in seconds since 1970.
        remedy: what mending does, or what the user can do.
        mend: the function that mends it; None if the user must decide.
    """

    what: str
    since: float
    remedy: str
    mend: Callable[[], None] | None


def examine(root: Path) -> list[Finding]:
    """All findings, in the order in which they are mended."""
    return [
        *git_locks(root),
        *dvc_locks(root),
        *interrupted_setup(root),
        *workspace_run(root),
        *temporary_runs(root),
        *queue_tasks(root),
        *drafts(root),
        *sessions(root),
        *tracked_runs(),
        *lacks_of_clone(root),
        *experiments_without_data(root),
    ]


def git_locks(root: Path) -> Iterator[Finding]:
    """Lock files of git, which refuses to work until they are gone."""
    folder = git.run(root, "rev-parse", "--absolute-git-dir").stdout.strip()
    if not folder or at_work(root):
        return
    for lock in sorted(Path(folder).rglob("*.lock")):
        where = relative_path(lock.parent, root)
        yield Finding(
            f"{lock.name} in {where}: git was killed while it wrote; git and DVC refuse to work",
            modified_at(lock),
            "removes the file",
            lock.unlink,
        )


def dvc_locks(root: Path) -> Iterator[Finding]:
    """Reader and writer locks of DVC whose process is dead.

    DVC drops such locks itself when they block it, unless a new process has got the same id.
    """
    for path in (root / ".dvc/tmp/rwlock", root / EXPERIMENTS / "rwlock"):
        if not path.is_file():
            continue
        when = modified_at(path)
        name = relative_path(path, root)
        try:
            entries = _lock_entries(json.loads(path.read_bytes()))
            dead = {entry["pid"] for entry in entries if not is_alive(entry["pid"], when)}
        except (ValueError, TypeError, KeyError, AttributeError):
            if not at_work(root):
                what = f"{name} is cut short; DVC refuses to work"
                yield Finding(what, when, "removes the file", path.unlink)
            continue
        if dead:
            numbers = ", ".join(map(str, sorted(dead)))
            what = f"{name}: locks of dead processes ({numbers})"
            yield Finding(what, when, "drops these locks", partial(_drop_locks, path, dead))


def _lock_entries(locks: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each lock {"pid": ..., "cmd": ...}; a path has one writer or many readers."""
    yield from locks.get("write", {}).values()
    for readers in locks.get("read", {}).values():
        yield from readers


def _drop_locks(path: Path, dead: set[int]) -> None:
    locks = json.loads(path.read_bytes())
    write = {
        locked_path: entry
        for locked_path, entry in locks.get("write", {}).items()
        if entry["pid"] not in dead
    }
    read = {}
    for locked_path, entries in locks.get("read", {}).items():
        living = [entry for entry in entries if entry["pid"] not in dead]
        if living:
            read[locked_path] = living
    files.write_bytes(path, json.dumps({"write": write, "read": read}).encode())


def interrupted_setup(root: Path) -> Iterator[Finding]:
    """An experiment that was killed while DVC set it up.

    During set-up DVC stashes edits of the workspace; only the user can say which of them to keep.
    """
    packed = root / ".dvc/tmp/repro.dat"
    if packed.is_file() and not at_work(root):
        yield Finding(
            "an experiment was killed while DVC set it up: the workspace holds what -S set, "
            "and your own edits may be in git's stash",
            modified_at(packed),
            "git stash list; git checkout HEAD -- params.yaml; git stash pop; "
            "then rm .dvc/tmp/repro.dat",
            None,
        )


def workspace_run(root: Path) -> Iterator[Finding]:
    """A killed `dvc exp run` in the workspace."""
    process_info = root / EXPERIMENTS / "run/workspace/workspace.json"
    listed = git.run(root, "for-each-ref", "--format=%(refname)", "refs/exps/exec").stdout
    all_refs = listed.split()
    refs = [ref for ref in all_refs if ref.rpartition("/")[2] in EXEC_REFS]
    if not process_info.is_file() and not refs:
        return
    if is_alive(_json(process_info).get("pid", 0), modified_at(process_info)) or at_work(root):
        return
    run_info = process_info.with_suffix(".run")
    name = _json(run_info).get("name") or "without a name"
    yield Finding(
        f"the experiment {name} was killed in the workspace; "
        "what -S set is still in params.yaml (git diff)",
        modified_at(run_info),
        "drops DVC's notes of the run, no file of yours",
        partial(_forget_run, root, refs, process_info.parent),
    )


def _forget_run(root: Path, refs: list[str], notes: Path) -> None:
    for ref in refs:
        git.run(root, "update-ref", "-d", ref)
    remove(notes)


def temporary_runs(root: Path) -> Iterator[Finding]:
    """A killed `dvc exp run --temp`.

    `dvc exp show` would call it Running for ever, and its folder takes disk space.
    """
    top = root / EXPERIMENTS / "standalone"
    run_infos = {
        Path(_json(path).get("root_dir", "")).name: path for path in top.glob("run/*/*.run")
    }
    for folder in sorted(top.glob("tmp*")):
        lock = folder / ".dvc/tmp/lock"
        starting = not lock.is_file() and bool(at_work(root))
        if _is_owned(lock) or at_work(folder) or starting:
            continue
        run_info = run_infos.get(folder.name)
        name = _json(run_info).get("name") if run_info else "without a name"
        leftovers = [folder]
        if run_info:
            leftovers += [run_info.parent, root / EXPERIMENTS / "run" / run_info.parent.name]
        where = relative_path(folder, root)
        yield Finding(
            f"the experiment {name} was killed in its temporary folder {where}",
            modified_at(folder),
            "removes the folder and DVC's notes of it; run it again to go on",
            partial(remove, *leftovers),
        )


def queue_tasks(root: Path) -> Iterator[Finding]:
    """Killed experiments of `dvc queue`; `dvc queue status` would call them Running for ever."""
    for process_info in sorted((root / EXPERIMENTS / "run").glob("*/*.json")):
        process = _json(process_info)
        task = _json(process_info.with_suffix(".run"))
        if task.get("location") != "dvc-task" or process.get("returncode") is not None:
            continue
        folder = root / EXPERIMENTS / Path(task.get("root_dir", "")).name
        if is_alive(process.get("pid", 0), modified_at(process_info)) or at_work(folder):
            continue
        name = task.get("name") or process_info.stem
        yield Finding(
            f"the queued experiment {name} was killed with its worker",
            modified_at(process_info),
            "tells DVC that it failed, and removes its folder; queue it again to go on",
            partial(_fail_task, root, name, process_info, folder),
        )


def _fail_task(root: Path, name: str, process_info: Path, folder: Path) -> None:
    """Mark a task whose process is dead as failed."""
    # With a return code `dvc queue kill` sends no signal. Without one it would kill whatever
    # process has this id now.
    files.write_json(process_info, {**_json(process_info), "returncode": -1})
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


def drafts(root: Path) -> Iterator[Finding]:
    """Temporary files and folders that a killed process had not yet renamed."""
    candidates = (path for folder in DRAFT_FOLDERS for path in (root / folder).rglob(".*"))
    for draft in sorted(path for path in candidates if DRAFT_NAME.fullmatch(path.name)):
        match = DRAFT_NAME.fullmatch(draft.name)
        pid = match["pid"] if match else None
        owned = is_alive(int(pid), modified_at(draft)) if pid else bool(at_work(root))
        if owned or follower.is_training(draft.parent.name):
            continue
        if not draft.is_relative_to(root / ".cache/sessions"):  # `sessions` removes it
            yield Finding(
                f"{relative_path(draft, root)}: its writer was killed half-way",
                modified_at(draft),
                "removes it",
                partial(remove, draft),
            )


def sessions(root: Path) -> Iterator[Finding]:
    """Recordings of visitors of a killed dashboard; the folder is named by its process id."""
    for folder in sorted((root / ".cache/sessions").glob("[0-9]*")):
        when = modified_at(folder)
        if not is_alive(int(folder.name), when):
            where = relative_path(folder, root)
            what = f"{where}: recordings of visitors of a dashboard that was killed"
            yield Finding(what, when, "removes them", partial(remove, folder))


def tracked_runs() -> Iterator[Finding]:
    """MLflow runs that are RUNNING, though their training has ended."""
    store = client.store_file()
    if store is not None and not store.is_file():
        return
    try:
        pages = client.read_runs(client.connect(), "attributes.status = 'RUNNING'")
        running = [run for page in pages for run in page]
    except Exception as error:  # an outage of any kind leaves the rest to be examined
        print(f"MLflow does not answer ({type(error).__name__}): its runs were not looked at")
        return
    for run in running:
        fingerprint = run["fingerprint"] or ""
        log = journal.path_of(fingerprint)
        if fingerprint and log.is_file() and not follower.is_training(fingerprint):
            yield Finding(
                f"MLflow's run {run['name']} stands RUNNING, but no training runs",
                run["start"] or 0.0,
                "brings it up to its journal and closes it",
                partial(follower.sync, [log]),
            )


def lacks_of_clone(root: Path) -> Iterator[Finding]:
    """What git lacks, so that DVC would refuse experiments, or lose them."""
    for lack in clone.lacks(root):
        yield Finding(lack.what, modified_at(lack.place), lack.remedy, None)


def experiments_without_data(root: Path) -> Iterator[Finding]:
    """Experiments that `dvc exp push` has sent without their data, or would.

    Those that nobody has pushed count once the workspace names a remote for data: before that,
    nobody shares.
    """
    commits = share.experiments(root)
    names = share.without_remote(root, commits)
    when = modified_at(root / share.CONFIG)
    for remote, there in share.pushed(root, [commits[name] for name in names]).items():
        sent = [name for name in names if commits[name] in there]
        names = [name for name in names if name not in sent]
        again = f"{share.REMEDY}; then dvc exp push {remote} {' '.join(sent)}"
        yield Finding(f"{_listed(sent)} went to {remote} without data", when, again, None)
    if names and share.shares_data(root):
        what = f"{_listed(names)}: dvc exp push would leave the data here, for the remote is newer"
        yield Finding(what, when, share.REMEDY, None)


def _listed(names: list[str]) -> str:
    """Experiments, the first MAX_SHOWN of them by name."""
    more = len(names) - MAX_SHOWN
    shown = ", ".join(names[:MAX_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
    return f"{'experiment' if len(names) == 1 else 'experiments'} {shown}"


def at_work(folder: Path) -> list[psutil.Process]:
    """Other processes of DVC, git, a stage or a page that work in `folder` or below it."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or not Path(process.cwd()).is_relative_to(folder):
                continue
            if _is_ours(process.cmdline()):
                processes.append(process)
    return processes


def _is_ours(command_line: list[str]) -> bool:
    return any(
        Path(word).name in PROGRAMS or word.startswith(("stages.", "asr."))
        for word in command_line[:4]
    )


def _is_owned(lock: Path) -> bool:
    """Whether the process whose id is in a lock file of DVC still runs."""
    with suppress(OSError, ValueError):
        return is_alive(int(lock.read_text()), modified_at(lock))
    return False


def _json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is none or it cannot be read."""
    try:
        value = files.read_json(path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def modified_at(path: Path) -> float:
    """When a file was written, in seconds since 1970; now, if it is not there."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return time.time()


def relative_path(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def remove(*targets: Path) -> None:
    """Delete files and whole folders; a file may be gone already."""
    for path in targets:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def main() -> None:
    """Print the findings, and mend them with `--mend`."""
    parser = command.parser(__doc__)
    parser.add_argument("--mend", action="store_true", help="do what is named, and nothing else")
    mend = parser.parse_args().mend
    root = paths.root()
    findings = examine(root)
    for process in at_work(root):
        with suppress(psutil.Error):
            words = " ".join(process.cmdline()[:6])
            print(f"at work, and left alone: process {process.pid}, {words}")
    for number, finding in enumerate(findings, start=1):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(finding.since))
        print(f"{number}. since {when}: {finding.what}")
        print(f"   {'mending' if finding.mend else 'by hand:'} {finding.remedy}")
        if mend and finding.mend:
            finding.mend()
            print("   mended")
    if not findings:
        print("nothing is left behind")
    raise SystemExit(any(not (mend and finding.mend) for finding in findings))


if __name__ == "__main__":
    exit_with(main)
