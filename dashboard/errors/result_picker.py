"""Which results a page is about: a revision and a model in it, chosen by the person; the table of utterances is read once per content."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import streamlit as st

from asr import paths
from asr.errors import BadData, Fault
from asr.evaluation import slices
from asr.evaluation.slices import Heard
from asr.runs import reports, revisions
from asr.runs.revisions import Revision
from asr.storage import hashing
from dashboard import widgets


@dataclass(frozen=True)
class Source:
    """A model at a revision, and what it heard."""

    revision: Revision
    heard: Heard

    @property
    def name(self) -> str:
        return self.heard.model if self.revision.sha is None else f"{self.heard.model} at {self.revision.name}"


def choose(label: str, key: str, optional: bool) -> Source | None:
    """A revision and a model in it; None, with the reason on the page, where there is none."""
    revision_box, model_box = st.columns(2)
    revision = revision_box.selectbox(
        label,
        known(str(paths.root())),
        index=None if optional else 0,
        format_func=lambda one: one.name if one.sha is None else f"{one.name} ({one.kind})",
        placeholder="no other model",
        key=f"errors_{key}_revision",
    )
    if revision is None:
        return None
    try:
        table, digest = read(revision)
    except Fault as error:
        widgets.empty(f"No utterances at {revision.name}: {error}", *(["dvc pull", "dvc repro"] if revision.sha is None else []))
        return None
    model = model_box.selectbox("Model", slices.models(table), key=f"errors_{key}_model")
    return None if model is None else Source(revision, Heard(table, digest, model))


@st.cache_data(ttl=10, max_entries=4, show_spinner=False)
def known(top: str) -> list[Revision]:  # noqa: ARG001 (what it is kept by)
    """The revisions of the repository at `top`; git is asked every ten seconds at most."""
    return revisions.known()


def read(revision: Revision) -> tuple[pa.Table, str]:
    """A revision's table of utterances, and its hash.

    Raises:
        BadData: it is not to be had, or damaged.
    """
    with st.spinner(f"Fetching the utterances of {widgets.plain(revision.name)}"):
        path = revisions.fetch(revision, paths.UTTERANCES)
    try:
        digest = hashing.sha256(path)
    except OSError as error:
        raise BadData(f"{path.name}: cannot be read ({type(error).__name__}); run dvc checkout or dvc repro") from None
    return table_of(path, digest), digest


@st.cache_resource(max_entries=6, show_spinner=False)
def table_of(path: Path, digest: str) -> pa.Table:  # noqa: ARG001 (what it is kept by)
    return reports.read_utterances(path)
