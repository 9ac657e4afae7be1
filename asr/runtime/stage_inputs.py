"""A stage fails if its params, code or data were changed while it ran.

DVC reads them when the command has ended, and records them as what the outs were made from: a value
that was edited meanwhile would be filed with the results of another one, and never be run. Costs
reading params.yaml, dvc.yaml and the code of the stage twice, 50 ms; of data files only size and
time are compared.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from asr.errors import ParamsError

PARAMS_FILE = Path("params.yaml")
ABSENT = "not there"
MAX_NAMED = 5  # of the things that changed
WAY_OUT = (
    "DVC would file these results under what stands there now. "
    "Put it back and run again: finished work is kept, a training ends in seconds. "
    "Or run again as it is, which makes new results"
)


@dataclass(frozen=True)
class Inputs:
    """What a stage is given.

    Attributes:
        params: value by dotted key, of the params that dvc.yaml lists for the stage.
        files: by path, the hash of code, or size and time of data.
    """

    params: dict[str, Any]
    files: dict[str, str]


@contextmanager
def unchanged_inputs() -> Iterator[None]:
    """Compare what DVC's stage was given when the block begins with what is there when it ends.

    Without DVC (no DVC_STAGE in the environment) nothing is recorded, so nothing is compared.

    Raises:
        ParamsError: something changed; the message names it, and the way out.
    """
    stage = os.environ.get("DVC_STAGE", "").rpartition(":")[2]
    given = _given(stage) if stage else None
    yield
    if given is not None:
        changes = _changes(given, stage)
        if changes:
            more = len(changes) - MAX_NAMED
            named = "; ".join(changes[:MAX_NAMED]) + (f"; and {more} more" if more > 0 else "")
            raise ParamsError(f"changed while {stage} ran: {named}. {WAY_OUT}")


def _given(stage: str) -> Inputs | None:
    """The inputs now; None if they cannot be read, for then the stage itself says why."""
    try:
        return _inputs(stage)
    except (OSError, ValueError, KeyError, YAMLError):
        return None


def _inputs(stage: str) -> Inputs:
    definition = _yaml(Path("dvc.yaml"))["stages"][stage]
    values = _yaml(PARAMS_FILE)
    params = _flat(values)
    listed = tuple(definition.get("params", []))
    own = {key: value for key, value in params.items() if _is_listed(key, listed)}
    paths = [path for dep in definition["deps"] for path in _files(Path(dep))]
    return Inputs(own, {str(path): _stamp(path) for path in paths})


def _changes(given: Inputs, stage: str) -> list[str]:
    """What differs from what was given, in words."""
    try:
        now = _inputs(stage)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{mark.name}:{mark.line + 1}" if mark else str(PARAMS_FILE)
        return [f"{place} can no longer be read as YAML"]
    except (OSError, ValueError, KeyError) as error:
        return [f"params.yaml or dvc.yaml can no longer be read ({error})"]
    params = [
        f"{key} was {_text(given.params, key)}, is {_text(now.params, key)}"
        for key in {**given.params, **now.params}
        if _text(given.params, key) != _text(now.params, key)
    ]
    files = [
        path
        for path in {**given.files, **now.files}
        if given.files.get(path) != now.files.get(path)
    ]
    return [*params, *files]


def _yaml(path: Path) -> Any:
    with path.open(encoding="utf-8") as file:
        return YAML(typ="safe", pure=True).load(file)


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested params as dotted keys, as DVC shows them."""
    if not isinstance(values, dict):
        raise ValueError("no section of values")
    rows: dict[str, Any] = {}
    for key, value in values.items():
        rows |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else {f"{prefix}{key}": value}
        )
    return rows


def _is_listed(key: str, listed: tuple[str, ...]) -> bool:
    """Whether dvc.yaml lists this param, or the section that it stands in."""
    return any(key == name or key.startswith(f"{name}.") for name in listed)


def _text(params: dict[str, Any], key: str) -> str:
    """A value as text, in which 1, 1.0, true and '1' differ."""
    return repr(params[key]) if key in params else ABSENT


def _files(path: Path) -> list[Path]:
    """The files of a dep; in a folder of code only Python's, which editors do not litter."""
    if not path.is_dir():
        return [path]
    pattern = "*" if path.parts[0] in ("data", "models", "reports") else "*.py"
    return sorted(file for file in path.rglob(pattern) if file.is_file())


def _stamp(path: Path) -> str:
    """A text that changes with a file: its hash if it is code, else its size and time."""
    try:
        if path.suffix == ".py":
            return hashlib.sha256(path.read_bytes()).hexdigest()
        stat = path.stat()
    except OSError:
        return ABSENT
    return f"{stat.st_size} {stat.st_mtime_ns}"
