"""Every state of the repository that has results: the workspace, DVC's experiments, branches, tags,
commits; and files as they were there.

Names come from git's refs (10 ms, no import). A file is fetched once through DVC (1 s to import),
from its cache or remote, and kept under .cache/revisions/<sha>: a commit does not change, so
neither does the copy. Without git or DVC there is the workspace alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from asr import paths
from asr.errors import DataError, ParamsError
from asr.runtime.locks import locked
from asr.storage import files, hashing

WORKSPACE, EXPERIMENT, BRANCH, TAG, COMMIT = "workspace", "experiment", "branch", "tag", "commit"
EXPERIMENT_REF = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/([^/]+)")
SHA = re.compile(r"[0-9a-f]{40}")
SHORT_SHA = re.compile(r"[0-9a-f]{7,40}")
SHA_DIGITS = 8  # characters of a sha that name a commit
COMMITS = 50
GIT_SECONDS = 30.0
OPEN = threading.Lock()  # DVC's repositories are not made for threads


@dataclass(frozen=True)
class Revision:
    """A state of the repository; the workspace has no sha. Names may repeat, shas tell them apart."""

    name: str
    sha: str | None
    kind: str


HERE = Revision(WORKSPACE, None, WORKSPACE)


def list_revisions() -> list[Revision]:
    """The workspace, experiments (newest first), branches, tags, and the latest 50 commits that
    changed dvc.lock.
    """
    try:
        refs = _git(
            "for-each-ref",
            "--sort=-committerdate",
            "--format=%(refname)%00%(objectname)%00%(*objectname)",
            *_PLACES,
        )
        commits = _git("log", f"--max-count={COMMITS}", "--format=%H", "--", "dvc.lock")
    except (OSError, ValueError, subprocess.SubprocessError):
        return [HERE]
    named = [one for line in refs.split("\n") if (one := _revision(line))]
    named.sort(
        key=lambda one: _KINDS.index(one.kind)
    )  # stable: within a kind the newest stays first
    return [
        HERE,
        *named,
        *(Revision(sha[:SHA_DIGITS], sha, COMMIT) for sha in commits.split() if SHA.fullmatch(sha)),
    ]


_PLACES = ("refs/exps", "refs/heads", "refs/tags")
_KINDS = (EXPERIMENT, BRANCH, TAG)


def _revision(line: str) -> Revision | None:
    """One ref; DVC's own bookkeeping under refs/exps is none, and an annotated tag means the commit
    behind it.
    """
    ref, _, rest = line.partition("\0")
    sha, _, behind = rest.partition("\0")
    sha = behind or sha
    if not SHA.fullmatch(sha):
        return None
    experiment = EXPERIMENT_REF.fullmatch(ref)
    if experiment:
        return Revision(experiment[1], sha, EXPERIMENT)
    for place, kind in (("refs/heads/", BRANCH), ("refs/tags/", TAG)):
        if ref.startswith(place):
            return Revision(ref.removeprefix(place), sha, kind)
    return None


def find(name: str) -> Revision:
    """The revision of that name or sha (seven digits or more); where a name repeats, the first in
    the order of `known`.

    Raises:
        BadParams: there is none.
    """
    revisions = list_revisions()
    for one in revisions:
        if name in (one.name, one.sha):
            return one
    if SHORT_SHA.fullmatch(name):
        for one in revisions:
            if one.sha and one.sha.startswith(name):
                return one
        sha = _commit(name)
        if sha:
            return Revision(sha[:SHA_DIGITS], sha, COMMIT)
    raise ParamsError(
        f"{' '.join(name.split())[:80]!r}: no such revision; want workspace, or what git branch, git tag and dvc exp list name"
    )


def _commit(short: str) -> str | None:
    """The whole sha of any commit of the repository."""
    try:
        sha = _git("rev-parse", "--verify", "--quiet", f"{short}^{{commit}}").strip()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return sha if SHA.fullmatch(sha) else None


def _git(*arguments: str) -> str:
    """Ask git about the repository at the root, and about no other that may lie around it."""
    top = paths.root()
    if not (top / ".git").exists():
        raise FileNotFoundError(f"{top} is no git repository")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    done = subprocess.run(
        ["git", "-C", str(top), *arguments],
        capture_output=True,
        check=True,
        stdin=subprocess.DEVNULL,
        timeout=GIT_SECONDS,
        env=environment,
    )
    return done.stdout.decode("utf-8", "surrogateescape")


def fetch(revision: Revision, path: str) -> Path:
    """A file or folder as it was at a revision; the workspace's own is given where it lies.

    Costs nothing when it is here already, else DVC's import, 0.1 s per revision, and the bytes.

    Raises:
        BadParams: a path that leaves the repository.
        BadData: the revision does not have it, or neither DVC's cache nor a remote does.
    """
    inside = PurePosixPath(path)
    if inside.is_absolute() or ".." in inside.parts or not inside.parts:
        raise ParamsError(f"{path!r}: want a path from the top of the repository")
    if revision.sha is None:
        return _here(revision, inside)
    kept = paths.cache("revisions", revision.sha, hashing.hash_of(str(inside))[:16])
    if not kept.is_dir():
        with locked(kept.parent / "lock"):
            if not kept.is_dir():
                with files.new_folder(kept) as draft:
                    _download(revision, inside, draft / inside.name)
    return kept / inside.name


def _here(revision: Revision, inside: PurePosixPath) -> Path:
    found = paths.root() / inside
    if not found.exists():
        raise DataError(f"{inside} is not in the {revision.name}; run dvc repro, or dvc checkout")
    return found


def _download(revision: Revision, inside: PurePosixPath, target: Path) -> None:
    try:
        with OPEN:
            _files_at(str(paths.root()), str(revision.sha)).get(
                f"/{inside}", str(target), recursive=True
            )
    # DVC and what it stands on raise of every kind, for a missing file as for a damaged repository
    except Exception as error:
        _files_at.cache_clear()
        raise DataError(
            f"{inside} at {revision.name} is not to be had ({type(error).__name__}); try dvc fetch, or run it again"
        ) from None
    if not target.exists():
        raise DataError(
            f"{inside} at {revision.name} is not to be had; try dvc fetch, or run it again"
        )


@lru_cache(maxsize=4)
def _files_at(top: str, sha: str) -> Any:
    """DVC's view of the repository's files at a commit."""
    os.environ.setdefault("DVC_NO_ANALYTICS", "true")
    from dvc.api import DVCFileSystem
    from dvc.repo import Repo

    return DVCFileSystem(repo=Repo(top, rev=sha))
