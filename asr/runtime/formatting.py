"""Numbers and addresses as people read them, and text inside a Markdown table. Costs microseconds."""

from __future__ import annotations

import html
import re


def cell(text: str) -> str:
    """Text inside a Markdown table, shown as text."""
    escaped = "".join(
        f"\\{character}" if character in r"\`*_{}[]#|~!" else character
        for character in html.escape(text, quote=False)
    )
    return " ".join(escaped.split()) or "(nothing)"


def bytes_text(num_bytes: float) -> str:
    """Bytes as people say them."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"


def rough_duration(seconds: float) -> str:
    """A time in words."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} s"


def percent(share: float | None, digits: int = 1) -> str:
    """A fraction as percent; a dash where it is not known."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def duration_text(seconds: float | None) -> str:
    """A length of time in the two units that matter."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def clock(seconds: float) -> str:
    """A moment in a recording, as players show it: 1:02:03.4."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    shown = f"{tenths / 10:04.1f}"
    return f"{hours}:{minutes:02d}:{shown}" if hours else f"{minutes}:{shown}"


def without_secret(address: str | None) -> str:
    """An address without the password or token that may stand in it."""
    return re.sub(r"//[^/]*@", "//", (address or "").partition("?")[0])
