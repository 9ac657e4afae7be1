"""Known faults: each has an exit code and says in one line what happened and the way out.

A stage raises one where the value is used; `exit_with` turns it into the last printed line and the
exit code, without a traceback. What is not a `Fault` is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import errno
import signal
import sqlite3
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something a person can mend; `exit_code` is the stage's."""

    exit_code = 1


class ParamsError(UserError):
    """A value in params.yaml or on the command line."""

    exit_code = 2


class DataError(UserError):
    """Missing or unusable recordings, transcripts or tables."""

    exit_code = 3


class NetworkError(UserError):
    """A hub that cannot be reached or does not let us in."""

    exit_code = 4


class ModelError(UserError):
    """A model or checkpoint that cannot be used."""

    exit_code = 5


class Diverged(UserError):
    """Training that left the numbers."""

    exit_code = 6


class DiskError(UserError):
    """A disk that is full or not writable."""

    exit_code = 7


class Stopped(UserError):
    """Stopped by a signal after a checkpoint; `dvc repro` goes on from there."""

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + signum


SQLITE_DISK_ERRORS = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
}  # of tables on disk
DISK_ERRORS = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES}


def exit_with(main: Callable[[], None]) -> None:
    """Run a command's `main`; a known fault becomes one line on stderr and its exit code."""
    try:
        main()
    except UserError as fault:
        stop(str(fault), fault.exit_code)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        stop(
            f"{error.filename or 'the disk'}: {error.strerror}; make room or make it writable, then run again",
            7,
        )
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in SQLITE_DISK_ERRORS:
            raise
        stop(
            f"a table on the disk (SQLITE_TMPDIR, else /var/tmp): {error}; make room or make it writable, then run again",
            7,
        )
    except KeyboardInterrupt:
        stop("stopped; run the same command again to go on", 128 + signal.SIGINT)


def stop(message: str, exit_code: int) -> None:
    """Print the fault as the last line and leave."""
    sys.stdout.flush()
    print(f"error {exit_code}: {message}", file=sys.stderr, flush=True)
    raise SystemExit(exit_code)
