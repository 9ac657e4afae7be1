"""Reports read back: whatever the bytes, a value that holds what was asked for or one line that
names the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import DataError
from asr.evaluation.table import COUNT_COLUMNS, LOOPED, SCHEMA
from asr.runs import reports

JSON = json.dumps(
    {"wer": 0.25, "models": {"finetuned": {"wer": 0.25}}, "text": "åäö"}, indent=2
).encode()
CSV = b"step,train_loss,validation_wer\n0,5.5,\n2,4.25,0.75\n"
ROW = {
    "id": "r1",
    "model": "finetuned",
    "reference": "ett två",
    "hypothesis": "ett",
    "duration": 1.5,
    "speaker": None,
    "attributes": "{}",
}


def rows(**changes: Any) -> dict[str, list[Any]]:
    made = {**ROW, **dict.fromkeys(COUNT_COLUMNS, 1), LOOPED: False, **changes}
    return {name: [value] * 3 for name, value in made.items()}


UTTERANCES = pa.table(rows(), schema=SCHEMA)


def parquet(table: pa.Table | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(UTTERANCES if table is None else table, sink)
    return sink.getvalue().to_pybytes()


def read_json(path: Path) -> Any:
    return reports.read_json(path, "wer", "models")


def read_csv(path: Path) -> Any:
    return reports.read_csv(path, "step", "validation_wer")


READERS: dict[str, tuple[Callable[[Path], Any], bytes]] = {
    "metrics.json": (read_json, JSON),
    "steps.csv": (read_csv, CSV),
    "utterances.parquet": (reports.read_utterances, parquet()),
}


def told(name: str, path: Path) -> str:
    """What a reader says of a file it refuses: one line with the file's name and no path of the
    machine.
    """
    with pytest.raises(DataError) as fault:
        READERS[name][0](path)
    said = str(fault.value)
    assert said.startswith(f"{name}: ")
    assert "\n" not in said
    assert str(path.parent) not in said
    return said


@pytest.mark.parametrize("name", READERS)
def test_what_was_written_is_read(tmp_path: Path, name: str) -> None:
    read, content = READERS[name]
    (tmp_path / name).write_bytes(content)
    found = read(tmp_path / name)
    if name.endswith("json"):
        assert found == json.loads(content)
    elif name.endswith("csv"):
        assert found[1] == {"step": "2", "train_loss": "4.25", "validation_wer": "0.75"}
        assert found[0]["validation_wer"] == ""
    else:
        assert found.column_names == reports.UTTERANCE.names
        assert found.to_pylist()[0] == {name: ROW.get(name, 1) for name in reports.UTTERANCE.names}


def test_the_columns_are_those_that_evaluate_writes() -> None:
    for field in reports.UTTERANCE:
        assert SCHEMA.field(field.name).type == field.type


@pytest.mark.parametrize("name", READERS)
def test_a_report_that_is_not_there_says_what_makes_it(tmp_path: Path, name: str) -> None:
    assert "dvc repro" in told(name, tmp_path / name)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"\xff\xfe",
        b"null",
        b"[" * 100_000,
        b"9" * 10_000,
        b"<html>",
        b"PAR1PAR1",
        b"version https",
    ],
)
def test_a_report_that_holds_something_else_is_one_line(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    told(name, tmp_path / name)


@pytest.mark.parametrize("name", READERS)
def test_a_folder_in_the_place_of_a_report_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    told(name, tmp_path / name)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=250)
@given(st.data())
def test_a_damaged_report_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    read, good = READERS[name]
    content = bytearray(good)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        found = read(path)
    except DataError:
        told(name, path)
    else:
        assert holds_what_was_asked_for(name, found)


def holds_what_was_asked_for(name: str, found: Any) -> bool:
    """The keys or columns that the reader was asked for, and values of their types."""
    if name.endswith("json"):
        return isinstance(found, dict) and {"wer", "models"} <= found.keys()
    if name.endswith("csv"):
        return all(
            {"step", "validation_wer"} <= row.keys() and set(map(type, row.values())) <= {str}
            for row in found
        )
    types = {field.name: field.type for field in reports.UTTERANCE}
    if {field.name: field.type for field in found.schema} != types or not len(found):
        return False
    counts = [name for name, type in types.items() if pa.types.is_integer(type)]
    return all(value >= 0 for name in counts for value in found[name].to_pylist())


def test_the_control_other_values_do_not_hold_what_was_asked_for() -> None:
    short = UTTERANCES.select(reports.UTTERANCE.names)
    assert holds_what_was_asked_for("utterances.parquet", short)
    assert not holds_what_was_asked_for("utterances.parquet", short.slice(0, 0))
    assert not holds_what_was_asked_for("utterances.parquet", short.drop_columns(["id"]))
    assert not holds_what_was_asked_for("steps.csv", [{"step": "1"}])
    assert not holds_what_was_asked_for("steps.csv", [{"step": "1", "validation_wer": None}])
    assert not holds_what_was_asked_for("metrics.json", {"wer": 1})


@pytest.mark.parametrize("name", READERS)
def test_a_key_or_a_column_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    short = {
        "metrics.json": b'{"wer": 1}',
        "steps.csv": b"step,loss\n1,2\n",
        "utterances.parquet": parquet(UTTERANCES.drop_columns(["hits"])),
    }
    (tmp_path / name).write_bytes(short[name])
    assert {"metrics.json": "models", "steps.csv": "validation_wer", "utterances.parquet": "hits"}[
        name
    ] in told(name, tmp_path / name)


WRONG = {
    "text for a count": pa.table({**rows(), "hits": ["x"] * 3}),
    "a negative count": pa.table(rows(deletions=-1), schema=SCHEMA),
    "a count that is null": pa.table(rows(insertions=None), schema=SCHEMA),
    "a text that is null": pa.table(rows(reference=None), schema=SCHEMA),
    "a name twice": UTTERANCES.append_column("id", UTTERANCES["id"]),
    "no column at all": pa.table({}),
    "no row": UTTERANCES.slice(0, 0),
}


@pytest.mark.parametrize("what", WRONG)
def test_utterances_whose_columns_hold_something_else_are_one_line(
    tmp_path: Path, what: str
) -> None:
    path = tmp_path / "utterances.parquet"
    path.write_bytes(parquet(WRONG[what]))
    told("utterances.parquet", path)
