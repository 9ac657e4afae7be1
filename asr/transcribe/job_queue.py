"""One model for many visitors: a queue of transcriptions, and each visitor's temporary files.

The process that owns the desk never imports torch, and stays quick while another one
(`asr.transcribe.worker`) decodes: one job at a time, first come, first served. What a visitor
brought lies in .cache/sessions, for nobody else to read, and goes when they go.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from asr.audio.sample_file import SampleFile, decode_apart
from asr.transcribe.formats import Segment

LOST_SECONDS = 60.0  # a visitor who is away so long has gone
TIDY_SECONDS = 10.0
GRACE_SECONDS = 10.0  # for the decoding process to hear that a job is cancelled
KEPT_SOUNDS = 3  # of one visitor
WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
DIED = "the decoding process died, perhaps for want of memory; a smaller model may fit"


@dataclass(frozen=True)
class Options:
    """Which model (the names of `transcription.place`), and what it is asked for; None takes the
    model's own.
    """

    model: str = "workspace"
    language: str | None = None
    task: str | None = None


@dataclass(eq=False)
class Job:
    """One transcription, filled in while it runs; `end` None means the recording's."""

    owner: str
    sound: SampleFile
    options: Options
    start: float
    end: float
    state: str = WAITING
    doing: str = ""
    moment: float = 0.0
    segments: list[Segment] = field(default_factory=list)
    language: str | None = None
    fault: str | None = None
    unwanted: threading.Event = field(default_factory=threading.Event)

    @property
    def ended(self) -> bool:
        return self.state in (DONE, FAILED, CANCELLED)

    @property
    def progress(self) -> float:
        """The share that is decoded."""
        return min(max((self.moment - self.start) / max(self.end - self.start, 1e-9), 0.0), 1.0)

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments if segment.text)

    def cancel(self) -> None:
        """Ends at once while it waits, else soon."""
        self.unwanted.set()
        if self.state == WAITING:
            self.state = CANCELLED


