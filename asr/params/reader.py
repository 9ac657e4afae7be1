"""Read params.yaml and check all of it: every error at once, with its line. Costs 0.1 s; imports
neither numpy nor torch.

YAML is read as version 1.2, as DVC reads it: `no` is Norwegian, `1e-5` is a number, a key that
stands twice is an error.
"""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from asr.errors import ParamsError
from asr.params.contradictions import contradictions
from asr.params.schema import Params


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check the whole file.

    Raises:
        BadParams: all that is wrong with it, one line each: file, line, dotted key, what we got,
            what we want.
    """
    text = _read(path)
    values = _yaml(path, text)
    faults: dict[tuple[Any, ...], list[str]] = {}
    try:
        checked = Params.model_validate(values)
    except ValidationError as error:
        for fault in error.errors():
            keys = _keys(values, dict(fault))
            faults.setdefault(keys, []).append(_want(keys, dict(fault), bool(faults.get(keys))))
    for dotted, message in contradictions(flat(values)):
        faults.setdefault(
            tuple(int(key) if key.isdigit() else key for key in dotted.split(".")), []
        ).append(message)
    if faults:
        lines = YAML().load(text)
        raise ParamsError(
            "\n".join(
                f"{path}:{_line(lines, keys)}: {_dotted(keys)}: {' or '.join(said)}"
                for keys, said in faults.items()
            )
        )
    return checked


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested params as dotted keys, as DVC and MLflow show them."""
    rows: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, dict)
        rows.update(flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value})
    return rows


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParamsError(f"{path}: not there; run from the top of the repository") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: not UTF-8 at byte {error.start}") from None


def _yaml(path: Path, text: str) -> Any:
    try:
        values = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ParamsError(
            f"{line}: {getattr(error, 'problem', None) or error}".splitlines()[0]
        ) from None
    if not isinstance(values, dict):
        raise ParamsError(f"{path}: want one section per stage, got {type(values).__name__}")
    return values


def _keys(values: Any, fault: dict[str, Any]) -> tuple[Any, ...]:
    """Where a fault stands in the file: pydantic also puts the tried branch of a union into the
    location.
    """
    keys: list[Any] = []
    node = values
    for part in fault["loc"]:
        if (isinstance(node, dict) and part in node) or (
            isinstance(node, list) and isinstance(part, int)
        ):
            keys.append(part)
            node = node[part]
        elif fault["type"] == "missing":
            keys.append(part)
    return tuple(keys)


def _want(keys: tuple[Any, ...], fault: dict[str, Any], again: bool) -> str:
    """What we got and what we want, in words."""
    if fault["type"] == "extra_forbidden" or fault["type"] == "invalid_key":
        return f"unknown key{_did_you_mean(keys)}"
    if fault["type"] == "missing":
        return "missing; every value stands in this file"
    message = str(fault["msg"])
    return message if again else f"got {_shown(fault['input'])}, want: {message}"


def _dotted(keys: tuple[Any, ...]) -> str:
    return ".".join(map(str, keys))


def _shown(value: Any) -> str:
    return (
        "nothing"
        if value is None
        else repr(value)
        if not isinstance(value, float) or math.isfinite(value)
        else str(value)
    )


def _did_you_mean(keys: tuple[Any, ...]) -> str:
    section: Any = Params
    for key in keys[:-1]:
        field = getattr(section, "model_fields", {}).get(key)
        section = _model(field.annotation) if field else section if isinstance(key, int) else None
    known = list(getattr(section, "model_fields", {}))
    near = difflib.get_close_matches(str(keys[-1]).lower(), known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _model(annotation: Any) -> Any:
    """The section in a type such as `list[Mixed] | None`."""
    inner = [_model(one) for one in get_args(annotation)]
    return (
        next((one for one in inner if one), None)
        if inner
        else annotation
        if hasattr(annotation, "model_fields")
        else None
    )


def _line(node: Any, keys: tuple[Any, ...]) -> int:
    """Line of the deepest of these keys that stands in the file, which was loaded with its places."""
    line = 1
    for key in keys:
        if hasattr(node, "append") and isinstance(key, int):
            line, node = node.lc.item(key)[0] + 1, node[key]
        elif hasattr(node, "keys") and key in node:
            line, node = node.lc.key(key)[0] + 1, node[key]
        else:
            break
    return line
