"""Widgets of several pages: escaped text, empty states, user errors. Cheap to import."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

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


def day(seconds: float) -> str:
    """A date in the reader's own time zone: 26 Nov 2026.

    Args:
        seconds: since 1970.
    """
    return datetime.fromtimestamp(seconds, zone()).strftime("%-d %b %Y")


def zone() -> tzinfo:
    """The reader's time zone, as the browser tells it, which may be any text."""
    try:
        return ZoneInfo(st.context.timezone or "UTC")
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return UTC
