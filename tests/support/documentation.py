"""What a page of the documentation claims, taken apart and compared with the repository.

A page is Markdown. Every `..._faults` function returns what is wrong with a page or a command, one
line each; an empty list means that all of it is true. Nothing that a page names is run here.
"""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache, cached_property
from io import StringIO
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args, get_origin
from unittest.mock import patch

from dvc.cli import DvcParserError
from dvc.cli import parse_args as parse_dvc
from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from markdown_it import MarkdownIt
from pydantic import BaseModel
from ruamel.yaml import YAML

from asr import __main__ as earshot
from asr import paths
from asr.errors import ParamsError, UserError
from asr.evaluation import table
from asr.params import reader
from asr.params.schema import Params
from asr.rooms import ROOMS
from asr.runs import results
from support.repository import REPOSITORY, SHIPPED

DOCS = sorted(path.name for path in (REPOSITORY / "docs").glob("*.md"))
NAMES = ("README.md", "CONTRIBUTING.md", *(f"docs/{name}" for name in DOCS))
YAML_1_2 = YAML(typ="safe", pure=True)  # as DVC reads it: `no` is Norwegian, 1e-5 is a number
STAGES = YAML_1_2.load(REPOSITORY / "dvc.yaml")["stages"]
OUTS = [
    out if isinstance(out, str) else next(iter(out))
    for stage in STAGES.values()
    for kind in ("outs", "metrics", "plots")
    for out in stage.get(kind, [])
]
# Folders whose content this repository decides; a path in any other one is a reader's own.
OURS = {
    ".cache", ".ci", ".dvc", ".streamlit", "asr", "benchmarks", "dashboard", "data", "docs",
    "harness", "models", "reports", "stages", "tests",
}  # fmt: skip
MADE = (".cache", *OUTS, paths.KEPT_MODELS, paths.KEPT_REPORTS, "reports/bench")
SOURCE_FOLDERS = ("asr", "stages", "dashboard")
SEPARATORS = {"&&", "||", "|", ";", "&"}
NOTHING_TO_CHECK = {".", "cat", "export", "git", "ssh", "xdg-open"}  # programs not of this project
SECTIONS = "|".join(Params.model_fields)
PARAM = re.compile(rf"((?:{SECTIONS})(?:\.[a-z0-9_]+)+)(?:(?:: |=)(.*))?")
LANGUAGES = {"console", "csv", "python", "text", "yaml"}  # of fenced blocks
EXTRAS = "optional-dependencies"
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{2,}")
ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=.*", re.DOTALL)


@dataclass(frozen=True)
class Page:
    """A page, and where it lies, from which its links start."""

    path: Path
    text: str

    @cached_property
    def tokens(self) -> list[Any]:
        return MarkdownIt().enable("table").parse(self.text)

    def blocks(self, language: str) -> list[str]:
        """The contents of the fenced blocks of a language."""
        return [
            token.content
            for token in self.tokens
            if token.type == "fence" and token.info == language
        ]

    @cached_property
    def inline(self) -> list[Any]:
        """Links, pictures and code within the text."""
        return [child for token in self.tokens for child in token.children or []]

    @cached_property
    def code(self) -> list[str]:
        return [token.content for token in self.inline if token.type == "code_inline"]

    @cached_property
    def commands(self) -> list[Command]:
        """All commands of the console blocks, and those within the text."""
        lines = [line for block in self.blocks("console") for line, _ in prompts(block)]
        return [
            *(command for line in lines for command in commands(line)),
            *(command for code in self.code for command in inline_commands(code)),
        ]

    def column(self, header: str) -> list[Any]:
        """The cells of the first column of a table, which has this header."""
        cells: list[Any] = []
        is_wanted = False
        for row, cell, content in zip(self.tokens, self.tokens[1:], self.tokens[2:], strict=False):
            if row.type == "tr_open" and cell.type == "th_open":
                is_wanted = content.content == header
            elif row.type == "tr_open" and is_wanted:
                cells.append(content)
        return cells

    @cached_property
    def anchors(self) -> set[str]:
        """What a link after # may name: GitHub's form of each heading."""
        pairs = zip(self.tokens, self.tokens[1:], strict=False)
        headings = [after.content for token, after in pairs if token.type == "heading_open"]
        return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@dataclass(frozen=True)
