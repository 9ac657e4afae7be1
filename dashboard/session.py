"""What all visitors of this server share: one transcription queue, and git's revisions.

And which tabs of a browser are open. Importing costs numpy and streamlit.
"""

from __future__ import annotations

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from asr import paths
from asr.runs import revisions
from asr.runs.revisions import Revision
from asr.transcribe import visitors
from asr.transcribe.job_queue import TranscriptionQueue


def session_id() -> str:
    """The id of this browser tab's session."""
    context = get_script_run_ctx()
    return context.session_id if context else "nobody"


def is_connected(session: str) -> bool:
    """Whether a session's tab is still connected; without a server, as in tests, always true."""
    return not runtime.exists() or runtime.get_instance().is_active_session(session)


_tabs: dict[str, set[str]] = {}  # the sessions of each visitor; some may be closed


def note_tab(owner: str) -> None:
    """Note that this tab is one of a visitor."""
    _tabs.setdefault(owner, set()).add(session_id())


def is_present(owner: str) -> bool:
    """Whether a visitor has a tab open."""
    sessions = list(_tabs.get(owner, ()))
    is_open = any(is_connected(session) for session in sessions)
    if not is_open:
        _tabs.pop(owner, None)
    return is_open


@st.cache_resource(show_spinner=False)  # makes one queue, even for two simultaneous first visitors
def transcription_queue() -> TranscriptionQueue:
    """The queue in which the recordings of all visitors wait to be transcribed."""
    return TranscriptionQueue(paths.cache("sessions"), is_present, visitors.sweep)


@st.cache_data(ttl=10, max_entries=4, show_spinner=False)
def list_revisions(root: str) -> list[Revision]:  # noqa: ARG001 (part of the cache key)
    """The revisions of the repository at `root`, cached for ten seconds."""
    return revisions.list_revisions()
