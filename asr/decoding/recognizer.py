"""A model that is ready to recognise: engine, tokens and method of decoding.

Evaluation, the page and the command line use the same one. Imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tokenizers import Tokenizer

from asr import features, stopping
from asr.decoding import robust, vocabulary, words
from asr.decoding.options import DEFAULT, Options
from asr.decoding.search import Hypothesis
from asr.decoding.segments import Word
from asr.decoding.vocabulary import Vocabulary
from asr.engines.engine import Encoded, Engine
from asr.errors import ModelError
from asr.features import LogMel
from asr.speech.detection import Stretch
from asr.whisper import FRAMES_PER_SECOND

GREEDY, ROBUST = "greedy", "robust"
METHODS = (GREEDY, ROBUST)
SILENT = Hypothesis((), 0.0, None, False, 0.0)


@dataclass(frozen=True)
class Recognizer:
    """Attributes:
    method: GREEDY takes the likeliest token always; ROBUST see `asr.decoding.robust`.
    """

    engine: Engine
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    method: str

    def text(self, ids: Sequence[int]) -> str:
        return vocabulary.text_of(self.tokenizer, self.vocabulary, ids)

    def previous(self, text: str) -> list[int]:
        """The tokens of what was said before.

        Raises:
            ModelError: the model has no token for that.
        """
        if not text.strip():
            return []
        if self.vocabulary.previous is None:
            raise ModelError("the model takes no text before a recording; leave out initial-prompt")
        encoded = self.tokenizer.encode(f" {text.strip()}", add_special_tokens=False)
        return [token for token in encoded.ids if token < self.vocabulary.end]

    def words(
        self,
        ids: Sequence[int],
        begins: np.ndarray,
        start: float,
        end: float,
        speech: Sequence[Stretch],
    ) -> tuple[Word, ...]:
        """The words of a segment; see `asr.decoding.words`."""
        return words.words(ids, begins, start, end, speech, self._raw_text)

    def _raw_text(self, ids: Sequence[int]) -> str:
        """The text with the space at its ends."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def hypotheses(
        self,
        clips: Sequence[LogMel],
        durations: Sequence[float],
        prompts: Sequence[list[int]],
        max_new_tokens: int,
        options: Options = DEFAULT,
    ) -> list[Hypothesis]:
        """Decode a batch of clips that fit the window; ROBUST leaves digital silence empty.

        Args:
            durations: seconds, which limit the tokens.
            prompts: of each clip, all of one length.
            options: beam, temperature and times of words; the others are for long recordings.
        """
        sounding = [
            row for row, clip in enumerate(clips) if self.method == GREEDY or not is_silent(clip)
        ]
        found = [SILENT] * len(clips)
        if sounding:
            frames = self.vocabulary.window_seconds * FRAMES_PER_SECOND
            inputs = np.stack([features.pad(clips[row], frames) for row in sounding])
            longest = [stopping.max_tokens(durations[row]) for row in sounding]
            limits = [min(max_new_tokens, most) for most in longest]
            spoken = [prompts[row] for row in sounding]
            encoded = self.engine.encode(inputs)
            decoded = self._decode(encoded, inputs, spoken, limits, options)
            if options.word_timestamps:
                lengths = [durations[row] for row in sounding]
                decoded = self._timed(encoded, decoded, spoken, lengths)
            for row, hypothesis in zip(sounding, decoded, strict=True):
                found[row] = hypothesis
        return found

    def _decode(
        self,
        encoded: Encoded,
        inputs: np.ndarray,
        prompts: Sequence[list[int]],
        limits: Sequence[int],
        options: Options,
    ) -> list[Hypothesis]:
        if self.method == ROBUST:
            return robust.decode(encoded, prompts, limits, inputs, self.vocabulary, options)
        return robust.draw(
            encoded,
            range(len(inputs)),
            prompts,
            limits,
            inputs,
            self.vocabulary,
            options.temperature or 0.0,
            options.beam_size,
            stop_loops=False,
        )

    def _timed(
        self,
        encoded: Encoded,
        hypotheses: Sequence[Hypothesis],
        prompts: Sequence[list[int]],
        durations: Sequence[float],
    ) -> list[Hypothesis]:
        """The hypotheses with the times of their tokens."""
        timed = []
        for window, (hypothesis, prompt, duration) in enumerate(
            zip(hypotheses, prompts, durations, strict=True)
        ):
            begins = words.token_begins(
                encoded, window, hypothesis.ids, prompt, self.vocabulary, duration
            )
            timed.append(replace(hypothesis, begins=tuple(begins.tolist())))
        return timed


def is_silent(clip: LogMel) -> bool:
    """Whether a clip holds nothing but equal samples, such as zeros."""
    return bool(np.ptp(clip.mel) == 0)