class Command:
    """One program with its arguments, and the variables that are set for it."""

    words: tuple[str, ...]
    variables: tuple[str, ...]


def page(name: str) -> Page:
    return Page(REPOSITORY / name, (REPOSITORY / name).read_text(encoding="utf-8"))


def prompts(block: str) -> Iterator[tuple[str, list[str]]]:
    """Each command line of a console block, put together, and the lines it shows."""
    line, shown = "", []
    for text in block.splitlines():
        if line and (line.endswith("\\") or has_open_quote(line)):
            line = f"{line.removesuffix(chr(92))}\n{text}"
        elif text.startswith("$ "):
            if line:
                yield line, shown
            line, shown = text.removeprefix("$ "), []
        else:
            shown.append(text)
    if line:
        yield line, shown


def inline_commands(code: str) -> Iterator[Command]:
    """The commands of code within the text, where it starts one of the known programs.

    `earshot NAME` alone stands for the command, and not for a call without arguments.
    """
    for command in [] if has_open_quote(code) else commands(code):
        if command.words and command.words[0] in CHECKS:
            is_name = command.words[0] == "earshot" and len(command.words) == 2
            words = (*command.words, "--help") if is_name else command.words
            yield Command(words, command.variables)


def has_open_quote(line: str) -> bool:
    try:
        shlex.split(line, comments=True)
    except ValueError:
        return True
    return False


