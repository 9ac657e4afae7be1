"""What was said and when, written as people use it: plain text, SRT and WebVTT subtitles, JSON,
CSV. Costs nothing to import.
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
    return "".join(f"{one.text}\n" for one in _spoken(segments))


def srt(segments: Sequence[Segment]) -> str:
    """SubRip subtitles. They know no escapes, so that an arrow in a text, which would read as
    times, is opened up.
    """
    return "".join(
        f"{number}\n{timestamp(one.start, ',')} --> {timestamp(one.end, ',')}\n{one.text.replace('-->', '-- >')}\n\n"
        for number, one in enumerate(_spoken(segments), 1)
    )


def vtt(segments: Sequence[Segment]) -> str:
    """WebVTT subtitles; markup in a text is shown, not obeyed."""
    cues = (
        f"{timestamp(one.start, '.')} --> {timestamp(one.end, '.')}\n{html.escape(one.text, quote=False)}\n\n"
        for one in _spoken(segments)
    )
    return "WEBVTT\n\n" + "".join(cues)


def table(segments: Sequence[Segment]) -> str:
    """CSV with the columns start, end, text; seconds with three digits."""
    sheet = io.StringIO()
    writer = csv.writer(
        sheet
    )  # lines end as RFC 4180 has it: with another ending Python leaves a carriage return in a text bare
    writer.writerow(["start", "end", "text"])
    writer.writerows([f"{one.start:.3f}", f"{one.end:.3f}", one.text] for one in segments)
    return sheet.getvalue()


def as_json(segments: Sequence[Segment]) -> str:
    """One object: `text`, and `segments` with start, end and text."""
    whole = " ".join(one.text for one in segments if one.text)
    return (
        json.dumps(
            {"text": whole, "segments": [asdict(one) for one in segments]},
            ensure_ascii=False,
            indent=2,
        )
        + "\n"
    )


FORMATS: dict[str, Callable[[Sequence[Segment]], str]] = {
    "txt": text,
    "srt": srt,
    "vtt": vtt,
    "json": as_json,
    "csv": table,
}


def _spoken(segments: Sequence[Segment]) -> list[Segment]:
    """The segments in which something was said, each on one line, for an empty line ends a
    subtitle.
    """
    lines = (replace(one, text=one_line(one.text)) for one in segments)
    return [one for one in lines if one.text]


def timestamp(seconds: float, point: str) -> str:
    """A moment as subtitles write it: 01:02:03,400."""
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
