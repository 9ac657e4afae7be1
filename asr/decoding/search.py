"""Choose tokens: the likeliest at each step, or drawn at a temperature. For beams see `beam`.

At temperature 0 with an engine in fp32, the tokens are those of plain `generate()`. A draw depends
on the row's seed and the step alone, never on the rows beside it. A row leaves the batch when its
text ends, reaches its limit, or goes round in circles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr import stopping
from asr.decoding import rules
from asr.decoding.vocabulary import Vocabulary
from asr.engines.engine import Decoder, Encoded

MOST_TEXT = 0.5  # likelihood of text behind the start token, in a model that tells no speech


@dataclass(frozen=True)
class Hypothesis:
    """What was decoded of one window.

    Attributes:
        ids: tokens between prompt and end, times included.
        mean_log_probability: of its tokens and its end, as they were when they could be chosen.
        no_speech_probability: of the token that says so; None where the model was not taught it.
        looped: a phrase was repeated, see `asr.stopping`; `ids` has it once if the row was stopped.
        temperature: at which the tokens were chosen.
        begins: when each text token begins and the last one ends, in seconds; only on demand.
        capped: it reached the most tokens of its window before its end.
    """

    ids: tuple[int, ...]
    mean_log_probability: float
    no_speech_probability: float | None
    looped: bool
    temperature: float
    begins: tuple[float, ...] = ()
    capped: bool = False


@dataclass
class _Row:
    """A hypothesis that grows; `window` and `limit` tokens."""

    index: int
    limit: int
    draw: np.random.Generator
    ids: list[int]
    log_probability: float = 0.0
    looped: bool = False
    capped: bool = False


def decode(
    encoded: Encoded,
    windows: Sequence[int],
    prompts: Sequence[list[int]],
    limits: Sequence[int],
    vocabulary: Vocabulary,
    temperature: float = 0.0,
    seeds: Sequence[int] | None = None,
    stop_loops: bool = True,
) -> list[Hypothesis]:
    """Decode some windows of a batch.

    Args:
        windows: their numbers in `encoded`.
        prompts: of each window, all of one length.
        limits: the most tokens of each window.
        seeds: of each window's draws; needed above temperature 0.
        stop_loops: end a row that goes round in circles; else that it does is only noted.
    """
    rows = [
        _Row(index, min(limit, vocabulary.max_positions - len(prompts[0])), generator, [])
        for index, (limit, generator) in enumerate(
            zip(limits, map(np.random.default_rng, seeds or [0] * len(limits)), strict=True)
        )
    ]
    timestamps = vocabulary.no_timestamps not in prompts[0]
    decoder = encoded.decoder(windows)
    scores, no_speech = prompted(decoder, np.array(prompts), vocabulary)
    active = rows
    while True:
        rules.apply(scores, [row.ids for row in active], vocabulary, timestamps)
        tokens = _choose(scores, active, temperature)
        kept = [
            place
            for place, row in enumerate(active)
            if _goes_on(row, tokens[place], vocabulary, stop_loops)
        ]
        if not kept:
            break
        if len(kept) < len(active):
            decoder.select(kept)
            active = [active[place] for place in kept]
            tokens = tokens[kept]
        scores = decoder.step(tokens[:, None])
    return [
        Hypothesis(
            tuple(row.ids),
            mean(row.log_probability, row.ids),
            silent,
            row.looped,
            temperature,
            capped=row.capped,
        )
        for row, silent in zip(rows, no_speech, strict=True)
    ]


def prompted(
    decoder: Decoder, prompts: np.ndarray, vocabulary: Vocabulary
) -> tuple[np.ndarray, list[float | None]]:
    """Feed the prompts (B, N).

    Returns:
        scores of the first token, and of each row how likely there is no speech, which what follows
        the start token tells; None where the model was not taught it.
    """
    behind_start = int(np.flatnonzero(prompts[0] == vocabulary.start)[-1]) + 1
    scores = decoder.step(prompts[:, :behind_start])
    no_speech = _no_speech(scores, vocabulary)
    rest = prompts[:, behind_start:]
    return decoder.step(rest) if rest.size else scores, no_speech


def _no_speech(scores: np.ndarray, vocabulary: Vocabulary) -> list[float | None]:
    """How likely there is no speech, by the scores (B, V) of the token behind the start token.

    A model that was taught to tell expects no text there, but a language or the like (0.5 % of text
    in whisper-base). A model from scratch, whose prompt is not learned, expects text; what it says
    of the other tokens is chance.
    """
    if vocabulary.no_speech is None:
        return [None] * len(scores)
    shares = np.exp(log_softmax(scores))
    texts = shares[:, : vocabulary.end].sum(-1)
    return [
        float(share) if text < MOST_TEXT else None
        for share, text in zip(shares[:, vocabulary.no_speech], texts, strict=True)
    ]


def mean(log_probability: float, ids: Sequence[int]) -> float:
    """The mean log-probability of a hypothesis' tokens and its end."""
    return log_probability / (len(ids) + 1)


def log_softmax(scores: np.ndarray) -> np.ndarray:
    highest = scores.max(-1, keepdims=True)
    values: np.ndarray = scores - highest
    values -= np.log(np.exp(values).sum(-1, keepdims=True))
    return values


def _choose(scores: np.ndarray, rows: list[_Row], temperature: float) -> np.ndarray:
    """The next token of each row, whose log-probability is noted."""
    log_probabilities = log_softmax(scores)
    if temperature == 0:
        tokens: np.ndarray = scores.argmax(-1)
    else:
        shares = np.exp(log_softmax(scores / temperature))
        sums = shares.cumsum(-1, dtype=np.float64)  # in float32 the last is below the whole
        points = np.array([row.draw.random() for row in rows])[:, None]
        tokens = (sums < points * sums[:, -1:]).sum(-1)
    for row, token, values in zip(rows, tokens, log_probabilities, strict=True):
        row.log_probability += float(values[token])
    return tokens


def _goes_on(row: _Row, token: int, vocabulary: Vocabulary, stop_loops: bool) -> bool:
    """Add a token to a row; whether it is to be decoded further."""
    if token == vocabulary.end:
        return False
    row.ids.append(int(token))
    if place := stopping.loop_start(row.ids, vocabulary.first_timestamp):
        row.looped = True
        if stop_loops:
            row.log_probability = mean(row.log_probability, row.ids) * (place + 1)
            del row.ids[place:]
            return False
    row.capped = len(row.ids) >= row.limit
    return not row.capped
