"""A check and its result, and the table of all results: reports/train/checks.json.

Each check looks at what training produced by another way than the one that produced it, and knows
no particular fault. All checks together cost one more evaluation of the validation rows, and a few
passes of one batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: its key in checks.json.
        passed: whether what was looked at is sound.
        detail: what was seen, in words.
    """

    name: str
    passed: bool
    detail: str


def table(checks: Iterable[Check]) -> dict[str, Any]:
    """The content of checks.json: `{passed, detail}` by name."""
    results = {}
    for check in checks:
        values = asdict(check)
        results[values.pop("name")] = values
    return results
