"""Read params.yaml and check all of it; all errors are reported at once, with their lines.

YAML is read as version 1.2, as in DVC: `no` is a text (Norwegian), `1e-5` is a number, a repeated
key is an error. Costs 0.1 s; imports neither numpy nor torch.
"""

from __future__ import annotations

import difflib
import math
from collections import defaultdict
from pathlib import Path
from typing import Any, TypeAlias, get_args

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from asr.errors import ParamsError
from asr.params.contradictions import contradictions
from asr.params.schema import Params

Keys: TypeAlias = tuple[Any, ...]  # from the top of the file; an int is an index of a list


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check the whole file.

    Raises:
        ParamsError: one line for each error: file, line, dotted key, the value, what is wanted.
    """
    text = _read(path)
    values = _yaml(path, text)
    messages: dict[Keys, list[str]] = defaultdict(list)
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        for details in map(dict, error.errors()):
            keys = _keys(values, details)
            messages[keys].append(_message(keys, details, further=bool(messages[keys])))
    for dotted, message in contradictions(flat(values)):
        keys = tuple(int(key) if key.isdigit() else key for key in dotted.split("."))
        messages[keys].append(message)
    if messages:
        lines = YAML().load(text)  # the default loader keeps the line of every key
        raise ParamsError(
            "\n".join(
                f"{path}:{_line(lines, keys)}: {'.'.join(map(str, keys))}: {' or '.join(wants)}"
                for keys, wants in messages.items()
            )
        )
    return params


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested params as dotted keys, as DVC and MLflow show them."""
    rows: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            rows.update(flat(value, f"{prefix}{key}."))
        else:
            rows[f"{prefix}{key}"] = value
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
        problem = getattr(error, "problem", None) or error
        raise ParamsError(f"{line}: {problem}".splitlines()[0]) from None
    if not isinstance(values, dict):
        raise ParamsError(f"{path}: want one section per stage, got {type(values).__name__}")
    return values


def _keys(values: Any, error: dict[str, Any]) -> Keys:
    """The keys that lead to the place of an error in the file.

    In pydantic's location the branches of a union that it tried count as keys; they are left out.

    Args:
        error: an item of `ValidationError.errors()`.
    """
    keys: list[Any] = []
    node = values
    for part in error["loc"]:
        is_key = isinstance(node, dict) and part in node
        is_index = isinstance(node, list) and isinstance(part, int)
        if is_key or is_index:
            keys.append(part)
            node = node[part]
        elif error["type"] == "missing":
            keys.append(part)
    return tuple(keys)


def _message(keys: Keys, error: dict[str, Any], further: bool) -> str:
    """The value and what is wanted, in words.

    Args:
        error: an item of `ValidationError.errors()`.
        further: the value has another error too; then only what is wanted.
    """
    if error["type"] in ("extra_forbidden", "invalid_key"):
        return f"unknown key{_did_you_mean(keys)}"
    if error["type"] == "missing":
        return "missing; every value stands in this file"
    message = str(error["msg"])
    return message if further else f"got {_value_text(error['input'])}, want: {message}"


def _value_text(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return repr(value)


def _did_you_mean(keys: Keys) -> str:
    section: Any = Params
    for key in keys[:-1]:
        if isinstance(key, int):  # an item of a list; `section` is the items' model already
            continue
        field = getattr(section, "model_fields", {}).get(key)
        section = _model(field.annotation) if field else None
    names = list(getattr(section, "model_fields", {}))
    similar = difflib.get_close_matches(str(keys[-1]).lower(), names, n=1)
    return f"; did you mean {similar[0]}?" if similar else ""


def _model(annotation: Any) -> Any:
    """The section model in a type such as `list[MixedSource] | None`; None if it has none."""
    arguments = get_args(annotation)
    if not arguments:
        return annotation if hasattr(annotation, "model_fields") else None
    return next(filter(None, map(_model, arguments)), None)


def _line(node: Any, keys: Keys) -> int:
    """The line of the deepest of these keys that is in the file.

    Args:
        node: the file as ruamel's default loader returns it, which keeps the line of every key.
    """
    line = 1
    for key in keys:
        if hasattr(node, "append") and isinstance(key, int):
            line = node.lc.item(key)[0] + 1
        elif hasattr(node, "keys") and key in node:
            line = node.lc.key(key)[0] + 1
        else:
            break
        node = node[key]
    return line
