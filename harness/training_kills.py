"""Kill trainings at every moment, and see that nothing is lost: the same final bits, and never a
committed step done again.

    make harness NAME=training-kills COUNT=500      # 20 minutes on one core

Trainings are children forked from a process that has imported torch, so that each costs a second
and not ten. A child is killed by SIGKILL at a random moment; before its n-th file operation or
sync, for every n there is if COUNT is that large; half-way through a file of tensors; or it finds
the disk full there. It is then started again, often to be killed again while it resumes, until it
ends. Prints what it hit; all is well if every training ended as the one that was never stopped,
each start went on from the newest checkpoint, and a full disk ended a training with exit code 7.
The control is dropout that forgets its seed; test_training_kills.py has one for each of the others.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

os.environ.update({"OMP_NUM_THREADS": "1", "WORKERS": "1"})

import safetensors.torch

from asr.errors import UserError
from asr.params import reader
from stages import chunk, download, featurize, train
from support.processes import fork, without_mlflow
from support.repository import TINY, write_params
from support.training import traces

WRITES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "os.truncate"}
Plan = Callable[[Path], None]
Stop = tuple[str, Plan | None, float | None]  # its kind; in the child; seconds until a kill
DISK_FULL = 7  # the exit code
OTHER_EXIT = f"disk full without exit {DISK_FULL}"
SHOWN_EVERY = 20  # trainings: half a minute


def watched(event: str, args: tuple[Any, ...], root: str) -> bool:
    """Whether an audit event changes files of this training."""
    if event == "open" and not (isinstance(args[1], str) and set(args[1]) & set("wax+")):
        return False
    return event in WRITES and any(
        root in os.fsdecode(one) for one in args[:2] if isinstance(one, str | bytes | os.PathLike)
    )


def before_changes(root: Path, act: Callable[[], object]) -> None:
    """Act before each change to files of this training, and before each sync."""
    sync = os.fsync

    def act_and_sync(file: Any) -> None:
        act()
        sync(file)

    os.fsync = act_and_sync
    sys.addaudithook(lambda event, args: act() if watched(event, args, str(root)) else None)


def at_operation(number: int, act: Callable[[], None]) -> Plan:
    """Act before the n-th file operation; numbers beyond the last leave the training in peace."""

    def plan(root: Path) -> None:
        seen = count(1)
        before_changes(root, lambda: act() if next(seen) == number else None)

    return plan


def half_a_file(number: int, act: Callable[[], None]) -> Plan:
    """Write half of the n-th file of tensors, and act."""

    def plan(_: Path) -> None:
        save, seen = safetensors.torch.save_file, [0]

        def half(tensors: Any, path: Path) -> None:
            seen[0] += 1
            save(tensors, path)
            if seen[0] == number:
                os.truncate(path, path.stat().st_size // 2)
                act()

        safetensors.torch.save_file = half

    return plan


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def disk_full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a file")


def count_operations(root: Path) -> int:
    """File operations of a whole training, counted in a child."""
    reading, writing = os.pipe()

    def plan(place: Path) -> None:
        seen = count()
        before_changes(place, lambda: next(seen))
        ended = train.train_and_write

        def told(*given: Any) -> None:
            ended(*given)
            os.write(writing, str(next(seen)).encode())

        train.train_and_write = told

    run(root, plan, None)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        return int(pipe.read())


def run(root: Path, plan: Plan | None, seconds: float | None) -> int:
    """One child; gives its exit status as `os.waitpid` does. After `seconds` it is killed."""
    child = fork(lambda: _train(root, plan))
    began = time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if seconds is not None and time.monotonic() - began > seconds:
            os.kill(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1]
        time.sleep(0.002)


def _train(root: Path, plan: Plan | None) -> int:
    """In the child: the stage's own `run`, without MLflow; gives its exit code."""
    sys.stdout = sys.stderr = (root / "log").open("a")
    os.environ["DVC_ROOT"] = str(root)
    os.chdir(root)
    without_mlflow()
    try:
        given = reader.load(root / "params.yaml")
        if plan:
            plan(root)
        split = root.parent / "tiny/data/features"
        train.run(
            split / "train",
            split / "validation",
            root / "models/finetuned",
            root / "reports/train",
            given,
        )
    except UserError as fault:
        print(fault, flush=True)
        return fault.exit_code
    except OSError as error:
        print(error, flush=True)
        return DISK_FULL if error.errno == errno.ENOSPC else 1
    return 0


def committed(root: Path) -> int:
    """The newest step whose checkpoint is whole."""
    found = [
        int(path.name[5:])
        for path in root.glob(".cache/checkpoints/*/step-????????")
        if (path / "manifest.json").is_file()
    ]
    return max(found, default=0)


def resumed(root: Path) -> int | None:
    """The step that a start went on from, if it came so far as to say so."""
    lines = [
        line
        for line in (root / "log").read_text().splitlines()
        if line.startswith("resumed at step")
    ]
    return int(lines[-1].split()[3]) if lines else None


