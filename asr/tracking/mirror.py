"""A mirror of the checkpoints, kept while a training runs, so that another machine can go on with
the same final bits.

    EARSHOT_MIRROR=/mnt/share dvc repro      # or s3://bucket/prefix, hf://buckets/me/mine: any address that fsspec can write to

A thread starts a process for each new checkpoint (`asr.tracking.mirror_copy`): a second of another
core, and its bytes on the network. Training waits for the mirror at its start, when the mirror may
know more, and at its end; no fault of the mirror stops or changes it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asr.errors import ModelError
from asr.runtime.formatting import without_secret
from asr.tracking.mirror_store import address
from asr.training import checkpoints

POLL_SECONDS = 0.5
LAST_SECONDS = 60.0  # that a finished training waits for its last copy
STOPPED_SECONDS = 5.0  # that a stopped one waits; the copy goes on without it


class CheckpointMirror:
    """A thread of the training's process that starts the processes which copy; one warning until a
    copy succeeds again.
    """

    def __init__(self, folder: Path, log: Path):
        self.folder, self.log, self.owner = folder, log, uuid.uuid4().hex
        self.taken = self.lost = self.warned = False
        self.copied: int | None = None
        self.ended = threading.Event()
        self._call("fetch")
        self.thread = threading.Thread(target=self._work, daemon=True, name="mirror")
        self.thread.start()

    def _work(self) -> None:
        tried = None
        while not self.ended.wait(POLL_SECONDS):
            newest = self._newest()
            if newest != tried:
                tried = newest
                self._call("push")
        self._call("end")

    def _newest(self) -> int | None:
        return next(iter(checkpoints.steps(self.folder, "step")), None)

    def _call(self, command: str) -> None:
        """Let a process do one thing, out of reach of a Ctrl-C that is meant for the training."""
        if self.lost:
            return
        newest = self._newest()
        given = [
            command,
            str(self.folder),
            str(self.log),
            self.owner,
            "" if self.taken else "force",
        ]
        kinds: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
        }
        done = subprocess.run(
            [sys.executable, "-m", "asr.tracking.mirror_copy", *given],
            **kinds,
            text=True,
            check=False,
            start_new_session=True,
        )
        said = done.stdout.splitlines()
        if done.returncode == 0:
            self.taken, self.warned, self.copied = True, False, newest
        else:
            self._warn(
                said.pop() if said else f"exit {done.returncode}",
                lost=done.returncode == ModelError.exit_code,
            )
        for line in said:
            print(line, flush=True)

    def _warn(self, fault: str, lost: bool) -> None:
        self.lost = lost
        if not self.warned:
            way_on = "" if lost else "; training goes on, and the next checkpoint tries again"
            print(f"warning: mirror: {re.sub(r'^error [0-9]+: ', '', fault)}{way_on}", flush=True)
        self.warned = True

    def finish(self, seconds: float) -> None:
        """Wait for the last copy; say what the mirror lacks."""
        self.ended.set()
        self.thread.join(seconds)
        newest = self._newest()
        if self.copied != newest:
            has = "none" if self.copied is None else f"that of step {self.copied}"
            goes_on = "; copying goes on" if self.thread.is_alive() else ""
            print(
                f"warning: {without_secret(address())} lacks the checkpoint of step {newest} (it has {has}){goes_on}",
                flush=True,
            )


@contextmanager
def copied(folder: Path, log: Path) -> Iterator[None]:
    """Begin with what the mirror knows, and copy there what the block saves; nothing if there is no
    mirror.
    """
    if not address():
        yield
        return
    follower = CheckpointMirror(folder, log)
    try:
        yield
    except BaseException:
        follower.finish(STOPPED_SECONDS)
        raise
    follower.finish(LAST_SECONDS)
