"""Cut segments into the cues of subtitles, which a person has time to read.

A segment is as long as what was said; a cue is what is on the screen at once: a line or two, for
some seconds. The limits are those of the guidelines of broadcasters. Cues end, and lines break,
at the ends of sentences first, then after commas, then at spaces, and are of like length. Scripts
without spaces are broken by their width on the screen. Words are never changed, lost or doubled.

15 us a word, or a character of a script without spaces.
"""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, pairwise

import regex

from asr.decoding.segments import Segment, Word
from asr.sources.utterances import one_line

MAX_SECONDS = 7.0  # of a cue
MIN_SECONDS = 0.8  # of a cue, where the next one leaves it the time; less is a flash

# What a break costs that is not at the end of a sentence. The unit of all costs is that of a cue or
# a line that holds nothing; see `_partition`.
CLAUSE, SPACE, INSIDE, AWKWARD = 0.1, 0.3, 1.0, 2.0
PASSED_SENTENCE = 0.8  # what it costs to go on after the end of a sentence in the same cue
FLASH = 1.0
ONE_MORE_LINE = 100.0  # no better break is worth another line

# Where a cue may end or a line break: at any space and, in scripts without spaces, after
# punctuation. A full stop after a short word with a capital (Mr., St.) or a single letter ends no
# sentence, and no mark does before a small letter. \p{Lo} are letters of scripts without capitals.
BREAK = regex.compile(
    r"""(?V1)
    (?:
        (?P<sentence> (?<! \b (?: [\p{Lu}\p{Ll}] | \p{Lu}\p{Ll} )) \.+ | [[\p{STerm}…]--[.]] )
      | (?P<clause> [[\p{Term}–—]--\p{STerm}] )
    )
    [\p{Pe}\p{Pf}"'’]*
    (?: [ ] (?P<small> (?=\p{Ll}) )? | (?=\p{Lo}) )
    | [ ]
    """,
    regex.VERBOSE,
)
NEVER_FIRST = regex.compile(
    r"[\p{Pe}\p{Term}…%ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮーゝゞ々ๆໆ]"
)  # in a line
NEVER_LAST = regex.compile(r"[\p{Ps}\p{Pi}]")
LETTER_WITHOUT_CASE = regex.compile(r"\p{Lo}")
GRAPHEME = regex.compile(r"\X")


