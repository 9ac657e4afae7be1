"""Ask for the results to show: a revision, and a model that was tested there.

A table of utterances is read once, and cached by its hash.
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
from dashboard.session import list_revisions


@dataclass(frozen=True)
class ResultSource:
    """A model at a revision, and its hypotheses."""

    revision: Revision
    results: ModelResults

    @property
    def name(self) -> str:
        model = self.results.model
        return model if self.revision.sha is None else f"{model} at {self.revision.name}"


def choose(label: str, key: str, optional: bool) -> ResultSource | None:
    """Ask for a revision and a model; None, with the reason on the page, if there is none."""
    revision_box, model_box = st.columns(2)
    revision = revision_box.selectbox(
        label,
        list_revisions(str(paths.root())),
        index=None if optional else 0,
        format_func=_revision_label,
        placeholder="no other model",
        key=f"errors_{key}_revision",
    )
    if revision is None:
        return None
    try:
        table, digest = read(revision)
    except UserError as error:
        commands = ["dvc pull", "dvc repro"] if revision.sha is None else []
        widgets.empty_state(f"No utterances at {revision.name}: {error}", *commands)
        return None
    model = model_box.selectbox("Model", slices.models(table), key=f"errors_{key}_model")
    if model is None:
        return None
    return ResultSource(revision, ModelResults(table, digest, model))


def _revision_label(revision: Revision) -> str:
    if revision.sha is None:
        return revision.name
    return f"{revision.name} ({revision.kind})"


def read(revision: Revision) -> tuple[pa.Table, str]:
    """Read a revision's table of utterances; return it with its hash.

    Raises:
        DataError: it cannot be fetched, or is damaged.
    """
    with st.spinner(f"Fetching the utterances of {widgets.plain(revision.name)}"):
        path = revisions.fetch(revision, paths.UTTERANCES)
    try:
        digest = hashing.sha256(path)
    except OSError as error:
        raise DataError(
            f"{path.name}: cannot be read ({type(error).__name__}); run dvc checkout or dvc repro"
        ) from None
    return _read_table(path, digest), digest


@st.cache_resource(max_entries=6, show_spinner=False)
def _read_table(path: Path, digest: str) -> pa.Table:  # noqa: ARG001 (part of the cache key)
    return reports.read_utterances(path)
