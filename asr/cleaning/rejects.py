"""The rows that are left out: a table of all, and a page with some of each kind, to be read and
listened to in any browser.

Written as they come, so that memory does not grow with their number. The page holds at most SHOWN
recordings of each reason.
"""

from __future__ import annotations

import html
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from asr.audio.media import media_type
from asr.storage import files, shards
from asr.storage.corpus import Recording

REJECT = pa.schema([(name, pa.string()) for name in ("id", "split", "code", "detail", "source")])
MAX_SHOWN_EXAMPLES = 3
SOUNDS = "sounds"
PLURALS = {
    "speaker": "speakers",
    "clip": "clips",
    "sentence": "sentences",
    "copy": "copies of a clip",
}
MAX_BYTES = 4 << 20  # of a recording that is laid beside the page
REASONS = {
    "audio_clipped": "so loud that it is cut to a square wave",
    "audio_missing": "the corpus names a recording that is not there",
    "audio_silent": "nobody is to be heard",
    "audio_truncated": "much shorter than its header or table promised",
    "audio_undecodable": "no decoder can read all of it",
    "id_duplicate": "an earlier row has the same id",
    "text_control": "control characters in the transcript",
    "text_empty": "no transcript",
    "text_markup": "markup in the transcript",
    "text_mojibake": "the transcript was decoded as another encoding than its own",
    "text_not_utf8": "the transcript is not UTF-8",
    "text_wordless": "no letter or digit in the transcript",
    "too_fast": "more letters a second than people speak",
    "too_long": "longer than chunk.max_seconds",
    "too_short": "shorter than chunk.min_seconds",
}
STYLE = """
:root { color-scheme: light dark } body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; width: 100% } td { overflow-wrap: break-word }
td, th { padding: .3rem .8rem; text-align: left; border-bottom: 1px solid #8884 }
td.number { text-align: right } audio { vertical-align: middle; height: 2rem } small { opacity: .7 }
"""


@dataclass(frozen=True)
class ShownReject:
    """A row of the raw corpus, and why it is shown."""

    reject: dict[str, str]
    text: str
    place: tuple[Path, int, int]  # file, byte of the record batch, row in it


class RejectWriter:
    """A table of rejects being written."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.draft = path, path.with_name(f".{path.name}.part")
        self.writer = pq.ParquetWriter(self.draft, REJECT)
        self.waiting: list[dict[str, str]] = []
        self.counts: Counter[tuple[str, str, str]] = Counter()  # split, source, code
        self.examples: dict[str, list[ShownReject]] = defaultdict(list)  # by code
        self.first: dict[tuple[str, str], dict[str, str]] = {}  # by split and code

    def add(self, reject: dict[str, str], text: str, place: tuple[Path, int, int]) -> None:
        self.counts[reject["split"], reject["source"], reject["code"]] += 1
        self.first.setdefault((reject["split"], reject["code"]), reject)
        if len(self.examples[reject["code"]]) < MAX_SHOWN_EXAMPLES:
            self.examples[reject["code"]].append(ShownReject(reject, text, place))
        self.waiting.append(reject)
        if len(self.waiting) == shards.BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        self.writer.write_table(pa.Table.from_pylist(self.waiting, schema=REJECT))
        self.waiting = []

    def close(self) -> None:
        """Put the finished table in its place."""
        if self.waiting:
            self._flush()
        self.writer.close()
        files.sync(self.draft)
        self.draft.replace(self.path)

    def __enter__(self) -> RejectWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()
        self.draft.unlink(missing_ok=True)


def page(
    summary: dict[str, Any],
    examples: dict[str, list[ShownReject]],
    copies: list[tuple[Recording, Recording, str]],
    sounds: Path,
) -> str:
    """The page as HTML; recordings go into the folder, which will be called SOUNDS, beside it.

    Args:
        copies: pairs of recordings that are one another's copy, and where they stand.
    """
    parts = [
        f"<!doctype html><meta charset=utf-8><title>Rows left out</title><style>{STYLE}</style><h1>Rows left out</h1>"
    ]
    parts += ["<table><tr><th>split<th>source<th>rows in<th>kept<th>left out"]
    for split, by_source in summary["sources"].items():
        for source, one in by_source.items():
            why = ", ".join(f"{count:,} {code}" for code, count in one["rejects"].items()) or "none"
            cells = f"<td class=number>{one['rows_in']:,}<td class=number>{one['rows_kept']:,}<td>{html.escape(why)}"
            parts += [f"<tr><td>{split}<td>{html.escape(source)}{cells}"]
    shared = ", ".join(
        f"{count:,} {PLURALS[kind]}" for kind, count in summary["in_two_splits"].items()
    )
    parts += ["</table>", f"<p>In two splits: {shared}."]
    if copies:
        parts += [
            "<h2>The same sound in two splits</h2><table>",
            *(_pair(*pair, sounds) for pair in copies),
            "</table>",
        ]
    for code, found in sorted(examples.items()):
        parts += [
            f"<h2>{html.escape(code)}</h2>{REASONS[code]}<table>",
            *(_line(one, sounds) for one in found),
            "</table>",
        ]
    return "\n".join(parts) + "\n"


def _pair(one: Recording, other: Recording, where: str, sounds: Path) -> str:
    cells = "".join(
        f"<td>{html.escape(two.id)}<td>{_player(two.sound, 'copy', sounds)}" for two in (one, other)
    )
    return f"<tr>{cells}<td><small>{html.escape(where)}</small>"


def _line(one: ShownReject, sounds: Path) -> str:
    path, offset, row = one.place
    encoded = shards.read_batch(path, offset).column("audio")[row].as_py()
    names = "".join(f"<td>{html.escape(part)}" for part in (one.reject["id"], one.text[:200]))
    return f"<tr>{names}<td><small>{html.escape(one.reject['detail'])}</small><td>{_player(encoded, one.reject['code'], sounds)}"


def _player(encoded: bytes | None, code: str, sounds: Path) -> str:
    """What plays a recording, which goes into the folder; its name says nothing of where it comes
    from.
    """
    if not encoded or len(encoded) > MAX_BYTES:
        return "no recording" if not encoded else f"{len(encoded) >> 20} MB"
    kind = media_type(encoded)
    name = f"{code}-{sum(1 for _ in sounds.glob(f'{code}-*')) + 1}.{kind.partition('/')[2] if kind else 'bin'}"
    (sounds / name).write_bytes(encoded)
    place = f"{SOUNDS}/{name}"
    return (
        f"<audio controls preload=none src='{place}'></audio>"
        if kind
        else f"<a href='{place}' download>{len(encoded):,} bytes</a>"
    )
