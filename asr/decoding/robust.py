"""Decode so that nothing is invented: silence stays empty, a hypothesis in circles is drawn anew.

As in the Whisper paper, a hypothesis that repeats itself is decoded again at higher temperatures;
where all repeat themselves, the likeliest stays. A draw depends on sound, window and temperature
alone. The paper also decodes again what the model holds unlikely: with whisper-base that cost 1.6
to 4.8 decodings a row, and no kind of speech was heard better, nor is any above 0.6.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from asr.decoding import beam, search
from asr.decoding.options import DEFAULT, Options
from asr.decoding.search import Hypothesis
from asr.decoding.vocabulary import Vocabulary
from asr.engines.engine import Encoded

TEMPERATURES = (0.0, 0.2, 0.4, 0.6)
MOST_COMPRESSION = 2.4  # tokens for each byte of them, compressed
# Nothing was said where the model says so with this probability, and holds what it decoded
# unlikely or repeats itself.
NO_SPEECH = 0.55
LEAST_MEAN_LOG_PROBABILITY = -1.0


def decode(
    encoded: Encoded,
    prompts: Sequence[list[int]],
    limits: Sequence[int],
    features: np.ndarray,
    vocabulary: Vocabulary,
    options: Options = DEFAULT,
) -> list[Hypothesis]:
    """Decode a batch of windows; a window without speech gives no tokens.

    Args:
        features: (B, M, T), the sound that was encoded; it seeds the draws.
        options: the size of the beam, and a temperature that leaves no other to be tried.
    """
    temperatures = TEMPERATURES if options.temperature is None else (options.temperature,)
    chosen: dict[int, Hypothesis] = {}
    waiting = list(range(len(prompts)))
    for temperature in temperatures:
        drawn = draw(
            encoded,
            waiting,
            [prompts[row] for row in waiting],
            [limits[row] for row in waiting],
            features,
            vocabulary,
            temperature,
            options.beam_size,
        )
        for row, hypothesis in zip(waiting, drawn, strict=True):
            chosen[row] = _better(chosen.get(row), hypothesis, vocabulary)
        waiting = [row for row in waiting if not _is_good(chosen[row], vocabulary)]
        if not waiting:
            break
    return [_without_invention(chosen[row], vocabulary) for row in range(len(prompts))]


def draw(
    encoded: Encoded,
    windows: Sequence[int],
    prompts: Sequence[list[int]],
    limits: Sequence[int],
    features: np.ndarray,
    vocabulary: Vocabulary,
    temperature: float,
    beam_size: int,
    stop_loops: bool = True,
) -> list[Hypothesis]:
    """Decode some windows at one temperature; above 0 there is no beam."""
    asked = (encoded, windows, prompts, limits, vocabulary)
    if temperature == 0 and beam_size > 1:
        return beam.decode(*asked, beam_size, stop_loops)
    seeds = [_seed(features[window], temperature) for window in windows]
    return search.decode(*asked, temperature, seeds, stop_loops)


def _is_good(hypothesis: Hypothesis, vocabulary: Vocabulary) -> bool:
    """Whether no other temperature needs to be tried."""
    return _is_no_speech(hypothesis, vocabulary) or not _repeats(hypothesis, vocabulary)


def _better(before: Hypothesis | None, now: Hypothesis, vocabulary: Vocabulary) -> Hypothesis:
    """The first good one; else the likelier one."""
    if before is None or _is_good(now, vocabulary):
        return now
    return max(before, now, key=lambda one: one.mean_log_probability)


def _repeats(hypothesis: Hypothesis, vocabulary: Vocabulary) -> bool:
    words = [token for token in hypothesis.ids if token < vocabulary.first_timestamp]
    return hypothesis.looped or compression(words) > MOST_COMPRESSION


def _is_no_speech(hypothesis: Hypothesis, vocabulary: Vocabulary) -> bool:
    """Whether the model says so, and what it decoded does not speak against it."""
    if (hypothesis.no_speech_probability or 0.0) <= NO_SPEECH:
        return False
    is_unlikely = hypothesis.mean_log_probability < LEAST_MEAN_LOG_PROBABILITY
    return is_unlikely or _repeats(hypothesis, vocabulary)


def _without_invention(hypothesis: Hypothesis, vocabulary: Vocabulary) -> Hypothesis:
    return replace(hypothesis, ids=()) if _is_no_speech(hypothesis, vocabulary) else hypothesis


def compression(ids: Sequence[int]) -> float:
    """How many tokens a compressed byte holds; 0 for no tokens.

    Tokens, for in UTF-8 a letter of Thai is three bytes, which would seem to repeat themselves, and
    digits that are read out are the same few words, though in an order of their own. A distinct
    token counts as a byte, or as two where there are more than 256 of them.
    """
    numbers = {token: number for number, token in enumerate(dict.fromkeys(ids))}
    kind = np.uint8 if len(numbers) <= 256 else np.uint16
    codes = np.array([numbers[token] for token in ids], kind).tobytes()
    without_header = -zlib.MAX_WBITS
    return len(codes) / len(zlib.compress(codes, wbits=without_header)) if ids else 0.0


def _seed(features: np.ndarray, temperature: float) -> int:
    digest = hashlib.blake2b(features.tobytes(), digest_size=8, salt=f"{temperature}".encode())
    return int.from_bytes(digest.digest(), "big")
