"""Pieces of a sound are cut at the pauses of its speech, and lose none of it."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.speech import pieces as speech
from asr.speech.detection import Stretch

NEAR = 1e-6  # seconds: sums of floats
WINDOWS = (3.0, 5.0, 10.0, 30.0)


def middle(begin: float, end: float) -> float:
    return (begin + end) / 2


def cut(found: list[Stretch], begin: float, end: float, window: float) -> list[Stretch]:
    return list(speech.pieces(found, begin, end, window, middle))


@st.composite
def sounds(draw: st.DrawFn) -> tuple[list[Stretch], float]:
    """Stretches of speech in order, and the length of the sound."""
    lengths = st.tuples(st.floats(0.1, 8), st.sampled_from([0.1, 0.5, 2.0, 7.0, 40.0, 100.0]))
    drawn = draw(st.lists(lengths, max_size=30))
    edges = list(accumulate((length for pair in drawn for length in pair), initial=0.0))
    found = [Stretch(*pair) for pair in zip(edges[1::2], edges[2::2], strict=True)]
    return found, edges[-1] + draw(st.floats(0, 5))


@given(sounds(), st.sampled_from(WINDOWS))
def test_pieces_hold_all_speech_once_and_in_order(
    sound: tuple[list[Stretch], float], window: float
) -> None:
    found, duration = sound
    pieces = cut(found, 0.0, duration, window)
    assert all(piece.end > piece.start for piece in pieces)
    assert all(one.end <= after.start + NEAR for one, after in pairwise(pieces))
    held = sum(shared(stretch, piece) for stretch in found for piece in pieces)
    assert held == pytest.approx(sum(stretch.duration for stretch in found), abs=NEAR)


@given(sounds(), st.sampled_from(WINDOWS))
def test_no_piece_is_longer_than_the_window_or_outside_the_sound(
    sound: tuple[list[Stretch], float], window: float
) -> None:
    found, duration = sound
    pieces = cut(found, 0.0, duration, window)
    assert all(piece.duration <= window + NEAR for piece in pieces)
    assert all(piece.start >= 0 and piece.end <= duration + NEAR for piece in pieces)


@given(sounds(), st.sampled_from(WINDOWS))
def test_no_piece_holds_a_long_silence_or_nothing_but_silence(
    sound: tuple[list[Stretch], float], window: float
) -> None:
    found, duration = sound
    for piece in cut(found, 0.0, duration, window):
        inside = [stretch for stretch in found if shared(stretch, piece) > NEAR]
        assert inside
        pauses = [after.start - one.end for one, after in pairwise(inside)]
        assert max(pauses, default=0) < speech.SILENCE_SECONDS


@given(sounds(), st.sampled_from(WINDOWS))
def test_speech_that_fits_the_window_is_never_cut(
    sound: tuple[list[Stretch], float], window: float
) -> None:
    found, duration = sound
    pieces = cut(found, 0.0, duration, window)
    for stretch in found:
        if stretch.duration <= window * speech.PIECE_SHARE:
            assert sum(shared(stretch, piece) > NEAR for piece in pieces) == 1


@given(sounds(), st.floats(0, 50), st.floats(0, 50))
def test_a_chosen_part_of_a_sound_has_the_pieces_of_its_own_speech(
    sound: tuple[list[Stretch], float], begin: float, length: float
) -> None:
    found, _ = sound
    chosen = Stretch(begin, begin + length)
    pieces = cut(found, chosen.start, chosen.end, 30.0)
    assert all(chosen.start <= piece.start and piece.end <= chosen.end for piece in pieces)
    held = sum(shared(stretch, piece) for stretch in found for piece in pieces)
    spoken = sum(shared(stretch, chosen) for stretch in found)
    assert held == pytest.approx(spoken, abs=NEAR)


@given(sounds(), st.floats(0, 1))
def test_what_is_unread_is_the_speech_behind_the_last_segment(
    sound: tuple[list[Stretch], float], share: float
) -> None:
    found, duration = sound
    for piece in cut(found, 0.0, duration, 30.0):
        last = piece.start + share * piece.duration
        again = speech.unread(found, piece, last)
        rest = Stretch(last, piece.end)
        assert all(last <= one.start < one.end <= piece.end for one in again)
        for stretch in found:
            if shared(stretch, rest) >= speech.UNREAD_SECONDS + NEAR:
                held = sum(shared(stretch, one) for one in again)
                assert held == pytest.approx(shared(stretch, rest), abs=NEAR)


def shared(one: Stretch, other: Stretch) -> float:
    """Seconds that two stretches share."""
    return max(0.0, min(one.end, other.end) - max(one.start, other.start))


def test_a_piece_ends_at_the_longest_of_its_late_pauses() -> None:
    found = [Stretch(0, 5), Stretch(7, 20), Stretch(20.2, 22), Stretch(23, 25), Stretch(25.1, 40)]
    assert cut(found, 0, 40, 30.0) == [Stretch(0, 22.4), Stretch(22.6, 40)]


def test_a_piece_ends_at_an_early_pause_where_there_is_no_late_one() -> None:
    assert cut([Stretch(0, 5), Stretch(6, 30)], 0, 30, 30.0) == [Stretch(0, 5.4), Stretch(5.6, 30)]


def test_speech_without_a_pause_is_cut_at_its_quietest_moment() -> None:
    asked = []

    def quietest(begin: float, end: float) -> float:
        asked.append((begin, end))
        return begin + 1

    pieces = list(speech.pieces([Stretch(0, 29)], 0, 29, 28.0, quietest))
    assert len(asked) == 1
    assert 0.3 * 29 < asked[0][0] < asked[0][1] <= 28
    assert pieces == [Stretch(0, asked[0][0] + 1), Stretch(asked[0][0] + 1, 29)]


@pytest.mark.parametrize(
    ("last", "again"),
    [
        (9.0, []),  # nothing follows
        (8.8, []),  # the end of the last word
        (8.0, [Stretch(8.0, 9.4)]),
        (5.0, [Stretch(5.6, 9.4)]),  # from before the first unread word
        (2.0, [Stretch(2.0, 9.4)]),  # several stretches are one piece
    ],
)
def test_speech_behind_the_last_segment_is_read_again(last: float, again: list[Stretch]) -> None:
    found = [Stretch(1, 4), Stretch(6, 9), Stretch(11, 12)]
    assert speech.unread(found, Stretch(0.6, 10), last) == again
