"""Tables of text give back what was written into them, and say where they are broken."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import DataError
from asr.sources.tables import (
    MAX_LINE,
    attribute_value,
    lines,
    read_json_lines,
    read_table,
    scratch_database,
)
from support.refusals import refused

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
DEEP = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def written(folder: Path, content: bytes) -> Path:
    (folder / "t").write_bytes(content)
    return folder / "t"


def assert_refused(path: Path, reader: Any, match: str) -> None:
    with refused(DataError, match):
        list(reader(path))


@settings(max_examples=40)
@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=5))
def test_any_text_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    folder, sheet = tmp_path_factory.mktemp("any"), io.StringIO()
    csv.writer(sheet).writerows([("a", "b"), *rows])
    as_csv = written(folder, sheet.getvalue().encode())
    assert [(row["a"], row["b"]) for _, row in read_table(as_csv, {"a"}, strict=True)] == rows
    as_json = written(
        folder,
        "".join(
            json.dumps({"a": a, "b": b}, ensure_ascii=False) + "\r\n" for a, b in rows
        ).encode(),
    )
    assert [(row["a"], row["b"]) for _, row in read_json_lines(as_json)] == rows


def test_bytes_that_are_no_utf_8_cost_the_row_alone(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbfa,b\nbad-\xff,1\ngood,2\n")
    assert [row for _, row in read_table(path, {"a"})] == [
        {"a": "bad-\udcff", "b": "1"},
        {"a": "good", "b": "2"},
    ]
    assert [row for _, row in read_json_lines(written(tmp_path, b'{"a": "bad-\xff"}\n'))] == [
        {"a": "bad-\udcff"}
    ]


def test_a_row_tells_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, b'a,b\n1,"x\ny"\n2,z\n')
    assert [line for line, _ in read_table(path, {"a"})] == [3, 4]
    assert [line for line, _ in read_json_lines(written(tmp_path, b'{"a": 1}\n\n{"a": 2}'))] == [
        1,
        3,
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    assert_refused(
        written(tmp_path, "a,b\n1,2\n".encode(encoding)),
        lines,
        "t: not UTF-8 but perhaps UTF-16; save it again as UTF-8",
    )


def test_a_line_of_10_mb_is_read_and_one_without_end_is_not(tmp_path: Path) -> None:
    ((_, row),) = read_table(written(tmp_path, b"a\n" + b"x" * 10_000_000), {"a"})
    assert len(row["a"]) == 10_000_000
    with (tmp_path / "t").open("r+b") as file:
        file.truncate(10 * MAX_LINE)  # zeros to the end
    assert_refused(tmp_path / "t", lines, "t:2: a line of 16,777,216 characters or more")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "t: no column a; it has none"),
        (b"b,c\n1,2\n", "t: no column a; it has b, c"),
        (b'"b\n\x1b[2J",c\xff\n1,2\n', r"t: no column a; it has b\ufffd\ufffd\[2J, c\ufffd$"),
        (b"a,b,a\n1,2,3\n", "t: a column stands twice: a, b, a"),
        (
            b"a,b\n1,2\n3,hello, world\n",
            "t:3: more values than columns; a text that holds the separator wants quotes",
        ),
        (b"a,b\n1,hello, \n", "t:2: more values than columns"),
        (b"a,b\n1,hello,\n", "t:2: more values than columns"),
        (b'a,b\n1,"open\n2,closed\n', "t:3: unexpected end of data; a quote that never closes"),
        (b'a,b\n1,"closed" early\n', "t:2: ',' expected after '\"'"),
    ],
)
def test_a_table_that_cannot_be_told_apart_is_refused(
    tmp_path: Path, content: bytes, match: str
) -> None:
    assert_refused(
        written(tmp_path, content), lambda path: read_table(path, {"a"}, strict=True), match
    )


def test_separators_at_the_end_of_every_row_are_columns_without_a_name(tmp_path: Path) -> None:
    assert [row["b"] for _, row in read_table(written(tmp_path, b"a,b,,\n1,2,,\n3\n"), {"a"})] == [
        "2",
        "",
    ]


def test_what_a_short_row_lacks_is_as_told(tmp_path: Path) -> None:
    place = written(tmp_path, b"a,b\n3\n")
    assert [list(read_table(place, {"a"}, restval=value)) for value in ("", None)] == [
        [(2, {"a": "3", "b": value})] for value in ("", None)
    ]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b'{"a": 1}\n{"a": \n', r"t:2: not JSON \(Expecting value"),
        (b"[1]\n", "t:1: got list, want an object"),
        (b'{"a": "\\ud800"}\n', "t:1: not JSON .*surrogates"),
        (b'{"a": NaN}\n', r"t:1: not JSON \(NaN\)"),
        (b'{"a": ' + b"9" * 5000 + b"}\n", "t:1: not JSON .*limit"),
        (DEEP, "t:1: not JSON .*recursion"),
    ],
    ids=["cut", "list", "surrogate", "nan", "number", "deep"],
)
def test_a_line_that_is_no_object_is_refused(tmp_path: Path, content: bytes, match: str) -> None:
    assert_refused(written(tmp_path, content), read_json_lines, match)


@pytest.mark.parametrize(
    ("value", "kept"),
    [("a", "a"), (3, 3), (0.5, 0.5), (True, True), ([1, "ö"], '[1, "ö"]'), (1e400, "Infinity")],
)
def test_an_attribute_is_a_plain_value(value: Any, kept: Any) -> None:
    assert attribute_value(value) == kept


def test_what_is_put_on_disk_is_there_until_it_is_made_anew(tmp_path: Path) -> None:
    for _ in range(2):
        with scratch_database(tmp_path / "t.sqlite", "CREATE TABLE t (a)") as index:
            index.execute("INSERT INTO t VALUES (1)")
        with scratch_database(tmp_path / "t.sqlite") as index:
            assert index.execute("SELECT a FROM t").fetchall() == [(1,)]
