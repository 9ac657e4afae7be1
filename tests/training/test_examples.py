"""What fills a window: neighbours joined as their sound would be, and silence."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from asr import features
from asr.features import TAIL
from asr.training import examples
from asr.training.examples import TrainingRow
from support.model import noise

ROWS = st.lists(
    st.tuples(st.integers(3, 300), st.integers(0, 30), st.sampled_from(["a", "b", None])),
    max_size=60,
)


def examples_of(rows: list[tuple[int, int, str | None]]) -> list[TrainingRow]:
    return [
        TrainingRow(index, frames, (1,) * tokens) for index, (frames, tokens, _) in enumerate(rows)
    ]


@given(ROWS)
def test_every_row_comes_once_and_no_window_is_fuller_than_full(
    rows: list[tuple[int, int, str | None]],
) -> None:
    speakers = [speaker for *_, speaker in rows]
    found = list(examples.pack_neighbors(examples_of(rows), speakers, 300, 64))
    assert sorted(one.index for group in found for one in group) == list(range(len(rows)))
    for group in found:
        assert sum(one.num_frames for one in group) <= 300
        assert sum(len(one.text_ids) + 2 for one in group) <= 64
        assert len({speakers[one.index] for one in group}) == 1
        assert [one.index for one in group] == sorted(one.index for one in group)
    for group, after in pairwise(found):
        if speakers[group[0].index] == speakers[after[0].index]:
            longer = [*group, after[0]]
            assert (
                sum(one.num_frames for one in longer) > 300
                or sum(len(one.text_ids) + 2 for one in longer) > 64
            )


def test_a_row_longer_than_all_that_is_allowed_still_comes_alone() -> None:
    assert [
        len(group)
        for group in examples.pack_neighbors(
            examples_of([(500, 1, None), (100, 1, None)]), [None] * 2, 300, 64
        )
    ] == [1, 1]


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(500, 20_000), st.floats(-4, 0)), min_size=2, max_size=4),
    st.integers(0, 99),
)
def test_joined_features_are_those_of_the_joined_sound_but_at_the_seams(
    parts: list[tuple[int, float]], seed: int
) -> None:
    sounds = [
        noise(samples / 16_000, seed + number) * 10**loudness
        for number, (samples, loudness) in enumerate(parts)
    ]
    # A row ends with a whole frame.
    whole = [*(np.pad(one, (0, -len(one) % 160)) for one in sounds[:-1]), sounds[-1]]
    clips = [features.log_mel(one, 80) for one in sounds]
    found, wanted = examples.join(clips), features.log_mel(np.concatenate(whole), 80)
    assert found.mel.shape == wanted.mel.shape
    assert (found.edge is None) == (wanted.edge is None)
    away = np.ones(found.mel.shape[1], bool)
    for seam in np.cumsum([len(one) // 160 for one in whole])[:-1]:
        away[seam - 1 : seam + 2] = False
    # The floor lies 2.0 below the loudest value. Values away from the seams are the same in both,
    # so neither floor is lower than theirs allow. Where the loudest value stands at a seam, where
    # clips meet silence or their own reflection in place of their neighbour, the floors differ,
    # and no bound holds for every sound: that of `join` is the highest of its clips.
    assert found.floor == max(clip.floor for clip in clips)
    assert min(found.floor, wanted.floor) >= wanted.mel[:, away].max() - 2 - 1e-5
    # So values are compared above the higher floor.
    raised = np.float32(max(found.floor, wanted.floor))
    off = np.abs(np.maximum(found.mel, raised) - np.maximum(wanted.mel, raised))
    assert off[:, away].max() < 1e-5
    assert found.mel.min() >= np.float32(found.floor)


def test_only_the_seams_differ_from_the_joined_sound() -> None:
    """With figures: three frames at each seam, and how far they are off."""
    sounds = [noise(0.5, 1), noise(0.8, 2)]
    found, wanted = (
        examples.join([features.log_mel(one, 80) for one in sounds]),
        features.log_mel(np.concatenate(sounds), 80),
    )
    off = np.abs(found.mel - wanted.mel).max(0)
    assert set(np.flatnonzero(off > 1e-5)) <= {49, 50, 51}
    assert 0 < off.mean() < 0.02
    wrong = examples.join([features.log_mel(one, 80) for one in sounds[::-1]])
    assert np.abs(wrong.mel - wanted.mel).max(0).mean() > 0.2, (
        "the control: the other way round it is another sound"
    )


def test_a_quiet_row_beside_a_loud_one_is_raised_to_its_floor() -> None:
    quiet, loud = features.log_mel(noise(0.5, 1) * 1e-4, 80), features.log_mel(noise(0.5, 2), 80)
    found = examples.join([quiet, loud])
    assert quiet.mel.min() < loud.floor == found.floor
    assert found.mel[:, :48].min() == np.float32(loud.floor)


def test_rows_that_just_fill_the_window_end_as_joined_sound_does() -> None:
    sounds = [noise(0.7, 1), noise(1.3, 2)]
    found = features.pad(examples.join([features.log_mel(one, 80) for one in sounds]), 200)
    wanted = features.pad(features.log_mel(np.concatenate(sounds), 80), 200)
    assert np.abs(found - wanted)[:, 75:].max() < 1e-5


def test_silences_are_quiet_and_all_different_and_come_again_with_their_seed() -> None:
    found = [examples.silence(np.random.default_rng([1, number]), 60, 80) for number in range(40)]
    again = [examples.silence(np.random.default_rng([1, number]), 60, 80) for number in range(40)]
    assert all(
        np.array_equal(one.mel, other.mel) and one.floor == other.floor
        for one, other in zip(found, again, strict=True)
    )
    assert max(one.mel.max() for one in found) < 0.5 < features.log_mel(noise(0.6), 80).mel.max()
    nothing = [one for one in found if one.mel.max() == one.mel.min() == -1.5]
    assert 0 < len(nothing) < 20
    assert len({one.mel.tobytes() for one in found}) == 41 - len(nothing)
    assert {one.mel.shape for one in found} == {(80, 60 + TAIL)}
