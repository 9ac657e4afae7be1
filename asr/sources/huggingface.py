"""An audio data set of the Hugging Face hub that is stored as parquet: Common Voice mirrors,
FLEURS, MLS, VoxPopuli, and others like them.

Nothing of theirs is run. A repository that holds a loading script instead is read as the hub
converted it, where it did. Costs the download once (a killed one goes on where it stopped), the
files' size on disk until `forget`, 16 bytes of memory a row, and 20 us a row and pass.
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
from asr.runtime.locks import locked
from asr.runtime.workers import progress
from asr.sources import hub, hub_layout, hub_parts
from asr.sources.columns import Columns, find_columns, id_of
from asr.sources.utterances import Corpus, Utterance, UtteranceIterable

CONVERTED = "refs/convert/parquet"
UNKNOWN = (None, "", "None")  # speakers; the last is how VoxPopuli writes it
SPLIT_ANEW = 20  # rows looked through for each row wanted, where a tenth of them falls to a split

forget = hub_parts.forget


@dataclass(frozen=True)
class Split:
    """One of their splits: its files in order, and which of ours it is; None where we split anew."""

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
        BadParams: a name, revision, config, split or column that is not there; tells those that
            are.
        BadData: no parquet anywhere, or files that cannot be read.
        NetworkFault: the hub cannot be reached, or does not let us in.
    """
    listed, said, converted = _repository(name, revision)
    found = hub_layout.configs([part.path for part in listed], said if not converted else {})
    of = hub_layout.config_of(found, config, said)
    taken = _enough(_splits({part.path: part for part in listed}, found[of], splits), max_rows)
    every = [part for split in taken for part in split.parts]
    if not any(hub_parts.count(part) for part in every):
        raise DataError(f"{name}: no rows in {', '.join(split.theirs for split in taken)}")
    names = find_columns(every, columns or {})
    cut = sorted(
        split.theirs
        for split in taken
        if any(f"/{hub_layout.PARTIAL}" in part.path for part in split.parts)
    )
    return Corpus(
        about={
            "name": name,
            "config": of,
            "revision": every[0].commit,
            "licence": said.get("license") or "see its page on the hub",
            "converted_by_the_hub": converted,
            "incomplete_splits": cut,
            "columns": asdict(names),
            "files": [_file(part, split.theirs) for split in taken for part in split.parts],
        },
        utterances=UtteranceIterable(
            lambda: (one for split in taken for one in _utterances(split, names))
        ),
    )


def _repository(name: str, revision: str | None) -> tuple[list[hub.Part], dict[str, Any], bool]:
    """The files of the place that has parquet, what the card says, and whether that place is the
    hub's conversion.
    """
    listed = hub.parts(name, revision)
    if listed is None:
        raise ParamsError(
            f"download.huggingface.revision: {name} has no {revision or 'main'}; want a commit, tag or branch, or null"
        )
    readme = next((part for part in listed if part.path == "README.md"), None)
    said: dict[str, Any] = {}
    if readme:
        with locked(hub.lock_path(name)):
            said = hub_layout.card(hub.fetch(readme).read_text(encoding="utf-8", errors="replace"))
    if any(part.path.endswith(".parquet") for part in listed):
        return listed, said, False
    if revision:
        raise ParamsError(
            f"download.huggingface.revision: {revision} of {name} has no parquet; want null, or {CONVERTED} where that is there"
        )
    converted = hub.parts(name, CONVERTED)
    if not converted:
        way = "fetch its recordings yourself (download.source: folder), or ask for parquet on its page"
        raise DataError(
            f"{name}: no parquet, and the hub has not converted it, so it needs a loading script, which is not run; {way}"
        )
    return converted, said, True


def _splits(
    by_path: dict[str, hub.Part], there: hub_layout.Splits, wanted: dict[str, str] | None
) -> list[Split]:
    taken = hub_layout.choose_splits(there, wanted)
    return [
        Split(
            theirs,
            ours if [*taken] != ["train"] else None,
            [by_path[path] for path in there[theirs]],
        )
        for ours, some in taken.items()
        for theirs in some
    ]


def _enough(taken: list[Split], max_rows: int | None) -> list[Split]:
    """The splits with as many of their files as are needed, all fetched."""
    if max_rows is None:
        every = [part for split in taken for part in split.parts]
        disk.check_free_space(
            paths.cache("hub"),
            sum(part.size for part in every if not hub_parts.is_here(part)),
            every[0].name,
        )
        for part in progress(every, len(every), "files", f"download {every[0].name}"):
            hub_parts.arrow(part)
        return taken
    left: dict[str | None, int] = {
        split.ours: max_rows * (1 if split.ours else SPLIT_ANEW) for split in taken
    }
    enough = []
    for split in taken:
        some: list[hub.Part] = []
        for part in split.parts:
            if left[split.ours] > 0:
                some.append(part)
                left[split.ours] -= hub_parts.count(part)
        enough.append(replace(split, parts=some))
    return [split for split in enough if split.parts]


def _utterances(split: Split, names: Columns) -> Iterator[Utterance]:
    ours = set(asdict(names).values())
    rows = (
        (part, *row) for part in split.parts for row in hub_parts.rows(part, _wanted(part, names))
    )
    for number, (part, batch, at, row) in enumerate(rows):
        speaker, seconds = row.get(names.speaker or ""), row.get(names.seconds or "")
        yield Utterance(
            id=id_of(row[names.id]) if names.id else f"{split.theirs}-{number:08d}",
            split=split.ours,
            text=row[names.text] or "",
            audio=partial(hub_parts.sound, part, names.audio, batch, at),
            speaker=None if speaker in UNKNOWN else str(speaker),
            attributes={
                key: value for key, value in row.items() if key not in ours and _says(value)
            },
            duration=seconds if seconds and 0 < seconds < math.inf else None,
        )


def _wanted(part: hub.Part, names: Columns) -> list[str]:
    """The columns that are ours, and all other scalars."""
    needed = [name for name in (names.text, names.speaker, names.id, names.seconds) if name]
    return list(
        dict.fromkeys(
            [
                *needed,
                *(
                    field.name
                    for field in hub_parts.schema(part)
                    if hub_parts.is_scalar(field.type)
                ),
            ]
        )
    )


def _says(value: Any) -> bool:
    return value not in (None, "") and not (isinstance(value, float) and not math.isfinite(value))


def _file(part: hub.Part, split: str) -> dict[str, Any]:
    return {"path": part.path, "split": split, "bytes": part.size, "checksum": part.checksum}
