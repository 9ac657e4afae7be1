"""Text inside a Markdown table, shown as text whatever it holds. Imports nothing."""

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
