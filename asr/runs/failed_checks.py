"""The checks of a training that failed, as its report tells them. Imports nothing slow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asr import paths
from asr.storage import files


def of_report(report: dict[str, Any]) -> dict[str, str]:
    """Name and text of each check that failed.

    Args:
        report: the content of checks.json.
    """
    return {
        name: str(result.get("detail", ""))
        for name, result in report.items()
        if isinstance(result, dict) and not result.get("passed", True)
    }


def in_workspace(root: Path) -> dict[str, str]:
    """The same of the workspace's training; none where it has no such report."""
    path = root / paths.CHECKS
    return of_report(files.read_json(path)) if path.is_file() else {}
