"""Which results a page is about: a revision and a model in it, chosen by the person; the table of
utterances is read once per content.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import streamlit as st

from asr import paths
from asr.errors import DataError, UserError
from asr.evaluation import slices
from asr.evaluation.slices import ModelResults
from asr.runs import reports, revisions
from asr.runs.revisions import Revision
from asr.storage import hashing
from dashboard import widgets


@dataclass(frozen=True)
class ResultSource:
    """A model at a revision, and what it heard."""

    revision: Revision
    heard: ModelResults

    @property
    def name(self) -> str:
        return (
            self.heard.model
            if self.revision.sha is None
            else f"{self.heard.model} at {self.revision.name}"
        )


def choose(label: str, key: str, optional: bool) -> ResultSource | None:
    """A revision and a model in it; None, with the reason on the page, where there is none."""
    revision_box, model_box = st.columns(2)
    revision = revision_box.selectbox(
        label,
        list_revisions(str(paths.root())),
        index=None if optional else 0,
        format_func=lambda one: one.name if one.sha is None else f"{one.name} ({one.kind})",
        placeholder="no other model",
        key=f"errors_{key}_revision",
    )
    if revision is None:
        return None
    try:
        table, digest = read(revision)
    except UserError as error:
        widgets.empty(
            f"No utterances at {revision.name}: {error}",
            *(["dvc pull", "dvc repro"] if revision.sha is None else []),
        )
        return None
    model = model_box.selectbox("Model", slices.models(table), key=f"errors_{key}_model")
    return None if model is None else ResultSource(revision, ModelResults(table, digest, model))


@st.cache_data(ttl=10, max_entries=4, show_spinner=False)
def list_revisions(top: str) -> list[Revision]:  # noqa: ARG001 (what it is kept by)
    """The revisions of the repository at `top`; git is asked every ten seconds at most."""
    return revisions.list_revisions()


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
        raise DataError(
            f"{path.name}: cannot be read ({type(error).__name__}); run dvc checkout or dvc repro"
        ) from None
    return table_of(path, digest), digest


@st.cache_resource(max_entries=6, show_spinner=False)
def table_of(path: Path, digest: str) -> pa.Table:  # noqa: ARG001 (what it is kept by)
    return reports.read_utterances(path)
