"""Choices in the address: what a visitor chose survives reload, menu, Back and a sent link, and
nothing that an address can hold makes a page fail.
"""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

ODD = "a:b & c=d/å 𝄞?#%+"
NOTHING = ["", None, [], "one", True, 1, []]
# A choice of each kind: the address, and what the page then shows.
CHOICES: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("a text", {"text": ODD}, [ODD, *NOTHING[1:]]),
    ("one of many", {"fruit": "pear"}, ["", "pear", *NOTHING[2:]]),
    ("several", {"basket": ["pear", ODD]}, ["", None, ["pear", ODD], *NOTHING[3:]]),
    ("another than the default", {"kind": "two"}, [*NOTHING[:3], "two", *NOTHING[4:]]),
    ("none where the default is one", {"kind": ""}, [*NOTHING[:3], None, *NOTHING[4:]]),
    ("off", {"narrow": "false"}, [*NOTHING[:4], False, *NOTHING[5:]]),
    ("a number", {"number": "7"}, [*NOTHING[:5], 7, []]),
    ("what is no widget", {"ticked": ["b", "a"]}, [*NOTHING[:6], ["b", "a"]]),
]
# Addresses that nobody should have; what is not a choice is left at its default.
HOSTILE: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("markup is text", {"text": "<script>x</script>"}, ["<script>x</script>", *NOTHING[1:]]),
    ("a long text is cut", {"text": "x" * 5000}, ["x" * 1000, *NOTHING[1:]]),
    ("a text twice", {"text": ["a", "b"]}, ["b", *NOTHING[1:]]),
    ("a text of nothing", {"text": ""}, NOTHING),
    ("neither on nor off", {"narrow": "maybe"}, NOTHING),
    ("no number", {"number": "one"}, NOTHING),
    ("a number that is too large", {"number": "9" * 150}, [*NOTHING[:5], 9, []]),
    ("a number that is too small", {"number": "0"}, NOTHING),
    ("a negative number", {"number": "-3"}, NOTHING),
    ("a number that is infinite", {"number": "1e400"}, NOTHING),
    ("a number in other digits", {"number": "²"}, NOTHING),
    ("names that nobody knows", {"foo": "1", "address_page": "x", "": "y"}, NOTHING),
    ("a thousand values", {"ticked": ["t"] * 900}, [*NOTHING[:6], ["t"] * 100]),
    ("nothing several times", {"basket": ["", "", ""]}, NOTHING),
    ("half a surrogate", {"text": "\ufffd\ufffd"}, ["\ufffd\ufffd", *NOTHING[1:]]),
]


def app() -> None:
    """Two pages, of which session_state["page"] is shown; one has each kind of choice."""
    import streamlit as st

    from dashboard import address

    fruits = st.session_state.get("offered", ["apple", "pear", "a:b & c=d/å 𝄞?#%+"])
    page = st.session_state.get("page", "First")
    address.open_page(page)
    if page == "Second":
        st.json([st.text_input("Search", **address.widget("search", ""))])
        return
    text = st.text_input("Text", max_chars=50, **address.widget("text", ""))
    offered = address.options("fruit", fruits)
    fruit = st.selectbox("Fruit", offered, index=None, **address.widget("fruit"))
    offered = address.options("basket", fruits)
    basket = st.multiselect("Basket", offered, **address.widget("basket", []))
    kind = st.segmented_control("Kind", ["one", "two"], **address.widget("kind", "one"))
    narrow = st.toggle("Narrow", **address.widget("narrow", True))
    number = st.number_input("Number", 1, 9, **address.widget("number", 1, most=9))
    st.button("Tick", on_click=address.put, args=("ticked", ["b", "a"]))
    st.button("Untick", on_click=address.put, args=("ticked", None))
    st.json([text, fruit, basket, kind, narrow, number, address.values("ticked")])


def visit(told: dict[str, Any] | None = None, page: str = "First") -> AppTest:
    """A fresh browser at this address."""
    visitor = AppTest.from_function(app, default_timeout=60)
    visitor.query_params.update(told or {})
    visitor.session_state["page"] = page
    return run(visitor)


def run(visitor: AppTest) -> AppTest:
    visitor.run()
    assert not visitor.exception
    return visitor


def turn_to(visitor: AppTest, page: str, told: dict[str, Any] | None = None) -> AppTest:
    """Another page, at a bare address, as a link without choices leads there."""
    visitor.session_state["page"] = page
    visitor.query_params.clear()
    visitor.query_params.update(told or {})
    return run(visitor)


