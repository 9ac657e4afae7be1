"""Copies to hear: what augmentation makes of a training row, with the values of params.yaml.

They are made when asked for (1 s), by a child process, which decodes and computes; this one hands
files to the browser's player.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import streamlit as st

from asr import paths
from asr.errors import DataError
from asr.storage import corpus, hashing
from dashboard import widgets

OFFERED_ROWS = 100
SHOWN_COPIES = 5
LIMIT_SECONDS = 60
TOLD_CHARACTERS = 1000  # of what the child said when it failed

AugmentedExample = list[tuple[str, bytes]]


def show(root: Path) -> None:
    """A row to choose, and on demand its sound and that of its copies."""
    split = root / paths.CHUNKS / "train"
    ids = corpus.first_ids(split, OFFERED_ROWS)
    if not ids:
        st.caption("There is no training row.")
        return
    choice, button = st.columns([6, 2.5], vertical_alignment="bottom")
    id = choice.selectbox(
        "Training row", ids, key="data_copied", help=f"One of the first {len(ids)}"
    )
    if button.button("Make copies", key="data_make_copies", icon=":material/graphic_eq:"):
        st.session_state["data_heard"] = id
    st.caption(
        "Copies by the values of featurize.augment in params.yaml; featurize writes as many as copies says there."
    )
    if id is not None and st.session_state.get("data_heard") == id:
        for told, sound in augmented_example(
            root, id, corpus.split_hash(split), _digest(root / "params.yaml")
        ):
            st.caption(widgets.plain(told))
            st.audio(sound, format="audio/wav")


def _digest(path: Path) -> str:
    try:
        return hashing.sha256(path)
    except OSError as error:
        raise DataError(f"{path.name}: cannot be read ({type(error).__name__})") from None


@st.cache_data(max_entries=4, show_spinner="Making copies")
def augmented_example(root: Path, id: str, rows: str, params: str) -> AugmentedExample:  # noqa: ARG001 (what it is kept by)
    """The row and its copies, as WAV files with what was drawn for each.

    Raises:
        BadData: what the child could not do.
    """
    with tempfile.TemporaryDirectory(prefix="earshot-copies-") as folder:
        lines = _said(root, ["--row", "--", id, folder])[:SHOWN_COPIES]
        copies = [(told, (Path(folder) / told.partition(":")[0]).read_bytes()) for told in lines]
        return [("the recording", (Path(folder) / "before.wav").read_bytes()), *copies]


def _said(root: Path, words: list[str]) -> list[str]:
    """What `earshot augment` prints."""
    command, environment = (
        [sys.executable, "-m", "asr.augmentation", *words],
        {**os.environ, "DVC_ROOT": str(root), "OPENBLAS_NUM_THREADS": "1"},
    )
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            timeout=LIMIT_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"the copies were not made within {LIMIT_SECONDS} s") from None
    except (OSError, ValueError):  # NUL, or too long for a command
        raise DataError("this row's id cannot be handed to a command") from None
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace")[-TOLD_CHARACTERS:].strip().splitlines()[-1:]
        raise DataError(f"no copies: {last[0].partition(': ')[2] if last else 'the command died'}")
    return done.stdout.decode("utf-8", "replace").splitlines()
