"""A repository with results for the pages to show, made by the real stages where that is quick;
ways to damage it; texts that attack.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from streamlit.testing.v1 import AppTest

from asr import wer
from asr.evaluation.table import SCHEMA
from asr.storage import files, shards

TAGS = {"div", "span", "p", "mark", "del", "ins", "bdi", "a"}
ATTRIBUTES = {"class", "dir", "href"}
ATTACKS = (
    "<script>alert({0})</script>",
    "<img src=x onerror=alert({0})>",
    "</span></div><h1>{0}</h1>",
    '" onmouseover="alert({0})" x="',
    "' onfocus='alert({0})' autofocus='",
    "&lt;b&gt;{0}&#60;i&#62;",
    "**{0}** [l](javascript:alert({0})) ![b](http://127.0.0.1/{0})",
    ":material/delete: :red[{0}] $x^{0}$ `{0}` # {0}",
    "\u202e{0}\u2066 \u200f ا ب \u0301{0}",
    "<style>*{{display:none}}</style>{0}",
    "{0}\x00\x07\x1b[31m",
    "../../etc/passwd%00{0}",
    "=cmd|' /C calc'!A{0}",
    "<svg/onload=alert({0})><math><mi//xlink:href='data:x,{0}'>",
    "{{{{{0}}}}} ${{{0}}} <%= {0} %>",
    "'; DROP TABLE runs; -- {0}",
    "\ufeff\u2028{0}\u2029 \U0001f469\u200d\U0001f4bb",
    "<!-- {0} --><iframe srcdoc='<script>{0}</script>'>",
    "]]>{0}<![CDATA[",
    "-{0} --{0} <a href=//x>{0}</a>" + "z" * 300,
)
HOSTILE = [attack.format(number) for number in range(10) for attack in ATTACKS]  # 200


def write_evaluation(root: Path, lines: list[dict[str, Any]]) -> None:
    """reports/evaluate as `evaluate` writes it, with these hypotheses; scored on the test that lies
    in the root.
    """

    rows = [
        {**line, **wer.utterance_scores(line["reference"], line["hypothesis"])} for line in lines
    ]
    (root / "reports/evaluate").mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.Table.from_pylist(rows, schema=SCHEMA), root / "reports/evaluate/utterances.parquet"
    )
    features = root / "data/features/test"
    test_hash = shards.data_hash(features) if features.is_dir() else "none"
    files.write_json(root / "reports/evaluate/metrics.json", {"test_hash": test_hash, "wer": 0.5})


def line(
    id: str, reference: str, hypothesis: str, model: str = "finetuned", **rest: Any
) -> dict[str, Any]:
    given = {"duration": 1.5, "speaker": None, "attributes": "{}"}
    return {
        "id": id,
        "model": model,
        "reference": reference,
        "hypothesis": hypothesis,
        **given,
        **rest,
    }


def store(tiny: Path, root: Path) -> Path:
    """The tiny corpus with what two models heard in its test: one every second word wrong, one
    right in all but the first utterance.
    """
    shutil.copytree(tiny / "data", root / "data")
    shutil.copytree(tiny / "reports", root / "reports")
    lines = []
    for number, row in enumerate(
        shards.rows(root / "data/chunks/test", ["id", "text", "speaker", "attributes", "duration"])
    ):
        known = {name: row[name] for name in ("speaker", "attributes", "duration")}
        words = row["text"].split()
        said = " ".join(word if place % 2 else "fel" for place, word in enumerate(words))
        lines.append(line(row["id"], row["text"], said, "finetuned", **known))
        lines.append(line(row["id"], row["text"], row["text"] if number else "", "start", **known))
    write_evaluation(root, lines)
    return root


def parquet_damages(path: Path, draw: random.Random) -> list[Any]:
    """Ways to spoil a table that keep it a table."""
    table = pq.read_table(path)
    column = draw.choice(table.column_names)
    at = table.column_names.index(column)
    values = [draw.choice([None, -1, 7, 10**6]) for _ in range(len(table))]
    bad = [
        draw.choice(
            [
                '{"a": [1',
                "[]",
                "null",
                '"x"',
                "{}" * 9,
                '{"a": 1e999}',
                '{"x": "\\ud800"}',
                "[" * 5000,
            ]
        )
        for _ in range(len(table))
    ]
    return [
        lambda: pq.write_table(table.drop_columns([column]), path),
        lambda: pq.write_table(table.set_column(at, column, pa.array(values, pa.int64())), path),
        lambda: pq.write_table(
            table.set_column(at, column, pa.array([draw.random() for _ in values])), path
        ),
        lambda: pq.write_table(
            table.set_column(at, column, pa.nulls(len(table), table[column].type)), path
        ),
        lambda: pq.write_table(table.slice(0, 0), path),
        lambda: pq.write_table(pa.concat_tables([table, table]), path),
        *(
            [lambda: pq.write_table(table.set_column(at, column, pa.array(bad)), path)]
            if table[column].type == pa.string()
            else []
        ),
    ]


def json_damages(path: Path, draw: random.Random) -> list[Any]:
    found = json.loads(path.read_text())
    key = draw.choice(sorted(found))
    wrong = draw.choice(
        [
            None,
            [],
            {},
            -1,
            "x",
            1e300,
            10**400,
            True,
            "\ud800",
            {"a": None},
            [[]],
            {"\ud800": {}},
            {"..": {"rows": 1}},
        ]
    )
    changed: list[Any] = [
        {**found, key: wrong},
        {name: one for name, one in found.items() if name != key},
        [found],
        wrong,
    ]
    return [lambda one=one: path.write_text(json.dumps(one)) for one in changed]


@contextmanager
def damaged(path: Path, seed: int) -> Iterator[str]:
    """Damage one file in one of many ways while the block lasts; gives the name of the way."""
    draw, content = random.Random(seed), path.read_bytes()
    flipped = bytearray(content)
    for _ in range(draw.choice([1, 3, 30])):
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
    ways = {
        "cut": [lambda: path.write_bytes(content[: draw.randrange(len(content))])],
        "flipped": [lambda: path.write_bytes(bytes(flipped))],
        "empty": [lambda: path.write_bytes(b"")],
        "noise": [lambda: path.write_bytes(draw.randbytes(draw.randrange(1, 5000)))],
        "missing": [path.unlink],
        "folder": [lambda: (path.unlink(), path.mkdir())],
        "shape": {".parquet": parquet_damages, ".json": json_damages}.get(
            path.suffix, lambda *_: []
        )(path, draw),
    }
    way = draw.choices(
        [name for name in ways if ways[name]],
        [8 if name == "shape" else 3 if name == "flipped" else 1 for name in ways if ways[name]],
    )[0]
    try:
        draw.choice(ways[way])()
        yield way
    finally:
        if path.is_dir():
            path.rmdir()
        path.write_bytes(content)


def raise_bug(*_: object) -> None:
    """What a page calls when it has a fault that is none of ours."""
    raise ValueError("a bug of the page")


def check(at: AppTest) -> None:
    """The page stands: no exception, no traceback; every piece of HTML holds our own tags only."""
    assert not at.exception, [(one.value, one.stack_trace) for one in at.exception]
    assert not at.error, [one.value for one in at.error]
    for one in at.html:
        check_html(one.value)
    assert not [one for one in at.markdown if one.allow_html]


def check_html(text: str) -> None:
    """Our tags and attributes, and no others."""
    parser = Tags()
    parser.feed(text)
    parser.close()
    if not (text.startswith("<style>") and parser.found == [("style", [])]):
        assert all(
            tag in TAGS and {name for name, _ in attributes} <= ATTRIBUTES
            for tag, attributes in parser.found
        ), text[:300]
        addresses = [dict(attributes).get("href") for tag, attributes in parser.found if tag == "a"]
        assert all(address and address.startswith("?") for address in addresses), text[:300]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.said = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))

    def handle_comment(self, data: str) -> None:
        self.found.append(("comment", [(data, None)]))

    def unknown_decl(self, data: str) -> None:
        self.found.append(("declaration", [(data, None)]))

    def handle_data(self, data: str) -> None:
        self.said += data


def said(at: AppTest) -> str:
    """The words on the page that stand in HTML."""
    texts = []
    for one in at.html:
        parser = Tags()
        parser.feed(one.value)
        texts.append(parser.said)
    return "\n".join(texts)