def shown(visitor: AppTest) -> list[Any]:
    import json

    choices: list[Any] = json.loads(visitor.json[0].value)
    return choices


def choose_everything(visitor: AppTest) -> None:
    visitor.text_input[0].set_value(ODD).run()
    visitor.selectbox[0].set_value("pear").run()
    visitor.multiselect[0].set_value(["pear", ODD]).run()
    visitor.button_group[0].set_value("two").run()
    visitor.toggle[0].set_value(False).run()
    visitor.number_input[0].set_value(7).run()
    visitor.button[0].click().run()


ALL = [ODD, "pear", ["pear", ODD], "two", False, 7, ["b", "a"]]


@pytest.mark.parametrize(
    ("told", "wanted"), [row[1:] for row in CHOICES], ids=[r[0] for r in CHOICES]
)
def test_an_address_shows_its_choice_and_a_reload_shows_it_again(
    told: dict[str, Any], wanted: list[Any]
) -> None:
    visitor = visit(told)
    assert shown(visitor) == wanted
    assert visitor.query_params == told
    assert shown(run(visitor)) == wanted
    assert shown(visit(visitor.query_params)) == wanted


@pytest.mark.parametrize(
    ("told", "wanted"), [row[1:] for row in HOSTILE], ids=[r[0] for r in HOSTILE]
)
def test_no_address_makes_a_page_fail(told: dict[str, Any], wanted: list[Any]) -> None:
    assert shown(visit(told)) == wanted


def test_what_is_chosen_is_in_the_address_and_a_link_shows_it_in_another_browser() -> None:
    visitor = visit()
    assert visitor.query_params == {}
    choose_everything(visitor)
    assert shown(visitor) == ALL
    assert shown(visit(visitor.query_params)) == ALL


def test_a_choice_that_is_taken_back_leaves_the_address() -> None:
    visitor = visit()
    choose_everything(visitor)
    visitor.text_input[0].set_value("").run()
    visitor.selectbox[0].set_value(None).run()
    visitor.multiselect[0].set_value([]).run()
    visitor.button_group[0].set_value("one").run()
    visitor.toggle[0].set_value(True).run()
    visitor.number_input[0].set_value(1).run()
    visitor.button[1].click().run()
    assert shown(visitor) == NOTHING
    assert visitor.query_params == {}


def test_choices_survive_another_page_each_its_own() -> None:
    visitor = visit()
    choose_everything(visitor)
    address = dict(visitor.query_params)
    turn_to(visitor, "Second")
    assert visitor.query_params == {}
    visitor.text_input[0].set_value("found").run()
    turn_to(visitor, "First")
    assert shown(visitor) == ALL
    assert visitor.query_params == address
    assert shown(turn_to(visitor, "Second")) == ["found"]


def test_a_link_with_choices_of_its_own_is_followed_as_it_is() -> None:
    visitor = visit()
    choose_everything(visitor)
    turn_to(visitor, "Second")
    turn_to(visitor, "First", {"fruit": "apple"})
    assert shown(visitor) == ["", "apple", *NOTHING[2:]]
    assert visitor.query_params == {"fruit": "apple"}


def test_an_address_that_is_older_than_the_last_choice_does_not_undo_it() -> None:
    """Two quick choices: with the second one the browser tells the address before the first."""
    visitor = visit()
    visitor.text_input[0].set_value("quick").run()
    visitor.query_params.clear()
    visitor.toggle[0].set_value(False).run()
    assert shown(visitor)[0] == "quick"
    assert visitor.query_params == {"text": "quick", "narrow": "false"}


@pytest.mark.parametrize("told", [{"fruit": "gone"}, {"basket": ["pear", "gone"]}, {"fruit": ODD}])
def test_what_is_not_offered_now_is_kept_until_it_is(told: dict[str, Any]) -> None:
    """As a run is that the index has not read yet."""
    visitor = AppTest.from_function(app, default_timeout=60)
    visitor.query_params.update(told)
    visitor.session_state["offered"] = []
    run(visitor)
    before = shown(visitor)
    visitor.text_input[0].set_value("else").run()
    visitor.session_state["offered"] = ["gone", "pear", ODD]
    run(visitor)
    assert shown(visitor) == ["else", *before[1:]]
    assert {**told, "text": "else"} == visitor.query_params
    assert before != NOTHING
