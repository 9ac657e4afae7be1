"""Write transcripts as plain text, SRT and WebVTT subtitles, JSON, and CSV.

Costs nothing to import.
"""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

from asr.decoding.segments import Segment
from asr.sources.utterances import one_line
from asr.transcribe.cues import DEFAULT_LAYOUT, Cue, Layout, cues

SHOWN = ("start", "end", "text")  # of each segment, even if empty


def text(segments: Sequence[Segment]) -> str:
    """The words alone, one segment per line."""
    lines = (one_line(segment.text) for segment in segments)
    return "".join(f"{line}\n" for line in lines if line)


def srt(segments: Sequence[Segment], layout: Layout = DEFAULT_LAYOUT) -> str:
    """SubRip subtitles.

    The format has no escapes, so `-->` in a text, which would be read as times, becomes `-- >`.
    """
    blocks = (
        f"{number}\n{_times(cue, ',')}\n{cue.text.replace('-->', '-- >')}\n\n"
        for number, cue in enumerate(cues(segments, layout), 1)
    )
    return "".join(blocks)


def vtt(segments: Sequence[Segment], layout: Layout = DEFAULT_LAYOUT) -> str:
    """WebVTT subtitles; markup in a text is escaped."""
    blocks = (
        f"{_times(cue, '.')}\n{html.escape(cue.text, quote=False)}\n\n"
        for cue in cues(segments, layout)
    )
    return "WEBVTT\n\n" + "".join(blocks)


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
    """One object: `text`, and `segments` with their words and language where these are known."""
    transcript = {
        "text": " ".join(segment.text for segment in segments if segment.text),
        "segments": [
            {name: value for name, value in asdict(segment).items() if name in SHOWN or value}
            for segment in segments
        ],
    }
    return json.dumps(transcript, ensure_ascii=False, indent=2) + "\n"


Writer = Callable[[Sequence[Segment]], str]


def writers(layout: Layout) -> dict[str, Writer]:
    """The writer of each format; those of subtitles keep to the layout."""
    return {
        "txt": text,
        "srt": partial(srt, layout=layout),
        "vtt": partial(vtt, layout=layout),
        "json": as_json,
        "csv": table,
    }


FORMATS = writers(DEFAULT_LAYOUT)


def _times(cue: Cue, point: str) -> str:
    return f"{timestamp(cue.start, point)} --> {timestamp(cue.end, point)}"


def timestamp(seconds: float, point: str) -> str:
    """A time as subtitles write it, such as 01:02:03,400 with a comma for `point`."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    seconds_text = f"{milliseconds // 1000:02d}{point}{milliseconds % 1000:03d}"
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds_text}"
