"""The dashboard's entry point: the list of its pages.

    streamlit run dashboard     # or: make dashboard; http://127.0.0.1:8501

Opening it imports neither torch nor transformers nor MLflow.
"""

from __future__ import annotations

import os
from pathlib import Path

import streamlit as st

# The pages look for the repository where DVC_ROOT points, so this comes before their import.
os.environ.setdefault("DVC_ROOT", str(Path(__file__).resolve().parents[1]))

from dashboard import address
from dashboard.data import page as data
from dashboard.errors import page as errors
from dashboard.runs import page as runs
from dashboard.talk import page as talk
from dashboard.transcribe import page as transcribe

# The icon is a file of ours: a Material symbol would be fetched from another host.
ICON = Path(__file__).with_name("icon.svg")

st.set_page_config(page_title="Earshot", page_icon=str(ICON), layout="wide")
st.html("<style>.stMainBlockContainer { padding-top: 3rem; max-width: 90rem; }</style>")
pages = [
    st.Page(runs.page, title="Runs", icon=":material/query_stats:", url_path="runs", default=True),
    st.Page(errors.page, title="Errors", icon=":material/spellcheck:", url_path="errors"),
    st.Page(data.page, title="Data", icon=":material/database:", url_path="data"),
    st.Page(transcribe.page, title="Transcribe", icon=":material/mic:", url_path="transcribe"),
    st.Page(talk.page, title="Talk", icon=":material/forum:", url_path="talk"),
]
shown = st.navigation(pages, position="hidden")
# A menu of our own: Streamlit's leads to bare addresses.
with st.container(horizontal=True):
    for page in pages:
        st.page_link(page, query_params=address.choices(page.title))
shown.run()
