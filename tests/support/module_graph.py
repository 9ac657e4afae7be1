"""Who imports whom, and which params a function reads, from the syntax trees of our files."""

from __future__ import annotations

import ast
import builtins
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from pydantic import BaseModel

from asr.params import schema
from asr.rooms import ROOMS
from support.repository import REPOSITORY

PACKAGES = ("asr", "stages", "dashboard")
Function = ast.FunctionDef | ast.AsyncFunctionDef
# By these a file can import or run what its import statements do not show.
UNSEEN = {"importlib", "pkgutil", "runpy", "__import__", "eval", "exec"}
HARMLESS = "importlib.metadata"  # reads versions
PARAMS_FILE = re.compile(r"(.*/)?params\.yaml")
ALL_PARAMS = "params.yaml"  # in place of a dotted key
# The one statement that takes all params: they are kept in run.json and decide nothing.
RECORD = "all_params = reader.flat(params.model_dump(exclude={'evaluate'}))"
LANGUAGES = ("download.language", "model.language")  # what `Params.language` reads


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


def imports(path: Path, at_start: bool = False) -> set[str]:
    """Our modules that a file imports, at its top or inside a function.

    Args:
        at_start: only what is imported with the file itself, not what a function imports.
    """
    names = _names_imported(path, at_start)
    return {name for name in names if name.split(".")[0] in PACKAGES and path_of(name)}


def packages(path: Path, at_start: bool = False) -> set[str]:
    """Packages that a file imports, ours and others, but for Python's own."""
    names = {name.split(".")[0] for name in _names_imported(path, at_start)}
    return names - sys.stdlib_module_names


def imports_unseen(path: Path) -> bool:
    """Whether a file can import what its import statements do not show."""
    named = {node.id for node in ast.walk(tree_of(path)) if isinstance(node, ast.Name)}
    names = _names_imported(path)
    imported = {name.split(".")[0] for name in names if not name.startswith(HARMLESS)}
    return bool(UNSEEN & (named | imported))


def _names_imported(path: Path, at_start: bool = False) -> set[str]:
    """Modules, and each with the names that are imported from it."""
    names: set[str] = set()
    for node in _statements(tree_of(path)) if at_start else ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            modules = {alias.name for alias in node.names}
            ours = {name for name in modules if name.split(".")[0] in PACKAGES}
            assert ours <= {"asr"}, f"{path}: write `from ... import`, not {ours}"
            names |= modules
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import, which this test cannot follow"
            assert node.names[0].name != "*", f"{path}: say what is imported from {node.module}"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module that run when it is imported; types alone are not."""
    for node in ast.iter_child_nodes(tree):
        lazy = isinstance(node, Function | ast.Lambda)
        if lazy or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            continue
        yield node
        yield from _statements(node)


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
    """Dotted keys of params that the functions of these files read, whatever they call them.

    A section that is handed on to a function is read by that function; one that is dumped, or
    handed to a builtin such as `vars`, is read as a whole. A file that names params.yaml, other
    than for `reader.load`, reads all of it. Whatever is typed as params is followed:
    arguments, attributes of classes, and names that one of these is assigned to.
    """
    nodes = [node for path in files for node in ast.walk(tree_of(path))]
    functions = [node for node in nodes if isinstance(node, Function)]
    fields = _typed_fields(files, functions)
    keys = {key for function in functions for key in _keys_read(function, fields)}
    return keys | ({ALL_PARAMS} if any(map(_opens_params, files)) else set())


def _opens_params(path: Path) -> bool:
    """Whether a file names params.yaml, other than for `reader.load`."""
    nodes = list(ast.walk(tree_of(path)))
    loads = [node for node in nodes if isinstance(node, ast.Call) and _is_load(node)]
    for_reader = {part for load in loads for part in ast.walk(load)}
    return any(
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and PARAMS_FILE.fullmatch(node.value)
        and node not in for_reader
        for node in nodes
    )


def _is_load(call: ast.Call) -> bool:
    return ast.unparse(call.func) == "reader.load"


def _typed_fields(files: Iterable[Path], functions: list[Function]) -> dict[str, set[str]]:
    """Attributes that hold params or a section, and the dotted keys of it."""
    fields: dict[str, set[str]] = {}
    for path in files:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                for key in _sections_in(node.annotation):
                    fields.setdefault(node.target.id, set()).add(key)
    for function in functions:
        names = _params_of(function)
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
                for key in _keys_of(node.value, names, {}):
                    fields.setdefault(node.targets[0].attr, set()).add(key)
    return fields


def _keys_read(function: Function, fields: dict[str, set[str]]) -> Iterator[str]:
    names = _params_of(function)
    parents = {child: node for node in ast.walk(function) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(function):
        for target, value in _assignments(node):
            keys = {key for key in _keys_of(value, names, fields) if _is_section(key)}
            if keys:
                names[target] = names.get(target, set()) | keys
    assigned = [node for node in parents if isinstance(node, ast.Assign)]
    records = [node for node in assigned if ast.unparse(node) == RECORD]
    recorded = {part for node in records for part in ast.walk(node)}
    for node in parents.keys() - recorded:
        parent = parents.get(node)
        goes_on = isinstance(parent, ast.Attribute) and _keys_of(parent, names, fields)
        for key in set() if goes_on else _keys_of(node, names, fields):
            if not _is_section(key) or _takes_all(parent):
                yield from {"language": LANGUAGES, "": (ALL_PARAMS,)}.get(key, (key,))


def _takes_all(parent: ast.AST | None) -> bool:
    """Whether a section is read as a whole, by a method of its own or by a builtin."""
    if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name):
        return hasattr(builtins, parent.func.id)
    return isinstance(parent, ast.Attribute)


def _assignments(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Names and what is assigned to them, one by one also where several are at once."""
    if isinstance(node, ast.NamedExpr):
        yield node.target.id, node.value
    for target in node.targets if isinstance(node, ast.Assign) else []:
        if isinstance(target, ast.Name):
            yield target.id, node.value
        elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            for name, value in zip(target.elts, node.value.elts, strict=False):
                if isinstance(name, ast.Name):
                    yield name.id, value


def _params_of(function: Function) -> dict[str, set[str]]:
    """The function's arguments that are params or a section of them, with their dotted keys."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    keys = {one.arg: set(_sections_in(one.annotation)) for one in arguments if one.annotation}
    return {name: found for name, found in keys.items() if found}


def _sections_in(annotation: ast.AST) -> Iterator[str]:
    """Dotted keys of the sections that an annotation names."""
    for part in ast.walk(annotation):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield from _sections_in(ast.parse(part.value, mode="eval"))
        name = ast.unparse(part) if isinstance(part, ast.Attribute) else ""
        if name.startswith("schema.") and name.removeprefix("schema.") in SECTIONS:
            yield SECTIONS[name.removeprefix("schema.")]


def _keys_of(node: ast.AST, names: dict[str, set[str]], fields: dict[str, set[str]]) -> set[str]:
    """The dotted keys that an expression may stand for; none where it is no param."""
    if isinstance(node, ast.Name):
        return names.get(node.id, set())
    if isinstance(node, ast.Call) and _is_load(node):
        return {""}
    if not isinstance(node, ast.Attribute):
        return set()
    outer = _keys_of(node.value, names, fields)
    keys = {f"{key}.{node.attr}".strip(".") for key in outer}
    known = {key for key in keys if key == "language" or _exists(key)}
    return known or (set() if outer else fields.get(node.attr, set()))


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
