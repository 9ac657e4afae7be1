"""A small DVC repository whose one stage waits if told to, and real commands in it that are killed
while they wait.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from asr import doctor
from support.waiting import wait_for

STAGE = """
import os, pathlib, time
out = pathlib.Path("out")
out.mkdir()
(out / "first").write_text("half")
if "FLAG" in os.environ:
    pathlib.Path(os.environ["FLAG"]).touch()
    time.sleep(600)
(out / "second").write_text(pathlib.Path("params.yaml").read_text())
"""
GRAPH = (
    "stages:\n  wait:\n    cmd: exec python wait.py\n    deps: [wait.py]\n    params: [n]\n  "
    "  outs: [out]\n"
)
CONFIG = "[core]\n    analytics = false\n    check_update = false\n    autostage = true\n"


def environment(home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "GIT_"))}
    return {
        **kept,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def run(root: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=root, env=environment(root.parent), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make(root: Path) -> Path:
    """A committed run."""
    root.mkdir()
    for name, text in (("wait.py", STAGE), ("dvc.yaml", GRAPH), ("params.yaml", "n: 1\n")):
        (root / name).write_text(text)
    for words in ("init -q -b main", "config user.email test@localhost", "config user.name test"):
        run(root, "git", *words.split())
    run(root, "dvc", "init", "-q")
    (root / ".dvc/config").write_text(CONFIG)
    run(root, "dvc", "repro", "-q")
    run(root, "git", "add", "-A")
    run(root, "git", "commit", "-qm", "start")
    return root


class Waiting:
    """A command that waits, in the middle of its work, with all processes that it started."""

    def __init__(self, root: Path, *command: str, **more: str):
        self.root, flag = root, root.parent / "flag"
        flag.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            command,
            cwd=root,
            env={**environment(root.parent), "FLAG": str(flag), **more},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(flag.exists)

    def kill(self) -> None:
        """All at once, as when the machine stops."""
        first = doctor.at_work(self.root)
        for process in [
            *first,
            *(child for parent in first for child in parent.children(recursive=True)),
        ]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        wait_for(lambda: not doctor.at_work(self.root))
