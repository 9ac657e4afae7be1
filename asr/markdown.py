"""Escape text for a Markdown table, so that it is shown as it is. Imports nothing."""

from __future__ import annotations

import html

MARKDOWN_SIGNS = r"\`*_{}[]#|~!"


def cell(text: str) -> str:
    """Text for a cell of a Markdown table: one line, with its markup escaped."""
    escaped = "".join(
        f"\\{character}" if character in MARKDOWN_SIGNS else character
        for character in html.escape(text, quote=False)
    )
    return " ".join(escaped.split()) or "(nothing)"
