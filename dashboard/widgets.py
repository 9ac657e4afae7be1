"""Widgets of several pages: escaped text, empty states, user errors. Cheap to import."""

from __future__ import annotations

import re

import streamlit as st

from asr.errors import UserError

MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~<>$:&])")


def plain(text: object) -> str:
    """Escape a text for a place where Streamlit reads Markdown, and put it on one line."""
    return MARKDOWN.sub(r"\\\1", " ".join(str(text).split()))


def empty_state(message: str, *commands: str) -> None:
    """Say what is not there yet, and show the commands that make it."""
    st.info(plain(message), icon=":material/info:")
    if commands:
        st.code("\n".join(commands), language="bash")


def show_error(error: UserError) -> None:
    """Show a user error as one line, as the command line does."""
    st.warning(plain(error), icon=":material/warning:")
