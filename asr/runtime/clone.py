"""What a git clone lacks for DVC's experiments, and the commands that bring it.

    python -m asr.runtime.clone     # says it; `make repro` does so before it works

`dvc exp run --temp` and `dvc queue` work in folders of their own, from which DVC fetches the result
by git. Where git has no older commits, that fetch fails without a word: DVC says Success, and no
experiment is kept. Costs a few calls of git, some milliseconds each.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from asr import paths
from asr.errors import ParamsError
from asr.runtime import git

ASIDE = "`dvc exp run --temp` and the queue"
SHALLOW = f"this clone is shallow, and DVC would lose what {ASIDE} make in it"
UNSHALLOW = "git fetch --unshallow"


@dataclass(frozen=True)
class Lack:
    """Something that a clone lacks.

    Attributes:
        what: it, and what comes of that.
        remedy: the commands that bring it.
        place: a file of git that is as old as the lack.
    """

    what: str
    remedy: str
    place: Path


def lacks(root: Path) -> list[Lack]:
    """What a clone lacks; the first lack may hide others.

    Args:
        root: top of the repository.
    """
    found = git.run(root, "rev-parse", "--absolute-git-dir")
    if found.returncode:
        reason = found.stderr.partition("\n")[0].removeprefix("fatal: ")
        what = f"git finds no repository here ({reason}), so DVC refuses to work"
        remedy = "git clone it; or here: git init, make setup, git add -A, git commit -m start"
        return [Lack(what, remedy, root)]
    folder = Path(found.stdout.strip())
    if git.run(root, "cat-file", "-e", "HEAD:./dvc.yaml").returncode:
        what = "no commit holds dvc.yaml, so DVC refuses experiments (Empty git repo)"
        return [Lack(what, "git add -A, git commit -m start", folder)]
    missing = []
    if is_shallow(root):
        common = Path(git.run(root, "rev-parse", "--git-common-dir").stdout.strip())
        missing.append(Lack(SHALLOW, UNSHALLOW, root / common / "shallow"))
    if _lacks_objects(root):
        what = f"this clone is partial, and {ASIDE} stop in it with an unexpected error"
        missing.append(Lack(what, "git fetch --refetch --no-filter", folder))
    return missing


def is_shallow(root: Path) -> bool:
    """Whether a clone lacks older commits, as after `git clone --depth 1`."""
    return git.run(root, "rev-parse", "--is-shallow-repository").stdout.strip() == "true"


def _lacks_objects(root: Path) -> bool:
    """Whether a clone lacks older files, as after `git clone --filter=blob:none`."""
    if git.run(root, "config", "--get-regexp", r"^remote\..*\.promisor$").returncode:
        return (
            False  # only such a remote may leave objects out; asking for all of them takes longer
        )
    objects = git.run(root, "rev-list", "--objects", "--missing=print", "HEAD").stdout
    return any(line.startswith("?") for line in objects.splitlines())


def refuse_if_lost() -> None:
    """Stop a stage of an experiment that DVC would lose when it ends. Costs nothing elsewhere.

    Raises:
        ParamsError: the experiment works in a folder of its own, beside a shallow clone.
    """
    root = paths.root()
    is_aside = "DVC_EXP_NAME" in os.environ and root != Path.cwd()
    if is_aside and is_shallow(root):
        raise ParamsError(f"{SHALLOW}; {UNSHALLOW}, or run it without --temp and --queue")


def main() -> None:
    """Print what this clone lacks."""
    for lack in lacks(paths.root()):
        print(f"note: {lack.what}; what mends it: {lack.remedy}")


if __name__ == "__main__":
    main()
