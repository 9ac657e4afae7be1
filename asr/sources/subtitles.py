"""Subtitles: SubRip (.srt) and WebVTT (.vtt) read cue by cue, and long recordings cut at them. 10
us a cue; a cut decodes a recording once.

Every cue is one utterance: none is joined with the next, and overlapping ones both keep their
stretch. What a cue says is its words: tags, places, entities of WebVTT and music signs go, and so
does what stands in square brackets, by which captions describe sounds; a cue of nothing else has no
text. Voices (`<v Ann>`) are told apart. Cues that are empty, reversed, or past the end of the
recording stay, without text or without sound, so that they are counted; times and blocks that
cannot be read are refused with their line. (pysubs2, srt and webvtt-py each pass over some cues
they cannot read, or misread times without hours, and say nothing.)
"""

from __future__ import annotations

import hashlib
import html
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asr.audio.codec import MAX_SECONDS
from asr.audio.sample_file import SAMPLE_BYTES, SampleFile, decode_apart, flac
from asr.errors import DataError
from asr.runtime import disk
from asr.runtime.locks import locked
from asr.sources.tables import lines, printable
from asr.sources.utterances import one_line
from asr.whisper import SAMPLE_RATE

MOMENT = r"(?:(\d{1,4}):)?([0-5]?\d):([0-5]?\d)(?:[.,](\d{1,3}))?"
TIMES = re.compile(rf"\s*{MOMENT}\s*-->\s*{MOMENT}(?:\s.*)?", re.ASCII | re.DOTALL)
ARROW = "-->"
UNSPOKEN = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s|$)")
SRT_TAG = re.compile(r"</?(?:b|i|u|s|font)(?:\s[^<>]*)?>|\{\\[^{}]*\}", re.IGNORECASE)
VTT_TAG = re.compile(r"<[^<>]*>")
VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^<>]+)>")
NOISE = re.compile(r"\[[^\[\]]*\]|[♩♪♫♬]")
MAX_TIMES = 1000  # characters that times, and the places after them, may take
MAX_BLOCK = 1 << 20  # characters between two lines with times
# s of one cue that are cut out; a cue that claims more is a slip in its times, and is counted as
# cut short
MAX_CUE_SECONDS = 300.0
MAX_DECODED_BYTES = 2 << 30  # of decoded recordings at once: nine hours


@dataclass(frozen=True)
class Cue:
    """What is said from `start` to `end`, in seconds, and by whom where one voice is named."""

    start: float
    end: float
    text: str
    voice: str | None


def cues(path: Path) -> Iterator[Cue]:
    """The cues of a file in its own order.

    Raises:
        BadData: times that cannot be read, text that belongs to no cue, no cue at all, no WebVTT
            where the name says so.
    """
    cue = None
    for cue in (_webvtt if path.suffix.lower() == ".vtt" else _subrip)(path):
        yield cue
    if cue is None:
        raise DataError(f"{path}: no subtitle in it; remove it, or the recording beside it")


def _blocks(path: Path) -> Iterator[tuple[int, list[str], tuple[float, float] | None]]:
    """Each line with times: its number, the lines above it down from the one before, its moments;
    at the end the rest, without.
    """
    above: list[str] = []
    number = size = 0
    for number, line in enumerate(lines(path), 1):
        if ARROW in line:
            yield number, above, _times(path, number, line)
            above, size = [], 0
        else:
            above.append(line.rstrip("\r\n"))
            size += len(line)
        if size > MAX_BLOCK:
            raise DataError(f"{path}:{number}: more than {MAX_BLOCK:,} characters without times")
    yield number, above, None


def _times(path: Path, number: int, line: str) -> tuple[float, float]:
    found = TIMES.fullmatch(line[:MAX_TIMES])
    if not found:
        raise DataError(
            f"{path}:{number}: got {printable(line.strip())}, want times such as 00:01:02,500 --> 00:01:04,000"
        )
    parts = found.groups()
    return _seconds(*parts[:4]), _seconds(*parts[4:])


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    return round(
        int(hours or 0) * 3600 + int(minutes) * 60 + float(f"{seconds}.{fraction or 0}"), 3
    )


