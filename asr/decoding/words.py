"""When each word was said, read from how the model attends to the sound while it says it.

As in the Whisper paper's code: the attention of the heads that follow the sound is cut to the sound
itself, made comparable between heads and moments, and smoothed; the cheapest way through it that
goes forward in both text and sound gives each token its begin. Tokens then make words: at spaces,
or, in scripts without spaces, at characters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import regex

from asr.decoding.segments import Word
from asr.decoding.vocabulary import Vocabulary
from asr.engines.engine import Encoded
from asr.speech.detection import Stretch
from asr.whisper import POSITIONS_PER_SECOND

SMOOTHED = 7  # positions, 0.14 s, of the median filter
PAUSE_SECONDS = 0.3  # no word has such a pause within
CHARACTER_TOKENS = 4  # a character has at most four bytes, and so four tokens
OPENING = r"\p{Ps}\p{Pi}\p{Pd}\"'¿¡"  # punctuation that belongs to what follows
SAID = regex.compile(r"[^\p{P}\s]")  # not punctuation alone
OPENS = regex.compile(rf"[\s{OPENING}]*")
CLOSES = regex.compile(rf"\s*+(?![{OPENING}])\p{{P}}+(?:\s|$)")
# Where one word ends and the next begins without a space.
UNSPACED = r"\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{Lb=SA}"
AFTER_UNSPACED = regex.compile(r"[^\p{P}\s]|[\p{Ps}\p{Pi}]")
BEGINS_UNSPACED = regex.compile(rf"(?V1)[[{UNSPACED}]--\p{{P}}]")
ENDS_UNSPACED = regex.compile(rf"[{UNSPACED}]")
GRAPHEME = regex.compile(r"\X")

Text = Callable[[Sequence[int]], str]  # the text of tokens, spaces at its ends included


def token_begins(
    encoded: Encoded,
    window: int,
    ids: Sequence[int],
    prompt: list[int],
    vocabulary: Vocabulary,
    duration: float,
) -> np.ndarray:
    """When each text token begins, and when the last one ends: (N + 1,) seconds in the window.

    Costs one pass through the decoder for all tokens, and 3 ms.

    Args:
        ids: of the hypothesis; its times are left out, for the model then attends to the sound.
        prompt: of the hypothesis; a text before its start token is left out.
        duration: of the sound in the window, in seconds.
    """
    text = [token for token in ids if token < vocabulary.first_timestamp]
    if not text:
        return np.zeros(1)
    spoken = prompt[len(prompt) - 1 - prompt[::-1].index(vocabulary.start) :]
    before = [token for token in spoken if token != vocabulary.no_timestamps]
    tokens = np.array([*before, vocabulary.no_timestamps, *text, vocabulary.end], np.int64)
    shares = encoded.attention(window, tokens, vocabulary.alignment_heads)
    positions = max(1, round(duration * POSITIONS_PER_SECOND))
    # The token at a place attends to the sound of the one that it predicts.
    costs = -_comparable(shares[:, :, :positions])[len(before) : -1]
    return begins(costs) / POSITIONS_PER_SECOND


def _comparable(shares: np.ndarray) -> np.ndarray:
    """Attention (K, N, P) to the mean (N, P) of what stands out from the other tokens."""
    from scipy.ndimage import median_filter  # 0.2 s, which a text without times need not wait for

    shares = shares / np.maximum(shares.sum(-1, keepdims=True), np.finfo(np.float32).tiny)
    spread = np.maximum(shares.std(1, keepdims=True), np.finfo(np.float32).tiny)
    standing_out = (shares - shares.mean(1, keepdims=True)) / spread
    smooth: np.ndarray = median_filter(standing_out, (1, 1, SMOOTHED), mode="reflect").mean(0)
    return smooth


def begins(costs: np.ndarray) -> np.ndarray:
    """The first column of each row on the cheapest way from corner to corner: (N,) integers.

    Dynamic time warping: a step goes to the next row, the next column, or both. A whole row is done
    at once: the cost of reaching column j is the cheapest of entering the row at a column k <= j,
    plus the sum of its costs from k to j. N rows of P columns cost N steps of some microseconds.
    """
    sums = np.cumsum(costs, 1, dtype=np.float64)
    entering = np.full(costs.shape, np.inf)  # reach the row at k, less the sum before k
    entering[0, 0] = 0.0
    for row in range(1, len(costs)):
        reached = sums[row - 1] + np.minimum.accumulate(entering[row - 1])
        cheapest = np.minimum(reached, np.concatenate([[np.inf], reached[:-1]]))
        entering[row] = cheapest - (sums[row] - costs[row])
    columns = np.zeros(len(costs), np.int64)
    column = costs.shape[1] - 1
    for row in range(len(costs) - 1, 0, -1):
        columns[row] = column = int(entering[row, : column + 1].argmin())
        reached = sums[row - 1] + np.minimum.accumulate(entering[row - 1])
        column -= int(column > 0 and reached[column - 1] <= reached[column])
    return columns


@dataclass(frozen=True)
class Part:
    """Tokens `first` to `end` whose text is whole characters."""

    first: int
    end: int
    text: str


def words(
    ids: Sequence[int],
    begins: np.ndarray,
    start: float,
    end: float,
    speech: Sequence[Stretch],
    text: Text,
) -> tuple[Word, ...]:
    """The words of a segment, in order and within its times.

    A word's times are those of its letters; its punctuation is often said to last until the next.
    A pause is often said to belong to the word behind it, and is cut off.

    Args:
        ids: the segment's text tokens.
        begins: (N + 1,) when each begins, and when the last ends, in seconds.
        start, end: of the segment.
        speech: the stretches of speech in it, in order.
    """
    found = []
    for parts in _groups(list(_parts(ids, text))):
        said = [part for part in parts if SAID.search(part.text)] or parts
        first, last = np.clip([begins[said[0].first], begins[said[-1].end]], start, end)
        spoken = _spoken(Stretch(float(first), float(last)), speech)
        whole = "".join(part.text for part in parts)
        found.append(Word(round(spoken.start, 3), round(spoken.end, 3), whole))
    return tuple(found)


def _spoken(word: Stretch, speech: Sequence[Stretch]) -> Stretch:
    """The longest part of a word between pauses; the word itself where nobody speaks."""
    parts: list[Stretch] = []
    for one in speech:
        inside = Stretch(max(one.start, word.start), min(one.end, word.end))
        if inside.duration <= 0:
            continue
        if parts and inside.start - parts[-1].end < PAUSE_SECONDS:
            inside = Stretch(parts.pop().start, inside.end)
        parts.append(inside)
    return max(parts, key=lambda part: part.duration, default=word)


def _parts(ids: Sequence[int], text: Text) -> Iterator[Part]:
    """The fewest tokens that end with a whole character, one after the other."""
    first = 0
    for end in range(1, len(ids) + 1):
        decoded = text(ids[first:end])
        is_whole = not decoded.endswith("\ufffd") or end - first >= CHARACTER_TOKENS
        if is_whole or end == len(ids):
            yield Part(first, end, decoded)
            first = end


def _groups(parts: list[Part]) -> Iterator[list[Part]]:
    """The parts of each word."""
    whole = "".join(part.text for part in parts)
    characters = {match.start() for match in GRAPHEME.finditer(whole)}
    group: list[Part] = []
    begin = place = 0
    for part in parts:
        if place in characters and _ends_word(whole, begin, place):
            yield group
            group, begin = [], place
        group.append(part)
        place += len(part.text)
    if group:
        yield group


def _ends_word(text: str, begin: int, place: int) -> bool:
    """Whether the word that begins at `begin` is whole at `place`, where another begins."""
    if OPENS.fullmatch(text, begin, place):  # it has no letter yet
        return False
    if text[place].isspace() or text[place - 1].isspace():
        return not CLOSES.match(text, place) and bool(text[place:].strip())
    if ENDS_UNSPACED.match(text, place - 1):
        return bool(AFTER_UNSPACED.match(text, place))
    return bool(BEGINS_UNSPACED.match(text, place))
