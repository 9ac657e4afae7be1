"""Which parquet files of a hub's repository are which config and which split: by its card, else by
the names of files and folders.

Known are `data/train-00000-of-00004.parquet`, `<config>/train-*.parquet`,
`<config>/train/0000.parquet` and `train.parquet`; `partial-train` is what the hub converted of a
large train. Looks at names alone, so it costs nothing.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from asr.errors import ParamsError
from asr.storage.shards import SPLITS

Splits = dict[str, list[str]]  # paths by their name of a split, in order
NAMES = {
    "train": ("train",),
    "validation": ("validation", "dev", "valid", "val"),
    "test": ("test",),
}
SAID = {name for names in NAMES.values() for name in names}
PARTIAL = "partial-"
PARAM = "download.huggingface"
MAX_SHOWN = 20
MAX_CARD = 1 << 18  # characters


def card(text: str) -> dict[str, Any]:
    """Configs and licence of a repository, as its README.md says them in YAML; nothing where that
    is none.

    The rest is left aside: a card may describe a hundred configs in 10,000 lines, over which the
        parser sits for seconds.
    """
    head = re.match(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", text, re.DOTALL | re.MULTILINE)
    told = re.findall(
        r"^(?:configs|license):.*?(?=^\w|\Z)", head[1] if head else "", re.DOTALL | re.MULTILINE
    )
    try:
        with warnings.catch_warnings(action="ignore"):
            said = YAML(typ="safe", pure=True).load("".join(told)[:MAX_CARD])
        plain = json.loads(
            json.dumps(said, default=str, ensure_ascii=False).encode(errors="replace")
        )
    except (YAMLError, ValueError, TypeError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}


def configs(paths: Iterable[str], said: dict[str, Any]) -> dict[str, Splits]:
    """Splits and their files by config. What the card says holds; without it the names do."""
    parquets = sorted(path for path in paths if path.endswith(".parquet"))
    named = said.get("configs")
    told = (
        {str(one.get("config_name", "default")): one for one in named if isinstance(one, dict)}
        if isinstance(named, list)
        else {}
    )
    found = {
        name: _told(one, parquets)
        for name, one in told.items()
        if "data_files" in one or "data_dir" in one
    }
    found = {name: splits for name, splits in found.items() if splits}
    return found or _guessed(parquets)


def _guessed(parquets: Iterable[str]) -> dict[str, Splits]:
    found: dict[str, Splits] = {}
    for path in parquets:
        *folders, file = PurePosixPath(path).parts
        split = re.sub(
            r"[-_.]\d+([-_]of[-_]\d+)?([-_][0-9a-f]+)?$", "", file.removesuffix(".parquet")
        )
        above = [one for one in folders if one.removeprefix(PARTIAL) in SAID]
        if split not in SAID and (above or re.fullmatch(r"\d*|part|data|file|shard", split)):
            split = (above or folders or ["train"])[-1]
            folders = [one for one in folders if one != split]
        config = "/".join(one for one in folders if one != "data") or "default"
        found.setdefault(config, {}).setdefault(split.removeprefix(PARTIAL), []).append(path)
    return found


def _told(config: dict[str, Any], parquets: list[str]) -> Splits:
    """The splits of one entry of a card's `configs`."""
    folder, files = str(config.get("data_dir") or ""), config.get("data_files")
    if files is None:
        inside = [path for path in parquets if path.startswith(f"{folder.strip('/')}/")]
        return {
            split: paths for splits in _guessed(inside).values() for split, paths in splits.items()
        }
    if not (isinstance(files, list) and files and isinstance(files[0], dict)):
        files = (
            [{"split": name, "path": one} for name, one in files.items()]
            if isinstance(files, dict)
            else [{"path": files}]
        )
    found: Splits = {}
    for entry in (one for one in files if isinstance(one, dict)):
        given = entry.get("path")
        for pattern in given if isinstance(given, list) else [given]:
            place = str(PurePosixPath(folder, str(pattern)))
            found.setdefault(str(entry.get("split", "train")), []).extend(
                path for path in parquets if _pattern(place).fullmatch(path)
            )
    return {split: list(dict.fromkeys(paths)) for split, paths in found.items() if paths}


def _pattern(glob: str) -> re.Pattern[str]:
    """As a shell would have it: `*` stays inside a folder, `**` does not."""
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|\[[^]]+\]|.", glob)
    text = "".join(
        known.get(one) or (one.replace("[!", "[^") if one[0] == "[" and one[1:] else re.escape(one))
        for one in tokens
    )
    try:
        with warnings.catch_warnings(action="ignore"):
            return re.compile(text)
    except re.error:
        return re.compile(re.escape(glob))


def config_of(found: dict[str, Splits], wanted: str | None, said: dict[str, Any]) -> str:
    """The config to read: the one wanted, the only one, or the card's default.

    Raises:
        BadParams: there is none of that name, or more than one to choose from.
    """
    named = said.get("configs")
    default = (
        [
            str(one.get("config_name"))
            for one in named
            if isinstance(one, dict) and one.get("default")
        ]
        if isinstance(named, list)
        else []
    )
    for name in [wanted] if wanted else [*found] if len(found) == 1 else [*default, "default"]:
        if name in found:
            return str(name)
    raise ParamsError(f"{PARAM}.config: got {wanted or 'nothing'}, want one of {listed(found)}")


def choose_splits(there: Splits, wanted: dict[str, str] | None) -> dict[str, list[str]]:
    """Their splits by ours. Train alone means that its rows are to be split anew; test alone is
    what a held-out source may have.

    Args:
        wanted: theirs by ours, joined by `+`; None goes by their names.
    Raises:
        BadParams: a split is not there, stands twice, or only two of three are named.
    """
    if wanted:
        taken = {
            ours: [one.strip() for one in theirs.split("+")] for ours, theirs in wanted.items()
        }
    elif len(there) == 1:
        taken = {"train": list(there)}
    else:
        taken = {
            ours: [name for name in names if name in there][:1] for ours, names in NAMES.items()
        }
    named = [one for theirs in taken.values() for one in theirs]
    strange = [one for one in named if one not in there]
    if strange:
        raise ParamsError(f"{PARAM}.splits: got {', '.join(strange)}, want some of {listed(there)}")
    if len(named) > len(set(named)):
        raise ParamsError(
            f"{PARAM}.splits: got a split twice, which would leak; want each of {listed(there)} once at most"
        )
    missing = [ours for ours in SPLITS if not taken.get(ours)]
    if missing and len(taken) != 1:
        way = "name theirs for each of ours, or for train alone, which is then split by speaker"
        raise ParamsError(
            f"{PARAM}.splits: nothing for {' and '.join(missing)} in {listed(there)}; {way}"
        )
    return taken


def listed(names: Iterable[str]) -> str:
    """Some names for an error's one line."""
    known = sorted(names)
    return ", ".join(known[:MAX_SHOWN]) + (
        f" and {len(known) - MAX_SHOWN} more" if len(known) > MAX_SHOWN else ""
    )
