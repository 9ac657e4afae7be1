"""`python -c CODE` in children forked from one process that has imported what trains and
transcribes: a second each instead of eight.

A child has its own environment, folder, signals and exit code, and what it prints is kept. It is
forked from a process that has imported and done nothing else, never from one that has run tests:
that one has threads. All children have one hash seed; what may hang on the order of a set wants a
fresh interpreter. The first child waits for the imports, 6 s.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from support.repository import PYTHONPATH, REPOSITORY

HEAVY = ("stages.train", "stages.evaluate", "asr.transcribe.recognizer")
WITHOUT_MLFLOW = "from support.processes import without_mlflow\nwithout_mlflow()\n"


def run_harness(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m harness` with these arguments, in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


class Nursery:
    """The process that has imported, and the way to have it fork."""

    def __init__(self) -> None:
        command = [sys.executable, __file__]
        places = {"PYTHONPATH": PYTHONPATH}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, **places},
        )

    def run(
        self, code: str, *arguments: str, root: Path, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run code in a child whose working folder is `root`, and wait for its end."""
        assert self.process.stdin
        assert self.process.stdout
        with tempfile.TemporaryDirectory(prefix="earshot-child-") as told:
            wish = {
                "code": code,
                "arguments": arguments,
                "root": str(root),
                "environment": {**os.environ, **environment},
                "told": told,
            }
            print(json.dumps(wish), file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
            assert answer, "the process that forks has died"
            said = [
                (Path(told) / name).read_text(encoding="utf-8") for name in ("stdout", "stderr")
            ]
        return subprocess.CompletedProcess(["python", "-c", code, *arguments], int(answer), *said)

    def close(self) -> None:
        self.process.communicate()


def serve() -> None:
    """Fork a child for each line of standard input; answer with its exit code, which is negative
    for a signal.
    """
    for name in HEAVY:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(_live(**json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _live(
    code: str, arguments: list[str], root: str, environment: dict[str, str], told: str
) -> int:
    """In the child: what an interpreter does with `-c`; gives its exit code."""
    for number, path in enumerate((os.devnull, f"{told}/stdout", f"{told}/stderr")):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(root)
    sys.argv = ["-c", *arguments]
    ended: Any = 0
    try:
        exec(code, {"__name__": "__main__"})
    except SystemExit as end:
        ended = end.code or 0
    except BaseException:  # a child must not fall into its parent's code
        traceback.print_exc()
        ended = 1
    sys.stdout.flush()
    return int(ended)


if __name__ == "__main__":
    serve()
