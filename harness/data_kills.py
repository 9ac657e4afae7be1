"""Kill the data stages at random moments, and see that the next run gives the same bytes.

    make harness NAME=data-kills COUNT=100      # 5 minutes

Download, stats, chunk and featurize run in a child, with their workers, forked from a process that
has imported them. The child and its workers are killed by SIGKILL at a moment drawn evenly from the
time that all four take. Then, as DVC does, the outs of the stage that was not finished are removed,
and it and the later ones run again, often to be killed again. Prints what was hit; all is well if
every byte is that of a run that was never stopped. The control is files that are written in place.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from asr.params import reader, schema
from asr.storage import cache, files
from stages import chunk, download, featurize, stats
from support.data import sha256s
from support.processes import fork
from support.repository import TINY, write_params

AGAIN = 0.4  # chance that a run which mends is killed, too
CHANGES = {**TINY, "chunk.rows_per_chunk": 4, "download.synthetic.rows.train": 60}
Stage = tuple[str, tuple[str, ...], Callable[[], None]]  # name, outs, what it does


def stages_of(root: Path, given: schema.Params) -> list[Stage]:
    raw, chunks, features, reports = (
        root / name for name in ("data/raw", "data/chunks", "data/features", "reports")
    )
    limits = (given.chunk.min_seconds, given.chunk.max_seconds)
    return [
        ("download", ("data/raw",), lambda: download.run(raw, given.download)),
        ("stats", ("reports/stats",), lambda: stats.run(raw, reports / "stats", given)),
        (
            "chunk",
            ("data/chunks", "reports/chunk"),
            lambda: chunk.run(
                raw, chunks, reports / "chunk", given.chunk.rows_per_chunk, limits, []
            ),
        ),
        (
            "featurize",
            ("data/features",),
            lambda: featurize.run(chunks, features, given.featurize.num_mel_bins),
        ),
    ]


def child(root: Path) -> None:
    """The stages that are not finished, each noted when it is."""
    os.setsid()
    os.environ["DVC_ROOT"] = str(root)
    os.chdir(root)
    sys.stdout = sys.stderr = (root / "log").open("a")
    for name, outs, work in stages_of(root, reader.load(root / "params.yaml")):
        if not (root / f"{name}.done").is_file():
            for out in outs:
                shutil.rmtree(root / out, ignore_errors=True)
            work()
            (root / f"{name}.done").touch()


def run(root: Path, seconds: float | None) -> bool:
    """Run what is not finished, or kill it after so many seconds; tells whether it ended."""
    pid = fork(lambda: child(root))
    if seconds is not None:
        time.sleep(seconds)
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:  # before it had a group of its own
            os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if status and not os.WIFSIGNALED(status):
        raise SystemExit(f"{root}: a run failed: {(root / 'log').read_text()[-2000:]}")
    return status == 0


def write_in_place() -> None:
    """The control: a file that is named before it is written, slowly, and trusted afterwards."""
    cache.entry = lambda path: (
        files.read_json(path.with_suffix(".json")) if path.with_suffix(".json").is_file() else None
    )

    def in_place(path: Path, write: Callable[[Path], dict[str, object]]) -> dict[str, object]:
        if known := cache.entry(path):
            return {**known, **({} if path.is_file() else write(path))}
        files.write_json(path.with_suffix(".json"), {"name": path.name, "rows": 4, "sha256": ""})
        told = write(path)
        os.truncate(path, path.stat().st_size // 2)
        time.sleep(0.2)
        path.unlink()
        return write(path) and told

    cache.make = in_place


def bytes_of(root: Path) -> dict[str, str]:
    return {
        f"{part}/{name}": digest
        for part in ("data", "reports")
        for name, digest in sha256s(root / part, "timing.json").items()
    }


def new(top: Path, name: str) -> Path:
    root = top / name
    root.mkdir()
    write_params(root / "params.yaml", CHANGES)
    return root


def trial(
    top: Path, draw: random.Random, whole: float, wanted: dict[str, str]
) -> tuple[Counter[str], bool]:
    """One corpus, killed once or more; what was hit, and whether it came out the same."""
    root, hit = new(top, "trial"), Counter[str]()
    while True:
        kill = not hit or draw.random() < AGAIN
        os.environ["WORKERS"] = draw.choice("12")
        ended = run(root, draw.uniform(0, whole) if kill else None)
        done = sum(1 for _ in root.glob("*.done"))
        if ended:
            break
        hit[("download", "stats", "chunk", "featurize", "the end")[done]] += 1
    same = bytes_of(root) == wanted
    if same:
        shutil.rmtree(root)
    return hit, same


def shake(count: int, seed: int, broken: bool) -> bool:
    """Kill the stages `count` times; whether the files were the same each time."""
    draw, hit = random.Random(seed), Counter[str]()
    if broken:
        write_in_place()
    with tempfile.TemporaryDirectory(prefix="earshot-kills-") as folder:
        top = Path(folder)
        began = time.monotonic()
        os.environ["WORKERS"] = "1"
        reference = new(top, "reference")
        run(reference, None)
        whole, wanted = time.monotonic() - began, bytes_of(reference)
        print(f"seed {seed}; a run takes {whole:.1f} s and writes {len(wanted)} files", flush=True)
        while hit.total() < count:
            found, same = trial(top, draw, whole, wanted)
            hit += found
            if not same:
                differing = {name for name, _ in wanted.items() ^ bytes_of(top / "trial").items()}
                names = ", ".join(sorted(differing)[:9])
                print(f"after {hit.total()} kills other bytes: {names}")
                return False
            if hit.total() % 10 < found.total():
                print(f"{hit.total()} kills, all the same: {dict(hit)}", flush=True)
    places = ", ".join(f"{number} in {name}" for name, number in hit.items())
    print(f"{hit.total()} kills ({places}): the same {len(wanted)} files each time")
    return True
