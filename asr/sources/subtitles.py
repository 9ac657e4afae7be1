"""Subtitles, SubRip (.srt) and WebVTT (.vtt), read cue by cue; long recordings cut at their times.

Every cue is one utterance: none is joined with the next, and overlapping ones both keep their
times. The text of a cue is what is spoken: tags, positions, WebVTT's entities and music signs are
removed, and so is what stands in square brackets, by which captions describe sounds. What is left
may be empty. Voices (`<v Ann>`) are told apart.

Cues that are empty, reversed, or past the end of the recording stay, without text or without
audio, so that they are counted. Times and blocks that cannot be read are refused with their line.
(pysubs2, srt and webvtt-py silently skip some cues that they cannot read, or misread times without
hours.) 10 us a cue; a recording is decoded once for all its cuts.
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
WEBVTT = re.compile(r"WEBVTT(?:\s|$)")
UNSPOKEN = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s|$)")
SRT_TAG = re.compile(r"</?(?:b|i|u|s|font)(?:\s[^<>]*)?>|\{\\[^{}]*\}", re.IGNORECASE)
VTT_TAG = re.compile(r"<[^<>]*>")
VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^<>]+)>")
NOISE = re.compile(r"\[[^\[\]]*\]|[♩♪♫♬]")

MAX_TIMES = 1000  # characters that times, and the positions after them, may take
MAX_BLOCK = 1 << 20  # characters between two lines with times
# Seconds of one cue that are cut out. A cue that claims more is a slip in its times: the row says
# its full length and holds this much, and so counts as cut short.
MAX_CUE_SECONDS = 300.0
MAX_DECODED_BYTES = 2 << 30  # of decoded recordings at once: nine hours

Times = tuple[float, float]  # start and end, seconds


@dataclass(frozen=True)
class Cue:
    """What is said from `start` to `end`, in seconds.

    Attributes:
        voice: who says it, where exactly one voice is named.
    """

    start: float
    end: float
    text: str
    voice: str | None


def cues(path: Path) -> Iterator[Cue]:
    """Yield the cues of a file in its own order.

    Raises:
        DataError: times that cannot be read, text that belongs to no cue, no cue at all, no WebVTT
            in a .vtt.
    """
    read = _read_webvtt if path.suffix.lower() == ".vtt" else _read_subrip
    cue = None
    for cue in read(path):
        yield cue
    if cue is None:
        raise DataError(f"{path}: no subtitle in it; remove it, or the recording beside it")


def _blocks(path: Path) -> Iterator[tuple[int, list[str], Times | None]]:
    """Cut a file at its lines with times.

    Yields:
        for each such line its number, the lines between it and the one before, and its times; at
        last the number of lines, the lines after the last times, and None.
    """
    above: list[str] = []
    number = size = 0
    for number, line in enumerate(lines(path), 1):
        if ARROW in line:
            yield number, above, _parse_times(path, number, line)
            above = []
            size = 0
        else:
            above.append(line.rstrip("\r\n"))
            size += len(line)
        if size > MAX_BLOCK:
            raise DataError(f"{path}:{number}: more than {MAX_BLOCK:,} characters without times")
    yield number, above, None


def _parse_times(path: Path, number: int, line: str) -> Times:
    match = TIMES.fullmatch(line[:MAX_TIMES])
    if not match:
        raise DataError(
            f"{path}:{number}: got {printable(line.strip())}, "
            "want times such as 00:01:02,500 --> 00:01:04,000"
        )
    parts = match.groups()
    return _seconds(*parts[:4]), _seconds(*parts[4:])


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    total = int(hours or 0) * 3600 + int(minutes) * 60 + float(f"{seconds}.{fraction or 0}")
    return round(total, 3)


def _read_subrip(path: Path) -> Iterator[Cue]:
    """Yield the cues of a .srt.

    Only the next times end a text, so empty lines may be part of it.
    """
    times: Times | None = None
    number: int | None = None
    for _, above, next_times in _blocks(path):
        # Above the first times an empty line is put, for the first number has none above it.
        texts, number = _split_number(above if times else ["", *above], number)
        text = _spoken_text(SRT_TAG.sub("", " ".join(texts)))
        if times:
            yield Cue(*times, text, None)
        elif text:
            raise DataError(f"{path}:1: text above the first times: {printable(text)}")
        times = next_times


def _split_number(above: list[str], previous: int | None) -> tuple[list[str], int | None]:
    """Split off the next cue's number from the text above its times.

    Digits are the number if an empty line stands above them, or if they are the next in order.

    Args:
        previous: the number found last.
    Returns:
        the text's lines; the number, or `previous` where there is none.
    """
    texts = [line.strip() for line in above]
    while texts and not texts[-1]:
        texts.pop()
    last = texts[-1] if texts else ""
    below_empty_line = len(texts) > 1 and not texts[-2]
    next_in_order = previous is not None and last == str(previous + 1)
    if last.isdecimal() and (below_empty_line or next_in_order):
        return texts[:-1], int(last[:9])
    return texts, previous


def _read_webvtt(path: Path) -> Iterator[Cue]:
    """Yield the cues of a .vtt.

    An empty line ends a text; notes, styles, and the next cue's name may follow it.
    """
    times: Times | None = None
    for line, above, next_times in _blocks(path):
        texts, rest = _split_at_empty_line(above)
        if times is None and not WEBVTT.match(texts[0] if texts else ""):
            raise DataError(f"{path}:1: want WEBVTT, by which such a file begins")
        stray = _stray_line(rest, next_times is not None)
        if stray:
            raise DataError(
                f"{path}:{line}: above this line stands text that is in no cue: {printable(stray)}"
            )
        if times:
            yield _webvtt_cue(times, " ".join(texts))
        times = next_times


def _webvtt_cue(times: Times, text: str) -> Cue:
    voices = {one_line(html.unescape(name)) for name in VOICE.findall(text)}
    return Cue(
        *times,
        text=_spoken_text(html.unescape(VTT_TAG.sub("", text))),
        voice=voices.pop() if len(voices) == 1 else None,
    )


def _split_at_empty_line(above: list[str]) -> tuple[list[str], list[str]]:
    end = above.index("") if "" in above else len(above)
    return above[:end], above[end:]


def _stray_line(rest: list[str], times_follow: bool) -> str:
    """The first line below a text that has no meaning there; empty if there is none.

    Meaning have notes, styles and regions, up to the next empty line, and the line above the next
    times, which is that cue's name.
    """
    name = rest.pop() if times_follow and rest else ""
    # Without an empty line above it, what looks like a name is the end of what stands above.
    last = name if rest and rest[-1] else ""
    outside_block = True
    for line in [*rest, last]:
        if not line:
            outside_block = True
        elif UNSPOKEN.match(line):
            outside_block = False
        elif outside_block:
            return line
    return ""


def _spoken_text(text: str) -> str:
    return one_line(NOISE.sub(" ", text))


def cut(recording: Path, working: Path, start: float, end: float) -> bytes | None:
    """Cut a segment out of a recording.

    The first cut decodes the whole recording, in another process and with limits.

    Args:
        recording: in any format that we decode.
        working: a folder that the caller throws away; it takes up to MAX_DECODED_BYTES of samples,
            and those of one recording per process.
        start, end: seconds; of more than MAX_CUE_SECONDS the beginning is cut.
    Returns:
        FLAC bytes: mono, 16 bit, 16 kHz, without a sample where the recording has ended or cannot
        be decoded; None where it is not there.
    """
    if not recording.is_file():
        return None
    name = hashlib.sha256(os.fsencode(recording)).hexdigest()[:20]
    samples = working / f"{name}.samples"
    while True:
        with locked(samples.with_suffix(".lock")):
            if not samples.is_file():
                _decode(recording, samples)
        try:
            return flac(SampleFile(samples), start, min(end, start + MAX_CUE_SECONDS))
        except FileNotFoundError:  # removed meanwhile, to make room for another recording
            continue


def _decode(recording: Path, samples: Path) -> None:
    """Write the samples of a whole recording; none, with a message, if it cannot be decoded."""
    with locked(samples.with_name("room.lock")):
        _make_room(samples.parent)
    try:
        decode_apart(recording, samples)
    except DataError as error:
        # Raises an error of its own if the disk, and not the recording, is to blame.
        disk.check_free_space(
            samples.parent,
            MAX_SECONDS * SAMPLE_RATE * SAMPLE_BYTES,
            f"{recording.name}, decoded,",
        )
        print(f"download: {recording.name}: {error}; its subtitles stay without sound", flush=True)
        samples.touch()


def _make_room(working: Path) -> None:
    """Remove the oldest decoded recordings.

    A corpus comes recording by recording, so they are no longer needed.
    """
    oldest_first = sorted(
        (path.stat().st_mtime_ns, path.stat().st_size, path) for path in working.glob("*.samples")
    )
    excess = sum(size for _, size, _ in oldest_first) - MAX_DECODED_BYTES
    for _, size, path in oldest_first:
        if excess <= 0:
            return
        path.unlink()
        excess -= size
