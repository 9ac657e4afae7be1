"""What all sources share: a listing is read anew each time, and a file that is not there, or cannot
be, is no sound.
"""

from __future__ import annotations

import pytest

from asr.sources.utterances import Utterance, UtteranceIterable, read_bytes


def test_a_listing_is_read_anew_each_time() -> None:
    one = Utterance("a", None, "text", lambda: None)
    listing = UtteranceIterable(lambda: iter([one]))
    assert list(listing) == list(listing) == [one]


@pytest.mark.parametrize("name", ["nothing.wav", "nul\0.wav", "x" * 5000, "", "folder"])
def test_what_is_no_file_is_no_sound(tmp_path, name) -> None:
    (tmp_path / "folder").mkdir()
    assert read_bytes(tmp_path / name) is None


def test_a_file_is_its_bytes(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"\0\xff")
    assert read_bytes(tmp_path / "a") == b"\0\xff"
