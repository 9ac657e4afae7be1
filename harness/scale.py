"""The data stages at a few rows and at many: memory of each process, CPU per row from first to
last, bytes on the disk.

    make harness NAME=scale COUNT=500000    # beside a hundredth of them; 30 minutes, 15 GB

Makes folders of short recordings, each unlike any other, and takes them through the four stages by
their own command lines. Every process's own memory (mapped files do not count) is read five
times a second, and the CPU time of all of them whenever a stage tells how far it is. Prints a
table. All is well unless a process holds more than 400 MB, or at the greater size over a tenth more
than at the smaller, a row at the end costs over a quarter more CPU than one at the beginning, or
workspace, cache and kept files take more than 1.1 times raw, chunks and features. The control is a
writer of files that keeps its rows; 10,000 of them show it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

from support.processes import own_memory
from support.repository import REPOSITORY, TINY, write_params

FEW = 1000  # rows, at least
MAX_BYTES = 400e6
MEMORY_WITHIN, CPU_WITHIN, DISK_WITHIN = 1.1, 1.25, 1.1
SAMPLES, RATE = 4000, 8000  # half a second
STAGES = {
    "download": ("data/raw", "reports/download"),
    "stats": ("data/raw", "reports/stats"),
    "chunk": ("data/raw", "data/chunks", "reports/chunk"),
    "featurize": ("data/chunks", "data/features", "reports/featurize"),
}
TOLD = re.compile(r"^(.+): ([\d,]+) of [\d,]+ (\w+), ")
WORDS = [
    first + last
    for first in "noll ett två tre fyra fem sex sju åtta nio".split()
    for last in ("", "tio", "hundra", "tusen")
]


def header(num_bytes: int) -> bytes:
    """Of a WAV file of 8 bits, one channel."""
    chunk = (
        b"fmt " + (16).to_bytes(4, "little") + (1).to_bytes(2, "little") + (1).to_bytes(2, "little")
    )
    chunk += (
        RATE.to_bytes(4, "little")
        + RATE.to_bytes(4, "little")
        + (1).to_bytes(2, "little")
        + (8).to_bytes(2, "little")
    )
    return (
        b"RIFF"
        + (36 + num_bytes).to_bytes(4, "little")
        + b"WAVE"
        + chunk
        + b"data"
        + num_bytes.to_bytes(4, "little")
    )


def make_corpus(folder: Path, rows: int, seed: int) -> None:
    """A folder with metadata.csv: noise that swells and fades, five rows a speaker."""
    draw, swell, head = np.random.default_rng(seed), np.hanning(SAMPLES), header(SAMPLES)
    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", encoding="utf-8") as table:
        table.write("file_name,transcription,speaker_id,accent\n")
        for number in range(rows):
            name = f"{number // 1000:03d}/{number:06d}.wav"
            if number % 1000 == 0:
                (folder / name).parent.mkdir()
            noise = 128 + 100 * swell * draw.uniform(-1, 1, SAMPLES)
            (folder / name).write_bytes(head + noise.astype(np.uint8).tobytes())
            text = " ".join(draw.choice(WORDS, 3))
            table.write(
                f"{name},{text},speaker-{number // 5},{'north' if number % 3 else 'south'}\n"
            )


LEAK = """
from asr.storage import shards
add, kept = shards.Shard.add, []
shards.Shard.add = lambda self, row: kept.append(dict(row)) or add(self, row)
"""


class Watch:
    """Peak memory of any process of a stage, and CPU seconds of all as rows went by."""

    def __init__(self, command: list[str], folder: Path):
        self.peak, self.seen = 0, list[tuple[str, int, float]]()
        self.cpu: dict[int, float] = {}
        environment = {
            **os.environ,
            "DVC_ROOT": str(folder),
            "PYTHONPATH": f"{REPOSITORY}:{folder / 'leak'}",
        }
        self.child = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        reader = threading.Thread(target=self._read)
        reader.start()
        while self.child.poll() is None:
            self._look()
            time.sleep(0.2)
        reader.join()
        if self.child.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {self.child.returncode}")

    def _look(self) -> None:
        with suppress(psutil.Error):
            for one in (top := psutil.Process(self.child.pid), *top.children(recursive=True)):
                with suppress(psutil.Error, OSError, StopIteration):
                    self.peak = max(self.peak, own_memory(one.pid))
                    spent = one.cpu_times()
                    self.cpu[one.pid] = spent.user + spent.system

    def _read(self) -> None:
        for line in self.child.stdout or []:
            if found := TOLD.match(line):
                self.seen.append((found[1], int(found[2].replace(",", "")), sum(self.cpu.values())))
            elif not line.startswith(("download", "chunk")) or "left out" in line:
                print(f"    {line}", end="", flush=True)

    def growth(self) -> float | None:
        """CPU per row in the last third over that in the first, of the longest part of the stage;
        None if it was too short to tell.
        """
        title = max(
            (one[0] for one in self.seen), key=[one[0] for one in self.seen].count, default=""
        )
        points = np.array([(rows, cpu) for name, rows, cpu in self.seen if name == title])
        if len(points) < 6:
            return None
        third = len(points) // 3
        first, last = points[: third + 1], points[-third - 1 :]
        return float(np.polyfit(*last.T, 1)[0] / np.polyfit(*first.T, 1)[0])


def disk(folder: Path) -> float:
    """What stage outs, kept files and reports take, against raw, chunks and features alone."""

    def used(*names: str) -> int:
        there = [str(folder / name) for name in names if (folder / name).exists()]
        return int(
            subprocess.run(
                ["du", "-sc", "-B1", *there], capture_output=True, text=True, check=True
            ).stdout.split()[-2]
        )

    return used("data", ".cache", "reports") / used("data/raw", "data/chunks", "data/features")


def measure(top: Path, rows: int, seed: int, broken: bool) -> dict[str, tuple[float, float | None]]:
    """Memory and growth of each stage at one size."""
    folder = top / str(rows)
    make_corpus(folder / "corpus", rows, seed)
    if broken:
        (folder / "leak").mkdir()
        (folder / "leak/sitecustomize.py").write_text(LEAK)
    changes = {"download.source": "folder", "download.path": "corpus", "chunk.rows_per_chunk": 1000}
    write_params(folder / "params.yaml", {**TINY, **changes})
    found = {}
    for name, paths in STAGES.items():
        began = time.monotonic()
        seen = Watch([sys.executable, "-m", f"stages.{name}", *paths], folder)
        found[name] = seen.peak, seen.growth()
        wall, spent = time.monotonic() - began, sum(seen.cpu.values())
        growth = f"{found[name][1]:.2f}" if found[name][1] else "-"
        print(
            f"{rows:>9,} rows  {name:10} {seen.peak / 1e6:6.1f} MB a process at most, "
            f"{1e6 * spent / rows:7.0f} us CPU a row, "
            f"last against first {growth}, {wall:5.0f} s",
            flush=True,
        )
    found["disk"] = disk(folder), None
    print(
        f"{rows:>9,} rows  disk       {found['disk'][0]:.3f} times raw, chunks and features",
        flush=True,
    )
    return found


def shake(count: int, seed: int, broken: bool) -> bool:
    """Take `count` rows and a hundredth of them through the stages; whether limits were kept."""
    with tempfile.TemporaryDirectory(prefix="earshot-scale-") as folder:
        small = measure(Path(folder), max(FEW, count // 100), seed, broken)
        large = measure(Path(folder), count, seed, broken)
    wrong = [
        f"{name}: {one / 1e6:.0f} MB"
        for name, (one, _) in large.items()
        if name != "disk" and one > MAX_BYTES
    ]
    wrong += [
        f"{name}: memory {one / small[name][0]:.2f}"
        for name, (one, _) in large.items()
        if one > MEMORY_WITHIN * small[name][0]
    ]
    wrong += [
        f"{name}: CPU {growth:.2f}"
        for name, (_, growth) in large.items()
        if growth and growth > CPU_WITHIN
    ]
    wrong += [f"disk: {large['disk'][0]:.2f}"] if large["disk"][0] > DISK_WITHIN else []
    print("; ".join(wrong) or "memory, CPU and disk are within their limits")
    return not wrong