def commands(line: str) -> Iterator[Command]:
    """The commands of a line, without its comment."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in SEPARATORS:
            words.append(word)
        elif words:
            yield command_of(words)
            words = []


def command_of(words: list[str]) -> Command:
    """Tell variables from words: those in front, and those that `export` sets."""
    is_export = words[0] == "export"
    variables: list[str] = []
    for word in words[is_export:]:
        match = ASSIGNMENT.fullmatch(word)
        if not match:
            break
        variables.append(match[1])
    rest = words if is_export else words[len(variables) :]
    return Command(tuple(rest), tuple(variables))


def faults(page: Page) -> list[str]:
    """All that is wrong with a page."""
    checks = (
        link_faults, path_faults, param_faults, variable_faults, block_faults, table_faults,
        exit_faults, command_faults, change_faults_within, choice_faults, snippet_faults,
    )  # fmt: skip
    return [fault for check in checks for fault in check(page)]


# Links and paths


def link_faults(page: Page) -> list[str]:
    """Links and pictures that lead to no file of the repository, or to no heading of it."""
    targets = [token.attrs.get("href") or token.attrs.get("src") for token in page.inline]
    html = [
        one for one in [*page.tokens, *page.inline] if one.type in ("html_block", "html_inline")
    ]
    for token in html:
        targets += re.findall(r"""(?:href|src)\s*=\s*["']?([^"'\s>]+)""", token.content)
    return [
        f"{target} leads nowhere"
        for target in filter(None, targets)
        if "://" not in target and not leads_somewhere(page, target)
    ]


def leads_somewhere(page: Page, target: str) -> bool:
    name, _, anchor = target.partition("#")
    if not name:
        return anchor in page.anchors
    path = (page.path.parent / name).resolve()
    return path.exists() and (not anchor or anchor in Page(path, path.read_text()).anchors)


def path_faults(page: Page) -> list[str]:
    """Paths in our own folders that are neither there nor made by a stage or a command."""
    words = [word for command in page.commands for word in command.words]
    words += [word for block in page.blocks("text") for word in re.split(r"[\s,()]+", block)]
    return [
        f"{word} is not there, and no stage makes it"
        for word in [*page.code, *words]
        if re.fullmatch(r"[\w.-]+/[\w./-]*", word)
        and word.partition("/")[0] in OURS
        and not exists(word)
    ]


def exists(name: str) -> bool:
    """Whether a path is there, or in, at or above something that is made; NAME is any name."""
    path = Path(name)
    if path.parts[:1] == (".cache",) and path.parts[1:]:
        folder = re.escape(path.parts[1])
        return re.search(rf"cache[(/][\"']?{folder}\b", source()) is not None
    if any(REPOSITORY.glob(name.replace("NAME", "*").rstrip("/"))):
        return True
    return any(path.is_relative_to(one) or Path(one).is_relative_to(path) for one in MADE)


# Params


def param_faults(page: Page) -> list[str]:
    """Keys of params.yaml that are named and are none."""
    matches = filter(None, map(PARAM.fullmatch, page.code))
    return [f"{match[1]} is no param" for match in matches if not is_param(match[1])]


def is_param(key: str) -> bool:
    return field_of(key) is not None


def has_choices(key: str) -> bool:
    field = field_of(key)
    return field is not None and get_origin(field.annotation) is Literal


def field_of(key: str) -> Any:
    """The field of a param or section by its dotted key; None if there is none."""
    field, section = None, Params
    for name in key.split("."):
        field = getattr(section, "model_fields", {}).get(name)
        section = model_in(field.annotation) if field else None
    return field


def model_in(annotation: Any) -> Any:
    """The section in a type such as `list[Rule] | None`; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(model_in, get_args(annotation))), None)


@cache
def change_faults(*changes: str, sweep: bool = False) -> list[str]:
    """What DVC or the reader of params has against values given with -S.

    Args:
        sweep: whether a value is a list of values to try, as with `--queue`.
    """
    given = {"params.yaml": list(changes)}
    try:
        with TemporaryDirectory() as folder:
            path = Path(folder, "params.yaml")
            for one in get_hydra_sweeps(given) if sweep else [given]:
                shutil.copy(SHIPPED, path)
                apply_overrides(path, one["params.yaml"])
                reader.load(path)
    except (DvcException, ParamsError) as error:
        return [f"-S {' '.join(changes)}: {error}"]
    return []


def change_faults_within(page: Page) -> list[str]:
    """The same for `-S key=value`, `key=value` and `key: value` within the text."""
    spans = []
    for code in page.code:
        words = [] if has_open_quote(code) else shlex.split(code)
        match = PARAM.fullmatch(code)
        if words[:1] == ["-S"]:
            spans.append([after for word, after in pairwise(words) if word == "-S"])
        elif match and match[2]:
            spans.append([f"{match[1]}={match[2]}"])
    return [fault for changes in spans for fault in change_faults(*changes)]


def choice_faults(page: Page) -> list[str]:
    """The same for the choices that stand after a key, as in "`key`: one, two or three"."""
    changes = []
    for token, after in pairwise(page.inline):
        is_choice = token.type == "code_inline" and has_choices(token.content)
        if is_choice and (listed := re.match(r": ([\w, ]+)", after.content)):
            values = filter(None, re.split(r",\s*| or ", listed[1]))
            changes += [f"{token.content}={value}" for value in values]
    return [fault for change in changes for fault in change_faults(change)]


def snippet_faults(page: Page) -> list[str]:
    """YAML blocks that params.yaml would not take."""
    return [fault for block in page.blocks("yaml") for fault in faults_of_snippet(block)]


def faults_of_snippet(block: str) -> list[str]:
    values = YAML_1_2.load(SHIPPED)
    for section, changed in YAML_1_2.load(block).items():
        values[section] = {**values.get(section, {}), **changed}
    with TemporaryDirectory() as folder:
        path = Path(folder, "params.yaml")
        YAML_1_2.dump(values, path)
        try:
            reader.load(path)
        except ParamsError as error:
            return [str(error)]
    return []


# Blocks and tables


def block_faults(page: Page) -> list[str]:
    """Blocks that no check reads, and Python that does not compile or imports what is not there."""
    fences = [token.info for token in page.tokens if token.type == "fence"]
    wrong = [f"a block of {info or 'nothing'}" for info in fences if info not in LANGUAGES]
    wrong += ["an indented block" for token in page.tokens if token.type == "code_block"]
    for block in page.blocks("python"):
        try:
            body = ast.parse(block).body
            imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
            exec(compile(ast.Module(imports, []), "block", "exec"), {})
        except (SyntaxError, ImportError) as error:
            wrong.append(str(error))
    return wrong


def table_faults(page: Page) -> list[str]:
    """What is wrong with the tables whose first column we know, by its header."""
    return [
        fault for header, wanted in TABLES.items() for fault in column_faults(page, header, wanted)
    ]


def column_faults(page: Page, header: str, wanted: Callable[[], set[str]]) -> list[str]:
    """What a first column has too much or too little."""
    cells = page.column(header)
    names = {name for cell in cells for name in names_in(cell)}
    return [f"{header}: {name}" for name in sorted(names ^ wanted())] if cells else []


def names_in(cell: Any) -> list[str]:
    """The code of a cell, or else its numbers."""
    codes = [token.content for token in cell.children if token.type == "code_inline"]
    return codes or re.findall(r"\d+", cell.content)


def exit_codes() -> set[str]:
    own = {one.exit_code for one in UserError.__subclasses__() if "exit_code" in vars(one)}
    return {str(code) for code in own | {128 + signal.SIGINT, 128 + signal.SIGTERM}}


def exit_faults(page: Page) -> list[str]:
    named = re.findall(r"\bexits? (?:with )?(\d+)", page.text)
    return [f"there is no exit {code}" for code in named if code not in exit_codes()]


def options_of_transcribe() -> set[str]:
    _, said = earshot_says(["transcribe", "--help"])
    return set(re.findall(r"--[a-z][a-z-]*", said)) - {"--help"}


def columns() -> set[str]:
    """Columns of the table of utterances; those of the text as written are named once."""
    return {name.removeprefix("raw_") for name in table.SCHEMA.names}


def rooms() -> set[str]:
    return {room.name for room in ROOMS} - {"rooms.py", "__main__.py"}


TABLES = {
    "exit": exit_codes,
    "option": options_of_transcribe,
    "column": columns,
    "room": rooms,
}


# Results


def committed(name: str) -> str:
    words = ["git", "show", f"HEAD:{name}"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout


def shown_results(page: Page) -> list[str]:
    """What a page says of the result of the default run."""
    lines = re.findall(r"^WER (?:of the start|after training) .*", page.text, re.MULTILINE)
    return lines + re.findall(r"0\.\d+ is [\d.]+ %", page.text)


def result_faults(page: Page, metrics: dict[str, Any]) -> list[str]:
    """What a page says of the result that is not so in metrics.json, and of its keys."""
    start = metrics["models"]["start"]
    true = (
        f"WER of the start     {results.interval(start)}",
        f"WER after training   {results.interval(metrics)} ",
        f"{metrics['wer']:.4f} is {100 * metrics['wer']:.2f} %",
    )
    return [
        *(shown for shown in shown_results(page) if not shown.startswith(true)),
        *column_faults(page, "key", lambda: {*metrics, *start} - {"models", "holdout"}),
    ]


# Commands


def command_faults(page: Page) -> list[str]:
    """What is wrong with the commands of a page."""
    return [fault for command in page.commands for fault in faults_of(command)]


def faults_of(command: Command) -> list[str]:
    faults = [f"{name} is read nowhere" for name in command.variables if not is_read(name)]
    if not command.words:
        return faults
    program, *arguments = command.words
    name = program.rpartition("/")[2]
    check = CHECKS.get(name)
    if check:
        return faults + check(arguments)
    return faults + ([] if name in NOTHING_TO_CHECK else [f"{program} is no known program"])


@cache
def source() -> str:
    """The text of all that may read a variable of the environment."""
    folders = [REPOSITORY / name for name in SOURCE_FOLDERS]
    files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    return "\n".join(path.read_text() for path in [*files, REPOSITORY / "Makefile"])


def is_read(variable: str) -> bool:
    return bool(re.search(rf"\b{re.escape(variable)}\b", source()))


def variable_faults(page: Page) -> list[str]:
    """Variables of the environment that are named in the text and read nowhere."""
    named = filter(VARIABLE.fullmatch, page.code)
    return [f"{name} is read nowhere" for name in named if not is_read(name)]


@cache
def make_rehearsal(target: str) -> str:
    """What make has against a target; empty if it knows it. Runs nothing."""
    done = subprocess.run(
        ["make", "--dry-run", target, "VENV=/nowhere"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    return done.stderr.strip() if done.returncode else ""


def make_faults(arguments: list[str]) -> list[str]:
    targets = [word for word in arguments if "=" not in word]
    given = dict(word.split("=", 1) for word in arguments if "=" in word)
    makefile = (REPOSITORY / "Makefile").read_text()
    faults = [fault for target in targets if (fault := make_rehearsal(target))]
    faults += [f"make has no use for {name}" for name in given if f"$({name})" not in makefile]
    if targets == ["harness"] and given.get("NAME", "short") not in harness_names():
        faults.append(f"there is no harness {given['NAME']}")
    return faults


@cache
def harness_names() -> set[str]:
    """What the harness lists."""
    done = subprocess.run(
        [sys.executable, "-m", "harness"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return {line.split()[0] for line in done.stdout.splitlines()}


def dvc_faults(arguments: list[str]) -> list[str]:
    """What DVC's own parser has against a command, and the params that it sets."""
    said = StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            options = parse_dvc(arguments)
    except (DvcParserError, SystemExit):
        return [f"dvc {' '.join(arguments)}: DVC does not take this"]
    faults = []
    if arguments[0] in ("repro", "commit"):
        unknown = set(options.targets) - {*STAGES}
        faults += [f"{name} is no stage" for name in sorted(unknown)]
    if arguments[:2] == ["exp", "run"] and options.set_param:
        faults += change_faults(*options.set_param, sweep=options.queue)
    return faults


class Parsed(Exception):
    """Raised in place of what a command does after its arguments were read."""


def earshot_faults(arguments: list[str]) -> list[str]:
    """What the command's own parser has against its arguments."""
    is_taken, said = earshot_says(arguments)
    return [] if is_taken else [said]


def earshot_says(arguments: list[str]) -> tuple[bool, str]:
    """Whether the command's own parser takes its arguments, and what it prints; nothing is done."""
    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser: argparse.ArgumentParser, *given: list[str]) -> None:
        parse(parser, *given)
        raise Parsed

    said = StringIO()
    with (
        patch.object(argparse.ArgumentParser, "parse_args", parse_only),
        patch.object(sys, "argv", ["earshot", *arguments]),
        redirect_stdout(said),
        redirect_stderr(said),
    ):
        try:
            earshot.run()
        except (Parsed, ParamsError, SystemExit) as end:
            if isinstance(end, ParamsError):
                return False, str(end)
            return not getattr(end, "code", 0), said.getvalue()
    return True, said.getvalue()


def python_faults(arguments: list[str]) -> list[str]:
    if arguments[:2] == ["-m", "asr"]:
        return earshot_faults(arguments[2:])
    return [] if arguments[:2] == ["-m", "venv"] else [f"python {' '.join(arguments)}"]


def pip_faults(arguments: list[str]) -> list[str]:
    """Extras and files that are named and are none."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    named = [extra for word in arguments for extra in re.findall(r"\.\[(.+)\]", word)]
    files = [after for word, after in pairwise(arguments) if word in ("-c", "-r")]
    return [
        *(f"there is no extra {one}" for one in named if one not in project[EXTRAS]),
        *(f"there is no file {one}" for one in files if not (REPOSITORY / one).is_file()),
    ]


def streamlit_faults(arguments: list[str]) -> list[str]:
    return [] if arguments == ["run", "dashboard"] else [f"streamlit {' '.join(arguments)}"]


CHECKS: dict[str, Callable[[list[str]], list[str]]] = {
    "dvc": dvc_faults,
    "make": make_faults,
    "earshot": earshot_faults,
    "python": python_faults,
    "python3": python_faults,
    "pip": pip_faults,
    "streamlit": streamlit_faults,
}
