"""Numbers and addresses as people read them, and text inside a Markdown table.

Costs microseconds.
"""

from __future__ import annotations

import re


def bytes_text(num_bytes: float) -> str:
    """A size in GB, or in MB below one GB: 1.5 GB."""
    if num_bytes >= 1e9:
        return f"{num_bytes / 1e9:,.1f} GB"
    return f"{num_bytes / 1e6:,.1f} MB"


def rough_duration(seconds: float) -> str:
    """A length of time in the one unit that gives at least 2: 3 h, 90 min, 45 s."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} s"


def percent(share: float | None, digits: int = 1) -> str:
    """A fraction as percent; a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def percent_interval(low: float, high: float) -> str:
    """An interval of fractions in percent, without the sign: 7.7–14.4."""
    return f"{100 * low:.1f}–{100 * high:.1f}"


def duration_text(seconds: float | None) -> str:
    """A length of time in two units, 1 h 05 min; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def clock(seconds: float) -> str:
    """A moment in a recording, as players show it: 1:02:03.4."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    hours, minutes = divmod(minutes, 60)
    seconds_text = f"{tenths / 10:04.1f}"
    return f"{hours}:{minutes:02d}:{seconds_text}" if hours else f"{minutes}:{seconds_text}"


def without_secret(address: str | None) -> str:
    """An address without the password or token that may stand in it.

    A password may hold what should have been escaped (`/`, `?`, `@`): in doubt too much is hidden.
    """
    scheme, separator, rest = (address or "").partition("://")
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    _, colon, port = authority.partition(":")
    if "@" in authority:
        rest = rest[authority.rindex("@") + 1 :]
    elif colon and not port.isdecimal():
        rest = rest.rpartition("@")[2]
    return f"{scheme}{separator}{rest}".partition("?")[0]
