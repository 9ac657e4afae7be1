"""What can be said of trainings beside each other: a paired verdict on their tests, params that
differ, the command that repeats one.

A verdict costs the two utterance tables (through DVC if they are not at hand) and the bootstrap: 5
ms for 240 utterances, half a second for 20,000.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from asr import paths, wer
from asr.errors import DataError, UserError
from asr.evaluation.table import FINETUNED
from asr.runs import reports, revisions
from asr.runs.revisions import COMMIT, EXPERIMENT, WORKSPACE
from asr.runs.run_index import RunRow
from asr.wer import Difference

RESAMPLES, SEED = 2000, 1  # as params.yaml has them for the intervals
COLUMNS = ("id", "model", "substitutions", "deletions", "insertions", "hits", "speaker")
PLAIN_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
RESERVED = {"null", "true", "false", "nan", "inf", "yes", "no", "on", "off"}
MISSING = object()


def paired(ours: RunRow, theirs: RunRow) -> Difference:
    """WER of one training less another's, on the same test recordings, drawn together.

    Raises:
        BadData: they were tested on other recordings, or one has no utterance table that can be
            had.
    """
    if not ours.test_hash or not theirs.test_hash:
        raise DataError(
            f"{(theirs if ours.test_hash else ours).name} has no test scores to compare"
        )
    if ours.test_hash != theirs.test_hash:
        raise DataError("tested on other recordings: not comparable")
    one, other = errors_of(ours), errors_of(theirs)
    if one.keys() != other.keys() or any(one[id][1:] != other[id][1:] for id in one):
        raise DataError("the utterance tables hold other recordings: not comparable")
    ids = sorted(one)
    words, speakers = [one[id][1] for id in ids], [one[id][2] for id in ids]
    return wer.paired(
        [one[id][0] for id in ids], [other[id][0] for id in ids], words, speakers, RESAMPLES, SEED
    )


def errors_of(row: RunRow) -> dict[str, tuple[int, int, str | None]]:
    """Errors, words and speaker of each test utterance of the fine-tuned model."""
    for revision in row.revisions:
        try:
            table = reports.read_parquet(
                revisions.fetch(revision, paths.UTTERANCES), *COLUMNS
            ).select(COLUMNS)
        except UserError:
            continue
        columns = table.to_pydict()
        lines = zip(*(columns[name] for name in COLUMNS), strict=True)
        return {
            id: (s + d + i, h + s + d, who)
            for id, model, s, d, i, h, who in lines
            if model == FINETUNED
        }
    raise DataError(
        f"{row.name}: no utterance table; dvc fetch brings those of a revision, dvc repro makes it anew"
    )


def differing(rows: list[RunRow]) -> list[str]:
    """The params that do not have one value in all of these trainings."""
    keys = dict.fromkeys(key for row in rows for key in row.params)
    found = []
    for key in keys:
        values = [row.params.get(key, MISSING) for row in rows]
        if values.count(values[0]) < len(values):
            found.append(key)
    return found


def commands(row: RunRow, here: dict[str, Any]) -> tuple[str, list[str]]:
    """What to type to have this training again, and the params that this workspace does not know,
    which are left out.

    Args:
        here: the workspace's params, flat.
    """
    lines = []
    experiments = [one for one in row.revisions if one.kind == EXPERIMENT]
    named = [one for one in experiments if one.name == row.tags.get("dvc.experiment")]
    place = next(iter([*named, *experiments, *row.revisions]), None)
    if place and place.kind == WORKSPACE:
        lines.append("# this is the workspace; params.yaml may have been changed since")
    elif place and place.kind == EXPERIMENT:
        lines += [
            "# its files, from DVC's cache or remote",
            f"dvc exp apply {shlex.quote(place.name)}",
        ]
    elif place:
        target = str(place.sha) if place.kind == COMMIT else place.name
        lines += [
            "# its files, from DVC's cache or remote",
            f"git checkout {shlex.quote(target)} && dvc checkout",
        ]
    changed = {
        key: value
        for key, value in row.params.items()
        if key in here and not _same(value, here[key])
    }
    options = " ".join(
        f"-S {shlex.quote(f'{key}={written(value)}')}" for key, value in sorted(changed.items())
    )
    lines += ["# or from the workspace as it is, anew", f"dvc exp run {options}".strip()]
    return "\n".join(lines), sorted(key for key in row.params if key not in here)


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def written(value: Any) -> str:
    """A value in the grammar of `dvc exp run -S`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    text = str(value)
    if PLAIN_WORD.fullmatch(text) and text.lower() not in RESERVED:
        return text
    quoted = re.sub(r"(\\*)'", lambda found: rf"{found[1] * 2}\'", text)
    end = re.search(r"\\*$", quoted)
    return f"'{quoted}{end[0] if end else ''}'"
