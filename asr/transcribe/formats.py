"""Write transcripts as plain text, SRT and WebVTT subtitles, JSON, and CSV.

Costs nothing to import.
"""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from asr.sources.utterances import one_line


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording and its words; `start` and `end` in seconds."""

    start: float
    end: float
    text: str


def text(segments: Sequence[Segment]) -> str:
    """The words alone, one segment per line."""
    return "".join(f"{segment.text}\n" for segment in _non_empty(segments))


def srt(segments: Sequence[Segment]) -> str:
    """SubRip subtitles.

    The format has no escapes, so `-->` in a text, which would be read as times, becomes `-- >`.
    """
    cues = (
        f"{number}\n{_times(segment, ',')}\n{segment.text.replace('-->', '-- >')}\n\n"
        for number, segment in enumerate(_non_empty(segments), 1)
    )
    return "".join(cues)


def vtt(segments: Sequence[Segment]) -> str:
    """WebVTT subtitles; markup in a text is escaped."""
    cues = (
        f"{_times(segment, '.')}\n{html.escape(segment.text, quote=False)}\n\n"
        for segment in _non_empty(segments)
    )
    return "WEBVTT\n\n" + "".join(cues)


def table(segments: Sequence[Segment]) -> str:
    """CSV with the columns start, end, text; seconds with three digits."""
    sheet = io.StringIO()
    # Lines end with \r\n as in RFC 4180: with another ending Python would not quote a text that has
    # a carriage return.
    writer = csv.writer(sheet)
    writer.writerow(["start", "end", "text"])
    for segment in segments:
        writer.writerow([f"{segment.start:.3f}", f"{segment.end:.3f}", segment.text])
    return sheet.getvalue()


def as_json(segments: Sequence[Segment]) -> str:
    """One object: `text`, and `segments` with start, end and text."""
    transcript = {
        "text": " ".join(segment.text for segment in segments if segment.text),
        "segments": [asdict(segment) for segment in segments],
    }
    return json.dumps(transcript, ensure_ascii=False, indent=2) + "\n"


FORMATS: dict[str, Callable[[Sequence[Segment]], str]] = {
    "txt": text,
    "srt": srt,
    "vtt": vtt,
    "json": as_json,
    "csv": table,
}


def _non_empty(segments: Sequence[Segment]) -> list[Segment]:
    """The segments that have words, each on one line, because an empty line ends a subtitle."""
    lines = (replace(segment, text=one_line(segment.text)) for segment in segments)
    return [segment for segment in lines if segment.text]


def _times(segment: Segment, point: str) -> str:
    return f"{timestamp(segment.start, point)} --> {timestamp(segment.end, point)}"


def timestamp(seconds: float, point: str) -> str:
    """A time as subtitles write it, such as 01:02:03,400 with a comma for `point`."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    seconds_text = f"{milliseconds // 1000:02d}{point}{milliseconds % 1000:03d}"
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds_text}"
