"""What several pages show alike: text as text, numbers with their units, empty states, faults.
Costs nothing to import.
"""

from __future__ import annotations

import re

import streamlit as st

from asr.errors import UserError

MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~<>$:&])")


def plain(text: object) -> str:
    """A text for a label or message that Streamlit reads as Markdown: shown as it is, on one line."""
    return MARKDOWN.sub(r"\\\1", " ".join(str(text).split()))


def empty(what: str, *commands: str) -> None:
    """Say what is not there yet, and the commands that make it."""
    st.info(plain(what), icon=":material/info:")
    if commands:
        st.code("\n".join(commands), language="bash")


def fault(error: UserError) -> None:
    """A known fault: one line, as on the command line."""
    st.warning(plain(error), icon=":material/warning:")