class TranscriptionQueue:
    """Takes jobs from all visitors of one server; thread-safe."""

    def __init__(self, folder: Path, present: Callable[[str], bool]):
        """Args:
        folder: for the temporary files of all servers on this machine.
        present: whether an owner still looks at a page.
        """
        self.folder, self.present = folder / str(os.getpid()), present
        shutil.rmtree(self.folder, ignore_errors=True)  # a dead server's that had our number
        sweep(folder)
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.queue: list[Job] = []
        self.changed = threading.Condition()
        self.decoding = WorkerProcess()
        self.unpacking = threading.Semaphore(2)  # recordings that are unpacked at once
        self.owners: dict[str, float] = {}
        for work in (self._work, self._tidy):
            threading.Thread(target=work, daemon=True, name=f"desk{work.__name__}").start()

    def bring(
        self,
        owner: str,
        recording: bytes | memoryview | Path,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> SampleFile:
        """Unpack what a visitor brought; file names play no part in where it goes.

        Raises:
            BadData: it holds no sound that can be read.
            Cancelled: `cancelled` told so.
        """
        folder = self._folder(owner)
        target = folder / f"{time.monotonic_ns()}.f32"
        with self.unpacking:
            if isinstance(recording, Path):
                return self._kept(folder, decode_apart(recording, target, cancelled))
            packed = target.with_suffix(".bytes")
            try:
                packed.write_bytes(recording)
                return self._kept(folder, decode_apart(packed, target, cancelled))
            finally:
                packed.unlink(missing_ok=True)

    def submit(
        self,
        owner: str,
        sound: SampleFile,
        options: Options,
        start: float = 0.0,
        end: float | None = None,
    ) -> Job:
        """Queue a transcription of a stretch of a recording."""
        job = Job(
            owner, sound, options, start, sound.duration if end is None else end, moment=start
        )
        with self.changed:
            self.owners[owner] = time.monotonic()
            self.queue.append(job)
            self.changed.notify_all()
        return job

    def position(self, job: Job) -> int:
        """How many jobs come first; 0 for the one that runs."""
        with self.changed:
            before = self.queue[: self.queue.index(job)] if job in self.queue else []
            return sum(not one.ended for one in before)

    def forget(self, owner: str) -> None:
        """Cancel a visitor's jobs and delete what they brought."""
        with self.changed:
            self.owners.pop(owner, None)
            for job in self.queue:
                if job.owner == owner:
                    job.cancel()
        shutil.rmtree(self.folder / _name(owner), ignore_errors=True)

    def _folder(self, owner: str) -> Path:
        with self.changed:
            self.owners[owner] = time.monotonic()
        folder = self.folder / _name(owner)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        return folder

    def _kept(self, folder: Path, sound: SampleFile) -> SampleFile:
        """Keep a visitor's latest sounds, and those that wait to be transcribed."""
        with self.changed:
            needed = {job.sound.path for job in self.queue}
        for old in sorted(folder.glob("*.f32"), key=lambda path: int(path.stem))[:-KEPT_SOUNDS]:
            if old not in needed:
                old.unlink(missing_ok=True)
        return sound

    def _work(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: bool(self.queue))
                job = self.queue[0]
            try:
                self.decoding.run(job)
            except OSError as error:
                job.fault, job.state = (
                    f"no decoding process can be started ({error.strerror}); try again",
                    FAILED,
                )
            finally:
                with self.changed:
                    self.queue.remove(job)

    def _tidy(self) -> None:
        while True:
            time.sleep(TIDY_SECONDS)
            now = time.monotonic()
            with self.changed:
                self.owners.update({owner: now for owner in self.owners if self.present(owner)})
                lost = [owner for owner, seen in self.owners.items() if now - seen > LOST_SECONDS]
            for owner in lost:
                self.forget(owner)


class WorkerProcess:
    """Our end of the decoding process, which is started when it is needed."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.count = 0

    def run(self, job: Job) -> None:
        """Have one job done, and write in it what happens."""
        if job.unwanted.is_set():
            job.state = CANCELLED
            return
        job.state, job.doing = RUNNING, "starting"
        self.count += 1
        order = {
            "job": self.count,
            "sound": str(job.sound.path),
            "start": job.start,
            "end": job.end,
            **asdict(job.options),
        }
        if not self._send(order):  # it may just have left, for want of work
            self._stop()
            self._send(order)
        deadline = float("inf")
        while not job.ended:
            if job.unwanted.is_set() and deadline == float("inf"):
                deadline = time.monotonic() + GRACE_SECONDS
                self._send({"cancel": self.count})
            try:
                self._note(job, self.events.get(timeout=0.2))
            except queue.Empty:
                if time.monotonic() > deadline:
                    self._stop()

    def _note(self, job: Job, event: dict[str, Any] | None) -> None:
        if event is None:
            self._stop()
            self._fail(job, DIED)
        elif event["job"] == self.count:
            job.doing, job.moment = event.get("doing", job.doing), event.get("moment", job.moment)
            job.language = event.get("language", job.language)
            if "segment" in event:
                job.segments.append(Segment(**event["segment"]))
            if "fault" in event:
                self._fail(job, event["fault"])
            elif "state" in event:
                job.state = event["state"]

    def _fail(self, job: Job, fault: str) -> None:
        job.fault = fault
        job.state = CANCELLED if job.unwanted.is_set() else FAILED

    def _send(self, message: dict[str, Any]) -> bool:
        """Whether the process took it."""
        if self.process is None:
            self._start()
        try:
            self.orders.write(json.dumps(message) + "\n")
            self.orders.flush()
        except (BrokenPipeError, ValueError):
            return False
        return True

    def _start(self) -> None:
        self.events = queue.Queue()
        command = [sys.executable, "-m", "asr.transcribe.worker"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self.orders = cast(IO[str], self.process.stdin)
        threading.Thread(
            target=_listen, args=(self.process.stdout, self.events), daemon=True, name="desk_listen"
        ).start()

    def _stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            with suppress(BrokenPipeError):
                self.orders.close()
        self.process = None


def _listen(stdout: IO[str], events: queue.Queue[dict[str, Any] | None]) -> None:
    """Pass the decoding process's events on; its end is None."""
    with stdout, suppress(ValueError):  # it may die in the middle of a line
        for line in stdout:
            events.put(json.loads(line))
    events.put(None)


def _name(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()[:16]


def sweep(folder: Path) -> None:
    """Delete what servers left behind that are no more."""
    for left in folder.glob("[0-9]*"):
        try:
            os.kill(int(left.name), 0)
        except (ProcessLookupError, ValueError):
            shutil.rmtree(left, ignore_errors=True)
        except PermissionError:
            continue
