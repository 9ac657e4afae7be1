"""The choices of a page in its address: reload, Back, the menu and a sent link show the same.

    address.open_page("Errors")
    st.text_input("Search words", **address.widget("search", ""))
    st.selectbox("Speaker", address.options("speaker", speakers), index=None,
                 **address.widget("speaker"))

Streamlit's `bind="query-params"` is not used: with several pages it leaves addresses without the
choices behind in the browser's history, it drops what is not offered at the moment, and it fails on
some numbers. Nothing here is costly.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

Choices = dict[str, list[str]]  # the values of each name, as an address has them

PAGE, CHOICES = "address_page", "address_choices"  # in the session: the page shown, Choices by page
MAX_VALUES = 100  # of one name
MAX_LENGTH = 1000  # characters of a value that are read; file names have 255


def open_page(page: str) -> None:
    """Take the choices of a page, given by its title, from the address; before it draws anything.

    While a visitor stays on a page the session knows best, as an address that the browser tells
    may be older than the last choice. A page that is opened without choices has those it had last.
    """
    context = get_script_run_ctx()
    is_other_page = st.session_state.get(PAGE) != page
    is_back = context is not None and context.is_history_navigation
    st.session_state[PAGE] = page
    told = {name: st.query_params.get_all(name) for name in st.query_params}
    if is_back or (is_other_page and told):
        _all_choices()[page] = told
    elif told != choices(page):
        st.query_params.from_dict(choices(page))


def choices(page: str) -> Choices:
    """The choices of any page, given by its title; for links that lead to it."""
    return _all_choices().get(page, {})


def values(name: str) -> list[str]:
    """What is chosen under a name on the page shown."""
    told = choices(st.session_state.get(PAGE, "")).get(name, [])
    return [value[:MAX_LENGTH] for value in told[:MAX_VALUES] if value]


def is_chosen(name: str) -> bool:
    """Whether a name is in the address; `?columns=` is a choice, though of nothing."""
    return name in choices(st.session_state.get(PAGE, ""))


def put(name: str, chosen: Iterable[str] | None) -> None:
    """Write a choice into the address, for what `widget` cannot tie; None takes it out."""
    page = _all_choices().setdefault(st.session_state.get(PAGE, ""), {})
    page.pop(name, None)
    if chosen is not None:
        written = list(chosen)[:MAX_VALUES] or [""]
        page[name] = [value.encode(errors="replace").decode() for value in written]
    st.query_params.from_dict(page)


def widget(name: str, default: Any = None, most: int = 1) -> dict[str, Any]:
    """Arguments that tie a widget to the address; leave out the widget's own default.

    Args:
        name: in the address, and the widget's key; one that no other page has.
        default: what the widget shows where nothing is chosen. Its type says what a choice is: a
            bool, a whole number, a list of texts, or a text or None.
        most: the largest whole number that can be chosen; the least is 1.
    """
    value = _parsed(name, default, most) if is_chosen(name) else default
    if name not in st.session_state or st.session_state[name] != value:
        st.session_state[name] = value
    return {"key": name, "on_change": _write, "args": (name, default)}


def options(name: str, offered: list[str]) -> list[str]:
    """What a widget offers: also what is chosen though it is not there, for it would be lost."""
    known = set(offered)
    return [*offered, *dict.fromkeys(value for value in values(name) if value not in known)]


def _parsed(name: str, default: Any, most: int) -> Any:
    """A choice in the type of its default; the default where the address has no such choice."""
    told = values(name)
    if isinstance(default, list):
        return told
    text = told[-1] if told else ""
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text, default)
    if isinstance(default, int):
        is_number = text.isascii() and text.isdigit()
        return min(max(int(text), 1), most) if is_number else default
    return text or ("" if default == "" else None)


def _write(name: str, default: Any) -> None:
    value = st.session_state[name]
    put(name, None if value == default else _texts(value))


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return value if isinstance(value, list) else [str(value)]


def _all_choices() -> dict[str, Choices]:
    kept: dict[str, Choices] = st.session_state.setdefault(CHOICES, {})
    return kept
