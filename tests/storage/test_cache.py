"""A file that is kept is used while it is as it was made, and made once however many want it."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.storage import cache, hashing


def writes(content: bytes, counted: list[bytes]):
    def write(path: Path) -> dict[str, object]:
        path.write_bytes(content)
        counted.append(content)
        return {"name": path.name, "rows": len(content), "sha256": hashing.sha256(path)}

    return write


def test_a_file_is_made_once():
    place, counted = cache.path_of(cache.folder(), ["x", 1]), []
    first = cache.make(place, writes(b"abc", counted))
    assert cache.make(place, writes(b"abc", counted)) == {**first, "name": place.name}
    assert counted == [b"abc"]
    assert sorted(path.suffix for path in cache.folder().iterdir()) == [".arrow", ".json"]


@settings(max_examples=40)
@given(
    st.recursive(
        st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=5
    ),
    st.integers() | st.text(),
)
def test_what_it_is_made_from_is_its_name(one, other):
    assert (cache.path_of(Path("x"), one) == cache.path_of(Path("x"), other)) == (
        hashing.hash_of(one) == hashing.hash_of(other)
    )


@pytest.mark.parametrize("damage", ["cut", "turned", "gone", "unnamed", "nonsense"])
def test_a_damaged_file_is_made_anew(damage):
    place, counted = cache.path_of(cache.folder(), "x"), []
    cache.make(place, writes(b"abc", counted))
    told = place.with_suffix(".json")
    {
        "cut": lambda: place.write_bytes(b"ab"),
        "turned": lambda: place.write_bytes(b"abd"),
        "gone": place.unlink,
        "unnamed": told.unlink,
        "nonsense": lambda: told.write_text("[]"),
    }[damage]()
    assert cache.make(place, writes(b"abc", counted))["rows"] == 3
    assert place.read_bytes() == b"abc"
    assert len(counted) == 2


def test_a_file_that_fails_half_way_is_not_kept():
    place = cache.path_of(cache.folder(), "x")

    def fails(path: Path) -> dict[str, object]:
        path.write_bytes(b"half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        cache.make(place, fails)
    assert cache.entry(place) is None
    assert not place.exists()


def test_what_a_kill_left_long_ago_is_removed_and_what_another_is_writing_stays():
    for name, age in (("old", 2 * cache.DRAFT_SECONDS), ("new", 60)):
        draft = cache.folder("heard") / f".{name}.part"
        draft.write_bytes(b"half")
        os.utime(draft, (time.time() - age,) * 2)
    assert [path.name for path in cache.folder("heard").iterdir()] == [".new.part"]


@pytest.mark.parametrize(
    ("age", "elsewhere", "stays"), [(2, False, False), (2, True, True), (0.9, False, True)]
)
def test_what_nobody_wants_any_more_goes_unless_it_takes_no_room(age, elsewhere, stays, tmp_path):
    place, counted = cache.path_of(cache.folder(), "x"), []
    cache.make(place, writes(b"abc", counted))
    if elsewhere:
        os.link(place, tmp_path / "data")
    os.utime(place.with_suffix(".json"), (time.time() - age * cache.UNUSED_SECONDS,) * 2)
    assert sorted(path.name for path in cache.folder().iterdir()) == (
        [place.name, place.with_suffix(".json").name] if stays else []
    )


def test_a_use_keeps_a_file_for_another_month():
    place, counted = cache.path_of(cache.folder(), "x"), []
    cache.make(place, writes(b"abc", counted))
    os.utime(place.with_suffix(".json"), (time.time() - 2 * cache.UNUSED_SECONDS,) * 2)
    cache.make(place, writes(b"abc", counted))
    assert cache.entry(cache.path_of(cache.folder(), "x")) is not None
    assert len(counted) == 1
