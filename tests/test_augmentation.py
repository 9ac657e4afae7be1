"""Copies hang on (seed, id, copy) alone, have what was drawn for them, and can be heard."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from asr import augmentation
from asr.audio import codec
from asr.errors import DataError, ParamsError
from asr.params.schema import Augment
from support.data import encoded, load, real, row, voice, write_rows
from support.repository import SHIPPED

KINDS = ("speed", "reverberation", "noise", "gain")
CLIP = voice(1.0)
ROWS = pa.chunked_array([[encoded(voice(0.5 + 0.1 * number, seed=number)) for number in range(6)]])
Given = Callable[..., Augment]


@pytest.fixture
def given(tmp_path: Path) -> Given:
    """The shipped params with these kinds alone, always drawn, and other changes."""

    def made(*kinds: str, **changes: str) -> Augment:
        chances = {f"{kind}__probability": str(float(kind in kinds)) for kind in KINDS}
        return load(
            tmp_path,
            **{
                f"featurize__augment__{key}": value for key, value in {**chances, **changes}.items()
            },
        ).featurize.augment

    return made


def copied(
    given: Augment,
    id: str = "a",
    copy: int = 1,
    samples: np.ndarray = CLIP,
    rows: Any = ROWS,
    own: int | None = 0,
) -> Any:
    noises = augmentation.noises_of(
        given, augmentation.recordings(given.noise.folder, given.noise.probability), rows, own
    )
    responses = augmentation.responses_of(
        given, augmentation.recordings(given.reverberation.folder, given.reverberation.probability)
    )
    return augmentation.augmented(samples, id, copy, given, noises, responses)


def decibels(speech: float, noise: np.ndarray) -> float:
    return float(10 * np.log10(speech / np.mean(np.square(noise.astype(np.float64)))))


def test_a_copy_hangs_on_seed_id_and_copy_alone(given: Given) -> None:
    all_kinds = given(*KINDS)
    wanted, told = copied(all_kinds)
    for other in ("b", "c", "å\udcff"):
        assert copied(all_kinds, id=other)[1] != told
    assert copied(all_kinds, copy=2)[1] != told
    assert copied(given(*KINDS, seed="2"))[1] != told
    again, told_again = copied(all_kinds)
    assert told_again == told
    assert np.array_equal(again, wanted)
    assert np.array_equal(copied(given(*KINDS, copies="3"))[0], wanted), (
        "their number is no part of it"
    )


def test_turning_a_kind_on_moves_no_other(given: Given) -> None:
    together = copied(given(*KINDS))[1]
    for kinds in (("speed",), ("noise",), ("gain",), ("speed", "gain")):
        alone = copied(given(*kinds))[1]
        known = {name: value for name, value in vars(alone).items() if value is not None}
        assert known
        assert known.items() <= vars(together).items()


def test_draws_fill_their_ranges_as_often_as_asked(given: Given) -> None:
    often = given(noise__probability="0.25", speed__probability="1.0", gain__probability="1.0")
    found = [copied(often, id=f"row-{number}", samples=CLIP[:800])[1] for number in range(400)]
    assert 0.9 <= min(one.speed for one in found) < 0.905
    assert 1.095 < max(one.speed for one in found) <= 1.1
    assert np.mean([one.speed for one in found]) == pytest.approx(1.0, abs=0.01)
    assert np.mean([one.noise is not None for one in found]) == pytest.approx(0.25, abs=0.08)
    assert all(5 <= one.snr_db <= 20 for one in found if one.noise)
    assert all(-10 <= one.gain_db <= 6 for one in found)
    assert len({one.speed for one in found}) == 400


def test_a_copy_has_the_speed_gain_and_snr_that_were_drawn(given: Given) -> None:
    clips = [CLIP, np.concatenate([np.zeros(32_000, np.float32), CLIP])]
    clips += [codec.decode(path.read_bytes()) for path in sorted(real("clips").glob("*.flac"))[:2]]
    for number, clip in enumerate(clips):
        changed, drawn = copied(given("speed"), id=str(number), samples=clip)
        assert len(clip) / len(changed) == pytest.approx(drawn.speed, rel=1e-4)
        changed, drawn = copied(given("gain"), id=str(number), samples=clip)
        assert 20 * np.log10(np.abs(changed).max() / np.abs(clip).max()) == pytest.approx(
            drawn.gain_db, abs=1e-3
        )
        changed, drawn = copied(given("noise"), id=str(number), samples=clip)
        assert decibels(augmentation.speech_power(clip), changed - clip) == pytest.approx(
            drawn.snr_db, abs=0.05
        )


def test_after_a_change_of_speed_and_room_noise_still_has_its_snr(given: Given) -> None:
    quiet, before = copied(given("speed", "reverberation"))
    noisy, drawn = copied(given("speed", "reverberation", "noise"))
    assert drawn.room == before.room
    assert drawn.room.startswith("room with RT60 0.")
    assert decibels(augmentation.speech_power(quiet), noisy - quiet) == pytest.approx(
        drawn.snr_db, abs=0.05
    )


def test_babble_is_of_several_other_rows(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    decode = codec.decode
    monkeypatch.setattr(codec, "decode", lambda sound: seen.append(sound) or decode(sound))
    for id in "abcdefgh":
        seen.clear()
        assert (
            copied(given("noise", noise__babble_voices="3"), id=id, own=2)[1].noise == "babble of 3"
        )
        assert len(set(seen)) == 3
        assert ROWS[2].as_py() not in seen, "nobody babbles behind himself"
    assert copied(given("noise"), own=2)[1].noise == "babble of 5"
    assert copied(given("noise", noise__babble_voices="50"), own=2)[1].noise == "babble of 5"


def test_a_row_that_is_alone_in_its_chunk_has_no_babble(given: Given) -> None:
    changed, drawn = copied(given("noise"), rows=ROWS.slice(0, 1), own=0)
    assert np.array_equal(changed, CLIP)
    assert (drawn.noise, drawn.snr_db, drawn.text()) == (None, None, "nothing was drawn")


def test_noise_of_a_folder_is_cut_and_begins_anew(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    ramp = np.linspace(-0.5, 0.5, 8_000).astype(np.float32)
    for name, samples, rate in (
        ("b/long.flac", voice(3.0), 16_000),
        ("a.wav", ramp, 16_000),
        ("c.WAV", voice(0.4, 44_100), 44_100),
    ):
        path = tmp_path / "noises" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            encoded(samples, rate, "FLAC" if name.endswith("flac") else "WAV", "PCM_16")
        )
    (tmp_path / "noises/README.txt").write_text("no recording")
    named = given("noise", noise__folder="noises")
    assert [path.name for path in augmentation.recordings("noises", 1.0) or []] == [
        "a.wav",
        "long.flac",
        "c.WAV",
    ]
    heard = {copied(named, id=str(number))[1].noise for number in range(30)}
    assert heard == {"a.wav", "long.flac", "c.WAV"}
    for path in ("b/long.flac", "c.WAV"):
        (tmp_path / "noises" / path).unlink()
    changed, drawn = copied(named)
    added = changed - CLIP
    assert decibels(augmentation.speech_power(CLIP), added) == pytest.approx(drawn.snr_db, abs=0.05)
    assert np.abs(added[:8_000] - added[8_000:16_000]).max() < 1e-5, (
        "the second half repeats the first"
    )


def test_a_room_of_a_folder_is_heard(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / "rooms").mkdir()
    response = np.array([0, 0, 0.8, 0, 0.4], np.float32)
    (tmp_path / "rooms/hall.wav").write_bytes(encoded(response, subtype="FLOAT"))
    changed, drawn = copied(given("reverberation", reverberation__folder="rooms"))
    assert drawn.room == "hall.wav"
    echoed = CLIP + 0.5 * np.concatenate([np.zeros(2, np.float32), CLIP[:-2]])
    assert np.corrcoef(changed, echoed)[0, 1] > 1 - 1e-6


def test_a_folder_that_holds_nothing_or_damage_is_named(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with pytest.raises(ParamsError, match=r"featurize.augment: nowhere holds no recording"):
        copied(given("noise", noise__folder="nowhere"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/x.wav").write_text("no sound")
    with pytest.raises(DataError, match=r"x.wav: cannot be mixed in: .* take it out of the folder"):
        copied(given("noise", noise__folder="broken"))
    assert augmentation.recordings("nowhere", 0.0) is None, (
        "a kind that is never drawn needs no folder"
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"copies": "1", "speed__min": "1.2"},
            "featurize.augment.speed.min: got 1.2, want at most max (1.1)",
        ),
        (
            {"noise__min_snr_db": "30"},
            "featurize.augment.noise.min_snr_db: got 30, want at most max_snr_db (20)",
        ),
        (
            {f"{kind}__probability": "0" for kind in KINDS} | {"copies": "2"},
            "featurize.augment.copies: got 2, want a kind of change",
        ),
    ],
)
def test_params_that_contradict_each_other_are_refused(
    tmp_path: Path, changes: dict[str, str], told: str
) -> None:
    with pytest.raises(ParamsError) as caught:
        load(tmp_path, **{f"featurize__augment__{key}": value for key, value in changes.items()})
    assert told in str(caught.value)


def heard(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["augment", *words])
    augmentation.main()


def test_the_command_lets_a_recording_be_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / "params.yaml").write_text(SHIPPED.read_text())
    (tmp_path / "said.wav").write_bytes(encoded(CLIP, subtype="FLOAT"))
    heard(monkeypatch, str(tmp_path / "said.wav"), str(tmp_path / "out"))
    assert np.array_equal(soundfile.read(tmp_path / "out/before.wav", dtype="float32")[0], CLIP)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["copy-1.wav", "copy-2.wav", "copy-3.wav"]
    for line in lines:
        name, _, told = line.partition(": ")
        speed = float(told.partition("speed ")[2].partition(",")[0])
        assert soundfile.info(tmp_path / "out" / name).frames == pytest.approx(
            len(CLIP) / speed, rel=1e-3
        )
    with pytest.raises(DataError, match=r"gone\.wav: not there"):
        heard(monkeypatch, str(tmp_path / "gone.wav"), str(tmp_path / "out"))


def test_the_command_copies_a_row_as_its_features_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Given
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    rows = [row(f"-r{number}", one.as_py()) for number, one in enumerate(ROWS)]
    write_rows(tmp_path / "data/chunks", "chunk", {"train": rows}, 3)
    wanted, drawn = copied(
        given(*KINDS, copies="1"),
        "-r4",
        samples=codec.decode(ROWS[4].as_py()),
        rows=ROWS.slice(3),
        own=1,
    )
    assert drawn.noise == "babble of 2"
    heard(monkeypatch, "--row", "--", "-r4", str(tmp_path / "out"))
    assert np.array_equal(soundfile.read(tmp_path / "out/copy-1.wav", dtype="float32")[0], wanted)
    assert not (tmp_path / "out/copy-2.wav").exists()
    with pytest.raises(DataError, match="no training row has the id other"):
        heard(monkeypatch, "--row", "other", str(tmp_path / "out"))
