"""The frame of each stage: one line for an error, what refuses it, a record of the execution.

Without DVC it is `exit_with` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from asr.errors import UserExit, exit_with
from asr.runtime import attempts, clone
from asr.runtime.stage_inputs import unchanged_inputs


def run_stage(main: Callable[[], None]) -> None:
    """Run the `main` of a stage, and record how it ends."""
    attempts.begin()
    try:
        exit_with(partial(_guarded, main))
    except UserExit as error:
        attempts.end(error.exit_code, error.line)
        raise
    except SystemExit as error:  # of the command line: --help, or a word too many
        attempts.end(error.code if isinstance(error.code, int) else int(error.code is not None))
        raise
    except BaseException as error:
        attempts.end(1, f"{type(error).__name__}: {error}")
        raise
    attempts.end(0)


def _guarded(main: Callable[[], None]) -> None:
    clone.refuse_if_lost()
    with unchanged_inputs():
        main()
