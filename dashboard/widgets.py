"""What several pages show alike: text as text, numbers with their units, empty states, faults. Costs nothing to import."""

from __future__ import annotations

import re

import streamlit as st

from asr.errors import Fault

MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~<>$:&])")


def plain(text: object) -> str:
    """A text for a label or message that Streamlit reads as Markdown: shown as it is, on one line."""
    return MARKDOWN.sub(r"\\\1", " ".join(str(text).split()))


def percent(share: float | None, digits: int = 1) -> str:
    """A fraction as percent; a dash where it is not known."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def span(seconds: float | None) -> str:
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


def empty(what: str, *commands: str) -> None:
    """Say what is not there yet, and the commands that make it."""
    st.info(plain(what), icon=":material/info:")
    if commands:
        st.code("\n".join(commands), language="bash")


def fault(error: Fault) -> None:
    """A known fault: one line, as on the command line."""
    st.warning(plain(error), icon=":material/warning:")
