"""What stands in two splits is found, named row by row, and refused unless allowed by name."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from asr.cleaning import split_overlap
from asr.cleaning.near_duplicates import NearDuplicate
from asr.errors import DataError
from asr.storage.scratch import DiskSet

ROWS = [
    ("train", "a", b"1", b"anna"),
    ("train", "b", b"2", b"bo"),
    ("test", "c", b"1", b"cyril"),
    ("test", "d", b"4", b"bo"),
    ("validation", "e", b"5", None),
]


def found(
    rows: list[tuple[str, str, bytes, bytes | None]], copies: list[NearDuplicate] | None = None
) -> list[split_overlap.Shared]:
    tally = DiskSet()
    for split, _, digest, speaker in rows:
        tally.add("clip", digest, split)
        if speaker:
            tally.add("speaker", speaker, split)
    return split_overlap.find_shared(tally, copies or [], iter(rows))


def test_every_row_is_named(tmp_path: Path) -> None:
    split_overlap.write(
        tmp_path / "shared.csv", found(ROWS, [NearDuplicate("e", "validation", "b", "train", 0.9)])
    )
    assert list(csv.reader((tmp_path / "shared.csv").read_text().splitlines())) == [
        ["kind", "shared", "split", "id"],
        ["clip", "90% of the shorter", "validation", "e"],
        ["clip", "90% of the shorter", "train", "b"],
        ["clip", "the same samples", "train", "a"],
        ["clip", "the same samples", "test", "c"],
        ["speaker", "bo", "train", "b"],
        ["speaker", "bo", "test", "d"],
    ]


def test_all_kinds_are_told_at_once() -> None:
    match = (
        r"^1 clips stand in two splits \(a of train in c of test\); "
        r"1 speakers stand in two splits \(bo in train and test\), so .*"
        r" -S 'chunk\.allow_shared=\[clip,speaker\]'$"
    )
    with pytest.raises(DataError, match=match):
        split_overlap.refuse(found(ROWS), [])


def test_what_is_allowed_stays_allowed_in_the_way_out() -> None:
    with pytest.raises(DataError, match=r"^1 speakers .*allow_shared=\[clip,speaker\]'$"):
        split_overlap.refuse(found(ROWS), ["clip"])
    split_overlap.refuse(found(ROWS), ["clip", "speaker"])


def test_a_clip_that_is_known_by_its_sound_is_told_once() -> None:
    assert [
        str(one) for one in found(ROWS[:3], [NearDuplicate("a", "train", "c", "test", 1.0)])
    ] == ["a of train in c of test"]


def test_what_is_only_scored_may_be_scored_twice() -> None:
    rows = [("test", "a", b"1", b"anna"), ("holdout", "b", b"1", b"anna")]
    copies = [NearDuplicate("a", "test", "b", "holdout", 1.0)]
    assert found(rows, copies) == []
    assert len(found([*rows, ("train", "c", b"2", b"anna")], copies)) == 1


def test_what_is_shared_is_refused_even_if_no_row_of_it_is_found() -> None:
    tally = DiskSet()
    for split in ("train", "test"):
        tally.add("speaker", b"anna", split)
    with pytest.raises(DataError, match="1 speakers stand in two splits"):
        split_overlap.refuse(split_overlap.find_shared(tally, [], []), [])


def test_the_way_out_says_what_training_goes_without() -> None:
    rows = [("train", "a", b"1", None), ("validation", "b", b"1", None), ("test", "c", b"1", None)]
    with pytest.raises(DataError, match=r"allow it \(training then goes without .* -S 'chunk"):
        split_overlap.refuse(found(rows), [], {("train", "a"): "one"})
    with pytest.raises(DataError, match=r"or allow it: -S"):
        split_overlap.refuse(found([rows[0], rows[2]]), [])


def test_training_rows_with_a_validation_rows_sound_are_found() -> None:
    tally = DiskSet()
    rows = [
        ("train", "a", b"1", None),
        ("train", "b", b"1", None),
        ("train", "c", b"2", None),
        ("train", "d", b"3", None),
        ("validation", "e", b"1", None),
        ("test", "f", b"2", None),
    ]
    for split, _, digest, _ in rows:
        tally.add("clip", digest, split)
    assert split_overlap.copies_in_training(tally, rows) == {"a": "e", "b": "e"}


def test_without_anything_shared_no_row_is_asked_for(tmp_path: Path) -> None:
    split_overlap.write(
        tmp_path / "shared.csv", split_overlap.find_shared(DiskSet(), [], (1 / 0 for _ in "x"))
    )  # type: ignore[misc]
    assert (tmp_path / "shared.csv").read_text() == "kind,shared,split,id\n"
