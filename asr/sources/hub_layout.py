"""Which parquet files of a repository on the hub are which config and which split.

`datasets` says so, from the repository's card, else from the names of files and folders. It is
asked of a folder of empty files with these names: asked of the repository it would write into
~/.cache, and send the token to a server beside the hub. Which of their splits is ours is said here.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub.repocard import REGEX_YAML_BLOCK
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from asr.errors import DataError, ParamsError
from asr.sources.utterances import SPLIT_NAMES
from asr.storage.shards import SPLITS

# What the hub converted; of a large split perhaps only the first files.
PARTIAL = "partial-"
CONVERTED_PATH = re.compile(rf"(.+)/(?:{PARTIAL})?([^/]+)/\d+\.parquet")
PARAM = "download.huggingface"
MAX_SHOWN = 20  # names in a message
CARD_ERRORS = (ValueError, TypeError, AttributeError, OSError)

Splits = dict[str, list[str]]  # paths in order, by their name of a split


def card(readme: Path) -> dict[str, Any]:
    """Read the YAML on top of a README.md; empty if there is none that can be read."""
    block = REGEX_YAML_BLOCK.search(readme.read_text(encoding="utf-8-sig", errors="replace"))
    try:
        with warnings.catch_warnings(action="ignore"):
            # YAML 1.2, as the hub reads it: `no` is Norwegian
            value = YAML(typ="safe", pure=True).load(block[2] if block else "")
        plain = json.loads(json.dumps(value, default=str))
    except (YAMLError, ValueError, TypeError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}


def splits(name: str, paths: list[str], configs: Any, requested: str | None) -> tuple[str, Splits]:
    """Return the config to read, and its splits.

    Args:
        name: of the data set.
        paths: of its parquet files.
        configs: as its card has them; None goes by the names of files and folders.
        requested: a config, or a folder where there are none; None takes the only config, or the
            default one.
    Raises:
        ParamsError: there is none of that name, or more than one to choose from.
        DataError: the card says what `datasets` does not understand.
    """
    import datasets  # takes 1 s

    configs = configs or _converted(paths)
    is_folder = not configs and any(path.startswith(f"{requested}/") for path in paths)
    chosen = {"data_dir" if is_folder else "name": requested}
    with TemporaryDirectory() as folder:
        try:
            # The first must have files, and may be of tables or texts, which are not written here.
            configs = sorted(configs, key=lambda entry: _rank(entry, requested))
            _write_names(Path(folder), paths, configs)
            known = datasets.get_dataset_config_names(folder)
        except CARD_ERRORS as error:
            raise DataError(
                f"{name}: `datasets` cannot read its card ({type(error).__name__}); "
                f"set {PARAM}.revision to another"
            ) from None
        try:
            config = datasets.load_dataset_builder(folder, cache_dir=folder, **chosen).config
        except CARD_ERRORS:
            raise ParamsError(
                f"{PARAM}.config: got {requested or 'nothing'}, want one of {listed(known)}"
            ) from None
    by_split = {
        # a file that two patterns match is listed twice
        str(split): [Path(file).relative_to(folder).as_posix() for file in dict.fromkeys(files)]
        for split, files in config.data_files.items()
        if files
    }
    return requested or config.name, by_split


def _rank(entry: dict[str, Any], requested: str | None) -> tuple[bool, bool]:
    return entry.get("config_name") != requested, not entry.get("default")


def _converted(paths: list[str]) -> list[dict[str, Any]]:
    """The configs of what the hub converted, which has no card; empty for other files."""
    matches = [CONVERTED_PATH.fullmatch(path) for path in sorted(paths)]
    configs: dict[str, Splits] = {}
    for match in matches:
        if match is None:
            return []
        configs.setdefault(match[1], {}).setdefault(match[2], []).append(match[0])
    return [
        {
            "config_name": config,
            "data_files": [{"split": split, "path": files} for split, files in splits.items()],
        }
        for config, splits in configs.items()
    ]


def _write_names(folder: Path, paths: list[str], configs: Any) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    if configs:
        card = json.dumps({"configs": configs}, ensure_ascii=False)
        (folder / "README.md").write_text(f"---\n{card}\n---\n", encoding="utf-8")


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
