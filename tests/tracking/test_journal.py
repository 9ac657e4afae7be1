"""The journal: whole lines only, whatever a kill left at its end."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.tracking import journal

VALUES = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    max_size=3,
)


def values_of(path: Path, start: int = 0) -> list[object]:
    return [record["values"] for record, _ in journal.read(path, start)]


@settings(max_examples=25)
@given(st.lists(VALUES, max_size=5))
def test_what_is_appended_is_read_in_order(
    tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, object]]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "a" / "b.jsonl"
    for step, values in enumerate(lines):
        journal.append(path, "metrics", step=step, values=values)
    assert values_of(path) == lines
    assert [record["step"] for record, _ in journal.read(path)] == list(range(len(lines)))
    assert all(
        record["kind"] == "metrics" and record["time"] > 0 for record, _ in journal.read(path)
    )


def test_a_journal_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert list(journal.read(tmp_path / "none.jsonl")) == []


@settings(max_examples=40)
@given(cut=st.integers(1, 10_000))
def test_a_line_cut_off_anywhere_is_passed_over_and_the_next_is_whole(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "a.jsonl"
    journal.append(path, "metrics", values="första")
    whole = path.stat().st_size
    journal.append(path, "metrics", values="ändå 👍")
    content = path.read_bytes()
    path.write_bytes(content[: whole + cut % (len(content) - whole - 1)])
    assert values_of(path) == ["första"]
    journal.append(path, "metrics", values="tredje")
    assert values_of(path) == ["första", "tredje"]


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for number in range(3):
        journal.append(path, "metrics", values=number)
    ends = [end for _, end in journal.read(path)]
    assert ends[-1] == path.stat().st_size
    assert [values_of(path, end) for end in (0, *ends)] == [[0, 1, 2], [1, 2], [2], []]
    journal.append(path, "metrics", values=3)
    assert values_of(path, ends[-1]) == [3]


def test_a_half_written_line_is_read_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    journal.append(path, "metrics", values=1)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:10])
    ((_, end),) = journal.read(path)
    path.write_bytes(whole + whole)
    assert values_of(path, end) == [1]


def test_a_journal_is_found_by_its_fingerprint_under_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert journal.path_of("abc") == tmp_path / ".cache" / "journal" / "abc.jsonl"


def test_mlflow_gets_the_milliseconds_that_the_journal_tells() -> None:
    """Cut in place of rounded, one in three comes a millisecond early, before its elder."""
    history = journal.RunHistory()
    told = {"fingerprint": "f", "name": "n", "params": {}, "tags": {}, "kind": "begin"}
    for moment in range(1_796_073_259_000, 1_796_073_261_000):
        history.add({**told, "time": moment / 1000})
        assert history.time == moment
