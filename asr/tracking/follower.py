"""The process that fills MLflow from journals, so that no outage and no import touches training.

    python -m asr.tracking.follower follow JOURNAL    # until standard input closes; `train` starts it
    python -m asr.tracking.follower sync [JOURNAL]    # once; without a journal, all of them

Whatever happens to a server, the journal is whole and the training waits for MLflow for half a
percent of its time at most; what did not arrive, `sync` brings. A run whose training and follower
were both killed is closed by the next follower, or by `sync`.
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
from asr.runtime import command
from asr.runtime.formatting import without_secret
from asr.runtime.locks import is_locked
from asr.tracking import client
from asr.tracking.uploader import RunUploader

if TYPE_CHECKING:
    from mlflow import MlflowClient

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
GRACE_SHARE, GRACE_SECONDS = (
    0.005,
    10.0,
)  # of a training's time it waits for MLflow at its end, and never longer than this


class Follower:
    """The process that tells MLflow what a training writes into its journal. It never stops the
    training, nor keeps it waiting.
    """

    def __init__(self, path: Path):
        self.began = time.monotonic()
        self.process: subprocess.Popen[bytes] | None = None
        command = [sys.executable, "-m", "asr.tracking.follower", "follow", str(path)]
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        except OSError as error:
            print(
                f"warning: MLflow is not told of this training ({error.strerror}); the journal is: make sync",
                flush=True,
            )

    def finish(self) -> None:
        """Let it log what is left; after a moment it goes on alone."""
        if self.process is None:
            return
        if self.process.stdin:
            self.process.stdin.close()
        try:
            failed = (
                self.process.wait(min(GRACE_SECONDS, GRACE_SHARE * (time.monotonic() - self.began)))
                != 0
            )
        except subprocess.TimeoutExpired:
            print(
                f"MLflow is being told the rest for {PATIENCE_SECONDS:.0f} s at most; should something be missing then: make sync",
                flush=True,
            )
            return
        if failed:
            print(
                "warning: MLflow does not have all of this training; the journal has: make sync",
                flush=True,
            )


def follow(path: Path) -> None:
    """Tell MLflow what a journal says until the writer closes our standard input, as it also does
    by dying; then a minute at most.
    """
    alone = threading.Event()
    threading.Thread(target=_outlive, args=[alone], daemon=True).start()
    os.chdir(
        paths.root()
    )  # the folder that we were started in may be thrown away before we are done
    replica, well, others = None, True, True
    while True:
        last = alone.is_set()
        try:
            replica = replica or RunUploader(path, client.connect())
            replica.catch_up()
            if last:
                replica.close()
            if others:
                close_killed(replica.client, path)
            if last:
                return
            well, others = True, False
        except (
            Exception
        ) as error:  # a server in trouble raises of every kind out of MLflow's depths
            if well:
                _say(
                    f"warning: MLflow at {without_secret(client.uri())} does not answer ({type(error).__name__}); training goes on"
                )
            replica, well = None, False  # starting over logs nothing twice
        pause = time.sleep if last else alone.wait
        pause(POLL_SECONDS)


def _outlive(alone: threading.Event) -> None:
    """Once the training is gone: let go of its output, for the end of which others may wait, and
    leave within a minute.
    """
    sys.stdin.buffer.read()
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, sys.stderr.fileno())
    alone.set()
    time.sleep(PATIENCE_SECONDS)
    os._exit(1)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be listening any more
        print(line, flush=True)


def close_killed(store: MlflowClient, besides: Path) -> None:
    """Runs that MLflow holds for running, though their training was killed, and its follower with
    it.
    """
    known = {path.stem: path for path in _journals()}
    for page in client.read_runs(store, "attributes.status = 'RUNNING'"):
        for run in page:
            path = known.get(run["fingerprint"])
            if path and path != besides:
                _bring(path, store)


def _journals() -> list[Path]:
    return sorted(paths.cache("journal").glob("*.jsonl"))


def _bring(path: Path, store: MlflowClient) -> None:
    """Bring MLflow up to a journal; asked before and after reading, no training runs that could be
    taken for a killed one.
    """
    idle = not training_runs(path.stem)
    replica = RunUploader(path, store)
    replica.catch_up()
    if idle and not training_runs(path.stem):
        replica.close()


def sync(paths: list[Path]) -> None:
    """Bring MLflow up to these journals; one that cannot be told does not hold up the others.

    Raises:
        NetworkFault: MLflow does not answer.
        BadParams: a journal has no beginning.
    """
    faults: list[UserError] = []
    for path in paths:
        try:
            _bring(path, client.connect())
        except ParamsError as fault:
            faults.append(fault)
        except Exception as error:  # as above
            told = f"MLflow at {without_secret(client.uri())} does not {{}} ({type(error).__name__}); when it does: make sync"
            if not _answers():
                raise NetworkError(told.format("answer")) from None
            faults.append(NetworkError(told.format(f"take {path.name}")))
    for one in faults[1:]:
        print(f"warning: {one}", flush=True)
    if faults:
        raise faults[0]
    print(
        f"MLflow holds {len(paths)} {'journal' if len(paths) == 1 else 'journals'} at {without_secret(client.uri())}",
        flush=True,
    )


def _answers() -> bool:
    try:
        client.connect().search_experiments(max_results=1)
    except Exception:  # as above
        return False
    return True


def training_runs(fingerprint: str) -> bool:
    """Whether a training with this fingerprint runs now: it holds the lock of its checkpoint
    folder.
    """
    return is_locked(paths.cache("checkpoints", fingerprint, "lock"))


def sync_apart(path: Path) -> None:
    """Sync in a process of its own with limited patience: an outage costs a warning, not the stage."""
    command = [sys.executable, "-m", "asr.tracking.follower", "sync", str(path)]
    try:
        failed = (
            subprocess.run(command, stdin=subprocess.DEVNULL, timeout=PATIENCE_SECONDS).returncode
            != 0
        )
    except subprocess.TimeoutExpired:
        failed = True
    if failed:
        print(
            "warning: MLflow does not have this evaluation; the journal has: make sync", flush=True
        )


def sync_main() -> None:
    """The command line of `earshot sync`."""
    parser = command.parser(__doc__)
    parser.add_argument(
        "journal", nargs="?", type=Path, help="one of .cache/journal (default: all of them)"
    )
    path = parser.parse_args().journal
    sync([path] if path else _journals())


def main() -> None:
    what, *given = sys.argv[1:] or ["help"]
    if what == "follow" and len(given) == 1:
        follow(Path(given[0]).resolve())
    elif what == "sync" and len(given) <= 1:
        sync([Path(given[0])] if given else _journals())
    else:
        raise ParamsError(f"usage: {(__doc__ or '').split(chr(10) + chr(10))[1].strip()}")


if __name__ == "__main__":
    exit_with(main)
    sys.stdout.flush()
    os._exit(0)  # somebody waits, and taking MLflow's modules apart costs a second