@dataclass(frozen=True)
class Cue:
    """What is on the screen from `start` to `end`, in seconds; `text` has a line or more."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Layout:
    """The limits of a cue; None is no limit.

    Attributes:
        max_line_width: columns of a line; a wide character, such as those of Chinese, takes two.
        max_line_count: lines of a cue.
        max_words_per_line: where words have no spaces between them, they are told apart by their
            times, or else by punctuation alone.
    """

    max_line_width: int | None = 42
    max_line_count: int | None = 2
    max_words_per_line: int | None = None

    @property
    def is_unlimited(self) -> bool:
        """No line is ever full, so segments become cues as they are."""
        return self.max_line_width is None and self.max_words_per_line is None


DEFAULT_LAYOUT = Layout()


def cues(segments: Iterable[Segment], layout: Layout) -> list[Cue]:
    """The cues of all segments in which something was said.

    A cue lies inside the times of its segments, except that a flash is lengthened, though not into
    the next cue. A word that is longer than a line has a line, or more, of its own.
    """
    said = [segment for segment in segments if one_line(segment.text)]
    if layout.is_unlimited:
        return [Cue(segment.start, segment.end, one_line(segment.text)) for segment in said]
    return _lengthen_flashes([cue for run in _runs(said) for cue in _cut(run, layout)])


def _runs(said: list[Segment]) -> Iterator[tuple[Segment, ...]]:
    """Each segment alone, or with those before it that would be flashes even if lengthened."""
    run: list[Segment] = []
    for segment in said:
        if run and max(run[-1].end, segment.start) - run[0].start >= MIN_SECONDS:
            yield tuple(run)
            run = []
        run.append(segment)
    if run:
        yield tuple(run)


def _lengthen_flashes(found: list[Cue]) -> list[Cue]:
    """Lengthen the cues that are too short to read, and end each where the next begins."""
    limits = [*(cue.start for cue in found[1:]), math.inf]
    shown = []
    for cue, limit in zip(found, limits, strict=False):
        end = min(max(cue.end, cue.start + MIN_SECONDS), limit)
        shown.append(replace(cue, end=round(max(cue.start, end), 3)))
    return shown


@lru_cache(maxsize=1 << 13)  # a page writes all subtitles anew for each correction of one segment
def _cut(run: tuple[Segment, ...], layout: Layout) -> tuple[Cue, ...]:
    """The cues of a segment, or of several that are too short for cues of their own."""
    units = _units(run, layout.max_line_width)
    line_ends = units.line_ends(layout)
    cue_ends = units.cue_ends(line_ends, layout.max_line_count)
    line_cost = units.line_cost(layout)
    found = []
    for first, last in _partition(0, len(units.texts), cue_ends, units.cue_cost(layout)):
        lines = _partition(first, last, line_ends, line_cost)
        text = "\n".join("".join(units.texts[i:j]).strip() for i, j in lines)
        start, end = units.starts[first], units.ends[last - 1]
        found.append(Cue(round(start, 3), round(min(end, start + MAX_SECONDS), 3), text))
    return tuple(found)


def _partition(
    first: int, last: int, ends: Sequence[int], cost: Callable[[int, int], float]
) -> list[tuple[int, int]]:
    """Cut the units from `first` to before `last` into pieces at the least cost.

    The emptier a piece, the more it costs, by the square; so there are few pieces, of like length,
    unless a better break is worth more.

    Args:
        ends: for each unit, up to before which unit a piece may reach that begins with it.
        cost: of a piece, by its first unit and that after its last.
    """
    best = {first: (0.0, first)}  # of all up to a unit: the cost, and where the last piece begins
    for i in range(first, last):
        so_far = best[i][0]
        for j in range(i + 1, min(ends[i], last) + 1):
            total = so_far + cost(i, j)
            if j not in best or total < best[j][0]:
                best[j] = (total, i)
    cuts = [last]
    while cuts[-1] > first:
        cuts.append(best[cuts[-1]][1])
    return list(pairwise(reversed(cuts)))


@dataclass(frozen=True)
class _Units:
    """A text in units that are never broken, and what a break after each of them would cost.

    Attributes:
        texts: most are a word and the space after it; joined they are the text.
        starts, ends: seconds, of each unit.
        penalties: of each unit, for a break after it.
        passing: of each unit, for a cue that goes on after it.
        columns, words, passed: the sums, over all units before each, of the widths, of the words
            that begin, and of `passing`; one number more than units.
    """

    texts: list[str]
    starts: list[float]
    ends: list[float]
    penalties: list[float]
    passing: list[float]
    columns: list[int]
    words: list[int]
    passed: list[float]

    def fullness(self, layout: Layout) -> Callable[[int, int], float]:
        """How full a line is that holds the units from i to before j; over 1 is too full."""
        width = layout.max_line_width or math.inf
        max_words = layout.max_words_per_line
        # A space at the end is not seen.
        seen = [
            total - text.endswith(" ")
            for total, text in zip(self.columns[1:], self.texts, strict=True)
        ]
        columns, words = self.columns, self.words

        def full(i: int, j: int) -> float:
            share = (seen[j - 1] - columns[i]) / width
            if not max_words:
                return share
            # A line that begins inside a word shows that word, too.
            begun = words[i + 1] - words[i]
            return max(share, (words[j] - words[i] + 1 - begun) / max_words)

        return full

    def line_ends(self, layout: Layout) -> list[int]:
        """For each unit, up to before which one a line that begins with it may reach."""
        full = self.fullness(layout)
        found: list[int] = []
        end = 0
        for i in range(len(self.texts)):
            end = max(end, i + 1)
            while end < len(self.texts) and full(i, end + 1) <= 1:
                end += 1
            found.append(end)
        return found

    def cue_ends(self, line_ends: list[int], max_line_count: int | None) -> list[int]:
        """For each unit, up to before which one a cue that begins with it may reach."""
        total = len(line_ends)
        reach = [*line_ends, total]
        ends = reach if max_line_count else [total] * total
        for _ in range((max_line_count or 1) - 1):
            ends = [reach[end] for end in ends]
        return [max(i + 1, min(ends[i], self._latest_end(i))) for i in range(total)]

    def _latest_end(self, i: int) -> int:
        """Up to before which unit a cue that begins with unit i may reach in time."""
        return bisect_right(self.ends, self.starts[i] + MAX_SECONDS + 1e-6, lo=i)

    def cue_cost(self, layout: Layout) -> Callable[[int, int], float]:
        """What a cue costs that holds the units from i to before j."""
        count = layout.max_line_count or math.inf
        full = self.fullness(layout)
        starts, ends, passed, penalties = self.starts, self.ends, self.passed, self.penalties

        def cost(i: int, j: int) -> float:
            seconds = ends[j - 1] - starts[i]
            empty = 1 - max(seconds / MAX_SECONDS, full(i, j) / count)
            flash = FLASH if seconds < MIN_SECONDS else 0.0
            return empty * empty + passed[j - 1] - passed[i] + penalties[j - 1] + flash

        return cost

    def line_cost(self, layout: Layout) -> Callable[[int, int], float]:
        """What a line costs that holds the units from i to before j."""
        full = self.fullness(layout)
        penalties = self.penalties

        def cost(i: int, j: int) -> float:
            empty = 1 - full(i, j)
            return ONE_MORE_LINE + empty * empty + penalties[j - 1]

        return cost


def _units(run: tuple[Segment, ...], max_line_width: int | None) -> _Units:
    """Cut the text of segments into units, with their times."""
    text, times, edges = _timed_text(run)
    breaks = _breaks(text, edges, max_line_width)
    begins = [0, *breaks]
    ends = [*breaks, len(text)]
    texts = [text[begin:end] for begin, end in zip(begins, ends, strict=True)]
    unit_starts = [times[begin][0] for begin in begins]
    unit_ends = [times[end - 1][1] for end in ends]
    # A pause is a good place for a break, and the longer, the worse to go on after it.
    pauses = [max(0.0, b - a) for a, b in zip(unit_ends, unit_starts[1:], strict=False)]
    penalties = [max(0.0, breaks[b] - pause) for b, pause in zip(breaks, pauses, strict=True)]
    sentence_ends = [PASSED_SENTENCE * (breaks[b] == 0.0) for b in breaks]
    passing = [a + b for a, b in zip(sentence_ends, pauses, strict=True)]
    begins_word = [True, *(penalty < INSIDE for penalty in breaks.values())]
    return _Units(
        texts,
        unit_starts,
        unit_ends,
        [*penalties, 0.0],
        [*passing, 0.0],
        list(accumulate(map(_columns, texts), initial=0)),
        list(accumulate(begins_word, initial=0)),
        list(accumulate([*passing, 0.0], initial=0.0)),
    )


def _timed_text(
    run: tuple[Segment, ...],
) -> tuple[str, list[tuple[float, float]], list[int]]:
    """The text on one line, each character's start and end, and where each word begins.

    Within a word, and within a segment without word times, all characters take the same time.
    """
    text = ""
    times: list[tuple[float, float]] = []
    begins: list[int] = []
    moment, last = run[0].start, max(run[0].start, *(segment.end for segment in run))
    for space, word in _words(run):
        if text and space:
            text += " "
            times.append((moment, moment))
        begins.append(len(text))
        letters = one_line(word.text)
        text += letters
        start = min(max(word.start, moment), last)
        moment = min(max(word.end, start), last)
        step = (moment - start) / len(letters)
        times += [(start + step * i, start + step * (i + 1)) for i in range(len(letters))]
    return text, times, begins


def _words(run: tuple[Segment, ...]) -> Iterator[tuple[bool, Segment | Word]]:
    """Each word that is not empty, and whether a space is before it.

    A segment whose words have no times, or are those of another text, is one word.
    """
    for segment in run:
        joined = one_line("".join(word.text for word in segment.words))
        is_space_due = True
        for word in segment.words if joined == one_line(segment.text) else (segment,):
            is_space_due = is_space_due or word.text[:1].isspace()
            if word.text.strip():
                yield is_space_due, word
                is_space_due = word.text[-1].isspace()


def _breaks(text: str, word_begins: list[int], max_width: int | None) -> dict[int, float]:
    """Where the text may be broken, in order, and what that costs; never inside a grapheme."""
    found = {match.end(): _penalty(text, match) for match in BREAK.finditer(text)}
    for begin in word_begins:
        if LETTER_WITHOUT_CASE.match(text, begin):
            found.setdefault(begin, _awkward(text, begin) or SPACE)
    graphemes = [match.start() for match in GRAPHEME.finditer(text)][1:]
    found = {place: found[place] for place in graphemes if place in found}
    if max_width:
        for begin, end in list(pairwise([0, *found, len(text)])):
            if _columns(text[begin:end].rstrip()) > max_width:
                within = graphemes[bisect_right(graphemes, begin) : bisect_left(graphemes, end)]
                found |= {
                    place: _awkward(text, place) or INSIDE for place in within if text[place] != " "
                }
    return dict(sorted(found.items()))


def _penalty(text: str, match: regex.Match[str]) -> float:
    """What a break at a match of BREAK costs."""
    if awkward := _awkward(text, match.end()):
        return awkward
    if match["sentence"] and match["small"] is None:
        return 0.0
    return CLAUSE if match["sentence"] or match["clause"] else SPACE


def _awkward(text: str, place: int) -> float:
    """AWKWARD if one of the characters about a break should not be first or last in a line."""
    before = text[max(0, place - 2) : place].rstrip()[-1:]
    is_awkward = NEVER_FIRST.match(text, place) or NEVER_LAST.match(before)
    return AWKWARD if is_awkward else 0.0


def _columns(text: str) -> int:
    """How wide a text is on the screen, where a Latin letter is one column wide."""
    return len(text) if text.isascii() else sum(map(_character_columns, text))


@lru_cache(maxsize=1 << 14)
def _character_columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf", "Cc"):  # marks over others; controls
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
