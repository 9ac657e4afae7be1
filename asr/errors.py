"""Errors that the user can fix: each has an exit code, and a message of one line that says how.

They are raised where the value is used; `exit_with` prints the message as the last line and exits
with the exit code, without a traceback. Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sqlite3
import sys
from collections.abc import Callable

DISK_ERRORS = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES}
# The same errors in SQLite's codes: temporary tables lie on the disk too.
SQLITE_DISK_ERRORS = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
}
MAKE_ROOM = "make room or make it writable, then run again"
ERROR_LINE = re.compile(r"error (\d+): (.*)")


class UserError(Exception):
    """An error that the user can fix; `exit_code` is the exit code of the command."""

    exit_code = 1


class ParamsError(UserError):
    """A bad value in params.yaml or on the command line."""

    exit_code = 2


class DataError(UserError):
    """Missing or unusable recordings, transcripts or tables."""

    exit_code = 3


class NetworkError(UserError):
    """A hub that cannot be reached or refuses access."""

    exit_code = 4


class ModelError(UserError):
    """A model or checkpoint that cannot be used."""

    exit_code = 5


class Diverged(UserError):
    """Training whose loss is no longer a finite number."""

    exit_code = 6


class DiskError(UserError):
    """A disk that is full or not writable."""

    exit_code = 7


class Stopped(UserError):
    """Stopped by a signal; the message says what of the work is kept."""

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + signum


class UserExit(SystemExit):
    """The end of a command by a user error, after its line was printed."""

    def __init__(self, exit_code: int, line: str):
        super().__init__(exit_code)
        self.exit_code = exit_code
        self.line = line


def exit_with(main: Callable[[], None]) -> None:
    """Run a command's `main`; a user error becomes one line on stderr and its exit code."""
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads our output has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None
    except UserError as error:
        stop(str(error), error.exit_code)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        what = f"{error.filename or 'the disk'}: {error.strerror}"
        stop(f"{what}; {MAKE_ROOM}", DiskError.exit_code)
    except sqlite3.OperationalError as error:
        # The low byte is the kind of error; the rest is a detail.
        if error.sqlite_errorcode & 0xFF not in SQLITE_DISK_ERRORS:
            raise
        what = f"a table on the disk (SQLITE_TMPDIR, else /var/tmp): {error}"
        stop(f"{what}; {MAKE_ROOM}", DiskError.exit_code)
    except KeyboardInterrupt:
        stop("stopped; run the same command again to go on", 128 + signal.SIGINT)


def stop(message: str, exit_code: int) -> None:
    """Print the error as the last line, and exit."""
    sys.stdout.flush()
    print(f"error {exit_code}: {message}", file=sys.stderr, flush=True)
    raise UserExit(exit_code, message)


def from_child(output: str) -> tuple[int, str] | None:
    """Parse the error that `stop` printed in a child process.

    Args:
        output: what the child printed, or the end of it.
    Returns:
        the exit code and the message of the last line; None if `stop` did not print it.
    """
    match = ERROR_LINE.fullmatch(output.strip().rpartition("\n")[2])
    return (int(match[1]), match[2]) if match else None
