"""Planted rows that look wrong are found, and a corpus without them raises none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asr.stats import outliers, row_stats
from asr.stats.row_stats import RowStats
from support.data import encoded, encoded_by_av, row, voice, write_rows

SECONDS = 4.0


def corpus(folder: Path, planted: dict[str, str]) -> tuple[Path, dict[str, RowStats], list[str]]:
    """300 rows of 10 to 13 characters a second, and the planted texts among them."""
    texts = (
        [f"row-{number}" for number in range(300)],
        ["a" * 40 + "b" * (number % 13) for number in range(300)],
    )
    rows = [row(id, b"", text, duration=SECONDS) for id, text in zip(*texts, strict=True)]
    rows[100:100] = [row(id, b"", text, duration=SECONDS) for id, text in planted.items()]
    raw = write_rows(
        folder, "part", {"train": rows[:200], "validation": rows[200:], "test": [], "holdout": []}
    )
    met: list[str] = []
    return (
        raw,
        {
            split: row_stats.read_row_stats(raw / split, met)
            for split in ("train", "validation", "test", "holdout")
        },
        met,
    )


def test_improbable_rates_are_found_and_only_they(tmp_path: Path) -> None:
    raw, by_split, _ = corpus(tmp_path / "dirty", {"much": "c" * 500 + "\n", "little": "c"})
    found = outliers.improbable_rates(raw, by_split)
    assert found["outliers"] == 2
    assert [(one["id"], one["split"]) for one in found["examples"]] == [
        ("little", "train"),
        ("much", "train"),
    ]
    assert found["examples"][1]["text"] == "c" * outliers.SHOWN_CHARACTERS
    assert found["examples"][1]["characters_per_second"] == 500 / SECONDS
    assert found["examples"][0]["deviations"] < -outliers.IMPROBABLE
    raw, by_split, _ = corpus(tmp_path / "clean", {})
    assert outliers.improbable_rates(raw, by_split)["outliers"] == 0


def test_strange_scripts_are_found_and_only_they(tmp_path: Path) -> None:
    planted = {
        "russian": "это по-русски",
        "greek": "ελληνικά, mostly",
        "foreign name": "a song by Кино again",
    }
    raw, by_split, met = corpus(tmp_path / "dirty", planted)
    found = outliers.strange_scripts(raw, by_split, met)
    assert (found["own"], found["suspects"]) == (["LATIN"], 2)
    assert [(one["id"], one["script"]) for one in found["examples"]] == [
        ("russian", "CYRILLIC"),
        ("greek", "GREEK"),
    ]
    assert outliers.strange_scripts(*corpus(tmp_path / "clean", {}))["suspects"] == 0


def test_rates_that_are_all_alike_have_no_outliers_and_unknown_ones_are_none() -> None:
    assert not outliers.deviations(np.full(9, 12, np.float32)).any()
    assert not outliers.deviations(np.full(9, np.nan, np.float32)).any()
    rates = np.array([10, 10, 10, 10, np.nan, 30], np.float32)
    assert np.abs(outliers.deviations(rates)).argmax() == 5
    assert outliers.deviations(rates)[4] == 0


@pytest.mark.parametrize(
    ("loud", "quiet", "share"),
    [(0.5, 0.001, 0.5), (0.5, 0.1, 0.0), (0.0, 0.0, 1.0), (1e-5, 1e-5, 1.0)],
)
def test_silence_is_what_lies_far_below_the_loudest(
    loud: float, quiet: float, share: float
) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, 32_000).astype(np.float32)
    noise[:16_000] *= loud
    noise[16_000:] *= quiet
    silent, frames = outliers.silent_frames(noise)
    assert (silent / frames, frames) == (share, 200)


def test_the_silence_of_a_split_is_that_of_what_can_be_heard(tmp_path: Path) -> None:
    spoken, still = encoded(voice(1.0)), encoded(np.zeros(48_000, np.float32))
    rows = [row("spoken", spoken), row("still", still), row("none", None), row("text", b"text")]
    raw = write_rows(tmp_path, "part", {"train": rows, "test": []})
    found = outliers.silence(raw / "train")
    assert found["recordings"] == 2
    assert found["silent_share"] == pytest.approx(0.75, abs=0.01)
    assert found["examples"] == [{"id": "still", "silent_share": 1.0}]
    assert outliers.silence(raw / "test") == {
        "recordings": 0,
        "silent_share": 0.0,
        "mostly_silent": 0,
        "examples": [],
    }


@pytest.mark.parametrize(
    ("kind", "codec"), [("mp4", "aac"), ("webm", "libopus"), ("adts", "aac"), ("WAV", None)]
)
def test_half_a_minute_is_heard_whatever_a_decoder_gives_at_once(
    kind: str, codec: str | None
) -> None:
    half_silent = np.concatenate([np.zeros(48_000, np.float32), voice(1.0, 48_000)])
    content = (
        encoded_by_av(half_silent, 48_000, kind, codec)
        if codec
        else encoded(half_silent, 48_000, kind)
    )
    silent, frames = outliers.silent_frames(outliers.first_samples({"audio": content}))
    assert (silent, frames) == (pytest.approx(100, abs=12), pytest.approx(200, abs=6))
    long = encoded(voice(31.0, 8_000), 8_000)
    assert len(outliers.first_samples({"audio": long})) == 30 * 16_000


def test_a_sample_is_the_same_each_time_and_as_large_as_can_be(tmp_path: Path) -> None:
    rows = [row(f"row-{number}", b"") for number in range(500)]
    split = write_rows(tmp_path, "part", {"train": rows}) / "train"
    drawn = [one["id"] for one in outliers.sample(split, 200, ["id"])]
    assert len(set(drawn)) == 200
    assert drawn == [one["id"] for one in outliers.sample(split, 200, ["id"])]
    assert len(list(outliers.sample(split, 1000, ["id"]))) == 500


def test_labels_near_the_limit_are_counted_apart_from_those_over_it() -> None:
    lengths = np.array([10, 57, 58, 64, 65, 100], np.int32)
    assert outliers.labels(lengths, 64) == {
        "max_target_positions": 64,
        "over_limit": 2,
        "near_limit": 2,
    }
