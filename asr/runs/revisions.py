"""Revisions of the repository that have results, and their files.

They are the workspace, DVC's experiments, branches, tags and commits; and, with reports alone, the
results under .cache/results and what the repository publishes: the reports of HEAD, which git has
in part, and those of kept models. Names come from git's refs
(10 ms, no import). A file is fetched once through DVC (1 s to import), from its cache or remote,
and kept under .cache/revisions/<sha>; a commit never changes, so this copy stays valid. Without git
or DVC there is only the workspace.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from asr import dvc_hashes, paths
from asr.errors import DataError, ParamsError, UserError
from asr.params import reader
from asr.runtime.locks import locked
from asr.storage import files, hashing
from asr.tracking import results

WORKSPACE, EXPERIMENT, BRANCH, TAG, COMMIT = "workspace", "experiment", "branch", "tag", "commit"
RESULT, PUBLISHED = "result", "published"
KEPT = "kept-"  # before the hash of a report of a kept model, in place of a sha
EXPERIMENT_REF = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/([^/]+)")
SHA = re.compile(r"[0-9a-f]{40}")
SHORT_SHA = re.compile(r"[0-9a-f]{7,40}")
SHA_DIGITS = 8  # characters of a sha that name a commit
MAX_COMMITS = 50
GIT_SECONDS = 30.0
BRANCHES = "refs/heads/"
TAGS = "refs/tags/"
REF_ORDER = (EXPERIMENT, BRANCH, TAG)
DVC_LOCK = threading.Lock()  # DVC's repositories are not thread-safe


@dataclass(frozen=True)
class Revision:
    """A revision; two of one name differ in their sha.

    Attributes:
        sha: of the commit; None of the workspace. Of a result its path below .cache/results, of a
            published kept model the hash of its report: these have no commit of their own.
    """

    name: str
    sha: str | None
    kind: str

    @property
    def key(self) -> str:
        """What no other revision has; HEAD, as it is published, is also a commit."""
        return f"{self.kind} {self.sha}" if self.kind == PUBLISHED else self.sha or ""


HERE = Revision(WORKSPACE, None, WORKSPACE)


def with_reports() -> list[Revision]:
    """All revisions: those of `list_revisions`, then kept results, then what is published."""
    return [*list_revisions(), *_results(), *_published()]


def _results() -> list[Revision]:
    return [Revision(result.name, result.key, RESULT) for result in results.kept()]


def _published() -> list[Revision]:
    """HEAD, and the kept models of which the repository has a report."""
    kept = [
        Revision(path.stem, f"{KEPT}{dvc_hashes.of_file(path)}", PUBLISHED)
        for path in sorted((paths.root() / paths.KEPT_REPORTS).glob("*.json"))
    ]
    try:
        sha = _git("rev-parse", "HEAD").strip()
    except (OSError, ValueError, subprocess.SubprocessError):
        return kept
    return [Revision(PUBLISHED, sha, PUBLISHED), *kept]


def list_revisions() -> list[Revision]:
    """The workspace, then experiments, branches and tags, each newest first, then commits.

    Commits are the latest 50 that changed dvc.lock.
    """
    try:
        refs = _git(
            "for-each-ref",
            "--sort=-committerdate",
            "--format=%(refname)%00%(objectname)%00%(*objectname)",
            "refs/exps",
            "refs/heads",
            "refs/tags",
        )
        log = _git("log", f"--max-count={MAX_COMMITS}", "--format=%H", "--", "dvc.lock")
    except (OSError, ValueError, subprocess.SubprocessError):
        return [HERE]
    named = [revision for line in refs.split("\n") if (revision := _revision(line))]
    named.sort(key=lambda revision: REF_ORDER.index(revision.kind))  # stable
    commits = [_commit(sha) for sha in log.split() if SHA.fullmatch(sha)]
    return [HERE, *named, *commits]


def _commit(sha: str) -> Revision:
    return Revision(sha[:SHA_DIGITS], sha, COMMIT)


def _revision(line: str) -> Revision | None:
    """The revision of one ref; None for DVC's own bookkeeping under refs/exps.

    For an annotated tag the sha is that of the commit it points to.
    """
    ref, _, rest = line.partition("\0")
    sha, _, tagged = rest.partition("\0")
    sha = tagged or sha
    if not SHA.fullmatch(sha):
        return None
    experiment = EXPERIMENT_REF.fullmatch(ref)
    if experiment:
        return Revision(experiment[1], sha, EXPERIMENT)
    for prefix, kind in ((BRANCHES, BRANCH), (TAGS, TAG)):
        if ref.startswith(prefix):
            return Revision(ref.removeprefix(prefix), sha, kind)
    return None


def find(name: str) -> Revision:
    """Find a revision by name or sha (seven digits or more).

    Of several with one name, it returns the first in the order of `with_reports`.

    Raises:
        ParamsError: there is no such revision.
    """
    revisions = with_reports()
    for revision in revisions:
        if name in (revision.name, revision.sha):
            return revision
    if SHORT_SHA.fullmatch(name):
        for revision in revisions:
            if revision.sha and revision.sha.startswith(name):
                return revision
        sha = _full_sha(name)
        if sha:
            return _commit(sha)
    short_name = " ".join(name.split())[:80]
    raise ParamsError(
        f"{short_name!r}: no such revision; "
        "want workspace, or what git branch, git tag and dvc exp list name"
    )


def command_name(revision: Revision) -> str:
    """What a command calls a revision: its name, or its sha where that names another one, too.

    `dvc exp apply` asks git before it looks among experiments, of which two may have one name, and
    `git checkout` prefers a branch to a tag. Costs 6 ms, 50 ms with 5,000 experiments.
    """
    name, sha = revision.name, str(revision.sha)
    if revision.kind == COMMIT:
        return sha
    if revision.kind == BRANCH:
        return name
    namesakes = f"{BRANCHES}{name}" if revision.kind == TAG else f"refs/exps/*/*/{name}"
    try:
        named = {*_git("for-each-ref", "--format=%(objectname)", namesakes).split()}
    except (OSError, ValueError, subprocess.SubprocessError):
        return name
    return name if {_full_sha(name), *named} <= {None, sha} else sha


def _full_sha(name: str) -> str | None:
    """The full sha of what git finds by a name or a short sha; None if that is no commit."""
    try:
        sha = _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").strip()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return sha if SHA.fullmatch(sha) else None


def _git(*arguments: str) -> str:
    """Run git on the repository at the root, never on one that encloses it; return its output."""
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


@lru_cache(maxsize=1000)
def params_at(sha: str) -> dict[str, Any]:
    """The params at a commit, flat; none if they cannot be read. Costs 60 ms, once."""
    try:
        text = _git("show", f"{sha}:params.yaml")
        return reader.flat(YAML(typ="safe", pure=True).load(text))
    except (OSError, ValueError, AttributeError, YAMLError, subprocess.SubprocessError):
        return {}


def fetch(revision: Revision, path: str) -> Path:
    """Return the path of a file or folder as it was at a revision; the workspace's is not copied.

    Costs nothing if it was fetched before, else importing DVC, 0.1 s per revision, and copying.

    Raises:
        ParamsError: the path leaves the repository.
        DataError: the revision does not have it, or neither DVC's cache nor a remote does.
    """
    inside = PurePosixPath(path)
    if inside.is_absolute() or ".." in inside.parts or not inside.parts:
        raise ParamsError(f"{path!r}: want a path from the top of the repository")
    if revision.sha is None:
        return _in_workspace(revision, inside)
    if revision.kind == RESULT:
        return _there(revision, results.folder(revision.sha) / inside)
    if revision.sha.startswith(KEPT):
        return _of_kept_model(revision, inside)
    folder = folder_of(revision.sha, str(inside))
    if not folder.is_dir():
        with locked(folder.parent / "lock"):
            if not folder.is_dir():  # another process may have been quicker
                with files.new_folder(folder) as draft:
                    _download(revision, inside, draft / inside.name)
    return folder / inside.name


def is_here(revision: Revision, path: str) -> bool:
    """Whether `fetch` has a file at once, without DVC."""
    if revision.sha and SHA.fullmatch(revision.sha):
        return folder_of(revision.sha, path).is_dir()
    with contextlib.suppress(UserError, OSError, ValueError):  # a report may be damaged
        return fetch(revision, path).exists()
    return False


def folder_of(sha: str, path: str) -> Path:
    """Where a file or folder of a commit is kept once it was fetched."""
    return paths.cache("revisions", sha, hashing.hash_of(path)[:16])


def _in_workspace(revision: Revision, inside: PurePosixPath) -> Path:
    path = paths.root() / inside
    if not path.exists():
        raise DataError(f"{inside} is not in the {revision.name}; run dvc repro, or dvc checkout")
    return path


def _there(revision: Revision, path: Path) -> Path:
    if not path.exists():
        raise DataError(f"{path.name} of {revision.name} was not kept; dvc repro makes it anew")
    return path


def _of_kept_model(revision: Revision, inside: PurePosixPath) -> Path:
    """The table of utterances of a kept model, or its scores, which stand in its report."""
    top = paths.root() / paths.KEPT_REPORTS
    path = _there(revision, top / f"{revision.name}.json")
    try:
        report = dict(files.read_json(path))
        if str(inside) == paths.METRICS:
            target = paths.cache("revisions", str(revision.sha), inside.name)
            if not target.is_file():
                files.write_json(target, report["metrics"])
            return target
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{path.name}: has no scores; make keep writes it anew") from None
    table = _there(revision, top / revision.name / inside.name)
    if dvc_hashes.of_file(table) != report.get(inside.stem):
        raise DataError(f"{inside.name} of {revision.name} is not the one that was kept")
    return table


def _download(revision: Revision, inside: PurePosixPath, target: Path) -> None:
    try:
        with DVC_LOCK:
            repository = _files_at(str(paths.root()), str(revision.sha))
            repository.get(f"/{inside}", str(target), recursive=True)
    # DVC raises errors of any kind, for a missing file and for a damaged repository.
    except Exception as error:
        _files_at.cache_clear()
        raise DataError(
            f"{inside} at {revision.name} is not to be had ({type(error).__name__}); "
            "try dvc fetch, or run it again"
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
