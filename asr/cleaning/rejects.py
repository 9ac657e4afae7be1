"""Write the rows that are left out: a table of all, and a page with examples of each reason.

The page can be read and listened to in any browser. The table is written as rows come, so memory
does not grow with their number. The page holds at most MAX_SHOWN_EXAMPLES recordings of each
reason.
"""

from __future__ import annotations

import html
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from asr.audio.media import media_type
from asr.storage import files, shards
from asr.storage.corpus import Recording

REJECT = pa.schema([(name, pa.string()) for name in ("id", "split", "code", "detail", "source")])
MAX_SHOWN_EXAMPLES = 3  # of each reason
MAX_SHOWN_CHARACTERS = 200  # of a transcript
MAX_BYTES = 4 << 20  # of a recording that is laid beside the page
SOUNDS = "sounds"  # the folder of recordings beside the page

PLURALS = {
    "speaker": "speakers",
    "clip": "clips",
    "sentence": "sentences",
    "copy": "copies of a clip",
}
REASONS = {
    "audio_clipped": "so loud that it is cut to a square wave",
    "audio_missing": "the corpus names a recording that is not there",
    "audio_silent": "nobody is to be heard",
    "audio_truncated": "much shorter than its header or table promised",
    "audio_undecodable": "no decoder can read all of it",
    "clip_in_validation": "its sound is that of a validation row",
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
:root { color-scheme: light dark } body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; \
max-width: 60rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; width: 100% } td { overflow-wrap: break-word }
td, th { padding: .3rem .8rem; text-align: left; border-bottom: 1px solid #8884 }
td.number { text-align: right } audio { vertical-align: middle; height: 2rem } small { opacity: .7 }
"""


@dataclass(frozen=True)
class ShownReject:
    """A row of the raw corpus that the page shows.

    reject: its line of the table.
    """

    reject: dict[str, str]
    text: str
    place: shards.RowPlace


class RejectWriter:
    """A table of rejects being written; leaving the block without `close` removes it."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.draft = path.with_name(f".{path.name}.part")
        self.writer = pq.ParquetWriter(self.draft, REJECT)
        self.waiting: list[dict[str, str]] = []
        self.counts: Counter[tuple[str, str, str]] = Counter()  # by split, source and code
        self.examples: dict[str, list[ShownReject]] = defaultdict(list)  # by code
        self.first: dict[tuple[str, str], dict[str, str]] = {}  # by split and code

    def add(self, reject: dict[str, str], text: str, place: shards.RowPlace) -> None:
        split, code = reject["split"], reject["code"]
        self.counts[split, reject["source"], code] += 1
        self.first.setdefault((split, code), reject)
        if len(self.examples[code]) < MAX_SHOWN_EXAMPLES:
            self.examples[code].append(ShownReject(reject, text, place))
        self.waiting.append(reject)
        if len(self.waiting) == shards.BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        self.writer.write_table(pa.Table.from_pylist(self.waiting, schema=REJECT))
        self.waiting = []

    def close(self) -> None:
        """Finish the table and rename it to its path."""
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
    """Return the page as HTML, and write the recordings it plays.

    Args:
        summary: rows of each split and source, and what is in two splits.
        examples: rows to show, by code.
        copies: pairs of recordings that are one another's copy, and where they stand.
        sounds: the folder that the recordings are written to; the page expects it beside itself,
            under the name SOUNDS.
    """
    title = "Rows left out"
    shared = ", ".join(_shared(summary))
    parts = [
        "<!doctype html><meta charset=utf-8>"
        f"<title>{title}</title><style>{STYLE}</style><h1>{title}</h1>",
        "<table><tr><th>split<th>source<th>rows in<th>kept<th>left out",
        *_source_rows(summary["sources"]),
        "</table>",
        f"<p>In two splits: {shared}.",
    ]
    if copies:
        parts.append("<h2>The same sound in two splits</h2><table>")
        parts += [_copy_row(*copy, sounds) for copy in copies]
        parts.append("</table>")
    for code, shown in sorted(examples.items()):
        parts.append(f"<h2>{html.escape(code)}</h2>{REASONS[code]}<table>")
        parts += [_example_row(example, sounds) for example in shown]
        parts.append("</table>")
    return "\n".join(parts) + "\n"


def _shared(summary: dict[str, Any]) -> Iterator[str]:
    """How many of each kind stand in two splits; of rows without a speaker nobody knows."""
    unknown = summary.get("rows_without_speaker", 0)
    by_source = summary["sources"].values()
    rows = sum(counts["rows_kept"] for split in by_source for counts in split.values())
    for kind, count in summary["in_two_splits"].items():
        if kind != "speaker" or not unknown:
            yield f"{count:,} {PLURALS[kind]}"
        elif unknown < rows:
            yield f"{count:,} {PLURALS[kind]} ({unknown:,} of {rows:,} rows name none)"
        else:
            yield "speakers are not known"


def _source_rows(sources: dict[str, dict[str, Any]]) -> list[str]:
    """Table rows: how many rows of each split and source were kept, and why others were not."""
    rows = []
    for split, by_source in sources.items():
        for source, counts in by_source.items():
            rejects = ", ".join(f"{count:,} {code}" for code, count in counts["rejects"].items())
            rows.append(
                f"<tr><td>{split}<td>{html.escape(source)}"
                f"<td class=number>{counts['rows_in']:,}<td class=number>{counts['rows_kept']:,}"
                f"<td>{html.escape(rejects or 'none')}"
            )
    return rows


def _copy_row(recording: Recording, other: Recording, where: str, sounds: Path) -> str:
    """A table row: two recordings that share their sound."""
    cells = "".join(
        f"<td>{html.escape(copy.id)}<br>{html.escape(copy.text[:MAX_SHOWN_CHARACTERS])}"
        f"<td>{_player(copy.sound, 'copy', sounds)}"
        for copy in (recording, other)
    )
    return f"<tr>{cells}<td><small>{html.escape(where)}</small>"


def _example_row(example: ShownReject, sounds: Path) -> str:
    """A table row: id, transcript, detail and player of a reject."""
    reject = example.reject
    path, offset, row = example.place
    encoded = shards.read_batch(path, offset).column("audio")[row].as_py()
    text = example.text[:MAX_SHOWN_CHARACTERS]
    return (
        f"<tr><td>{html.escape(reject['id'])}<td>{html.escape(text)}"
        f"<td><small>{html.escape(reject['detail'])}</small>"
        f"<td>{_player(encoded, reject['code'], sounds)}"
    )


def _player(encoded: bytes | None, code: str, sounds: Path) -> str:
    """HTML that plays a recording, which is written to the folder `sounds`.

    The file is named by the code and a number, so that its name says nothing of where it comes
    from.
    """
    if not encoded:
        return "no recording"
    if len(encoded) > MAX_BYTES:
        return f"{len(encoded) >> 20} MB"
    kind = media_type(encoded)
    suffix = kind.partition("/")[2] if kind else "bin"
    number = len(list(sounds.glob(f"{code}-*"))) + 1
    name = f"{code}-{number}.{suffix}"
    (sounds / name).write_bytes(encoded)
    address = f"{SOUNDS}/{name}"
    if not kind:
        return f"<a href='{address}' download>{len(encoded):,} bytes</a>"
    return f"<audio controls preload=none src='{address}'></audio>"
