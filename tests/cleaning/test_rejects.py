"""What was left out can be read and heard, and nothing in it is taken for markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from asr.cleaning.rejects import MAX_BYTES, MAX_SHOWN_EXAMPLES, REASONS, RejectWriter, page
from asr.storage import shards
from support.data import encoded, row, voice, write_rows
from support.repository import REPOSITORY

HOSTILE = "<script>alert(1)</script> & <img src=x onerror=y>"
SUMMARY = {
    "sources": {"train": {"mine <b>": {"rows_in": 9, "rows_kept": 1, "rejects": {"too_long": 8}}}},
    "in_two_splits": {"speaker": 0, "clip": 2},
}


SPEAKERS = {
    "known": ({}, "In two splits: 0 speakers, 2 clips."),
    "of some rows": (
        {"rows_without_speaker": 1},
        "In two splits: 0 speakers (1 of 3 rows name none), 2 clips.",
    ),
    "of none": ({"rows_without_speaker": 3}, "In two splits: speakers are not known, 2 clips."),
}


@pytest.mark.parametrize("kind", SPEAKERS)
def test_where_no_row_has_a_speaker_the_page_does_not_say_that_none_is_shared(
    tmp_path: Path, kind: str
) -> None:
    counts = {"rows_in": 3, "rows_kept": 3, "rejects": {}}
    summary = {"sources": {"train": {"mine": counts}}, "in_two_splits": SUMMARY["in_two_splits"]}
    more, expected = SPEAKERS[kind]
    assert expected in page(summary | more, {}, [], tmp_path)


def reject(id: str, code: str = "too_long") -> dict[str, str]:
    return {"id": id, "split": "train", "code": code, "detail": "9 s", "source": "mine"}


def written(folder: Path, sounds: list[bytes | None]) -> str:
    """The page about rows with these recordings, all left out for one reason."""
    raw = write_rows(
        folder / "raw",
        "part",
        {
            "train": [
                row(f"{number} {HOSTILE}", sound, HOSTILE) for number, sound in enumerate(sounds)
            ]
        },
    )
    ((path, offset, _),) = shards.batch_locations(raw / "train")
    with RejectWriter(folder / "rejects.parquet") as left_out:
        for number in range(len(sounds)):
            left_out.add(reject(f"{number} {HOSTILE}"), HOSTILE, (path, offset, number))
        left_out.close()
    (folder / "sounds").mkdir()
    return page(SUMMARY, left_out.examples, [], folder / "sounds")


class Elements(HTMLParser):
    def __init__(self, content: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_every_row_stands_in_the_table_and_some_on_the_page(tmp_path):
    content = written(tmp_path, [encoded(voice(0.3, seed=number)) for number in range(5)])
    assert [
        one["id"][0] for one in pq.read_table(tmp_path / "rejects.parquet").to_pylist()
    ] == list("01234")
    players = [attributes["src"] for tag, attributes in Elements(content).found if tag == "audio"]
    assert players == [
        f"sounds/too_long-{number}.wav" for number in range(1, MAX_SHOWN_EXAMPLES + 1)
    ]
    assert (tmp_path / players[1]).read_bytes() == encoded(voice(0.3, seed=1))


def test_text_is_text(tmp_path):
    content = written(tmp_path, [encoded(voice(0.3))])
    assert {tag for tag, _ in Elements(content).found}.isdisjoint({"script", "img", "b"})
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in content
    assert "mine &lt;b&gt;" in content


@pytest.mark.parametrize(
    ("sound", "shown", "laid"),
    [
        (None, "no recording", []),
        (b"", "no recording", []),
        (b"no sound at all", "15 bytes", ["too_long-1.bin"]),
        (bytes(MAX_BYTES + 1), "4 MB", []),
    ],
)
def test_what_cannot_be_played_is_told(tmp_path, sound, shown, laid):
    content = written(tmp_path, [sound])
    assert shown in content
    assert "<audio" not in content
    assert [path.name for path in (tmp_path / "sounds").iterdir()] == laid


def test_a_table_of_many_rows_is_whole_and_an_unfinished_one_is_none(tmp_path):
    with RejectWriter(tmp_path / "many.parquet") as left_out:
        for number in range(1234):
            left_out.add(reject(str(number), "x" if number % 2 else "y"), "", (tmp_path, 0, 0))
        assert not (tmp_path / "many.parquet").exists()
        left_out.close()
    assert [one["id"] for one in pq.read_table(tmp_path / "many.parquet").to_pylist()] == [
        str(number) for number in range(1234)
    ]
    assert left_out.counts == {("train", "mine", "x"): 617, ("train", "mine", "y"): 617}
    with RejectWriter(tmp_path / "half.parquet") as half:
        half.add(reject("a"), "", (tmp_path, 0, 0))
    assert [path.name for path in tmp_path.iterdir()] == ["many.parquet"]


def test_every_reason_is_explained():
    code = "".join(
        (REPOSITORY / name).read_text()
        for name in ("asr/cleaning/measurements.py", "asr/cleaning/reasons.py", "stages/chunk.py")
    )
    given = set(re.findall(r'"((?:audio|text|too|id|clip)_[a-z0-9_]+)"', code))
    assert given == set(REASONS)


def test_the_whole_page_is_light_or_dark_as_the_reader_likes_it(tmp_path):
    """Said of the body alone it leaves black letters on white below dark players."""
    assert ":root { color-scheme: light dark }" in written(tmp_path, [None])
