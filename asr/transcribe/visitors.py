"""What visitors of the dashboard brought and made, kept until a week after its last use.

Each visitor has a folder in .cache/visitors, which only the server's user can read:

    recordings/<id>.json, <id>.bytes    name, and the recording as it was brought
    transcripts/<id>.json               who heard what, and when
    corrections/<id>.json               corrected text by the number of its segment
    talk.json                           the conversation of the page Talk

It is found by a key that only the visitor's browser holds, and named by the key's hash. Samples are
not kept: the recording is decoded again. Files appear whole or not at all, and all writers hold one
lock, so that two tabs of one browser lose nothing. Importing costs numpy.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from asr import paths
from asr.decoding.segments import Segment
from asr.errors import DiskError, ParamsError
from asr.runtime import formatting
from asr.runtime.locks import locked
from asr.storage import files
from asr.transcribe.job_queue import DONE, WAITING, Job, Options

KEY = re.compile(r"[0-9a-f]{32}")  # 128 random bits
KEPT_DAYS = 7  # after the last use
MAX_BYTES = 2 * 10**9  # of one visitor
MAX_TOTAL_BYTES = 20 * 10**9  # of all visitors
DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError)  # what a bad file can raise


@dataclass(frozen=True)
class Recording:
    """A recording that a visitor brought.

    id: a hash of its content, or of path and time of a file in the server's folder.
    name: shown to the visitor; never used as a path.
    listed: its path in the server's folder, where it stays; None if its bytes are kept here.
    """

    id: str
    name: str
    listed: str | None = None


@dataclass(frozen=True)
class Transcript:
    """What one model heard in one recording.

    request: equal for the transcripts of two models that were asked for together.
    model: the model's shown name when it was asked for; `options.model` is the name to load.
    start, end: the stretch of the recording, in seconds.
    made: when it was asked for, in seconds since 1970.
    weights, settings, wer, state, language, language_source, language_probability, doubt, times,
        seconds, fault: as in `Job`.
    """

    id: str
    request: str
    recording: Recording
    model: str
    options: Options
    start: float
    end: float
    made: float
    state: str = WAITING
    weights: str | None = None
    settings: str | None = None
    wer: float | None = None
    language: str | None = None
    language_source: str | None = None
    language_probability: float | None = None
    doubt: str | None = None
    times: str | None = None
    seconds: float | None = None
    fault: str | None = None
    segments: tuple[Segment, ...] = ()

    def with_result(self, job: Job) -> Transcript:
        """The transcript with what a job has heard so far."""
        return replace(
            self,
            state=job.state,
            weights=job.weights,
            settings=job.settings,
            wer=job.wer,
            language=job.language,
            language_source=job.language_source,
            language_probability=job.language_probability,
            doubt=job.doubt,
            times=job.times,
            seconds=job.seconds,
            fault=job.fault,
            segments=tuple(job.segments),
        )

    @property
    def heard_until(self) -> float:
        """The moment of the recording up to which text is kept, in seconds."""
        if self.state == DONE:
            return self.end
        return self.segments[-1].end if self.segments else self.start

    @property
    def speed(self) -> float | None:
        """Seconds of sound heard per second of work; None until something is heard."""
        heard = self.heard_until - self.start
        return heard / self.seconds if self.seconds and heard > 0 else None


def new_id() -> str:
    """A name for a request; later ones come later in the alphabet."""
    return f"{time.time_ns():020d}-{secrets.token_hex(4)}"


def top() -> Path:
    """The folder of all visitors."""
    return paths.cache("visitors")


@dataclass(frozen=True)
class Visitor:
    """One visitor's folder, which exists once something is kept in it."""

    folder: Path

    @property
    def owner(self) -> str:
        """The visitor's id for `TranscriptionQueue`; the key cannot be computed from it."""
        return self.folder.name

    def touch(self) -> None:
        """Count this moment as the last use of all that is kept."""
        with suppress(FileNotFoundError):
            os.utime(self.folder)

    def recordings(self) -> list[Recording]:
        """All recordings, the one that was brought last first."""
        paths_found = _newest_first(self.folder / "recordings")
        return [recording for path in paths_found if (recording := _recording(path))]

    def keep_recording(self, recording: Recording, content: bytes | memoryview | None) -> None:
        """Keep a recording; one that is known already becomes the latest.

        Args:
            content: its bytes; None if it stays in the server's folder.
        Raises:
            DiskError: this visitor, or all together, would have too much here; or the disk refused.
        """
        path = self.recording_path(recording)
        with self._writing():
            if content is not None and not path.is_file():
                self._check_room(len(content))
                with files.draft(path) as part:
                    part.write_bytes(content)
            files.write_json(path.with_suffix(".json"), asdict(recording))

    def recording_path(self, recording: Recording) -> Path:
        """Where the bytes of a recording are kept."""
        return self.folder / "recordings" / f"{recording.id}.bytes"

    def transcripts(self) -> list[Transcript]:
        """All transcripts, newest first; those of one request in the order they were asked for."""
        paths_found = sorted((self.folder / "transcripts").glob("*.json"))
        found = [transcript for path in paths_found if (transcript := _transcript(path))]
        return sorted(found, key=lambda transcript: transcript.request, reverse=True)

    def reread(self, transcript: Transcript) -> Transcript:
        """A transcript as it is kept now; as it was, if it has just been deleted."""
        return _transcript(self._transcript_path(transcript.id)) or transcript

    def add_transcript(self, transcript: Transcript) -> None:
        """Begin a new entry of the history.

        Raises:
            DiskError: this visitor, or all together, have too much here.
        """
        with self._writing():
            self._check_room(0)
            files.write_json(self._transcript_path(transcript.id), asdict(transcript))

    def update_transcript(self, transcript: Transcript) -> None:
        """Write what was heard; nothing happens if the visitor has deleted the entry meanwhile."""
        with _locked():
            path = self._transcript_path(transcript.id)
            if path.is_file():
                files.write_json(path, asdict(transcript))
                self.touch()

    def corrections(self, transcript: Transcript) -> dict[int, str]:
        """The corrected texts of a transcript, by the number of the segment."""
        found = _read_object(self._corrections_path(transcript))
        return {int(number): str(text) for number, text in found.items() if number.isdecimal()}

    def correct(self, transcript: Transcript, number: int, text: str) -> None:
        """Keep the corrected text of one segment; all others stay as they are.

        A text that is what was heard is no correction.

        Raises:
            DiskError: the disk refused.
        """
        if not self._transcript_path(transcript.id).is_file():
            return  # deleted in another tab
        with self._writing():
            corrections = {**self.corrections(transcript), number: text}
            if text == transcript.segments[number].text:
                del corrections[number]
            files.write_json(self._corrections_path(transcript), corrections)

    def messages(self) -> list[dict[str, str]]:
        """The conversation of the page Talk: `role` and `content` of each message."""
        messages = _read_object(self.folder / "talk.json").get("messages", [])
        return [{"role": str(one["role"]), "content": str(one["content"])} for one in messages]

    def add_message(self, role: str, content: str) -> None:
        """Add a message to the conversation.

        Raises:
            DiskError: this visitor, or all together, have too much here.
        """
        with self._writing():
            self._check_room(0)
            messages = [*self.messages(), {"role": role, "content": content}]
            files.write_json(self.folder / "talk.json", {"messages": messages})

    def forget_messages(self) -> None:
        with _locked():
            (self.folder / "talk.json").unlink(missing_ok=True)

    def delete(self) -> None:
        """Delete all that is kept of this visitor."""
        with _locked():
            shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the lock, with the folder there, in the sight of the server's user alone.

        Raises:
            DiskError: the disk refused.
        """
        try:
            with _locked():
                self.folder.mkdir(mode=0o700, exist_ok=True)
                yield
                self.touch()
        except OSError as error:
            raise DiskError(
                f"it cannot be kept: {error.strerror}; make room on the server, then try again"
            ) from None

    def _check_room(self, num_bytes: int) -> None:
        """Refuse more than a visitor, or all together, may keep."""
        wanted = ((self.folder, MAX_BYTES, "you"), (top(), MAX_TOTAL_BYTES, "all visitors"))
        for folder, limit, whose in wanted:
            if _size(folder) + num_bytes > limit:
                raise DiskError(
                    f"the server keeps {formatting.bytes_text(limit)} for {whose}, and they are "
                    "full; delete everything you brought, at the end of the page, to make room"
                )

    def _transcript_path(self, name: str) -> Path:
        return self.folder / "transcripts" / f"{name}.json"

    def _corrections_path(self, transcript: Transcript) -> Path:
        return self.folder / "corrections" / f"{transcript.id}.json"


def visitor(key: object) -> Visitor:
    """The visitor whose browser sent this key.

    Raises:
        ParamsError: it is not 32 digits of a hexadecimal number.
    """
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise ParamsError("this browser sent a key that is none; allow this page to store data")
    return Visitor(top() / hashlib.sha256(key.encode()).hexdigest()[:32])


def sweep() -> None:
    """Delete what nobody used for KEPT_DAYS."""
    oldest = time.time() - KEPT_DAYS * 86_400
    for folder in _folders():
        if _modified(folder) < oldest:
            with _locked():
                if _modified(folder) < oldest:  # its visitor may just have come back
                    shutil.rmtree(folder, ignore_errors=True)


def _folders() -> list[Path]:
    try:
        return [path for path in top().iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []


def _modified(path: Path) -> float:
    """When a file or folder was changed or touched, in seconds since 1970; now if it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


@contextmanager
def _locked() -> Iterator[None]:
    """Let one thread of one server write at a time."""
    top().mkdir(parents=True, exist_ok=True)
    top().chmod(0o700)
    with locked(top() / "lock"):
        yield


def _size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"), key=_modified, reverse=True)


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is none or it cannot be read."""
    try:
        value = files.read_json(path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _recording(path: Path) -> Recording | None:
    """Read a recording's name; None if it has just been deleted, or is damaged."""
    try:
        return Recording(**files.read_json(path))
    except DAMAGED:
        return None


def _transcript(path: Path) -> Transcript | None:
    """Read a transcript; None if it has just been deleted, or is damaged."""
    try:
        return _parsed(path, path.stat().st_mtime_ns)
    except DAMAGED:
        return None


@lru_cache(maxsize=256)
def _parsed(path: Path, modified_ns: int) -> Transcript:  # noqa: ARG001 (part of the cache's key)
    """Parse a transcript once for each time it was written."""
    values = files.read_json(path)
    values["recording"] = Recording(**values["recording"])
    values["options"] = Options(**values["options"])
    values["segments"] = tuple(map(Segment.parse, values["segments"]))
    return Transcript(**values)
