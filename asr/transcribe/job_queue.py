"""One model for many visitors: a queue of transcriptions, and the samples they need.

The server that owns the queue never imports torch, and stays responsive while another process
(`asr.transcribe.worker`) decodes: one job at a time, first come, first served. Jobs of a visitor
who left go on. Decoded samples lie in .cache/sessions, where only the server's user can read them,
and are deleted when the visitor has left and no job needs them. What outlives the server is kept by
`asr.transcribe.visitors`.
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
from asr.decoding.segments import Segment

LOST_SECONDS = 60.0  # a visitor who is disconnected for so long has left
TIDY_SECONDS = 10.0
GRACE_SECONDS = 10.0  # for the worker to stop a cancelled job, before it is killed
KEEP_SECONDS = 1.0  # from one keeping of what a running job has heard to the next
KEPT_SOUNDS = 4  # of each visitor
WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
# What an event may tell of its job.
TOLD = {
    "doing",
    "moment",
    "language",
    "language_source",
    "language_probability",
    "doubt",
    "times",
    "weights",
    "settings",
    "wer",
    "seconds",
}
DIED = "the decoding process died, perhaps for want of memory; a smaller model may fit"


@dataclass(frozen=True)
class Options:
    """The model, and the language and task it is prompted with.

    Attributes:
        model: a name as for `asr.transcribe.models.resolve`.
        language: Whisper's code; EACH for that of each piece; None for the model's own, and the
            detected one if it has none.
        task: transcribe or translate; None for the model's own.
    """

    model: str = "workspace"
    language: str | None = None
    task: str | None = None


@dataclass(eq=False)
class Job:
    """One transcription; its progress and result are written into it while it runs.

    Attributes:
        owner: id of the visitor.
        start, end: the stretch of the recording to transcribe, in seconds.
        state: WAITING, RUNNING, DONE, FAILED or CANCELLED.
        doing: what the worker is doing, in words.
        moment: everything before it is decoded, in seconds.
        segments: the segments decoded so far.
        language: the language that the model is prompted with; None until it is known, and for a
            model that knows one only.
        language_source, language_probability, doubt: as in `Prompt`.
        times: why the times are not the model's, in words; None where they are.
        weights: which weights they are, in words; None until they are loaded.
        settings: engine, precision and decoding, in words; None until then.
        wer: the model's test WER with these settings; None where it has none.
        seconds: how long the model has listened; None until it begins.
        fault: why it failed, in one line.
        name: whoever asked finds the job by it.
        keep: called with the job every KEEP_SECONDS while it hears something, and when it ended.
        cancelled: set when the visitor cancels it.
    """

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
    language_source: str | None = None
    language_probability: float | None = None
    doubt: str | None = None
    times: str | None = None
    weights: str | None = None
    settings: str | None = None
    wer: float | None = None
    seconds: float | None = None
    fault: str | None = None
    name: str = ""
    keep: Callable[[Job], None] = lambda _: None
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def ended(self) -> bool:
        return self.state in (DONE, FAILED, CANCELLED)

    @property
    def progress(self) -> float:
        """The share of the stretch that is decoded, 0 to 1."""
        share = (self.moment - self.start) / max(self.end - self.start, 1e-9)
        return min(max(share, 0.0), 1.0)

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments if segment.text)

    def cancel(self) -> None:
        """Cancel the job: a waiting job ends at once, a running one soon."""
        self.cancelled.set()
        if self.state == WAITING:
            self.state = CANCELLED


class TranscriptionQueue:
    """Takes jobs from all visitors of one server; thread-safe."""

    def __init__(
        self,
        folder: Path,
        present: Callable[[str], bool],
        on_tidy: Callable[[], None] = lambda: None,
    ):
        """Start the two threads that run jobs and delete the samples of visitors who left.

        Args:
            folder: for the temporary files of all servers on this machine.
            present: returns whether a visitor, by id, still has a page open.
            on_tidy: called every TIDY_SECONDS.
        """
        self.folder = folder / str(os.getpid())
        self.present = present
        self.on_tidy = on_tidy
        shutil.rmtree(self.folder, ignore_errors=True)  # of a dead server with our process id
        sweep(folder)
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.queue: list[Job] = []
        self.unkept: list[Job] = []  # ended, but not kept yet, because the disk was full
        self.changed = threading.Condition()  # guards the two lists and `last_seen`
        self.worker = WorkerProcess()
        self.unpacking = threading.Semaphore(2)  # recordings that are unpacked at once
        self.last_seen: dict[str, float] = {}  # of each owner
        for loop in (self._work, self._tidy):
            threading.Thread(target=loop, daemon=True, name=f"desk{loop.__name__}").start()

    def bring(
        self,
        owner: str,
        recording: bytes | memoryview | Path,
        cancelled: Callable[[], bool] = lambda: False,
        name: str = "",
    ) -> SampleFile:
        """Decode a visitor's recording to a file of samples in their folder.

        No name that the visitor chose becomes part of a path.

        Args:
            recording: the bytes of a file, or its path.
            cancelled: called while it is decoded; if it returns True, decoding stops.
            name: the same for the same recording, which is then decoded only if its samples are
                gone; a hash of it.
        Raises:
            DataError: the recording holds no sound that can be read.
            Cancelled: `cancelled` returned True.
        """
        folder = self._folder(owner)
        target = folder / f"{name or time.monotonic_ns()}.f32"
        with suppress(FileNotFoundError):
            os.utime(target)
            return SampleFile(target)
        # Two tabs may decode the same recording at once, so each has a file of its own.
        samples = folder / f"{time.monotonic_ns()}.f32"
        with self.unpacking:
            if isinstance(recording, Path):
                decode_apart(recording, samples, cancelled)
            else:
                _decode_bytes(recording, samples, cancelled)
            samples.replace(target)
            self._drop_old_sounds(folder)
        return SampleFile(target)

    def submit(
        self,
        owner: str,
        sound: SampleFile,
        options: Options,
        start: float = 0.0,
        end: float | None = None,
        name: str = "",
        keep: Callable[[Job], None] = lambda _: None,
    ) -> Job:
        """Queue a transcription from `start` to `end`, in seconds; by default up to the end.

        Args:
            name, keep: as in `Job`.
        """
        if end is None:
            end = sound.duration
        job = Job(owner, sound, options, start, end, moment=start, name=name, keep=keep)
        with self.changed:
            self.last_seen[owner] = time.monotonic()
            self.queue.append(job)
            self.changed.notify_all()
        return job

    def position(self, job: Job) -> int:
        """The number of jobs before this job; 0 for the job that runs."""
        with self.changed:
            before = self.queue[: self.queue.index(job)] if job in self.queue else []
            return sum(not other.ended for other in before)

    def find(self, name: str) -> Job | None:
        """The job of this name that waits, runs, or could not be kept; None if there is none."""
        with self.changed:
            return next((job for job in (*self.queue, *self.unkept) if job.name == name), None)

    def is_busy(self, prefix: str) -> bool:
        """Whether a job waits or runs whose name begins so."""
        with self.changed:
            return any(job.name.startswith(prefix) and not job.ended for job in self.queue)

    def forget(self, owner: str) -> None:
        """Cancel a visitor's jobs and delete their samples."""
        with self.changed:
            self.last_seen.pop(owner, None)
            for job in self.queue:
                if job.owner == owner:
                    job.cancel()
        shutil.rmtree(self.folder / _folder_name(owner), ignore_errors=True)

    def _folder(self, owner: str) -> Path:
        with self.changed:
            self.last_seen[owner] = time.monotonic()
        folder = self.folder / _folder_name(owner)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        return folder

    def _drop_old_sounds(self, folder: Path, num_kept: int = KEPT_SOUNDS) -> bool:
        """Delete a visitor's samples, except those used last and those of queued jobs.

        Returns:
            whether no more than `num_kept` are left.
        """
        with self.changed:
            needed = {job.sound.path for job in self.queue}
            by_use = sorted(folder.glob("*.f32"), key=lambda path: path.stat().st_mtime_ns)
            old = by_use[: max(len(by_use) - num_kept, 0)]
            for path in old:
                if path not in needed:
                    path.unlink(missing_ok=True)
        return needed.isdisjoint(old)

    def _work(self) -> None:
        """The first thread: run one job after the other."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: bool(self.queue))
                job = self.queue[0]
            try:
                self.worker.run(job)
            except OSError as error:
                job.fault = f"no decoding process can be started ({error.strerror}); try again"
                job.state = FAILED
            finally:
                is_kept = keep(job)
                with self.changed:
                    self.queue.remove(job)
                    if not is_kept:
                        self.unkept.append(job)

    def _tidy(self) -> None:
        """The second thread: forget visitors who have left, and keep what could not be kept."""
        while True:
            time.sleep(TIDY_SECONDS)
            with suppress(OSError):  # perhaps next time
                self.on_tidy()
            for job in [job for job in self.unkept if keep(job)]:
                with self.changed:
                    self.unkept.remove(job)
            for owner in self._lost():
                if self._drop_old_sounds(self.folder / _folder_name(owner), 0):
                    with self.changed:
                        self.last_seen.pop(owner, None)

    def _lost(self) -> list[str]:
        """The visitors who have had no page open for LOST_SECONDS."""
        now = time.monotonic()
        with self.changed:
            present = [owner for owner in self.last_seen if self.present(owner)]
            self.last_seen.update(dict.fromkeys(present, now))
            return [owner for owner, seen in self.last_seen.items() if now - seen > LOST_SECONDS]


def keep(job: Job) -> bool:
    """Have a job's result kept; False if the disk refused."""
    try:
        job.keep(job)
    except OSError:
        return False
    return True


