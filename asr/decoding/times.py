"""Whether the times that a model says are to be believed.

The files of a model do not tell whether it knows times, and a training without them may have taken
them from it. So every model that has tokens for times is asked for them, and what it says of a
piece is checked before it is believed. A piece with a fault is decoded anew without times, and cut
at its pauses. After a few of them the model is not asked again.

Scores do not tell: after the task, whisper-base gives times a probability of 0.001 to 0.7, and a
model that never saw any the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from asr.decoding.search import Hypothesis
from asr.decoding.segments import split_at_timestamps
from asr.decoding.vocabulary import Vocabulary
from asr.speech.detection import Stretch

LATE_SECONDS = 1.0  # behind the end of the sound, for Whisper often says whole seconds
CHARACTERS_PER_SECOND = 50  # more than the fastest speech, in any script
TOKENS_PER_SECOND = 1.0  # of speech: fewer than the slowest; of five languages none had below 2.2
LEAST_SPEECH_SECONDS = 4.0  # in an utterance, to say that too little of it was written
DISTRUST = 2  # so many more pieces with a fault than without one

BY_MODEL = "told by the model"
AT_PAUSES = "cut at pauses, for this model does not know times"

Text = Callable[[Sequence[int]], str]  # the text of tokens


@dataclass
class Trust:
    """What the pieces of a recording have shown; `balance` those without a fault, less the others.

    A model that has no tokens for times begins distrusted.
    """

    balance: int = 0

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Trust:
        return cls(0 if vocabulary.has_timestamps else -DISTRUST)

    def note(self, has_fault: bool) -> None:
        self.balance += -1 if has_fault else 1

    @property
    def holds(self) -> bool:
        """Whether the model is still asked for times."""
        return self.balance > -DISTRUST

    @property
    def is_settled(self) -> bool:
        return self.balance > 0 or not self.holds

    @property
    def text(self) -> str:
        """Where the times come from, in words."""
        return BY_MODEL if self.holds else AT_PAUSES


def has_fault(hypothesis: Hypothesis, seconds: float, vocabulary: Vocabulary, text: Text) -> bool:
    """Whether times cannot be right: left open, behind the sound, or too close for the text.

    Times without a word are right where the model can tell that nobody speaks. That they never
    decrease is seen to while they are chosen (`asr.decoding.rules`).

    Args:
        hypothesis: of a piece; its tokens, times included, are not empty.
        seconds: length of the piece.
    """
    ids, first = hypothesis.ids, vocabulary.first_timestamp
    if all(token >= first for token in ids):
        return hypothesis.no_speech_probability is None
    window = float(vocabulary.window_seconds)
    utterances = split_at_timestamps(ids, first, window)
    is_open = ids[-1] < first
    is_late = any(end > seconds + LATE_SECONDS for _, end, _ in utterances)
    is_fast = any(
        len(text(words)) > CHARACTERS_PER_SECOND * (end - start) for start, end, words in utterances
    )
    return is_open or is_late or is_fast


def leaves_out(
    ids: Sequence[int], piece: Stretch, speech: Sequence[Stretch], vocabulary: Vocabulary
) -> bool:
    """Whether an utterance has far fewer tokens than it has speech.

    Whisper may skip half a window of speech and say one utterance over it. Asked for no times, and
    for less of it, it writes it.

    Args:
        ids: of the piece, times included.
        speech: of the recording, in order.
    """
    first_timestamp = vocabulary.first_timestamp
    for start, end, words in split_at_timestamps(ids, first_timestamp, piece.duration):
        first, last = piece.start + start, piece.start + end
        seconds = sum(max(0.0, min(one.end, last) - max(one.start, first)) for one in speech)
        if seconds >= LEAST_SPEECH_SECONDS and len(words) < TOKENS_PER_SECOND * seconds:
            return True
    return False
