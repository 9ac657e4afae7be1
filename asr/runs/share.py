"""Push experiments to a git remote together with their data, or say why the data would stay here.

    earshot share origin NAME...     # what `dvc exp push` does, if that takes the data along

DVC reads the remote for data from the experiment's own commit. Where that names none, as in an
experiment that is older than the remote, it pushes the commit alone, and says "Pushed". It says so
as well where files are no longer in its cache. Costs what is pushed, and 0.1 s.
"""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from asr import paths
from asr.errors import DataError, ParamsError, exit_with
from asr.runtime import command, git

CONFIG = ".dvc/config"
REMEDY = "dvc remote add --local -d NAME WHERE"  # such a remote counts for every commit
GONE = "do not exist neither locally nor on remote"  # what DVC says of files that it lacks
MAX_WAIT_SECONDS = 5  # for a git remote to list what it has
# git asks nobody for a password
SILENT = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}


def experiments(root: Path) -> dict[str, str]:
    """Commits of a repository's experiments by name; of one name, that of the present commit."""
    head = git.run(root, "rev-parse", "HEAD").stdout.strip()
    found = []
    for line in git.run(root, "for-each-ref", "refs/exps/??/*/*").stdout.splitlines():
        commit, _, ref = line.split()
        *_, first, rest, name = ref.split("/")
        found.append((first + rest == head, name, commit))
    return {name: commit for _, name, commit in sorted(found)}


def without_remote(root: Path, commits: dict[str, str]) -> list[str]:
    """Names of experiments that know no remote for data.

    Args:
        commits: of experiments, by name.
    """
    if not commits or any(map(_names_remote, map(_read, _personal_configs(root)))):
        return []
    wanted = "".join(f"{commit}:{CONFIG}\n" for commit in commits.values())
    told = git.run(root, "cat-file", "--batch-check=%(objectname)", stdin=wanted).stdout
    blobs = told.splitlines()
    configs = {blob: git.run(root, "cat-file", "blob", blob).stdout for blob in set(blobs)}
    named = {blob: _names_remote(config) for blob, config in configs.items()}
    return [name for name, blob in zip(commits, blobs, strict=True) if not named[blob]]


def _personal_configs(root: Path) -> Iterable[Path]:
    """Configs of DVC that count for every commit: of this clone, of the user, of the machine."""
    from dvc import dirs

    folders = (dirs.global_config_dir(), dirs.system_config_dir())
    return [root / f"{CONFIG}.local", *(Path(folder) / "config" for folder in folders)]


def shares_data(root: Path) -> bool:
    """Whether the workspace names a remote for data."""
    return _names_remote(_read(root / CONFIG))


def _names_remote(config: str) -> bool:
    """Whether a config of DVC names a default remote for data."""
    parser = configparser.RawConfigParser(strict=False)
    with suppress(configparser.Error):
        parser.read_string(config)
    return parser.has_option("core", "remote")


def pushed(root: Path, commits: list[str]) -> dict[str, set[str]]:
    """Which of these commits stand as experiments on git's remotes, by remote.

    A remote that does not answer within MAX_WAIT_SECONDS is left out.
    """
    found = {}
    silent: dict[str, Any] = {"env": {**os.environ, **SILENT}, "timeout": MAX_WAIT_SECONDS}
    for remote in git.run(root, "remote").stdout.splitlines() if commits else ():
        with suppress(subprocess.TimeoutExpired):
            told = git.run(root, "ls-remote", remote, "refs/exps/*", **silent).stdout
            there = {line.split()[0] for line in told.splitlines()}
            found[remote] = there.intersection(commits)
    return {remote: there for remote, there in found.items() if there}


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def share(root: Path, remote: str, names: list[str]) -> None:
    """Push experiments and their data.

    Raises:
        ParamsError: there is no such experiment, or no remote for its data.
        DataError: DVC could not push all of it.
    """
    commits = experiments(root)
    for name in names:
        if name not in commits:
            raise ParamsError(f"share: there is no experiment {name}; dvc exp list tells them")
    alone = without_remote(root, {name: commits[name] for name in names})
    if alone:
        raise ParamsError(
            f"share: the commit of {', '.join(alone)} names no remote for data, so DVC would push "
            f"it without its data; {REMEDY}, then share it again"
        )
    words = [sys.executable, "-m", "dvc", "exp", "push", remote, *names]
    done = subprocess.run(words, cwd=root, stderr=subprocess.PIPE, text=True, check=False)
    print(done.stderr, end="", file=sys.stderr)
    if done.returncode or GONE in done.stderr:
        raise DataError(f"share: not all data of {', '.join(names)} is there (see above)")


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("remote", help="of git, such as origin")
    parser.add_argument("names", nargs="+", metavar="name", help="of an experiment")
    arguments = parser.parse_args()
    share(paths.root(), arguments.remote, arguments.names)


if __name__ == "__main__":
    exit_with(main)
