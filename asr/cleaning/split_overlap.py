"""Find clips and speakers in two splits, list their rows in a table, and refuse them.

They are refused unless `chunk.allow_shared` permits their kind. Where the
very sound of a validation row is permitted in training, it is left out there, for training refuses
it. Costs nothing where nothing is shared; else one more pass over the rows, whose
measurements are cached. Memory grows only with what is shared.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr.cleaning.near_duplicates import NearDuplicate
from asr.cleaning.reasons import printable
from asr.errors import DataError
from asr.storage import files
from asr.storage.scratch import DiskSet

MAX_SHOWN_EXAMPLES = 3
KINDS = ("clip", "speaker")
# No model is trained or selected by either of these, so what both hold makes no score too good.
SCORED = {"test", "holdout"}
CHOOSING = {"train", "validation"}  # by the one a model is made, by the other its best step
COLUMNS = ("kind", "shared", "split", "id")

SplitAndId = tuple[str, str]
Row = tuple[str, str, bytes, bytes | None]  # split, id, digest of the samples, speaker


@dataclass(frozen=True)
class Shared:
    """A clip or a speaker, and its rows in all splits."""

    kind: str
    name: str
    rows: list[SplitAndId]

    def __str__(self) -> str:
        first_ids: dict[str, str] = {}  # by split
        for split, id in self.rows:
            first_ids.setdefault(split, id)
        if self.kind == "speaker":
            return f"{printable(self.name)} in {' and '.join(first_ids)}"
        return " in ".join(f"{printable(id)} of {split}" for split, id in first_ids.items())


def find_shared(
    tally: DiskSet, copies: Sequence[NearDuplicate], rows: Iterable[Row]
) -> list[Shared]:
    """Find the clips and speakers in two splits, other than the two splits that are only scored.

    Args:
        tally: the splits of each digest of a clip and of each speaker.
        copies: recordings that are another one's copy by their sound: encoded anew, trimmed,
            louder.
        rows: all rows; they are read only if something is shared.
    """
    groups = _rows_by_key(tally, rows)
    near = [_copy(duplicate) for duplicate in copies]
    same = [
        Shared("clip", "the same samples", places)
        for (kind, _), places in groups.items()
        if kind == "clip"
    ]
    speakers = [
        Shared("speaker", key.decode(), places)
        for (kind, key), places in groups.items()
        if kind == "speaker"
    ]
    # Clips with the same samples are near duplicates already, but for those too short for that.
    in_near = {place for shared in near for place in shared.rows}
    too_short = [shared for shared in same if not in_near.issuperset(shared.rows)]
    return [shared for shared in (*near, *too_short, *speakers) if not _is_only_scored(shared)]


def _rows_by_key(tally: DiskSet, rows: Iterable[Row]) -> dict[tuple[str, bytes], list[SplitAndId]]:
    """The rows of each clip and speaker that stands in two splits, by kind and key."""
    groups: dict[tuple[str, bytes], list[SplitAndId]] = {
        (kind, key): [] for kind in KINDS for key in tally.shared(kind)
    }
    if not groups:
        return groups
    for split, id, digest, speaker in rows:
        for key in (("clip", digest), ("speaker", speaker or b"")):
            if key in groups:
                groups[key].append((split, id))
    return groups


def _copy(duplicate: NearDuplicate) -> Shared:
    """A pair of near duplicates as a shared clip."""
    rows = [(duplicate.split, duplicate.id), (duplicate.other_split, duplicate.other_id)]
    return Shared("clip", f"{duplicate.share:.0%} of the shorter", rows)


def _is_in_training_and_validation(shared: Shared) -> bool:
    return shared.kind == "clip" and {split for split, _ in shared.rows} >= CHOOSING


def _is_only_scored(shared: Shared) -> bool:
    """Whether all rows of something are in test and holdout; not so if no row is known."""
    splits = {split for split, _ in shared.rows}
    return bool(splits) and splits <= SCORED


def write(path: Path, overlaps: Sequence[Shared]) -> None:
    """Write a CSV line for each row: the kind, what it shares, its split and its id.

    The rows that share something follow one another.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for shared in overlaps:
        table.writerows((shared.kind, shared.name, *place) for place in shared.rows)
    files.write_text(path, text.getvalue())


def copies_in_training(tally: DiskSet, rows: Iterable[Row]) -> dict[str, str]:
    """The training rows that have the very sound of a validation row, by id; and that row's id.

    Args:
        tally, rows: as in `find_shared`.
    """
    copies: dict[str, str] = {}
    for (kind, _), places in _rows_by_key(tally, rows).items():
        ids = dict(places)
        if kind == "clip" and ids.keys() >= CHOOSING:
            copies |= {id: ids["validation"] for split, id in places if split == "train"}
    return copies


def refuse(
    overlaps: Sequence[Shared],
    allowed: Sequence[str],
    texts: Mapping[SplitAndId, str] | None = None,
) -> None:
    """Refuse clips and speakers in two splits.

    Args:
        allowed: kinds that params permit.
        texts: of the rows of the first clip, to be told.
    Raises:
        DataError: there is one of a kind that is not allowed.
    """
    problems = []
    refused_kinds = []
    for kind in KINDS:
        same_kind = [shared for shared in overlaps if shared.kind == kind]
        if same_kind and kind not in allowed:
            refused_kinds.append(kind)
            examples = ", ".join(map(str, same_kind[:MAX_SHOWN_EXAMPLES]))
            problems.append(f"{len(same_kind):,} {kind}s stand in two splits ({examples})")
    if problems:
        param = f"chunk.allow_shared=[{','.join([*allowed, *refused_kinds])}]"
        said = "".join(
            f'{printable(id)} says "{printable(text)}"; ' for (_, id), text in (texts or {}).items()
        )
        way = "allow it"
        if any(_is_in_training_and_validation(shared) for shared in overlaps):
            way += " (training then goes without the very sounds of validation rows)"
        raise DataError(
            f"{'; '.join(problems)}, so the test is not honest; {said}"
            "reports/chunk/shared.csv names every row, page.html plays some; "
            f"split anew by speaker, or {way}: -S '{param}'"
        )
