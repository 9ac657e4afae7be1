"""Hashes of files, values and code, and random numbers that depend on a key alone.

With these a row that is added to a corpus changes the split of no other row.
"""

from __future__ import annotations

import hashlib
import io
import json
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Span = tuple[tuple[int, int], tuple[int, int]]  # two places: line, counted from 1, and column


def fraction_of(key: str) -> float:
    """A number in [0, 1), the same for the same key on any machine."""
    digest = hashlib.sha256(key.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(key: str) -> str:
    """The split of a key: of ten keys eight train, one validates, one tests."""
    fraction = fraction_of(f"split:{key}")
    if fraction < 0.8:
        return "train"
    return "validation" if fraction < 0.9 else "test"


def sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(value: Any) -> str:
    """Hash of a JSON value; equal values give equal hashes whatever the order of their keys."""
    content = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()


def code_hash(names: Iterable[str]) -> str:
    """Hash of what rooms and files do: their source without docstrings, comments and blank lines.

    The text is hashed and not the syntax tree, which each version of Python dumps in another way.

    Args:
        names: folders and files from the repository's top, such as `asr/model` or `asr/wer.py`.
    Raises:
        FileNotFoundError: one of them is not there.
    """
    top = Path(__file__).parents[2]
    paths = sorted({path for name in names for path in _python_files(top / name)})
    sources = []
    for path in paths:
        source = without_prose(path.read_text(encoding="utf-8"))
        sources.append([path.relative_to(top).as_posix(), source])
    return hash_of(sources)


def _python_files(path: Path) -> list[Path]:
    """The Python files of a folder, or the file itself."""
    if path.is_dir():
        return list(path.rglob("*.py"))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no code is there")
    return [path]


def without_prose(source: str) -> str:
    """Python source without docstrings, comments and blank lines. Costs 5 ms for 300 lines."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    in_strings = _lines_in_strings(tokens)
    lines = [(text, number in in_strings) for number, text in enumerate(source.split("\n"), 1)]
    # From the end, so that the positions of what comes before stay valid.
    for (first, start), (last, end) in sorted(_prose(tokens), reverse=True):
        before, after = lines[first - 1][0][:start], lines[last - 1][0][end:]
        lines[first - 1 : last] = [(before + after, False)]
    return "\n".join(
        text if in_string else text.rstrip()
        for text, in_string in lines
        if in_string or text.strip()
    )


def _prose(tokens: list[tokenize.TokenInfo]) -> Iterator[Span]:
    """Where comments and docstrings begin and end.

    A docstring is a string that is a statement of its own: it follows the beginning of a statement,
    and the end of the statement follows it.
    """
    layout = (tokenize.NL, tokenize.COMMENT)
    statement_ends = (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    previous = tokenize.NEWLINE
    string = None  # a string at the beginning of a statement
    for token in tokens:
        if token.type == tokenize.COMMENT:
            yield token.start, token.end
        if token.type in layout:
            continue
        if string and token.type == tokenize.NEWLINE:
            yield string.start, string.end
        begins_statement = previous in statement_ends
        string = token if token.type == tokenize.STRING and begins_statement else None
        previous = token.type


def _lines_in_strings(tokens: list[tokenize.TokenInfo]) -> set[int]:
    """Lines that end inside a string: what looks like layout there is content."""
    lines: set[int] = set()
    begun = []  # f-strings are several tokens from Python 3.12 on
    for token in tokens:
        if token.type == tokenize.STRING:
            lines |= set(range(token.start[0], token.end[0]))
        elif token.type == getattr(tokenize, "FSTRING_START", None):
            begun.append(token.start[0])
        elif token.type == getattr(tokenize, "FSTRING_END", None):
            lines |= set(range(begun.pop(), token.end[0]))
    return lines
