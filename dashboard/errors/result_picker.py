"""Ask for the results to show: a run, and a model that was tested with it.

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
from asr.evaluation.table import FINETUNED, START, START_CUT
from asr.runs import reports, revisions
from asr.runs.revisions import Revision
from asr.storage import hashing
from dashboard import address, widgets, workspace
from dashboard.errors.offers import Offer, Offers

MAX_OFFERED = 300  # runs in the list, the newest; a link shows any other
MODELS = {
    FINETUNED: "after training",
    START: "before training",
    START_CUT: "before training, its window cut",
}


@dataclass(frozen=True)
class ResultSource:
    """A model that was tested with a run, and its hypotheses."""

    offer: Offer
    results: ModelResults

    @property
    def revision(self) -> Revision:
        return self.offer.revision

    @property
    def name(self) -> str:
        model = self.results.model
        return self.offer.name if model == FINETUNED else f"{self.offer.name}, {model_label(model)}"


def model_label(model: str) -> str:
    return MODELS.get(model, model)


def choose(label: str, name: str, offers: Offers, optional: bool) -> ResultSource | None:
    """Ask for a run and a model; None, with the reason on the page, if there is none.

    Args:
        name: of the choice in the address.
        optional: nothing is chosen at first.
    """
    run_box, model_box = st.columns([3, 2])
    first = None if optional else next(iter(offers.here))
    with run_box:
        id = st.selectbox(
            label,
            address.options(name, list(offers.here)[:MAX_OFFERED]),
            index=None if optional else 0,
            format_func=lambda id: run_label(offers, id),
            placeholder="no other model",
            **address.widget(name, first),
        )
    if id is None:
        return None
    if id not in offers.here:
        say_absent(offers, id)
        return None
    offer = offers.here[id]
    try:
        table, digest = read(offer.revision)
    except UserError as error:
        workspace.not_made(f"The results of {offer.name} cannot be read: {error}")
        return None
    models = slices.models(table)
    with model_box:
        model = st.selectbox(
            "Model",
            models,
            format_func=model_label,
            **address.widget(f"{name}_model", models[0]),
        )
    say_stale(offer)
    return ResultSource(offer, ModelResults(table, digest, model)) if model else None


def run_label(offers: Offers, id: str) -> str:
    if id in offers.here:
        return offers.here[id].label
    return f"{offers.absent.get(id, id)} (not here)"


def say_absent(offers: Offers, id: str) -> None:
    message = f"The results of {offers.absent.get(id, id)} are not on this computer."
    if id in offers.absent and id not in offers.fetchable:
        widgets.empty_state(f"{message} No commit holds them; train it again to have them.")
    else:
        widgets.empty_state(f"{message} This brings them if they were pushed:", "dvc fetch")


def say_stale(offer: Offer) -> None:
    """Say that results in the workspace are not of the files there, if so."""
    if not offer.stale:
        return
    message = f"These are results of {offer.name}, not of your present files: {offer.stale}."
    if workspace.is_being_made():
        widgets.empty_state(f"{message} {workspace.BEING_MADE}")
    else:
        widgets.empty_state(f"{message} To test them:", "dvc repro evaluate")


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
