"""Kill trainings at every moment, and see that nothing is lost: the same final bits, and never a
committed step done again.

    make harness NAME=training-kills COUNT=500      # 20 minutes on one core

Trainings are children forked from a process that has imported torch, so that each costs a second
and not ten. A child is killed by SIGKILL at a random moment; before its n-th file operation or
sync, for every n there is if COUNT is that large; half-way through a file of tensors; or it finds
the disk full there. It is then started again, often to be killed again while it resumes, until it
ends. Prints what it hit; all is well if every training ended as the one that was never stopped.
The control is dropout that forgets its seed.
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
from asr.storage import hashing
from asr.tracking.follower import Follower
from stages import chunk, download, featurize, train
from support.repository import TINY, write_params

WRITES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "os.truncate"}
Plan = Callable[[Path], None]
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
    child = os.fork()
    if child == 0:
        os._exit(_train(root, plan))
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
    Follower.__init__ = lambda *_: None
    Follower.finish = lambda _: None
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
        return 7 if error.errno == errno.ENOSPC else 1
    except BaseException as error:  # a child must not fall into its parent's code
        print(repr(error), flush=True)
        return 1
    return 0


def traces(root: Path) -> dict[str, str]:
    """Hashes of all that must not differ."""
    (folder,) = (path for path in (root / ".cache/checkpoints").iterdir() if path.is_dir())
    last = max(folder.glob("step-*"))
    paths = [root / "models/finetuned/model.safetensors"]
    paths += [last / name for name in ("model.safetensors", "optimizer.safetensors", "state.json")]
    paths += [
        root / "reports/train" / name
        for name in ("steps.csv", "summary.json", "checks.json", "run.json", "taught.npy")
    ]
    return {f"{path.parent.name}/{path.name}": hashing.sha256(path) for path in paths}


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


def trial(
    root: Path, plans: list[tuple[str, Plan | None, float | None]], hit: Counter[str]
) -> tuple[dict[str, str], int]:
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
        if (
            name == "disk full"
            and status
            and not (os.WIFEXITED(status) and os.WEXITSTATUS(status) == 7)
        ):
            hit["disk full without exit 7"] += 1
    if status:
        return {"status": str(status), "log": (root / "log").read_text()[-400:]}, lost
    return traces(root), lost


def plans_of(
    kills: int, operations: int, seconds: float, draw: random.Random
) -> list[list[tuple[str, Plan | None, float | None]]]:
    """What is done to each training: first every operation once, then random moments; half of them
    are stopped twice more.
    """
    first: list[tuple[str, Plan | None, float | None]] = []
    for number in range(1, operations + 1):
        first.append(("kill at an operation", at_operation(number, kill), None))
        first.append(("disk full", at_operation(number, disk_full), None))
    first += [("kill in half a file", half_a_file(number, kill), None) for number in range(1, 12)]
    draw.shuffle(first)
    chosen: list[list[tuple[str, Plan | None, float | None]]] = []
    all_of_them = kills >= operations
    while sum(map(len, chosen)) < kills or (all_of_them and first):
        one = first.pop() if first else ("kill at a moment", None, draw.uniform(0, seconds))
        again: list[tuple[str, Plan | None, float | None]] = []
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


def room(top: Path, name: str) -> Path:
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


def shake(count: int, seed: int, broken: bool) -> bool:
    """Kill trainings `count` times or more; whether all ended as one that was never stopped."""
    with tempfile.TemporaryDirectory(prefix="earshot-training-kills-") as folder:
        top = Path(folder)
        make_data(top)
        if broken:
            forget_the_seed()
        began = time.monotonic()
        wanted, _ = trial(room(top, "whole"), [], Counter())
        seconds = time.monotonic() - began
        operations = count_operations(room(top, "counted"))
        hit, wrong, lost = Counter[str](), [], 0
        trials = plans_of(count, operations, seconds, random.Random(seed))
        for index, plans in enumerate(trials):
            root = room(top, f"trial-{index}")
            found, steps = trial(root, plans, hit)
            lost += steps
            if found != wanted:
                wrong.append(
                    f"trial {index} "
                    f"({', '.join(name for name, _, _ in plans)}): "
                    f"{dict(found.items() - wanted.items())}"
                )
            shutil.rmtree(root)
            if (index + 1) % SHOWN_EVERY == 0:
                print(
                    (
                        f"{index + 1} of {len(trials)} trainings; {lost} steps "
                        f"lost, {len(wrong)} ended otherwise"
                    ),
                    flush=True,
                )
    stops = sum(number for name, number in hit.items() if not name.startswith("left"))
    print(
        f"{stops} stops (seed {seed}) in {time.monotonic() - began:.0f} s; a whole "
        f"training has {operations} file operations"
    )
    print("\n".join(f"{number:5}  {name}" for name, number in sorted(hit.items())))
    print(
        f"{lost} committed steps lost; {len(wrong)} trainings ended otherwise", *wrong[:5], sep="\n"
    )
    return not (wrong or lost or hit["disk full without exit 7"])
