"""The process that fills MLflow from journals, so that no outage and no import delays training.

    python -m asr.tracking.follower follow JOURNAL  # until standard input closes; `train` starts it
    earshot sync [JOURNAL]                          # once; without a journal, all of them

If MLflow fails, the journal is still complete, and the training waits for MLflow at most half a
percent of its time; `sync` uploads later what is missing. A run whose training and follower were
both killed is closed by the next follower, or by `sync`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from asr import paths
from asr.errors import NetworkError, ParamsError, UserError, exit_with
from asr.runtime import attempts, command
from asr.runtime.formatting import without_secret
from asr.runtime.locks import is_locked
from asr.tracking import client, journal
from asr.tracking.uploader import RunUploader

if TYPE_CHECKING:
    from mlflow import MlflowClient

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
# A finished training waits for MLflow at most this share of its time, and at most so many seconds.
GRACE_SHARE = 0.005
GRACE_SECONDS = 10.0
# Runs of MLflow whose training or test may have been killed.
UNCLOSED = (
    "attributes.status = 'RUNNING'",
    "tags.state = 'trained'",
    "tags.state = 'evaluating'",
)


class Follower:
    """Starts the process that uploads a journal while a training writes it.

    No failure of that process stops the training or makes it wait.
    """

    def __init__(self, path: Path):
        self.began = time.monotonic()
        self.process: subprocess.Popen[bytes] | None = None
        command = [sys.executable, "-m", "asr.tracking.follower", "follow", str(path)]
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        except OSError as error:
            print(
                f"warning: MLflow is not told of this training ({error.strerror}); "
                "the journal is: make sync",
                flush=True,
            )

    def finish(self) -> None:
        """Wait a moment for the process to upload the rest; after that it continues without us."""
        if self.process is None:
            return
        if self.process.stdin:
            self.process.stdin.close()
        grace = min(GRACE_SECONDS, GRACE_SHARE * (time.monotonic() - self.began))
        try:
            failed = self.process.wait(grace) != 0
        except subprocess.TimeoutExpired:
            print(
                "the rest is uploaded to MLflow in the background, "
                f"{PATIENCE_SECONDS:.0f} s at most; if something is missing then: make sync",
                flush=True,
            )
            return
        if failed:
            print(
                "warning: MLflow does not have all of this training; the journal has: make sync",
                flush=True,
            )


def follow(path: Path) -> None:
    """Upload a journal as it grows, until its writer closes our standard input or dies.

    After that it goes on for at most PATIENCE_SECONDS, to upload the rest.
    """
    writer_gone = threading.Event()
    threading.Thread(target=_outlive_writer, args=[writer_gone], daemon=True).start()
    os.chdir(paths.root())  # the folder we were started in may be deleted while we run
    uploader: RunUploader | None = None
    warned = False
    others_closed = False
    while True:
        last = writer_gone.is_set()
        try:
            uploader = uploader or RunUploader(path, client.connect())
            uploader.catch_up()
            if last:
                uploader.close()
            if not others_closed:
                close_killed(uploader.client, path)
            if last:
                return
            warned = False
            others_closed = True
        # A server in trouble makes MLflow raise errors of any kind.
        except Exception as error:
            if not warned:
                _print_if_possible(
                    f"warning: MLflow at {without_secret(client.uri())} does not answer "
                    f"({type(error).__name__}); training goes on"
                )
            uploader = None  # a new uploader reads what arrived, and logs nothing twice
            warned = True
        pause = time.sleep if last else writer_gone.wait
        pause(POLL_SECONDS)


def _outlive_writer(writer_gone: threading.Event) -> None:
    """Wait for the end of the training; then end this process after PATIENCE_SECONDS at the latest.

    The output shared with the training is closed first, because other processes may wait for its
    end.
    """
    sys.stdin.buffer.read()
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, sys.stderr.fileno())
    writer_gone.set()
    time.sleep(PATIENCE_SECONDS)
    os._exit(1)


def _print_if_possible(line: str) -> None:
    with contextlib.suppress(OSError):  # the reader of the pipe may have closed it
        print(line, flush=True)


def close_killed(store: MlflowClient, besides: Path) -> None:
    """Close runs whose training and follower were both killed, or whose test was.

    Args:
        besides: the journal to skip, because its training is running.
    """
    journals = {path.stem: path for path in _journals()}
    for condition in UNCLOSED:
        for page in client.read_runs(store, condition):
            for run in page:
                path = journals.get(run["fingerprint"])
                if path and path != besides and (run["status"] == "RUNNING" or _in_test(path)):
                    _upload(path, store)


def _in_test(path: Path) -> bool:
    """Whether the last line of a journal says that a test has begun."""
    last = ""
    for record, _ in journal.read(path):
        last = record["kind"]
    return last == "testing"


def _journals() -> list[Path]:
    return sorted(paths.cache("journal").glob("*.jsonl"))


def _upload(path: Path, store: MlflowClient) -> None:
    """Upload a journal; close its run as killed if nothing works on it and it has no end.

    The locks must be free both before and after reading the journal: what ended in between may
    have written its end after we read.
    """
    idle = not is_at_work(path.stem)
    uploader = RunUploader(path, store)
    uploader.catch_up()
    if idle and not is_at_work(path.stem):
        uploader.close(test=True)


def sync(journals: list[Path]) -> None:
    """Upload these journals; if one fails, go on with the others.

    Raises:
        NetworkError: MLflow does not answer, or does not take a journal.
        ParamsError: a journal has no beginning.
    """
    faults: list[UserError] = []
    for path in journals:
        try:
            _upload(path, client.connect())
        except ParamsError as fault:
            faults.append(fault)
        except Exception as error:  # of any kind, as above
            if not _answers():
                raise _network_error("answer", error) from None
            faults.append(_network_error(f"take {path.name}", error))
    for other in faults[1:]:
        print(f"warning: {other}", flush=True)
    if faults:
        raise faults[0]
    count = f"{len(journals)} {'journal' if len(journals) == 1 else 'journals'}"
    print(f"MLflow holds {count} at {without_secret(client.uri())}", flush=True)


def _network_error(refused: str, error: Exception) -> NetworkError:
    return NetworkError(
        f"MLflow at {without_secret(client.uri())} does not {refused} "
        f"({type(error).__name__}); when it does: make sync"
    )


def _answers() -> bool:
    try:
        client.connect().search_experiments(max_results=1)
    except Exception:  # of any kind, as above
        return False
    return True


def is_training(fingerprint: str) -> bool:
    """Whether a training with this fingerprint runs now: it locks its folder of checkpoints."""
    return is_locked(paths.cache("checkpoints", fingerprint, "lock"))


def is_at_work(fingerprint: str) -> bool:
    """Whether a process trains this, or tests it."""
    return is_training(fingerprint) or any(
        stage.lives and stage.fingerprint == fingerprint for stage in attempts.Reader().attempts()
    )


def sync_apart(path: Path) -> None:
    """Sync in another process, at most PATIENCE_SECONDS; if it fails, print a warning."""
    command = [sys.executable, "-m", "asr.tracking.follower", "sync", str(path)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=PATIENCE_SECONDS)
        failed = done.returncode != 0
    except subprocess.TimeoutExpired:
        failed = True
    if failed:
        print(
            "warning: MLflow does not have this evaluation; the journal has: make sync", flush=True
        )


def sync_main() -> None:
    """Fill MLflow from the journals of .cache/journal, after an outage; what it has stays.

    Raises:
        ParamsError: there is no such journal.
    """
    parser = command.parser(sync_main.__doc__)
    parser.add_argument(
        "journal", nargs="?", type=Path, help="one of .cache/journal (default: all of them)"
    )
    path = parser.parse_args().journal
    if path and not path.is_file():
        raise ParamsError(f"{path}: not there; want one of {paths.cache('journal')}")
    sync([path] if path else _journals())


def main() -> None:
    action, *arguments = sys.argv[1:] or ["help"]
    if action == "follow" and len(arguments) == 1:
        follow(Path(arguments[0]).resolve())
    elif action == "sync" and len(arguments) <= 1:
        sync([Path(arguments[0])] if arguments else _journals())
    else:
        usage = (__doc__ or "").split("\n\n")[1].strip()
        raise ParamsError(f"usage: {usage}")


if __name__ == "__main__":
    exit_with(main)
    sys.stdout.flush()
    os._exit(0)  # unloading MLflow's modules would take a second
