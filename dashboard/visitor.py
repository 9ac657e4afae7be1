"""Who looks at a page: found again by a key in the browser's local storage.

The key is made in the browser, once, and sent over the page's own connection. It stands in no
address and no log. What it opens is `asr.transcribe.visitors`.
"""

from __future__ import annotations

import streamlit as st

from asr.errors import UserError
from asr.transcribe import visitors
from asr.transcribe.visitors import KEPT_DAYS, Visitor
from dashboard import widgets
from dashboard.session import note_tab, transcription_queue

# Two tabs that open at once for the first time both write a key; the last one counts, so the key
# is read again a little later. Where the browser stores nothing, the key is that of this tab.
SCRIPT = """
const NAME = "earshot-visitor"
const isKey = (text) => /^[0-9a-f]{32}$/.test(text ?? "")

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")
}

export default function ({ setStateValue }) {
  let key = null
  try {
    key = localStorage.getItem(NAME)
    if (isKey(key)) {
      setStateValue("key", key)
      return
    }
    key = newKey()
    localStorage.setItem(NAME, key)
  } catch {
    key = key ?? newKey()
  }
  const tell = () => {
    try {
      key = localStorage.getItem(NAME) ?? key
    } catch {}
    setStateValue("key", key)
  }
  const timer = setTimeout(tell, 100)
  return () => clearTimeout(timer)
}
"""
# What the pages keep in the session of what a visitor brought.
SESSION_NAMES = (
    "recording",
    "brought",
    "refused",
    "asked_link",
    "playing",
    "asked",
    "just_asked",
    "talk",
)
ask_browser = st.components.v2.component("visitor", js=SCRIPT)


def current() -> Visitor | None:
    """The visitor of this tab; None until their browser has told the key, a moment after opening.

    Counts as a use of what the visitor keeps here.
    """
    key = st.session_state.get("visitor_key")
    if key is None:
        key = ask_browser(key="visitor", on_key_change=lambda: None).key
        if key is None:
            return None
    try:
        visitor = visitors.visitor(key)
    except UserError as error:
        widgets.show_error(error)
        return None
    st.session_state.visitor_key = key
    note_tab(visitor.owner)
    visitor.touch()
    return visitor


def show_deletion(visitor: Visitor) -> None:
    """Say what is kept and how long, with the button that deletes it."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(
            "What you bring, correct and say here stays on this server until "
            f"{KEPT_DAYS} days after its last use. Only this browser finds it again."
        )
        with st.popover("Delete everything I brought", icon=":material/delete:"):
            st.text("Recordings, transcripts, corrections, and the conversation of Talk.")
            if st.button("Delete now", key="delete-everything", type="primary"):
                delete(visitor)
                st.rerun()


def delete(visitor: Visitor) -> None:
    """Delete what the visitor keeps, and forget it in this tab."""
    transcription_queue().forget(visitor.owner)
    visitor.delete()
    for name in SESSION_NAMES:
        st.session_state.pop(name, None)
    # Input widgets get new keys by it, so that they are empty again.
    st.session_state.deletions = st.session_state.get("deletions", 0) + 1