def trial(root: Path, plans: list[Stop], hit: Counter[str]) -> tuple[dict[str, str], int]:
    """One training, stopped by each plan in turn, then left in peace; gives its traces and the
    committed steps that were lost.
    """
    lost = status = 0
    for name, plan, seconds in [*plans, ("left in peace", None, None)]:
        kept = committed(root)
        (root / "log").write_text("")
        status = run(root, plan, seconds)
        found = resumed(root)
        lost += max(kept - (found or 0), 0) if found is not None or not status else 0
        hit[name if status else f"{name}, ended"] += 1
        if name == "disk full" and status and os.waitstatus_to_exitcode(status) != DISK_FULL:
            hit[OTHER_EXIT] += 1
    if status:
        return {"status": str(status), "log": (root / "log").read_text()[-400:]}, lost
    return traces(root), lost


def plans_of(kills: int, operations: int, seconds: float, draw: random.Random) -> list[list[Stop]]:
    """What is done to each training: first every operation once, then random moments; half of them
    are stopped twice more.
    """
    first: list[Stop] = []
    for number in range(1, operations + 1):
        first.append(("kill at an operation", at_operation(number, kill), None))
        first.append(("disk full", at_operation(number, disk_full), None))
    first += [("kill in half a file", half_a_file(number, kill), None) for number in range(1, 12)]
    draw.shuffle(first)
    chosen: list[list[Stop]] = []
    all_of_them = kills >= operations
    while sum(map(len, chosen)) < kills or (all_of_them and first):
        one = first.pop() if first else ("kill at a moment", None, draw.uniform(0, seconds))
        again: list[Stop] = []
        if draw.random() < 0.5:
            again = [
                ("kill in a resume", at_operation(draw.randint(1, 12), kill), None),
                ("kill at a moment", None, draw.uniform(0, seconds)),
            ]
        chosen.append([one, *again])
    return chosen


NOISY: dict[str, Any] = {
    **TINY,
    "model.dropout": 0.1,
    "model.apply_spec_augment": True,
    "train.gradient_accumulation_steps": 2,
    "train.max_steps": 12,
    "train.average_weights": "last",
    "train.average_count": 2,
}


def make_data(top: Path) -> None:
    os.environ["DVC_ROOT"] = str(top)
    given = reader.load(write_params(top / "params.yaml", NOISY))
    data = top / "tiny"
    download.run(data / "data/raw", given.download)
    chunk.run(
        data / "data/raw",
        data / "data/chunks",
        data / "reports",
        given.chunk.rows_per_chunk,
        (0.3, 30.0),
        [],
    )
    featurize.run(data / "data/chunks", data / "data/features", 80)


def new_root(top: Path, name: str) -> Path:
    root = top / name
    root.mkdir()
    shutil.copy(top / "params.yaml", root)
    (root / "log").touch()
    return root


def forget_the_seed() -> None:
    """The control: noise that depends on how often the process was started."""
    from asr.model import regularization

    seed = regularization.seed
    regularization.seed = lambda number, step, part: seed(number + os.getpid(), step, part)


class Tally:
    """What was hit, and what went wrong, trial by trial.

    Attributes:
        hit: stops of each kind, and starts that ended.
        lost: committed steps that were done again.
        wrong: trainings that ended otherwise, as lines.
    """

    def __init__(self, wanted: dict[str, str]) -> None:
        self.wanted, self.hit = wanted, Counter[str]()
        self.lost, self.wrong = 0, list[str]()

    def try_all(self, top: Path, trials: list[list[Stop]]) -> None:
        for index, plans in enumerate(trials):
            root = new_root(top, f"trial-{index}")
            found, lost = trial(root, plans, self.hit)
            shutil.rmtree(root)
            self.lost += lost
            if found != self.wanted:
                names = ", ".join(name for name, _, _ in plans)
                self.wrong.append(
                    f"trial {index} ({names}): {dict(found.items() - self.wanted.items())}"
                )
            if (index + 1) % SHOWN_EVERY == 0:
                print(f"{index + 1} of {len(trials)} trainings; {self}", flush=True)

    def __str__(self) -> str:
        return f"{self.lost} committed steps lost; {len(self.wrong)} trainings ended otherwise"

    def harmless(self) -> bool:
        return not (self.wrong or self.lost or self.hit[OTHER_EXIT])


def shake(count: int, seed: int, broken: bool) -> bool:
    """Kill trainings `count` times or more; whether all ended as one that was never stopped."""
    with tempfile.TemporaryDirectory(prefix="earshot-training-kills-") as folder:
        top = Path(folder)
        make_data(top)
        if broken:
            forget_the_seed()
        began = time.monotonic()
        tally = Tally(trial(new_root(top, "whole"), [], Counter())[0])
        seconds = time.monotonic() - began
        operations = count_operations(new_root(top, "counted"))
        tally.try_all(top, plans_of(count, operations, seconds, random.Random(seed)))
    stops = sum(number for name, number in tally.hit.items() if not name.startswith("left"))
    print(
        f"{stops} stops (seed {seed}) in {time.monotonic() - began:.0f} s; a whole "
        f"training has {operations} file operations"
    )
    print("\n".join(f"{number:5}  {name}" for name, number in sorted(tally.hit.items())))
    print(tally, *tally.wrong[:5], sep="\n")
    return tally.harmless()
