"""Transcribe a recording of any length: pieces of speech side by side, and what they left unread.

Speech is cut at pauses into pieces that fill the window. A model that says times often closes its
last utterance early and stops; the speech behind it is then decoded as a piece of its own. That
gives the words of Whisper's own way, window after window, at the cost of a batch. A model whose
times are not to be believed (`asr.decoding.times`) gets shorter pieces, which are the segments.
Memory holds a few pieces, whatever the length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import tee
from typing import NamedTuple

import numpy as np

from asr import features
from asr.audio.sample_file import SampleFile, passages
from asr.decoding.language import PIECE_SECONDS, Spoken, detect
from asr.decoding.options import DEFAULT, EACH, Options
from asr.decoding.recognizer import Recognizer
from asr.decoding.search import Hypothesis
from asr.decoding.segments import Segment, split_at_timestamps
from asr.decoding.times import Trust, has_fault, leaves_out
from asr.features import LogMel
from asr.speech.detection import Stretch, stretches
from asr.speech.pieces import pieces, quietest, unread
from asr.whisper import POSITIONS_PER_SECOND

BATCH = 8  # pieces decoded together
MAX_NEW_TOKENS = 444
LEAST_PROGRESS_SECONDS = 0.5  # a piece whose times end before this is not read again
MARGIN_SECONDS = 0.2  # a segment may start so long before speech does
FORGET_ABOVE = 0.5  # a text drawn at such a temperature does not come before the next piece
PROMPT_SECONDS = 2
PAUSED_SHARE = 0.4  # of the window: longest piece of a model that says no times


class Piece(NamedTuple):
    """A piece of speech, whether times are asked for, and its language where each has its own."""

    span: Stretch
    timed: bool
    language: str | None


@dataclass
class Transcription:
    """The work on one recording, or a part of it.

    Attributes:
        language: Whisper's code; EACH detects that of each piece; None is the model's own.
        task: transcribe, translate, or None for the model's own.
        begin, end: the part, in seconds.
        options: with `condition_on_previous_text` the pieces are decoded one after the other.
        trust: in the model's times; `trust.text` tells in words where the times come from, once all
            segments are there.
        said: tokens of the text before the next piece.
        coming, waiting: pieces that are not found yet, and that are.
        first: what was decoded of the first piece, if it was decoded with other recordings.
        spoken: the languages of the pieces, where each has its own.
        speech: the stretches found so far, in order.
        heard: segments that wait for an earlier piece.
    """

    recognizer: Recognizer
    sound: SampleFile
    language: str | None
    task: str | None
    begin: float
    end: float
    options: Options = DEFAULT
    trust: Trust = field(init=False)
    said: list[int] = field(init=False)
    coming: Iterator[Piece] = field(init=False)
    waiting: list[Piece] = field(default_factory=list)
    first: Hypothesis | None = None
    spoken: Spoken | None = None
    speech: list[Stretch] = field(default_factory=list)
    heard: list[Segment] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.trust = Trust.of(self.recognizer.vocabulary)
        self.said = self._timed(self.recognizer.previous(self.options.initial_prompt))
        self.coming = self._pieces()

    @property
    def guesses_words(self) -> bool:
        """Whether nobody told which heads follow the sound, so that times of words are a guess."""
        asked = self.options.word_timestamps
        return asked and not self.recognizer.vocabulary.alignment_heads

    def segments(self, on_progress: Callable[[float], None] = lambda _: None) -> Iterator[Segment]:
        """Yield the segments in their order, each as soon as no earlier piece waits.

        Args:
            on_progress: called at the start, after each batch and at the end with the time up to
                which all is decoded; it may raise an error to stop.
        """
        # The first words should not wait for a batch, unless it tells their language.
        size = BATCH if self.language == EACH else 1
        on_progress(self.begin)
        while self._find(size):
            self.waiting.sort(key=lambda piece: piece.span)
            batch = self._in_languages(self._take(size))
            hypotheses = [self.first] if self.first else self._decode(batch)
            self.first = None
            for piece, hypothesis in zip(batch, hypotheses, strict=True):
                self.waiting += self._listen(piece, hypothesis)
            earliest = min((one.span.start for one in self.waiting), default=batch[-1].span.end)
            on_progress(earliest)
            yield from self._ready(earliest)
            size = self._batch_size()
        yield from self._ready(self.end)
        on_progress(self.end)

    def first_piece(self) -> Piece | None:
        """The piece that is decoded first; None where nothing is spoken."""
        return self.waiting[0] if self._find(1) else None

    def _find(self, count: int) -> bool:
        """Have so many pieces wait, if there are; whether there is one."""
        while len(self.waiting) < count and (piece := next(self.coming, None)):
            self.waiting.append(piece)
        return bool(self.waiting)

    def _take(self, count: int) -> list[Piece]:
        """The first pieces that wait, with times or without, as the very first is decoded."""
        timed = self.waiting[0].timed
        batch = [piece for piece in self.waiting if piece.timed == timed][:count]
        self.waiting = [piece for piece in self.waiting if piece not in batch]
        return batch

    def _batch_size(self) -> int:
        """One piece at a time until its times are believed, or no longer asked for."""
        side_by_side = self.trust.is_settled or self.language == EACH
        return BATCH if side_by_side and not self.options.condition_on_previous_text else 1

    def _pieces(self) -> Iterator[Piece]:
        """The pieces of speech, found as they are needed."""
        blocks = (samples for _, samples in passages(self.sound, self.begin, self.end))
        found, kept = tee(stretches(blocks, self.begin))
        longest: float = self.recognizer.vocabulary.window_seconds
        if self.language == EACH:
            longest = min(longest, PIECE_SECONDS)
        for span in pieces(found, self.begin, self.end, longest, self._quietest):
            while not self.speech or self.speech[-1].end < span.end:
                if not (stretch := next(kept, None)):
                    break
                self.speech.append(stretch)
            piece = Piece(span, True, None)
            yield from [piece] if self.trust.holds else self._at_pauses(piece)

    def _at_pauses(self, piece: Piece) -> list[Piece]:
        """Shorter pieces that are to be decoded without times."""
        begin, end = piece.span
        longest = PAUSED_SHARE * self.recognizer.vocabulary.window_seconds
        if not piece.timed:
            longest = min(longest, piece.span.duration / 2)
        return [
            Piece(span, False, piece.language)
            for span in pieces(self.speech, begin, end, longest, self._quietest)
        ]

    def _quietest(self, begin: float, end: float) -> float:
        return quietest(self.sound, begin, end)

    def _decode(self, batch: list[Piece]) -> list[Hypothesis]:
        return self.recognizer.hypotheses(
            [self.clip(piece.span) for piece in batch],
            [piece.span.duration for piece in batch],
            [self.prompt(piece) for piece in batch],
            MAX_NEW_TOKENS,
            self.options,
        )

    def _in_languages(self, batch: list[Piece]) -> list[Piece]:
        """Pieces with the language of each; those that are decoded again keep theirs."""
        fresh = [piece for piece in batch if piece.language is None]
        if self.language != EACH or not fresh:
            return batch
        if self.spoken is None:
            likeliest = detect(self.recognizer, self.sound, self.begin, self.end)
            self.spoken = Spoken(self.recognizer, likeliest)
        codes = iter(
            self.spoken.next(
                [self.clip(piece.span) for piece in fresh],
                [piece.span.duration for piece in fresh],
            )
        )
        return [piece._replace(language=piece.language or next(codes)) for piece in batch]

    def prompt(self, piece: Piece) -> list[int]:
        """The text before, at most half of what fits, and the tokens before every transcript."""
        vocabulary = self.recognizer.vocabulary
        prompt = vocabulary.prompt(piece.language or self.language, self.task, piece.timed)
        if not self.said or vocabulary.previous is None:
            return prompt
        return [vocabulary.previous, *self.said[1 - vocabulary.max_positions // 2 :], *prompt]

    def _timed(self, text: list[int]) -> list[int]:
        """A text before as one utterance of PROMPT_SECONDS, for a model that is asked for times:
        after a text without times it says fewer, and leaves words out.
        """
        if not text or not self.trust.holds:
            return text
        first = self.recognizer.vocabulary.first_timestamp
        return [first, *text, first + PROMPT_SECONDS * POSITIONS_PER_SECOND]

    def _remember(self, hypothesis: Hypothesis) -> None:
        """The tokens of a piece come before the next, times too; see `_timed`.

        A piece that was drawn at random is forgotten, with all before.
        """
        self.said = [] if hypothesis.temperature > FORGET_ABOVE else [*self.said, *hypothesis.ids]

    def clip(self, span: Stretch) -> LogMel:
        """The features of a piece."""
        samples = self.sound.read(span.start, span.end)
        return features.stored_log_mel(samples, self.recognizer.vocabulary.num_mel_bins)

    def _listen(self, piece: Piece, hypothesis: Hypothesis) -> list[Piece]:
        """Keep the segments of a piece; return the pieces that are to be decoded again."""
        if hypothesis.ids and self._is_wrong(piece, hypothesis):
            return self._at_pauses(piece)
        if self.options.condition_on_previous_text:
            self._remember(hypothesis)
        last = self._keep(piece, hypothesis)
        if not piece.timed or last < LEAST_PROGRESS_SECONDS:
            return []
        rest = unread(self.speech, piece.span, piece.span.start + last)
        return [piece._replace(span=span) for span in rest]

    def _is_wrong(self, piece: Piece, hypothesis: Hypothesis) -> bool:
        """Whether times cannot be right, or speech was left out; the first is remembered."""
        vocabulary, seconds = self.recognizer.vocabulary, piece.span.duration
        if piece.timed:
            at_fault = has_fault(hypothesis, seconds, vocabulary, self.recognizer.text)
            self.trust.note(at_fault)
            if at_fault:
                return True
        return leaves_out(hypothesis.ids, piece.span, self.speech, vocabulary)

    def _keep(self, piece: Piece, hypothesis: Hypothesis) -> float:
        """Keep the segments of a piece; return where the last one ends in it."""
        first, (begin, _) = self.recognizer.vocabulary.first_timestamp, piece.span
        utterances = split_at_timestamps(hypothesis.ids, first, piece.span.duration)
        place = 0
        for start, end, ids in utterances:
            if text := self.recognizer.text(ids):
                segment = self._fitted(begin + start, begin + end, text)
                if self.language == EACH:
                    segment = replace(segment, language=piece.language)
                begins = hypothesis.begins[place : place + len(ids) + 1]
                self.heard.append(self._with_words(segment, ids, begin, begins))
            place += len(ids)
        return utterances[-1][1] if utterances else 0.0

    def _fitted(self, start: float, end: float, text: str) -> Segment:
        """A segment whose silence at both ends is left out: Whisper lets its times touch."""
        within = [one for one in self.speech if one.end > start and one.start < end]
        if within:
            start = max(start, within[0].start - MARGIN_SECONDS)
            end = min(end, within[-1].end + MARGIN_SECONDS)
        return Segment(round(start, 3), round(end, 3), text)

    def _with_words(
        self, segment: Segment, ids: list[int], offset: float, begins: Sequence[float]
    ) -> Segment:
        """The segment with its words, if the hypothesis has times of tokens."""
        if not begins:
            return segment
        times = offset + np.array(begins)
        words = self.recognizer.words(ids, times, segment.start, segment.end, self.speech)
        return replace(segment, words=words, words_are_guessed=self.guesses_words)

    def _ready(self, before: float) -> Iterator[Segment]:
        """The segments that start before the earliest piece that waits."""
        self.heard.sort(key=lambda segment: segment.start)
        while self.heard and self.heard[0].start < before:
            yield self.heard.pop(0)
        self.speech = [one for one in self.speech if one.end > before - MARGIN_SECONDS]


def begin_together(works: Sequence[Transcription]) -> None:
    """Decode the first pieces of recordings side by side; `segments` goes on from there."""
    begun = [(work, piece) for work in works if (piece := work.first_piece())]
    if not begun:
        return
    first = begun[0][0]
    hypotheses = first.recognizer.hypotheses(
        [work.clip(piece.span) for work, piece in begun],
        [piece.span.duration for _, piece in begun],
        [work.prompt(piece) for work, piece in begun],
        MAX_NEW_TOKENS,
        first.options,
    )
    for (work, _), hypothesis in zip(begun, hypotheses, strict=True):
        work.first = hypothesis
