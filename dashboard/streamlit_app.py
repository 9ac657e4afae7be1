"""The dashboard's door: which pages there are, and what stands on each of them.

    streamlit run dashboard     # or: make dashboard; http://127.0.0.1:8501

Opening it imports neither torch nor transformers nor MLflow.
"""

from __future__ import annotations

import os
from pathlib import Path

import streamlit as st

os.environ.setdefault("DVC_ROOT", str(Path(__file__).resolve().parents[1]))

from dashboard.data import page as data
from dashboard.errors import page as errors
from dashboard.runs import page as runs
from dashboard.talk import page as talk
from dashboard.transcribe import page as transcribe

# A Material symbol would be fetched from a foreign host as the tab's icon.
st.set_page_config(
    page_title="Earshot", page_icon=str(Path(__file__).with_name("icon.svg")), layout="wide"
)
st.html("<style>.stMainBlockContainer { padding-top: 4.5rem; max-width: 90rem; }</style>")
pages = [
    st.Page(runs.page, title="Runs", icon=":material/query_stats:", url_path="runs", default=True),
    st.Page(errors.page, title="Errors", icon=":material/spellcheck:", url_path="errors"),
    st.Page(data.page, title="Data", icon=":material/database:", url_path="data"),
    st.Page(transcribe.page, title="Transcribe", icon=":material/mic:", url_path="transcribe"),
    st.Page(talk.page, title="Talk", icon=":material/forum:", url_path="talk"),
]
st.navigation(pages, position="top").run()
