"""A recording is decoded once, in a process that it may end, and what it told is used only while it
is whole.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from asr import paths
from asr.cleaning import measurements
from asr.cleaning.measurements import Measurement
from asr.storage import shards
from support.data import encoded, row, voice, write_rows

SECONDS = [0.3, 0.5, 0.7, 0.9, 1.1]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, int, int]]:
    """Three record batches of two rows or fewer; the fourth row holds no sound."""
    monkeypatch.setattr(shards, "BATCH_ROWS", 2)
    monkeypatch.setenv("WORKERS", "2")
    rows = [
        row(str(number), encoded(voice(seconds, seed=number)), duration=seconds)
        for number, seconds in enumerate(SECONDS)
    ]
    rows[3]["audio"] = b"no sound"
    return list(
        shards.batch_locations(write_rows(tmp_path / "raw", "part", {"train": rows}) / "train")
    )


def told(places: list[tuple[Path, int, int]]) -> list[Measurement]:
    return [one for sounds in measurements.measure(places) for one in sounds]


def test_each_row_is_told_in_order_and_kept(places, monkeypatch):
    first = told(places)
    assert [one.duration for one in first] == pytest.approx([0.3, 0.5, 0.7, 0.0, 1.1])
    assert [one.code for one in first] == ["", "", "", "audio_undecodable", ""]
    assert all(one.fingerprint for one in first if not one.code)
    assert len(list(paths.cache("heard").iterdir())) == 3
    monkeypatch.setattr(measurements, "guarded", in_process)
    monkeypatch.setattr(measurements, "measure_audio", lambda *_: pytest.fail("decoded twice"))
    assert told(places) == first
    assert told(places[1:]) == first[2:], "a batch is known wherever it stands"


def in_process(function, jobs, *_: object) -> Iterator[Measurement]:
    return (one for _, given in jobs for one in function(*given, 0))


@pytest.mark.parametrize("damage", ["cut", "turned", "emptied", "short"])
def test_what_is_damaged_is_heard_anew(places, monkeypatch, damage):
    monkeypatch.setattr(measurements, "guarded", in_process)
    first = told(places)
    for path in paths.cache("heard").iterdir():
        content = path.read_bytes()
        path.write_bytes(
            {
                "cut": content[:-9],
                "turned": content[:-1] + bytes([content[-1] ^ 1]),
                "emptied": b"",
                "short": b"x",
            }[damage]
        )
    assert told(places) == first


def test_another_promise_is_another_thing(places, tmp_path, monkeypatch):
    """A table that promises more makes a recording a truncated one."""
    monkeypatch.setattr(measurements, "guarded", in_process)
    told(places)
    rows = [{**one, "duration": 9.0} for one in shards.rows(tmp_path / "raw/train")]
    longer = list(
        shards.batch_locations(write_rows(tmp_path / "longer", "part", {"train": rows}) / "train")
    )
    assert [one.code for one in told(longer)] == ["audio_truncated"] * 3 + [
        "audio_undecodable",
        "audio_truncated",
    ]


def killing(path: Path, offset: int, store: Path, code: str, start: int) -> Iterator[Measurement]:
    """A decoder that one of these recordings ends."""
    for number, one in enumerate(
        measurements.measure_batch(path, offset, store, code, start), start
    ):
        if 0.6 < one.duration < 0.8:
            os.kill(os.getpid(), signal.SIGKILL)
        yield one
        assert number < 2


def test_a_recording_that_ends_its_process_costs_that_row_alone(places, monkeypatch):
    monkeypatch.setattr(measurements, "measure_batch", killing)
    found = told(places)
    assert [one.code for one in found] == ["", "", "audio_undecodable", "audio_undecodable", ""]
    assert found[2].detail == "decoding stopped: its process died (SIGKILL)"
