"""Copy the checkpoints of a running training elsewhere, so that another machine can resume from it.

    EARSHOT_MIRROR=/mnt/share dvc repro

Or s3://bucket/prefix, hf://buckets/me/mine: any address that fsspec can write to. The other machine
ends with the same bits.

A thread starts a process for each new checkpoint (`asr.tracking.mirror_copy`): a second of another
core, and the bytes on the network. Training waits for the mirror at its start, when the mirror may
have a newer checkpoint, and at its end. No fault of the mirror stops or changes it.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asr.errors import ModelError, from_child
from asr.runtime.formatting import without_secret
from asr.tracking.mirror_store import address
from asr.training import checkpoints

POLL_SECONDS = 0.5
FINISHED_SECONDS = 60.0  # that a finished training waits for its last copy
STOPPED_SECONDS = 5.0  # that a stopped one waits; the copy goes on without it


class CheckpointMirror:
    """A thread of the training's process that starts the processes which copy.

    Attributes:
        owner: names this training in the mirror's lease.
        has_lease: a process of ours took the mirror.
        lost: another machine took the mirror after us; nothing more is copied.
        warned: a copy failed, and none succeeded since; one warning is enough.
        copied: the step that was copied last.
    """

    def __init__(self, folder: Path, log: Path):
        self.folder = folder
        self.log = log
        self.owner = uuid.uuid4().hex
        self.has_lease = False
        self.lost = False
        self.warned = False
        self.copied: int | None = None
        self.ended = threading.Event()
        self._run("fetch")
        self.thread = threading.Thread(target=self._work, daemon=True, name="mirror")
        self.thread.start()

    def _work(self) -> None:
        tried = None
        while not self.ended.wait(POLL_SECONDS):
            newest = self._newest()
            if newest != tried:
                tried = newest
                self._run("push")
        self._run("end")

    def _newest(self) -> int | None:
        return next(iter(checkpoints.steps(self.folder, "step")), None)

    def _run(self, command: str) -> None:
        """Run a command of `mirror_copy`, which a Ctrl-C for the training does not reach."""
        if self.lost:
            return
        newest = self._newest()
        force = "" if self.has_lease else "force"
        arguments = [command, str(self.folder), str(self.log), self.owner, force]
        done = subprocess.run(
            [sys.executable, "-m", "asr.tracking.mirror_copy", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            start_new_session=True,
        )
        lines = done.stdout.splitlines()
        if done.returncode == 0:
            self.has_lease = True
            self.warned = False
            self.copied = newest
        else:
            self.lost = done.returncode == ModelError.exit_code
            self._warn(lines.pop() if lines else f"exit {done.returncode}")
        for line in lines:
            print(line, flush=True)

    def _warn(self, fault: str) -> None:
        if not self.warned:
            _, text = from_child(fault) or (0, fault)
            if not self.lost:
                text += "; training goes on, and the next checkpoint tries again"
            print(f"warning: mirror: {text}", flush=True)
        self.warned = True

    def finish(self, seconds: float) -> None:
        """Wait for the last copy, and warn if the mirror lacks it."""
        self.ended.set()
        self.thread.join(seconds)
        newest = self._newest()
        if self.copied != newest:
            has = "none" if self.copied is None else f"that of step {self.copied}"
            goes_on = "; copying goes on" if self.thread.is_alive() else ""
            print(
                f"warning: {without_secret(address())} lacks the checkpoint of step {newest} "
                f"(it has {has}){goes_on}",
                flush=True,
            )


@contextmanager
def mirrored(folder: Path, log: Path) -> Iterator[None]:
    """Fetch a newer checkpoint from the mirror, and copy there what the block saves.

    Does nothing if there is no mirror.

    Args:
        folder: the checkpoints of this training.
        log: its journal.
    """
    if not address():
        yield
        return
    mirror = CheckpointMirror(folder, log)
    try:
        yield
    except BaseException:
        mirror.finish(STOPPED_SECONDS)
        raise
    mirror.finish(FINISHED_SECONDS)
