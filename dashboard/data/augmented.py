"""Augmented copies of a training row to listen to, made with the values of params.yaml.

They are made on demand (1 s) by a child process, which decodes and computes; this process only
passes files to the browser's player.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import streamlit as st

from asr import paths
from asr.errors import DataError
from asr.params import reader
from asr.runtime.child import run_child
from asr.storage import corpus, hashing
from dashboard import address, widgets

OFFERED_ROWS = 100
MAX_SHOWN_COPIES = 5
LIMIT_SECONDS = 60

Sounds = list[tuple[str, bytes]]  # caption and WAV file


def show(root: Path) -> None:
    """Ask for a row, and on demand show players for it and its copies."""
    split = root / paths.CHUNKS / "train"
    ids = corpus.first_ids(split, OFFERED_ROWS)
    if not ids:
        st.caption("There is no training row.")
        return
    choice, button = st.columns([6, 2.5], vertical_alignment="bottom")
    id = choice.selectbox(
        "Training row",
        ids,
        help=f"One of the first {len(ids)}",
        **address.widget("data_copied", ids[0]),
    )
    if button.button("Make copies", key="data_make_copies", icon=":material/graphic_eq:"):
        st.session_state["data_heard"] = id
    params_hash = _file_hash(root / "params.yaml")
    st.caption(_use(num_copies(root, params_hash)))
    if id is None or st.session_state.get("data_heard") != id:
        return
    for caption, sound in make_copies(root, id, corpus.split_hash(split), params_hash):
        st.caption(widgets.plain(caption))
        st.audio(sound, format="audio/wav")


@st.cache_data(max_entries=4, show_spinner=False)
def num_copies(root: Path, params_hash: str) -> int:  # noqa: ARG001 (part of the cache key)
    """How many copies of each training row `featurize` writes."""
    return reader.load(root / "params.yaml").featurize.augment.copies


def _use(copies: int) -> str:
    """What the copies that are played here have to do with training."""
    if not copies:
        return "Your params make 0 copies: training hears none of these."
    noun = "copy" if copies == 1 else "copies"
    return f"Your params make {copies:,} {noun} of each training recording, which sound like these."


def _file_hash(path: Path) -> str:
    try:
        return hashing.sha256(path)
    except OSError as error:
        raise DataError(f"{path.name}: cannot be read ({type(error).__name__})") from None


@st.cache_data(max_entries=4, show_spinner="Making copies")
def make_copies(root: Path, id: str, rows_hash: str, params_hash: str) -> Sounds:  # noqa: ARG001
    """Make the copies of one row; the hashes are part of the cache key.

    Returns:
        The recording and its copies, each with the values that were drawn for it.
    Raises:
        DataError: the child process failed.
    """
    with tempfile.TemporaryDirectory(prefix="earshot-copies-") as name:
        folder = Path(name)
        captions = _run_augment(["--row", "--", id, name])[:MAX_SHOWN_COPIES]
        copies = []
        for caption in captions:
            file_name = caption.partition(":")[0]
            copies.append((caption, (folder / file_name).read_bytes()))
        return [("the recording", (folder / "before.wav").read_bytes()), *copies]


def _run_augment(arguments: list[str]) -> list[str]:
    """Run `earshot augment` in a child process; returns the lines it prints, one per copy."""
    try:
        output = run_child(
            "asr.augmentation",
            *arguments,
            seconds=LIMIT_SECONDS,
            late=f"they were not made within {LIMIT_SECONDS} s",
            died="the command died",
        )
    except DataError as error:
        raise DataError(f"no copies: {error}") from None
    except (OSError, ValueError):  # the id holds NUL, or is too long for a command
        raise DataError("this row's id cannot be handed to a command") from None
    return output.decode("utf-8", "replace").splitlines()
