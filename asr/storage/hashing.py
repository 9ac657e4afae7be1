"""Chance that depends on a key alone, so that a corpus which grows moves nobody. 1 us a key."""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path
from typing import Any


def fraction_of(key: str) -> float:
    """A number in [0, 1), the same for the same key on any machine."""
    return int.from_bytes(hashlib.sha256(key.encode(errors="surrogateescape")).digest()[:8], "big") / 2**64


def split_of(key: str) -> str:
    """Eight in ten keys train, one validates, one tests."""
    place = fraction_of(f"split:{key}")
    return "train" if place < 0.8 else "validation" if place < 0.9 else "test"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(value: Any) -> str:
    """Hash of a JSON value; equal values give equal hashes whatever the order of their keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def code_hash(*modules: str) -> str:
    """Hash of what modules such as `asr.features` do: their syntax trees, so that a comment changes nothing."""
    top = Path(__file__).parents[2]
    trees = [ast.dump(ast.parse((top / f"{name.replace('.', '/')}.py").read_bytes())) for name in modules]
    return hash_of(trees)
