"""Which parquet files of a repository on the hub are which config and which split.

The repository's card says so, else the names of files and folders do. Known are
`data/train-00000-of-00004.parquet`, `<config>/train-*.parquet`, `<config>/train/0000.parquet` and
`train.parquet`; `partial-train` is what the hub converted of a large train. Looks at names alone,
so it costs nothing.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from asr.errors import ParamsError
from asr.storage.shards import SPLITS

# Our splits, and the names that others give them.
SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("validation", "dev", "valid", "val"),
    "test": ("test",),
}
KNOWN_SPLITS = {name for names in SPLIT_NAMES.values() for name in names}
PARTIAL = "partial-"
PARAM = "download.huggingface"
MAX_SHOWN = 20  # names in a message
MAX_CARD = 1 << 18  # characters

CARD_HEAD = re.compile(
    r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", flags=re.DOTALL | re.MULTILINE
)
CARD_KEYS = re.compile(r"^(?:configs|license):.*?(?=^\w|\Z)", flags=re.DOTALL | re.MULTILINE)
NUMBERING = re.compile(r"[-_.]\d+([-_]of[-_]\d+)?([-_][0-9a-f]+)?$")
NO_SPLIT = re.compile(r"\d*|part|data|file|shard")  # a file's name, without its number
GLOB_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[[^]]+\]|.")
GLOB_PATTERNS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}

Splits = dict[str, list[str]]  # paths in order, by their name of a split


def card(text: str) -> dict[str, Any]:
    """Read configs and licence from the YAML on top of a README.md; empty if there is none.

    Other keys are not parsed: a card may describe a hundred configs in 10,000 lines, which would
    take seconds.
    """
    head = CARD_HEAD.match(text)
    entries = CARD_KEYS.findall(head[1] if head else "")
    try:
        with warnings.catch_warnings(action="ignore"):
            value = YAML(typ="safe", pure=True).load("".join(entries)[:MAX_CARD])
        encoded = json.dumps(value, default=str, ensure_ascii=False).encode(errors="replace")
        plain = json.loads(encoded)
    except (YAMLError, ValueError, TypeError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}


def configs(paths: Iterable[str], card: dict[str, Any]) -> dict[str, Splits]:
    """Return splits and their files by config, as the card says, else as the names do."""
    parquets = sorted(path for path in paths if path.endswith(".parquet"))
    entries = {str(entry.get("config_name", "default")): entry for entry in _entries(card)}
    by_config = {
        name: _splits_of_entry(entry, parquets)
        for name, entry in entries.items()
        if "data_files" in entry or "data_dir" in entry
    }
    with_files = {name: splits for name, splits in by_config.items() if splits}
    return with_files or _configs_by_name(parquets)


def _entries(card: dict[str, Any]) -> list[dict[str, Any]]:
    entries = card.get("configs")
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict)]


def _configs_by_name(parquets: Iterable[str]) -> dict[str, Splits]:
    """Splits and their files by config, as the names of files and folders say."""
    by_config: dict[str, Splits] = {}
    for path in parquets:
        *folders, file = PurePosixPath(path).parts
        split = NUMBERING.sub("", file.removesuffix(".parquet"))
        split_folders = [name for name in folders if name.removeprefix(PARTIAL) in KNOWN_SPLITS]
        # Where the file does not name a split, the folder does.
        if split not in KNOWN_SPLITS and (split_folders or NO_SPLIT.fullmatch(split)):
            split = (split_folders or folders or ["train"])[-1]
            folders = [name for name in folders if name != split]
        config = "/".join(name for name in folders if name != "data") or "default"
        splits = by_config.setdefault(config, {})
        splits.setdefault(split.removeprefix(PARTIAL), []).append(path)
    return by_config


def _splits_of_entry(entry: dict[str, Any], parquets: list[str]) -> Splits:
    """The splits of one entry of a card's `configs`."""
    folder = str(entry.get("data_dir") or "")
    files = entry.get("data_files")
    if files is None:
        prefix = f"{folder.strip('/')}/"
        inside = [path for path in parquets if path.startswith(prefix)]
        merged: Splits = {}
        for splits in _configs_by_name(inside).values():
            merged |= splits
        return merged
    matching: Splits = {}
    for split, pattern in _patterns(files):
        regex = _glob_regex(str(PurePosixPath(folder, pattern)))
        paths = [path for path in parquets if regex.fullmatch(path)]
        matching.setdefault(split, []).extend(paths)
    return {split: list(dict.fromkeys(paths)) for split, paths in matching.items() if paths}


