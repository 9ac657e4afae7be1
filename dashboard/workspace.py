"""What changes in the workspace while a page is open: DVC at work, and files that it makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from asr import paths
from asr.runs import states
from dashboard import widgets

BEING_MADE = "Being made now."
LOOK_SECONDS = 3.0


def is_being_made() -> bool:
    """Whether DVC runs the pipeline in the workspace now, not just in the queue or elsewhere."""
    return states.is_workspace_at_work(states.present())


def not_made(message: str, *commands: str) -> None:
    """Say what is not there yet, and the commands that make it; or that DVC is making it."""
    if is_being_made():
        widgets.empty_state(BEING_MADE)
    else:
        widgets.empty_state(message, *commands)


def watch(mark: Callable[[], object]) -> None:
    """Draw the page again as soon as DVC begins or ends, or `mark` gives another value."""
    drawn = is_being_made(), mark()

    @st.fragment(run_every=LOOK_SECONDS)
    def look() -> None:
        if (is_being_made(), mark()) != drawn:
            st.rerun()

    look()


def stamps(*files: str) -> list[tuple[int, ...]]:
    """Numbers that change when one of these files does; none for a file that is not there."""
    return [_stamp(paths.root() / file) for file in files]


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
