"""Beam search: several hypotheses of each window grow side by side, and the likeliest wins.

As in openai-whisper: at each step the likeliest continuations of a window's hypotheses are kept;
those that end are finished; the search ends when as many are finished as are kept, or when the
likeliest goes round in circles. The finished ones are compared by their mean log-probability. With
one hypothesis it is the greedy search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from asr import stopping
from asr.decoding import rules, search
from asr.decoding.search import Hypothesis
from asr.decoding.vocabulary import Vocabulary
from asr.engines.engine import Encoded


@dataclass(frozen=True)
class _Beam:
    """A hypothesis that grows."""

    ids: tuple[int, ...] = ()
    log_probability: float = 0.0
    looped: bool = False
    capped: bool = False

    @property
    def mean(self) -> float:
        return search.mean(self.log_probability, self.ids)


@dataclass
class _Window:
    """The hypotheses of a window, and the most tokens of each."""

    limit: int
    growing: list[_Beam] = field(default_factory=lambda: [_Beam()])
    finished: list[_Beam] = field(default_factory=list)


def decode(
    encoded: Encoded,
    windows: Sequence[int],
    prompts: Sequence[list[int]],
    limits: Sequence[int],
    vocabulary: Vocabulary,
    size: int,
    stop_loops: bool = True,
) -> list[Hypothesis]:
    """Decode some windows of a batch at temperature 0; the arguments as for `search.decode`.

    Costs the decoder's steps at `size` rows a window.

    Args:
        size: hypotheses that are kept at each step.
    """
    room = vocabulary.max_positions - len(prompts[0])
    all_windows = [_Window(min(limit, room)) for limit in limits]
    timestamps = vocabulary.no_timestamps not in prompts[0]
    decoder = encoded.decoder(windows)
    scores, no_speech = search.prompted(decoder, np.array(prompts), vocabulary)
    while True:
        active = [beam for window in all_windows for beam in window.growing]
        rules.apply(scores, [beam.ids for beam in active], vocabulary, timestamps)
        values = search.log_softmax(scores)
        rows: list[int] = []  # of the active ones, that which each of the next grows from
        first = 0
        for window in all_windows:
            last = first + len(window.growing)
            grown = _grow(window, values[first:last], size, vocabulary, stop_loops)
            rows += [first + row for row in grown]
            first = last
        if not rows:
            break
        decoder.select(rows)
        tokens = [beam.ids[-1] for window in all_windows for beam in window.growing]
        scores = decoder.step(np.array(tokens)[:, None])
    return [
        Hypothesis(best.ids, best.mean, silent, best.looped, 0.0, capped=best.capped)
        for best, silent in zip(map(_best, all_windows), no_speech, strict=True)
    ]


def _grow(
    window: _Window, values: np.ndarray, size: int, vocabulary: Vocabulary, stop_loops: bool
) -> list[int]:
    """Add a token to a window's hypotheses; returns the row from which each of them grew.

    Args:
        values: (rows, V) log-probabilities of the next token.
    """
    if not window.growing:
        return []
    parents, window.growing = window.growing, []
    rows: list[int] = []
    for row, token, log_probability in _likeliest(parents, values, size + 1):
        if len(rows) == size:
            break
        if token == vocabulary.end:
            window.finished.append(_Beam(parents[row].ids, log_probability))
        else:
            window.growing.append(_Beam((*parents[row].ids, token), log_probability))
            rows.append(row)
    _finish(window, size, vocabulary, stop_loops)
    return rows if window.growing else []


def _finish(window: _Window, size: int, vocabulary: Vocabulary, stop_loops: bool) -> None:
    """End the search of a window with enough hypotheses, full ones, or the likeliest in a loop."""
    growing, missing = window.growing, size - len(window.finished)
    if missing <= 0 or not growing:
        window.growing = []
    elif stop_loops and (place := _loop_start(growing[0], vocabulary)):
        kept = growing[0].mean * (place + 1)
        window.finished.append(_Beam(growing[0].ids[:place], kept, looped=True))
        window.growing = []
    elif len(growing[0].ids) >= window.limit:
        window.finished += [replace(beam, capped=True) for beam in growing[:missing]]
        window.growing = []


def _loop_start(beam: _Beam, vocabulary: Vocabulary) -> int:
    return stopping.loop_start(beam.ids, vocabulary.first_timestamp)


def _likeliest(
    parents: list[_Beam], values: np.ndarray, count: int
) -> list[tuple[int, int, float]]:
    """The likeliest continuations of all rows: row, token, and log-probability of the whole."""
    totals = values + np.array([beam.log_probability for beam in parents])[:, None]
    flat = totals.ravel()
    best = np.argpartition(-flat, min(count, flat.size - 1))[:count]
    best = best[np.lexsort((best, -flat[best]))]
    return [
        (int(place) // values.shape[1], int(place) % values.shape[1], float(flat[place]))
        for place in best
        if np.isfinite(flat[place])
    ]


def _best(window: _Window) -> _Beam:
    return max(window.finished, key=lambda beam: (not beam.looped, beam.mean))
