"""Who looks at a page, and the one desk where all of them have recordings transcribed. Importing
costs numpy and streamlit.
"""

from __future__ import annotations

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from asr import paths
from asr.transcribe.job_queue import TranscriptionQueue


def owner() -> str:
    """This browser tab's session."""
    context = get_script_run_ctx()
    return context.session_id if context else "nobody"


def present(session: str) -> bool:
    """Whether a session's tab is still connected; without a server, as in tests, everybody is."""
    return not runtime.exists() or runtime.get_instance().is_active_session(session)


@st.cache_resource(show_spinner=False)  # one, also for two who come at the same moment
def desk() -> TranscriptionQueue:
    return TranscriptionQueue(paths.cache("sessions"), present)