def _decode_bytes(
    recording: bytes | memoryview, samples: Path, cancelled: Callable[[], bool]
) -> SampleFile:
    encoded = samples.with_suffix(".bytes")
    try:
        encoded.write_bytes(recording)
        return decode_apart(encoded, samples, cancelled)
    finally:
        encoded.unlink(missing_ok=True)


class WorkerProcess:
    """The server's end of the decoding process, which is started when it is needed."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.count = 0  # of jobs so far, which is also the number of the present job

    def run(self, job: Job) -> None:
        """Run one job to its end, and write its progress and result into it."""
        if job.cancelled.is_set():
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
        if not self._send(order):  # the worker may just have exited, because it was idle
            self.stop()
            self._send(order)
        self._follow(job)

    def _follow(self, job: Job) -> None:
        """Apply events until the job has ended; kill a worker that does not stop in time."""
        deadline = float("inf")
        kept_at, num_kept = -float("inf"), 0
        while not job.ended:
            now = time.monotonic()
            if len(job.segments) > num_kept and now - kept_at > KEEP_SECONDS:
                keep(job)
                kept_at, num_kept = now, len(job.segments)
            if job.cancelled.is_set() and deadline == float("inf"):
                deadline = time.monotonic() + GRACE_SECONDS
                self._send({"cancel": self.count})
            try:
                self._apply(job, self.events.get(timeout=0.2))
            except queue.Empty:
                # The end of the worker arrives as an event, and the job then fails.
                if time.monotonic() > deadline:
                    self.stop()

    def _apply(self, job: Job, event: dict[str, Any] | None) -> None:
        """Write an event into the job; None means that the process ended."""
        if event is None:
            self.stop()
            self._fail(job, DIED)
        elif event["job"] == self.count:
            for name in TOLD & event.keys():
                setattr(job, name, event[name])
            if "segment" in event:
                job.segments.append(Segment.parse(event["segment"]))
            if "fault" in event:
                self._fail(job, event["fault"])
            elif "state" in event:
                job.state = event["state"]

    def _fail(self, job: Job, fault: str) -> None:
        job.fault = fault
        job.state = CANCELLED if job.cancelled.is_set() else FAILED

    def _send(self, message: dict[str, Any]) -> bool:
        """Write a line to the process, which is started if necessary; False if it has exited."""
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
        arguments = (self.process.stdout, self.events)
        threading.Thread(
            target=read_events, args=arguments, daemon=True, name="desk_listen"
        ).start()

    def stop(self) -> None:
        """Kill the process, if there is one; the next job starts another."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            with suppress(BrokenPipeError):
                self.orders.close()
        self.process = None


def read_events(stdout: IO[str], events: queue.Queue[dict[str, Any] | None]) -> None:
    """Queue the events of the decoding process, and None at its end."""
    with stdout, suppress(ValueError):  # the process may die in the middle of a line
        for line in stdout:
            events.put(json.loads(line))
    events.put(None)


def _folder_name(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()[:16]


def sweep(folder: Path) -> None:
    """Delete the folders of servers that have ended; each is named by its process id."""
    for path in folder.glob("[0-9]*"):
        try:
            os.kill(int(path.name), 0)  # signal 0 only tests whether the process exists
        except (ProcessLookupError, ValueError):
            shutil.rmtree(path, ignore_errors=True)
        except PermissionError:  # the process exists and belongs to another user
            continue
