"""A tally is a set that lies on the disk."""

import tracemalloc
from collections import defaultdict
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import exit_with
from asr.storage.scratch import DiskSet

KEYS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]), st.binary(max_size=3), st.sampled_from(["train", "test", ""])
    ),
    max_size=60,
)


@given(KEYS)
def test_a_tally_is_a_set(keys):
    known: set[tuple[str, bytes, str]] = set()
    with closing(DiskSet()) as tally:
        for one in keys:
            assert tally.add(*one) == (one not in known)
            known.add(one)
        places = defaultdict(set)
        for kind, key, split in known:
            places[kind, key].add(split)
        for kind in "ab":
            assert tally.shared(kind) == sorted(
                key for (one, key), splits in places.items() if one == kind and len(splits) > 1
            )


def test_memory_does_not_grow_with_the_keys():
    with closing(DiskSet()) as tally:
        tracemalloc.start()
        for number in range(50_000):
            tally.add("id", number.to_bytes(12, "big"))
        assert tracemalloc.get_traced_memory()[1] < 100_000
        tracemalloc.stop()
        assert tally.database.execute("PRAGMA cache_size").fetchone()[0] == -2000, (
            "SQLite holds 2 MB"
        )


def test_a_full_disk_is_told_as_one(capsys):
    with closing(DiskSet()) as tally:
        tally.database.execute("PRAGMA max_page_count = 4")
        with pytest.raises(SystemExit, match="7"):
            exit_with(
                lambda: [tally.add("id", number.to_bytes(12)) for number in range(10_000)] and None
            )
    assert "database or disk is full; make room" in capsys.readouterr().err
