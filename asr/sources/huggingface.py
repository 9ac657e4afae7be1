"""An audio data set of the Hugging Face hub that is stored as parquet.

Common Voice mirrors, FLEURS, MLS, VoxPopuli, and others like them. No code of theirs is run. A
repository that holds a loading script instead of parquet is read as the hub converted it, if it
did. Costs one download (a killed one goes on at the file where it stopped), the files' size on disk
until `forget`, 16 bytes of memory a row, and 20 us a row and pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from asr import paths
from asr.errors import DataError, ParamsError
from asr.runtime import disk
from asr.runtime.workers import progress
from asr.sources import hub, hub_layout, hub_parts, speakers
from asr.sources.columns import Columns, find_columns, id_of
from asr.sources.utterances import Corpus, Utterance, UtteranceIterable

CONVERTED = "refs/convert/parquet"
# Files are fetched for so many rows for each one wanted where we split anew: only about a tenth of
# the rows fall to validation, and to test.
ROWS_WHEN_SPLIT_ANEW = 20
PARAM = "download.huggingface"

forget = hub_parts.forget


@dataclass(frozen=True)
class Split:
    """One of their splits.

    Attributes:
        theirs: its name.
        ours: which of our splits it is; None where we split anew.
        parts: its files in order.
    """

    theirs: str
    ours: str | None
    parts: list[hub.Part]


def read(
    name: str,
    config: str | None,
    revision: str | None,
    splits: dict[str, str] | None,
    columns: dict[str, str] | None,
    max_rows: int | None,
) -> Corpus:
    """Fetch what is needed of a data set, and list its utterances.

    Args:
        name: such as google/fleurs.
        config: such as sv_se; None takes the only one, or the default.
        revision: commit, tag or branch; None takes the newest. The manifest tells the commit.
        splits: theirs by ours, joined by `+`; None goes by their names. Where train stands alone,
            its rows have no split.
        columns: theirs by ours (audio, text, speaker, id); None goes by their names.
        max_rows: fetch only so many first files of each split as hold that many rows; None fetches
            all.
    Raises:
        ParamsError: a name, revision, config, split or column that is not there; tells those that
            are.
        DataError: no parquet anywhere, or files that cannot be read.
        NetworkError: the hub cannot be reached, or refuses.
    """
    files, card, converted = _repository(name, revision)
    parquets = [part.path for part in files if part.path.endswith(".parquet")]
    configs = None if converted else card.get("configs")
    config, available = hub_layout.splits(name, parquets, configs, config)
    taken = _fetch(_splits(files, available, splits), max_rows)
    parts = [part for split in taken for part in split.parts]
    if not any(hub_parts.count(part) for part in parts):
        raise DataError(f"{name}: no rows in {', '.join(split.theirs for split in taken)}")
    names, note = find_columns(parts, columns or {})
    about = {
        "name": name,
        "config": config,
        "revision": parts[0].commit,
        "licence": card.get("license") or "see its page on the hub",
        "converted_by_the_hub": converted,
        "incomplete_splits": _incomplete(taken),
        "columns": asdict(names),
        "files": [_file(part, split.theirs) for split in taken for part in split.parts],
    }
    return Corpus(about, UtteranceIterable(partial(_utterances, taken, names)), note)


def _incomplete(splits: list[Split]) -> list[str]:
    """Splits of which the hub converted only the first files."""
    return sorted(
        split.theirs
        for split in splits
        if any(f"/{hub_layout.PARTIAL}" in part.path for part in split.parts)
    )


def _file(part: hub.Part, split: str) -> dict[str, Any]:
    return {"path": part.path, "split": split, "bytes": part.size, "checksum": part.checksum}


def _repository(name: str, revision: str | None) -> tuple[list[hub.Part], dict[str, Any], bool]:
    """Find the files of a data set.

    Returns:
        the files of the revision that has parquet; the card; whether that revision is the hub's
        conversion.
    """
    files = hub.parts(name, revision)
    if files is None:
        raise ParamsError(
            f"{PARAM}.revision: {name} has no {revision or 'main'}; "
            "want a commit, tag or branch, or null"
        )
    card = _card(files)
    if any(part.path.endswith(".parquet") for part in files):
        return files, card, False
    if revision:
        raise ParamsError(
            f"{PARAM}.revision: {revision} of {name} has no parquet; "
            f"want null, or {CONVERTED} where that is there"
        )
    converted = hub.parts(name, CONVERTED)
    if not converted:
        raise DataError(
            f"{name}: no parquet, and the hub has not converted it, so it needs a loading script, "
            "which is not run; fetch its recordings yourself (download.source: folder), "
            "or ask for parquet on its page"
        )
    return converted, card, True


def _card(files: list[hub.Part]) -> dict[str, Any]:
    readme = next((part for part in files if part.path == "README.md"), None)
    return hub_layout.card(hub.fetch(readme)) if readme else {}


def _splits(
    files: list[hub.Part], available: hub_layout.Splits, requested: dict[str, str] | None
) -> list[Split]:
    by_path = {part.path: part for part in files}
    theirs_by_ours = hub_layout.choose_splits(available, requested)
    split_anew = list(theirs_by_ours) == ["train"]
    return [
        Split(
            theirs=theirs,
            ours=None if split_anew else ours,
            parts=[by_path[path] for path in available[theirs]],
        )
        for ours, names in theirs_by_ours.items()
        for theirs in names
    ]


def _fetch(splits: list[Split], max_rows: int | None) -> list[Split]:
    """Fetch as many files of each split as are needed, and return the splits with these alone."""
    if max_rows is None:
        _fetch_all([part for split in splits for part in split.parts])
        return splits
    rows_left: dict[str | None, int] = {
        split.ours: max_rows * (1 if split.ours else ROWS_WHEN_SPLIT_ANEW) for split in splits
    }
    fetched = []
    for split in splits:
        parts: list[hub.Part] = []
        for part in split.parts:
            if rows_left[split.ours] > 0:
                parts.append(part)
                rows_left[split.ours] -= hub_parts.count(part)
        if parts:
            fetched.append(replace(split, parts=parts))
    return fetched


def _fetch_all(parts: list[hub.Part]) -> None:
    name = parts[0].name
    missing_bytes = sum(part.size for part in parts if not part.local_path.is_file())
    disk.check_free_space(paths.cache("hub"), missing_bytes, name)
    for part in progress(parts, len(parts), "files", f"download {name}"):
        hub.fetch(part)


def _utterances(splits: list[Split], names: Columns) -> Iterator[Utterance]:
    ours = set(asdict(names).values())
    for split in splits:
        for number, (part, group, index, row) in enumerate(_rows(split, names)):
            seconds = row.get(names.seconds or "")
            yield Utterance(
                id=id_of(row[names.id]) if names.id else f"{split.theirs}-{number:08d}",
                split=split.ours,
                text=row[names.text] or "",
                audio=partial(hub_parts.sound, part, names.audio, group, index),
                speaker=speakers.name_of(row.get(names.speaker or "")),
                attributes={
                    key: value
                    for key, value in row.items()
                    if key not in ours and _says_something(value)
                },
                duration=seconds if seconds and 0 < seconds < math.inf else None,
            )


def _rows(split: Split, names: Columns) -> Iterator[tuple[hub.Part, int, int, dict[str, Any]]]:
    for part in split.parts:
        for group, index, row in hub_parts.rows(part, _columns_to_read(part, names)):
            yield part, group, index, row


def _columns_to_read(part: hub.Part, names: Columns) -> list[str]:
    """The columns that are ours, and all other scalars."""
    ours = [name for name in (names.text, names.speaker, names.id, names.seconds) if name]
    scalars = [field.name for field in hub_parts.schema(part) if hub_parts.is_scalar(field.type)]
    return list(dict.fromkeys(ours + scalars))


def _says_something(value: Any) -> bool:
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return value not in (None, "")
