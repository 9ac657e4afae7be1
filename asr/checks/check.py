"""One question to a training, and the table of all of them: reports/train/checks.json.

None of the checks knows a particular fault: each looks at the result from outside, by another way
than the one that made it. Together they cost one more evaluation of the validation rows, and a few
passes of one batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Check:
    """One question, whether it was answered well, and with what."""

    name: str
    passed: bool
    detail: str


def table(checks: Iterable[Check]) -> dict[str, Any]:
    """For checks.json: by name."""
    return {
        one.name: {key: value for key, value in asdict(one).items() if key != "name"}
        for one in checks
    }
