"""The pieces of a sound that a model decodes: its speech, cut at pauses to fit the window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, pairwise

import numpy as np

from asr.audio.sample_file import SampleFile
from asr.speech.detection import Stretch
from asr.whisper import SAMPLE_RATE

PIECE_SHARE = 0.99  # of a window that the speech of a piece may fill
MARGIN_SECONDS = 0.4  # of sound around the speech of a piece, for weak first and last sounds
SILENCE_SECONDS = 3.0  # a pause from here on is left out
CUT_SHARE = 0.3  # the last part of a piece, in which the longest pause is looked for
QUIET_SECONDS = 0.1  # the gap before a plosive (p, t, k) is shorter
UNREAD_SECONDS = 0.4  # 0.31 s behind a last segment were the end of its word, 0.6 s two words

Quietest = Callable[[float, float], float]


def pieces(
    speech: Iterable[Stretch], begin: float, end: float, window: float, quietest: Quietest
) -> Iterator[Stretch]:
    """Cut a sound at the pauses of its speech into pieces that fit a model's window.

    A piece ends at the longest pause of its last part, or else at the last pause there is. Speech
    without a pause is cut at its quietest moment. Long silence is left out.

    Args:
        speech: in order; read two pieces ahead.
        begin, end: the part of the sound that is cut, in seconds.
        window: seconds.
        quietest: returns the quietest moment between two moments.
    Yields:
        pieces in order, none longer than the window, which share no sound and hold all speech
        between `begin` and `end`.
    """
    longest = window * PIECE_SHARE
    parts = chain.from_iterable(
        _parts(stretch, longest, quietest) for stretch in _within(speech, begin, end)
    )
    spans = (Stretch(group[0].start, group[-1].end) for group in _groups(parts, longest))
    yield from _with_margins(spans, begin, end, window)


def unread(speech: Iterable[Stretch], piece: Stretch, last: float) -> list[Stretch]:
    """The pieces to decode again, for a model that closes its last segment may skip the rest.

    Args:
        speech: that of the piece or of the whole sound, in order.
        last: the second at which the last segment of the piece ends.
    Returns:
        pieces behind `last`, or none where no stretch of UNREAD_SECONDS is left.
    """
    rest = [
        stretch
        for stretch in _within(speech, last, piece.end)
        if stretch.duration >= UNREAD_SECONDS
    ]
    spans = (Stretch(group[0].start, group[-1].end) for group in _groups(rest, np.inf))
    return list(_with_margins(spans, last, piece.end, np.inf))


def quietest(sound: SampleFile, begin: float, end: float) -> float:
    """The quietest moment of a sound between two moments, in seconds."""
    samples = sound.read(begin, end)
    width = min(round(QUIET_SECONDS * SAMPLE_RATE), len(samples))
    parts = samples[: len(samples) // width * width].reshape(-1, width)
    return begin + (int(np.square(parts).mean(1).argmin()) + 0.5) * width / SAMPLE_RATE


def _within(speech: Iterable[Stretch], begin: float, end: float) -> Iterator[Stretch]:
    """The speech between two moments."""
    for stretch in speech:
        if stretch.start >= end:
            return
        if stretch.end > begin:
            yield Stretch(max(stretch.start, begin), min(stretch.end, end))


def _parts(stretch: Stretch, longest: float, quietest: Quietest) -> Iterator[Stretch]:
    """A stretch, cut at quiet moments where it is too long; no part is very short."""
    search = CUT_SHARE * longest
    while stretch.duration > longest:
        latest = min(stretch.start + longest, stretch.end - search)
        cut = quietest(latest - search, latest)
        yield Stretch(stretch.start, cut)
        stretch = Stretch(cut, stretch.end)
    yield stretch


def _groups(parts: Iterable[Stretch], longest: float) -> Iterator[list[Stretch]]:
    """Parts that are decoded together: not too long, and without long silence."""
    group: list[Stretch] = []
    for part in parts:
        if group and part.start - group[-1].end >= SILENCE_SECONDS:
            yield group
            group = []
        while group and part.end - group[0].start > longest:
            count = _best_cut(group, part, longest)
            yield group[:count]
            group = group[count:]
        group.append(part)
    if group:
        yield group


def _best_cut(group: list[Stretch], part: Stretch, longest: float) -> int:
    """How many of a group come before the longest pause late in it; `part` follows the group."""
    earliest = group[0].start + (1 - CUT_SHARE) * longest
    pauses = [
        (after.start - one.end, count)
        for count, (one, after) in enumerate(pairwise([*group, part]), start=1)
        if one.end >= earliest
    ]
    return max(pauses)[1] if pauses else len(group)


def _with_margins(
    spans: Iterable[Stretch], begin: float, end: float, window: float
) -> Iterator[Stretch]:
    """Spans of speech with the sound around them: at most half of each pause, as the window has
    room for it."""
    opens = begin
    for span, after in pairwise(chain(spans, [None])):
        assert span is not None
        closes = (span.end + after.start) / 2 if after else end
        margin = min(MARGIN_SECONDS, (window - span.duration) / 2)
        yield Stretch(max(opens, span.start - margin), min(closes, span.end + margin))
        opens = closes
