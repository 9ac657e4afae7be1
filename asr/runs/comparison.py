"""Compare trainings: a paired test of their WER, params that differ, commands to repeat one.

A test costs reading the two tables of utterances, through DVC if they are not in the cache, and the
bootstrap: 5 ms for 240 utterances, half a second for 20,000.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from asr import dvc_hashes, paths, wer
from asr.errors import DataError, UserError
from asr.evaluation import slices, table
from asr.runs import reports, revisions
from asr.runs.revisions import EXPERIMENT, PUBLISHED, RESULT, WORKSPACE, Revision
from asr.runs.run_rows import RunRow
from asr.wer import Difference

COLUMNS = ("id", "model", *table.COUNTS, "speaker")
PLAIN_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
RESERVED = {"null", "true", "false", "nan", "inf", "yes", "no", "on", "off"}
MISSING = object()


def paired(ours: RunRow, theirs: RunRow) -> Difference:
    """WER of one training minus another's, by a paired bootstrap on the same test recordings.

    Raises:
        DataError: they were tested on different recordings, or a table of utterances cannot be
            read.
    """
    for row in (ours, theirs):
        if not row.test_hash:
            raise DataError(f"{row.name} has no test scores to compare")
    if ours.test_hash != theirs.test_hash:
        raise DataError("tested on other recordings: not comparable")
    our_rows = errors_of(ours)
    their_rows = errors_of(theirs)
    if our_rows.keys() != their_rows.keys() or any(
        our_rows[id][1:] != their_rows[id][1:] for id in our_rows
    ):
        raise DataError("the utterance tables hold other recordings: not comparable")
    ids = list(our_rows)  # in the order of the test, as evaluate draws them
    return wer.paired(
        [our_rows[id][0] for id in ids],
        [their_rows[id][0] for id in ids],
        [our_rows[id][1] for id in ids],
        [our_rows[id][2] for id in ids],
        ours.params.get("evaluate.bootstrap_resamples", slices.RESAMPLES),
        ours.params.get("evaluate.seed", slices.SEED),
    )


def errors_of(row: RunRow) -> dict[str, tuple[int, int, str | None]]:
    """Errors, words and speaker of each test utterance of the fine-tuned model, by id.

    Raises:
        DataError: no revision of this training has a table that can be read.
    """
    for revision in row.results:
        try:
            path = revisions.fetch(revision, paths.UTTERANCES)
            if row.utterances_hash not in (None, dvc_hashes.of_file(path)):
                continue  # the workspace's may have been written since the index was
            utterances = reports.read_parquet(path, *COLUMNS).select(COLUMNS)
        except UserError:
            continue
        return {
            line["id"]: (table.errors(line), table.words(line), line["speaker"])
            for line in utterances.to_pylist()
            if line["model"] == table.FINETUNED
        }
    raise DataError(
        f"{row.name}: no utterance table; dvc fetch brings those of a revision, "
        "dvc repro makes it anew"
    )


def param_names(rows: list[RunRow]) -> list[str]:
    """The params that any of these trainings has, in the order of their first appearance."""
    params: dict[str, Any] = {}
    for row in rows:
        params.update(row.params)
    return list(params)


def differing_params(rows: list[RunRow]) -> list[str]:
    """The params whose values differ among these trainings; 60 ms for 5,000 of them."""
    unset = dict.fromkeys(param_names(rows), MISSING)
    columns = zip(*((unset | row.params).values() for row in rows), strict=True)
    return [
        key
        for key, values in zip(unset, columns, strict=True)
        if values.count(values[0]) < len(values)
    ]


def reproduce_commands(row: RunRow, workspace_params: dict[str, Any]) -> tuple[str, list[str]]:
    """The commands that repeat this training.

    Args:
        workspace_params: the workspace's params, flat.
    Returns:
        the commands, and the params that are left out because the workspace does not have them.
    """
    changed = {
        key: value
        for key, value in row.params.items()
        if key in workspace_params and not _same(value, workspace_params[key])
    }
    options = " ".join(
        f"-S {shlex.quote(f'{key}={override_text(value)}')}"
        for key, value in sorted(changed.items())
    )
    lines = [
        *_checkout(row),
        "# or from the workspace as it is, anew",
        f"dvc exp run {options}".strip(),
    ]
    unknown = sorted(key for key in row.params if key not in workspace_params)
    return "\n".join(lines), unknown


def _checkout(row: RunRow) -> list[str]:
    """The commands that check out the files of this training, if a revision holds them."""
    revision = _revision_of(row)
    if revision is None:
        return []
    if revision.kind == WORKSPACE:
        return ["# this is the workspace; params.yaml may have been changed since"]
    target = shlex.quote(revisions.command_name(revision))
    if revision.kind == EXPERIMENT:
        command = f"dvc exp apply {target}"
    else:
        command = f"git checkout {target} && dvc checkout"
    return ["# its files, from DVC's cache or remote", command]


def _revision_of(row: RunRow) -> Revision | None:
    """The experiment that ran this training; else an experiment, else a revision, that holds it.

    Kept results, and what is published, hold reports alone.
    """
    whole = [revision for revision in row.revisions if revision.kind not in (RESULT, PUBLISHED)]
    experiments = [revision for revision in whole if revision.kind == EXPERIMENT]
    experiment_name = row.tags.get("dvc.experiment")
    own = [revision for revision in experiments if revision.name == experiment_name]
    return next(iter([*own, *experiments, *whole]), None)


def _same(value: Any, other: Any) -> bool:
    """Whether two params are equal; 1 and true are not."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def override_text(value: Any) -> str:
    """A value as text in the syntax of `dvc exp run -S`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(map(override_text, value))}]"
    text = str(value)
    if PLAIN_WORD.fullmatch(text) and text.lower() not in RESERVED:
        return text
    return _quoted(text)


def _quoted(text: str) -> str:
    """Text in single quotes; backslashes are doubled where a quote follows, and only there."""
    escaped = re.sub(r"(\\*)'", lambda match: rf"{match[1] * 2}\'", text)
    end = re.search(r"\\*$", escaped)
    return f"'{escaped}{end[0] if end else ''}'"
