"""Hashes of files, values and code, and chance that depends on a key alone, so that a corpus which
grows moves nobody.
"""

from __future__ import annotations

import hashlib
import io
import json
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def fraction_of(key: str) -> float:
    """A number in [0, 1), the same for the same key on any machine."""
    return (
        int.from_bytes(hashlib.sha256(key.encode(errors="surrogateescape")).digest()[:8], "big")
        / 2**64
    )


def split_of(key: str) -> str:
    """Eight in ten keys train, one validates, one tests."""
    place = fraction_of(f"split:{key}")
    return "train" if place < 0.8 else "validation" if place < 0.9 else "test"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(value: Any) -> str:
    """Hash of a JSON value; equal values give equal hashes whatever the order of their keys."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, ensure_ascii=False).encode()
    ).hexdigest()


def code_hash(names: Iterable[str]) -> str:
    """Hash of what rooms and files do: their source text without docstrings, comments and blank
    lines.

    The text and not the syntax tree, which every version of Python dumps in another way.

    Args:
        names: folders and files from the repository's top, such as `asr/model` or `asr/wer.py`.
    Raises:
        FileNotFoundError: one of them is not there.
    """
    top = Path(__file__).parents[2]
    paths = sorted({path for name in names for path in _python_files(top / name)})
    return hash_of(
        [
            [path.relative_to(top).as_posix(), without_prose(path.read_text(encoding="utf-8"))]
            for path in paths
        ]
    )


def _python_files(place: Path) -> list[Path]:
    if place.is_dir():
        return list(place.rglob("*.py"))
    if not place.is_file():
        raise FileNotFoundError(f"{place}: no code is there")
    return [place]


def without_prose(source: str) -> str:
    """Python source without docstrings, comments and blank lines. 5 ms for 300 lines."""
    lines = source.splitlines()
    for (first, start), (last, end) in sorted(_prose(source), reverse=True):
        rest = lines[last - 1][end:]
        lines[first - 1 : last] = [lines[first - 1][:start] + rest]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _prose(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where comments and docstrings begin and end: line, counted from 1, and column.

    A docstring is a string that is a statement of its own.
    """
    layout = (tokenize.NL, tokenize.COMMENT)
    begins = (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    before = tokenize.NEWLINE
    held = None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start, token.end
        if token.type in layout:
            continue
        if held and token.type == tokenize.NEWLINE:
            yield held.start, held.end
        held = token if token.type == tokenize.STRING and before in begins else None
        before = token.type
