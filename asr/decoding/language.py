"""Which language a recording is in, whether it is the one that was set, and where it changes.

    likeliest = detect(recognizer, sound, begin, end)     # [("fa", 0.93), ("ar", 0.04), ...]
    if text := mismatch(likeliest, "en"):                 # the language that was set
        warn(text)
    spoken = Spoken(recognizer, likeliest)                # for a file in two languages
    codes = spoken.next(clips, seconds)                   # of its pieces, in order

A guess is as good as the speech behind it: whisper-base calls 4 in 10 Persian clips of 4 s Persian,
9 in 10 of 10 s, and all of 28 s. So what it hears is filled with speech, whose pauses are left out.
Imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from asr import features
from asr.audio.sample_file import SampleFile, passages
from asr.decoding.recognizer import Recognizer
from asr.errors import ModelError
from asr.features import LogMel
from asr.runtime import formatting
from asr.speech.detection import stretches
from asr.whisper import FRAMES_PER_SECOND, LANGUAGE_NAMES, SAMPLE_RATE

PLACES = 4  # of a recording at which it is heard, for a window of speech each
SURE = 0.9  # a probability that makes half of the places enough
SEARCH_SECONDS = 300.0  # of each place in which speech is looked for
MARGIN_SECONDS = 0.1  # heard on both sides of speech

# Below and above these probabilities, a language that was set is doubted for another.
UNLIKELY, LIKELY = 0.01, 0.8

SWITCH = 0.05  # how likely, against staying, a change of language is from one piece to the next
WHOLE_SECONDS = 10.0  # a shorter piece says less of its language
PIECE_SECONDS = 20.0  # a longer piece may hold two languages; of 10 s whisper-base is less sure

Likeliest = list[tuple[str, float]]  # Whisper's codes and probabilities, likeliest first


def detect(recognizer: Recognizer, sound: SampleFile, begin: float, end: float) -> Likeliest:
    """The languages of a recording, from up to four windows of speech spread over it.

    Their probabilities are averaged, each window by its length: a recording half in one language
    and half in another gives each one half. Costs one pass through the encoder for each window of
    sound, at most four, or two where these leave no doubt. At each place no more than five minutes
    are read.

    Args:
        begin, end: the part of the recording that is heard, in seconds.
    Raises:
        ModelError: the model knows English only.
    """
    if not recognizer.vocabulary.languages:
        raise ModelError("this model knows English only; choose no language")
    weights, heard = np.zeros(0), np.zeros((0, len(recognizer.vocabulary.languages)))
    for windows in _windows(recognizer, sound, begin, end):
        clips = [_clip(recognizer, samples) for samples in windows]
        weights = np.append(weights, [len(samples) for samples in windows])
        heard = np.vstack([heard, probabilities(recognizer, clips)])
        if (weights @ heard).max() >= SURE * weights.sum():
            break
    return ranked(recognizer, weights @ heard / weights.sum())


def ranked(recognizer: Recognizer, shares: np.ndarray) -> Likeliest:
    """Probabilities (L,) with their codes, likeliest first."""
    codes = list(recognizer.vocabulary.languages)
    return [(codes[index], float(shares[index])) for index in (-shares).argsort(kind="stable")]


def mismatch(likeliest: Likeliest, language: str) -> str | None:
    """A warning in words where the sound is clearly in another language than the one set."""
    best, probability = likeliest[0]
    if dict(likeliest).get(language, 1.0) >= UNLIKELY or probability < LIKELY:
        return None
    heard, wanted = (LANGUAGE_NAMES.get(code, code) for code in (best, language))
    share = formatting.percent(probability, 0)
    return f"This sounds like {heard} ({share}), and not like {wanted}, which is set"


def probabilities(recognizer: Recognizer, clips: Sequence[LogMel]) -> np.ndarray:
    """(B, L) how likely each language of the vocabulary is in each clip, from its first window."""
    frames = recognizer.vocabulary.window_seconds * FRAMES_PER_SECOND
    encoded = recognizer.engine.encode(np.stack([features.pad(clip, frames) for clip in clips]))
    start = np.full((len(clips), 1), recognizer.vocabulary.start)
    # The token after the start token is the language; of the scores, those of languages count.
    scores = encoded.decoder(range(len(clips))).step(start).astype(np.float64)
    scores = scores[:, list(recognizer.vocabulary.languages.values())]
    likelihoods = np.exp(scores - scores.max(-1, keepdims=True))
    shares: np.ndarray = likelihoods / likelihoods.sum(-1, keepdims=True)
    return shares


class Spoken:
    """The language of each piece of a recording that may change it.

    A change is held for unlikely, so that one odd piece does not bring one: it takes a piece that
    is clearly in another language, or several that lean to it, before or after; and more, if that
    language was not heard at other places. (The Viterbi path of a hidden Markov model, a few pieces
    at a time.) A piece that holds two languages counts as one of them.
    """

    def __init__(self, recognizer: Recognizer, likeliest: Likeliest):
        self.recognizer = recognizer
        self.codes = list(recognizer.vocabulary.languages)
        shares = dict(likeliest)
        self.odds = _log([shares[code] for code in self.codes])  # (L,) after the last piece
        self.changes = np.log(SWITCH) + np.maximum(self.odds - self.odds.max(), np.log(SWITCH))

    def next(self, clips: Sequence[LogMel], seconds: Sequence[float]) -> list[str]:
        """The languages of the next pieces, which follow each other.

        Costs a pass through the encoder, unless the engine remembers it.

        Args:
            seconds: their lengths.
        """
        return self.after(probabilities(self.recognizer, clips), seconds)

    def after(self, heard: np.ndarray, seconds: Sequence[float]) -> list[str]:
        """The languages of pieces with these probabilities (N, L)."""
        before: list[np.ndarray] = []  # of each piece, the language it comes from, by its own
        for row, length in zip(heard, seconds, strict=True):
            best = int(self.odds.argmax())
            changed = self.odds[best] + self.changes
            before.append(np.where(self.odds >= changed, np.arange(len(row)), best))
            evidence = min(1.0, length / WHOLE_SECONDS) * _log(row)
            self.odds = np.maximum(self.odds, changed) + evidence
        path = [int(self.odds.argmax())]
        for came in before[:0:-1]:
            path.append(int(came[path[-1]]))
        return [self.codes[place] for place in reversed(path)]


def _log(probabilities: Sequence[float] | np.ndarray) -> np.ndarray:
    logarithms: np.ndarray = np.log(np.maximum(probabilities, np.finfo(float).tiny))
    return logarithms


def _windows(
    recognizer: Recognizer, sound: SampleFile, begin: float, end: float
) -> Iterator[list[np.ndarray]]:
    """Samples of speech from half of the places, then of the others; of any sound if none speaks.

    Each is at most a window long, and not empty.
    """
    window = float(recognizer.vocabulary.window_seconds)
    count = max(1, min(PLACES, round((end - begin) / window)))
    edges = np.linspace(begin, end, count + 1)
    places = list(pairwise(edges))
    found = False
    for half in (places[::2], places[1::2]):
        spoken = [_speech(sound, first, last, window) for first, last in half]
        if windows := [samples for samples in spoken if len(samples)]:
            found = True
            yield windows
    if not found:
        yield [sound.read(begin, min(end, begin + window))]


def _speech(sound: SampleFile, begin: float, end: float, longest: float) -> np.ndarray:
    """(S,) the first speech between two moments, without its pauses."""
    end = min(end, begin + SEARCH_SECONDS)
    blocks = (samples for _, samples in passages(sound, begin, end))
    parts = [np.zeros(0, np.float32)]
    for stretch in stretches(blocks, begin):
        first, last = stretch.start - MARGIN_SECONDS, stretch.end + MARGIN_SECONDS
        parts.append(sound.read(max(first, begin), min(last, end, first + longest)))
        longest -= len(parts[-1]) / SAMPLE_RATE
        if longest <= 0:
            break
    return np.concatenate(parts)


def _clip(recognizer: Recognizer, samples: np.ndarray) -> LogMel:
    return features.stored_log_mel(samples, recognizer.vocabulary.num_mel_bins)
