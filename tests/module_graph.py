"""Who imports whom, and which params a function reads, from the syntax trees of our files."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from conftest import REPOSITORY
from pydantic import BaseModel

from asr.params import schema
from asr.rooms import ROOMS

PACKAGES = ("asr", "stages", "dashboard")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def path_of(module: str) -> Path | None:
    """The file of one of our modules; None for what is no module, and for the door of a room, which
    is prose.
    """
    place = REPOSITORY / module.replace(".", "/")
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not path.is_file() or (path.name == "__init__.py" and len(tree_of(path).body) < 2):
        return None
    return path


def imports(path: Path) -> set[str]:
    """Our modules that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in PACKAGES and path_of(name)}


def room_of(path: Path) -> str:
    """The room of a file of `asr`, as the list of rooms names it."""
    return path.relative_to(REPOSITORY / "asr").parts[0]


def is_exempt(path: Path) -> bool:
    """Whether a file changes no byte of an output."""
    exempt = {room.name for room in ROOMS if room.exempt} | {"__init__.py"}
    return path.is_relative_to(REPOSITORY / "asr") and room_of(path) in exempt


def reached(path: Path) -> set[Path]:
    """The file and all that it imports, directly or not, but for what is exempt."""
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current not in seen and not is_exempt(current):
            seen.add(current)
            waiting += [found for name in imports(current) if (found := path_of(name))]
    return seen


def sections(model: type[BaseModel] = schema.Params, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Name of each section's class, and the dotted key of the section."""
    yield model.__name__, prefix
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from sections(field.annotation, f"{prefix}.{key}".strip("."))


SECTIONS = dict(sections())


def params_read(files: Iterable[Path]) -> set[str]:
    """Dotted keys of params that the functions of these files read, whatever their variables are
    called.

    A section that is handed on to a function is read by that function; one that is dumped is read
    as a whole. All params together are dumped for the record alone.
    """
    found: set[str] = set()
    for path in files:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef):
                found |= set(_keys_read(node))
    return found


def _keys_read(function: ast.FunctionDef) -> Iterator[str]:
    names = _params_of(function)
    parents = {child: node for node in ast.walk(function) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Assign)
            and len(node.targets) == 1
            and isinstance(node.targets[0], ast.Name)
        ):
            key = _key_of(node.value, names)
            if key is not None and _is_section(key):
                names[node.targets[0].id] = key
    for node in ast.walk(function):
        key = _key_of(node, names)
        parent = parents.get(node)
        if not key or (isinstance(parent, ast.Attribute) and _key_of(parent, names) is not None):
            continue
        if not _is_section(key) or isinstance(parent, ast.Attribute):
            yield from ("download.language", "model.language") if key == "language" else (key,)


def _params_of(function: ast.FunctionDef) -> dict[str, str]:
    """The function's arguments that are params or a section of them, with their dotted keys."""
    names = {}
    for argument in (*function.args.args, *function.args.kwonlyargs):
        for part in ast.walk(argument.annotation) if argument.annotation else ():
            if (
                isinstance(part, ast.Attribute)
                and isinstance(part.value, ast.Name)
                and part.value.id == "schema"
                and part.attr in SECTIONS
            ):
                names[argument.arg] = SECTIONS[part.attr]
    return names


def _key_of(node: ast.AST, names: dict[str, str]) -> str | None:
    """The dotted key that an expression stands for; None where it is no param."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "reader.load":
        return ""
    if isinstance(node, ast.Attribute):
        outer = _key_of(node.value, names)
        key = None if outer is None else f"{outer}.{node.attr}".strip(".")
        return key if key is not None and (key == "language" or _exists(key)) else None
    return None


def _exists(key: str) -> bool:
    section: type = schema.Params
    for name in key.split("."):
        if not (
            isinstance(section, type)
            and issubclass(section, BaseModel)
            and name in section.model_fields
        ):
            return False
        section = section.model_fields[name].annotation
    return True


def _is_section(key: str) -> bool:
    return key in SECTIONS.values()