def _subrip(path: Path) -> Iterator[Cue]:
    """An empty line within a text is a part of it, for nothing but the next times ends one."""
    times: tuple[float, float] | None = None
    known: int | None = None
    for _, above, found in _blocks(path):
        said, known = _unnumbered(above if times else ["", *above], known)
        words = _spoken(SRT_TAG.sub("", " ".join(said)))
        if times:
            yield Cue(*times, words, None)
        elif words:
            raise DataError(f"{path}:1: text above the first times: {printable(words)}")
        times = found


def _unnumbered(above: list[str], known: int | None) -> tuple[list[str], int | None]:
    """A text without the next cue's number, and that number: digits below an empty line, or those
    that must come next.
    """
    said = [line.strip() for line in above]
    while said and not said[-1]:
        said.pop()
    last = said[-1] if said else ""
    if last.isdecimal() and (
        (len(said) > 1 and not said[-2]) or (known is not None and last == str(known + 1))
    ):
        return said[:-1], int(last[:9])
    return said, known


def _webvtt(path: Path) -> Iterator[Cue]:
    """An empty line ends a text; below it stand notes, styles, and the next cue's name."""
    times: tuple[float, float] | None = None
    for line, above, found in _blocks(path):
        said, rest = _parted(above)
        if times is None and not re.match(r"WEBVTT(?:\s|$)", said[0] if said else ""):
            raise DataError(f"{path}:1: want WEBVTT, by which such a file begins")
        if stray := _stray(rest, found is not None):
            raise DataError(
                f"{path}:{line}: above this line stands text that is in no cue: {printable(stray)}"
            )
        if times:
            words = " ".join(said)
            voices = {one_line(html.unescape(name)) for name in VOICE.findall(words)}
            yield Cue(
                *times,
                _spoken(html.unescape(VTT_TAG.sub("", words))),
                voices.pop() if len(voices) == 1 else None,
            )
        times = found


def _parted(above: list[str]) -> tuple[list[str], list[str]]:
    at = above.index("") if "" in above else len(above)
    return above[:at], above[at:]


def _stray(rest: list[str], named: bool) -> str:
    """The first line that is neither note, style or region, nor the name of the cue that follows at
    once.
    """
    last = rest.pop() if named and rest else ""
    waiting = "" if not rest or not rest[-1] else last
    free = True
    for line in [*rest, waiting]:
        free = free and not UNSPOKEN.match(line) if line else True
        if line and free:
            return line
    return ""


def _spoken(words: str) -> str:
    return one_line(NOISE.sub(" ", words))


def cut(recording: Path, working: Path, start: float, end: float) -> bytes | None:
    """A stretch of a recording; the first to be cut has the whole decoded, apart and with limits.

    Args:
        recording: in any format that we decode.
        working: a folder that the caller throws away; it takes up to KEPT_BYTES of samples, and
            those of one recording per process.
        start, end: seconds; of more than LONGEST the beginning is cut.
    Returns:
        FLAC bytes: mono, 16 bit, 16 kHz, without a sample where the recording has ended or cannot
            be decoded; None where it is not there.
    """
    if not recording.is_file():
        return None
    samples = working / f"{hashlib.sha256(os.fsencode(recording)).hexdigest()[:20]}.samples"
    while True:
        with locked(samples.with_suffix(".lock")):
            if not samples.is_file():
                _decode(recording, samples)
        try:
            return flac(SampleFile(samples), start, min(end, start + MAX_CUE_SECONDS))
        except FileNotFoundError:  # it gave way to another one meanwhile
            continue


def _decode(recording: Path, samples: Path) -> None:
    """Samples of the whole; none, and a line that says why, for what cannot be decoded."""
    with locked(samples.with_name("room.lock")):
        _make_room(samples.parent)
    try:
        decode_apart(recording, samples)
    except DataError as fault:
        disk.check_free_space(
            samples.parent, MAX_SECONDS * SAMPLE_RATE * SAMPLE_BYTES, f"{recording.name}, decoded,"
        )  # else the disk is to blame
        print(f"download: {recording.name}: {fault}; its subtitles stay without sound", flush=True)
        samples.touch()


def _make_room(working: Path) -> None:
    """Drop the decoded recordings that are oldest; a corpus comes recording by recording, so that
    they are done with.
    """
    kept = sorted(
        (one.stat().st_mtime_ns, one.stat().st_size, one) for one in working.glob("*.samples")
    )
    excess = sum(size for _, size, _ in kept) - MAX_DECODED_BYTES
    for _, size, one in kept:
        if excess > 0:
            one.unlink()
        excess -= size
