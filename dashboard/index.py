"""The index of runs, as pages look at it. Importing costs streamlit."""

from __future__ import annotations

from asr.errors import UserError
from asr.runs import run_index
from asr.runs.run_index import IndexState
from dashboard import widgets


def bring_up_to_date() -> IndexState | None:
    """Have the index refreshed if anything may have changed; where that fails, say why.

    Returns:
        The state of the index; None where it is damaged, or of another version.
    """
    try:
        state = run_index.state()
        is_stale = run_index.is_stale(state)
    except UserError:
        state, is_stale = None, True
    try:
        if is_stale:
            run_index.request_refresh()
    except UserError as error:
        widgets.show_error(error)
    return state
