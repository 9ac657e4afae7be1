"""Numbers and addresses as people read them, and text inside a Markdown table. Costs microseconds."""

from __future__ import annotations

import html


def cell(text: str) -> str:
    """Text inside a Markdown table, shown as text."""
    escaped = "".join(f"\\{character}" if character in r"\`*_{}[]#|~!" else character for character in html.escape(text, quote=False))
    return " ".join(escaped.split()) or "(nothing)"
