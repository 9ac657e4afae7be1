"""What stands in two splits though it may stand in one alone: refused, and named row by row, for
whoever has to remove it.

Costs nothing where nothing does; else one more pass over the rows, whose sound is known. Memory
grows with what is shared alone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr.cleaning.near_duplicates import NearDuplicate
from asr.cleaning.reasons import printable
from asr.errors import DataError
from asr.storage import files
from asr.storage.scratch import DiskSet

SHOWN = 3
KINDS = ("clip", "speaker")
SCORED = {
    "test",
    "holdout",
}  # nothing is taught or chosen by either, so what both hold flatters no number
COLUMNS = ("kind", "shared", "split", "id")
Place = tuple[str, str]  # split and id


@dataclass(frozen=True)
class Shared:
    """A clip or a speaker, and the rows of all splits in which it stands."""

    kind: str
    name: str
    rows: list[Place]

    def __str__(self) -> str:
        ends = list({split: (split, id) for split, id in reversed(self.rows)}.items())[::-1]
        if self.kind == "speaker":
            return f"{printable(self.name)} in {' and '.join(split for split, _ in ends)}"
        return " in ".join(f"{printable(id)} of {split}" for _, (split, id) in ends)


def found(
    tally: DiskSet,
    copies: Sequence[NearDuplicate],
    rows: Iterable[tuple[str, str, bytes, bytes | None]],
) -> list[Shared]:
    """The clips and speakers that stand in two splits, other than the two that are only scored.

    Args:
        copies: recordings that are another one's copy by their sound, encoded anew, trimmed,
            louder.
        rows: split, id, digest of the sound and speaker of every row; they are asked for only if
            something is shared.
    """
    groups: dict[tuple[str, bytes], list[Place]] = {
        (kind, key): [] for kind in KINDS for key in tally.shared(kind)
    }
    for split, id, digest, speaker in rows if groups else ():
        for key in (("clip", digest), ("speaker", speaker or b"")):
            if key in groups:
                groups[key].append((split, id))
    pairs = [
        Shared(
            "clip",
            f"{one.share:.0%} of the shorter",
            [(one.split, one.id), (one.other_split, one.other_id)],
        )
        for one in copies
    ]
    heard = {place for one in pairs for place in one.rows}
    same = [
        Shared("clip", "the same bytes", places)
        for (kind, _), places in groups.items()
        if kind == "clip"
    ]
    too_short = [one for one in same if not heard.issuperset(one.rows)]  # to be known by its sound
    speakers = [
        Shared("speaker", key.decode(), places)
        for (kind, key), places in groups.items()
        if kind == "speaker"
    ]
    return [
        one
        for one in (*pairs, *too_short, *speakers)
        if not set() < {split for split, _ in one.rows} <= SCORED
    ]


def write(path: Path, found: Sequence[Shared]) -> None:
    """A line for each row: what it shares, its split and its id. What is shared has lines that
    follow one another.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows((one.kind, one.name, *place) for one in found for place in one.rows)
    files.write_text(path, text.getvalue())


def refuse(found: Sequence[Shared], allowed: Sequence[str]) -> None:
    """Refuse what stands in two splits.

    Raises:
        BadData: a clip or its copy, or a speaker, does, and params do not allow it by name.
    """
    told, kinds = [], []
    for kind in KINDS:
        these = [one for one in found if one.kind == kind]
        if these and kind not in allowed:
            kinds.append(kind)
            told.append(
                f"{len(these):,} {kind}s stand in two splits ({', '.join(map(str, these[:SHOWN]))})"
            )
    if told:
        raise DataError(
            f"{'; '.join(told)}, so the test is not honest; reports/chunk/shared.csv names every row, page.html plays some; "
            f"split anew by speaker, or allow it: -S 'chunk.allow_shared=[{','.join([*allowed, *kinds])}]'"
        )
