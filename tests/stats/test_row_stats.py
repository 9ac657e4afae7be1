"""What is known of each row: arrays against the rows themselves, and single rows by their place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asr.stats import row_stats
from support.data import encoded, encoded_by_av, row, voice, write_rows

COUNT = 250  # rows: three record batches, in files of 120


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        row(f"row-{number}", b"", f"text {number}", duration=1.0 + number)
        for number in range(COUNT)
    ]
    return write_rows(tmp_path_factory.mktemp("census"), "part", {"train": rows}, 120) / "train"


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(places=st.lists(st.integers(0, COUNT - 1), max_size=12))
def test_rows_are_found_by_their_place(split: Path, places: list[int]) -> None:
    found = list(row_stats.rows_at(split, places, "id", "text"))
    assert found == [
        (place, {"id": f"row-{place}", "text": f"text {place}"}) for place in sorted(set(places))
    ]


def test_a_census_tells_of_every_row_in_order(split: Path) -> None:
    met: list[str] = []
    taken = row_stats.read_row_stats(split, met)
    assert taken.seconds.tolist() == [1.0 + number for number in range(COUNT)]
    assert taken.rates == pytest.approx(
        [(4 + len(str(number))) / (1 + number) for number in range(COUNT)]
    )
    assert {array.dtype.itemsize for array in (taken.seconds, taken.rates)} == {4}
    assert (met, taken.script.tolist(), taken.letters) == (
        ["LATIN"],
        [0] * COUNT,
        {"LATIN": 4 * COUNT},
    )


def test_durations_that_no_header_tells_are_measured_and_what_has_none_is_unknown(
    tmp_path: Path,
) -> None:
    rows = [
        row("a", encoded_by_av(voice(2.0), 16_000, "mp4", "aac"), "ett"),
        row("b", b"text", "två"),
        row("c", None, "три"),
        row("d", encoded(voice(1.5), 22_050), "fyra"),
        {**row("e", b"", "x", duration=3.0), "text": None},
        row("f", b"", "a", duration=0.0),
    ]
    met: list[str] = []
    taken = row_stats.read_row_stats(
        write_rows(tmp_path, "part", {"train": rows, "holdout": []}) / "train", met
    )
    assert taken.seconds == pytest.approx(
        [2.0, np.nan, np.nan, 1.5 * 16_000 / 22_050, 3.0, 0.0], abs=0.1, nan_ok=True
    )
    assert np.isfinite(taken.rates).tolist() == [True, False, False, True, False, False]
    assert [met[place] for place in taken.script] == [
        "LATIN",
        "LATIN",
        "CYRILLIC",
        "LATIN",
        row_stats.NO_SCRIPT,
        "LATIN",
    ]
    assert len(taken.known) == 4
    empty = row_stats.read_row_stats(tmp_path / "holdout", met)
    assert (len(empty.seconds), len(empty.known), empty.letters.total()) == (0, 0, 0)