def _patterns(files: Any) -> Iterator[tuple[str, str]]:
    """Yield split and pattern from `data_files`: a pattern, a list of them, or those by split."""
    if isinstance(files, dict):
        entries = [{"split": name, "path": path} for name, path in files.items()]
    elif isinstance(files, list) and files and isinstance(files[0], dict):
        entries = [entry for entry in files if isinstance(entry, dict)]
    else:
        entries = [{"path": files}]
    for entry in entries:
        path = entry.get("path")
        for pattern in path if isinstance(path, list) else [path]:
            yield str(entry.get("split", "train")), str(pattern)


def _glob_regex(glob: str) -> re.Pattern[str]:
    """Translate a shell pattern: `*` stays inside a folder, `**` does not."""
    text = "".join(_token_regex(token) for token in GLOB_TOKEN.findall(glob))
    try:
        with warnings.catch_warnings(action="ignore"):
            return re.compile(text)
    except re.error:
        return re.compile(re.escape(glob))


def _token_regex(token: str) -> str:
    if token in GLOB_PATTERNS:
        return GLOB_PATTERNS[token]
    if token.startswith("[") and len(token) > 1:
        return token.replace("[!", "[^")
    return re.escape(token)


def config_of(configs: dict[str, Splits], requested: str | None, card: dict[str, Any]) -> str:
    """Return the config to read: the one requested, the only one, or the card's default.

    Raises:
        ParamsError: there is none of that name, or more than one to choose from.
    """
    defaults = [str(entry.get("config_name")) for entry in _entries(card) if entry.get("default")]
    if requested:
        candidates = [requested]
    elif len(configs) == 1:
        candidates = list(configs)
    else:
        candidates = [*defaults, "default"]
    for name in candidates:
        if name in configs:
            return name
    raise ParamsError(
        f"{PARAM}.config: got {requested or 'nothing'}, want one of {listed(configs)}"
    )


def choose_splits(available: Splits, requested: dict[str, str] | None) -> dict[str, list[str]]:
    """Return their splits by ours.

    Train alone means that its rows are to be split anew; test alone is what a held-out source may
    have.

    Args:
        available: theirs.
        requested: theirs by ours, joined by `+`; None goes by their names.
    Raises:
        ParamsError: a split is not there, stands twice, or only two of three are named.
    """
    if requested:
        taken = {
            ours: [name.strip() for name in theirs.split("+")] for ours, theirs in requested.items()
        }
    elif len(available) == 1:
        taken = {"train": list(available)}
    else:
        taken = {
            ours: [name for name in names if name in available][:1]
            for ours, names in SPLIT_NAMES.items()
        }
    _check_splits(taken, available)
    return taken


def _check_splits(taken: dict[str, list[str]], available: Splits) -> None:
    names = [name for theirs in taken.values() for name in theirs]
    unknown = [name for name in names if name not in available]
    if unknown:
        raise ParamsError(
            f"{PARAM}.splits: got {', '.join(unknown)}, want some of {listed(available)}"
        )
    if len(names) > len(set(names)):
        raise ParamsError(
            f"{PARAM}.splits: got a split twice, which would leak; "
            f"want each of {listed(available)} once at most"
        )
    missing = [ours for ours in SPLITS if not taken.get(ours)]
    if missing and len(taken) != 1:
        raise ParamsError(
            f"{PARAM}.splits: nothing for {' and '.join(missing)} in {listed(available)}; "
            "name theirs for each of ours, or for train alone, which is then split by speaker"
        )


def listed(names: Iterable[str]) -> str:
    """List names in an error's one line, the first MAX_SHOWN of them."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:MAX_SHOWN])
    more = len(ordered) - MAX_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
