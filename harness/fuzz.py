"""Broken files without end: mutants of every format we read, opened as the stages open them, in the
workers that guard against them.

    make harness NAME=fuzz COUNT=100000     # 3 minutes on two cores

A mutant is drawn from (SEED, its number) alone. Each is read, or refused by a known fault, or it
ends the worker that reads it by a crash, by its memory or after 5 s, which costs the worker and not
the run. Anything else is a failure: an error nobody expects, a worker over 512 MB. What failed or
ended a worker is written to harness/corpus, which every later run replays first. The control adds
readers that raise, loop, stand still, crash and eat memory: the run must notice each.
"""

from __future__ import annotations

import csv
import hashlib
import os
import resource
import signal
import tempfile
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ.update({"OMP_NUM_THREADS": "1"})

import numpy as np

from asr.audio import codec
from asr.cleaning import measurements
from asr.cleaning.sandbox import guarded
from asr.errors import UserError
from asr.params import reader
from asr.runtime.limits import allow
from asr.runtime.workers import progress
from asr.sources import common_voice
from asr.sources.subtitles import cues
from asr.sources.tables import read_json_lines, read_table
from harness.mutants import mutant

CORPUS = Path(__file__).parent / "corpus"
JOB = 50  # mutants
MAX_BYTES = 512 << 20
KEPT = 3  # files of one format and one end that a run writes to the corpus
Outcome = tuple[str, str]  # read, refused, bug or died; of what


def hear(content: bytes) -> str:
    """As `download` and `chunk` open a recording."""
    codec.header_seconds(content)
    sound = measurements.measure_audio(content, None)
    return sound.code and f"{sound.code}: {sound.detail}"


def filed(name: str, read: Callable[[Path], object]) -> Callable[[bytes], str]:
    """A reader of what is a file of its own."""

    def reader(content: bytes) -> str:
        with tempfile.TemporaryDirectory(prefix="earshot-fuzz-") as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            read(path)
        return ""

    return reader


def unpack(path: Path) -> None:
    around = path.parent / "around"
    around.mkdir()
    common_voice.unpack(path, around / "inside")
    if [one.name for one in around.iterdir() if one.name != "inside"]:
        raise AssertionError("an archive has written outside of its folder")


def csv_rows(path: Path) -> int:
    return sum(1 for _ in read_table(path, {"file_name", "transcription"}))


def tsv_rows(path: Path) -> int:
    return sum(
        1 for _ in read_table(path, {"path", "sentence"}, delimiter="\t", quoting=csv.QUOTE_NONE)
    )


SOUND = "wav adpcm flac ogg opus mp3 aiff caf m4a mp4 aac webm".split()
READERS: dict[str, Callable[[bytes], str]] = {
    **dict.fromkeys(SOUND, hear),
    "csv": filed("metadata.csv", csv_rows),
    "tsv": filed("train.tsv", tsv_rows),
    "tar": filed("cv.tar", unpack),
    "gz": filed("cv.tar.gz", unpack),
    "yaml": filed("params.yaml", reader.load),
    "jsonl": filed("metadata.jsonl", lambda path: sum(1 for _ in read_json_lines(path))),
    "srt": filed("clip.srt", lambda path: sum(1 for _ in cues(path))),
    "vtt": filed("clip.vtt", lambda path: sum(1 for _ in cues(path))),
}
SHARES = {**dict.fromkeys(READERS, 3), **dict.fromkeys(SOUND, 10), "yaml": 1}  # of all mutants


def loop(_: bytes) -> str:
    allow(0.3)
    while True:
        pass


def stand_still(_: bytes) -> str:
    allow(0.1)
    signal.pause()
    return ""


def crash(_: bytes) -> str:
    os.kill(os.getpid(), signal.SIGSEGV)
    return ""


def eat(_: bytes) -> str:
    return str(len(bytearray(600 << 20)))


CONTROLS: dict[str, Callable[[bytes], str]] = {
    "bug": lambda content: str({}[content[:1]]),
    "loop": loop,
    "standstill": stand_still,
    "crash": crash,
    "memory": eat,
}


def tried(name: str, content: bytes) -> Outcome:
    """Read one file, in a worker."""
    try:
        said = {**READERS, **CONTROLS}[name](content)
    except UserError as fault:
        said = str(fault) or "refused without a word"
    except MemoryError:
        raise
    except Exception:
        return "bug", traceback.format_exc()
    return "refused" if said else "read", said


def replayed(paths: list[str], start: int) -> Iterator[Outcome]:
    for path in paths[start:]:
        yield tried(Path(path).name.partition("-")[0], Path(path).read_bytes())


def mutants(names: list[str], seed: int, first: int, start: int) -> Iterator[Outcome]:
    """Outcomes of the mutants `first`, `first + 1`, ..., of the formats named."""
    for number, name in enumerate(names[start:], first + start):
        yield tried(name, mutant(name, seed, number))


def died(reason: str) -> Outcome:
    return "died", reason


@dataclass
class Tally:
    """What came of all files, per format; and what to keep of them."""

    ends: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    reasons: Counter[str] = field(default_factory=Counter)
    bugs: list[str] = field(default_factory=list)
    kept: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, name: str, outcome: Outcome, content: Callable[[], bytes] | None) -> None:
        end, said = outcome
        code = said.partition(":")[0] if name in SOUND and end == "refused" else ""
        self.ends[name][code or (f"died: {said}" if end == "died" else end)] += 1
        if end == "bug":
            self.bugs.append(f"{name}: {said.strip()}")
        if end in ("bug", "died"):
            self.reasons[said.strip().splitlines()[-1]] += 1
            self.kept[name, end] += 1
            if content and self.kept[name, end] <= KEPT:
                keep(name, content())

    def told(self) -> str:
        width = max(len(name) for name in self.ends)
        return "\n".join(
            f"{name:{width}} {sum(ends.values()):7,} {_counts(ends)}"
            for name, ends in self.ends.items()
        )


def _counts(ends: Counter[str]) -> str:
    return ", ".join(f"{count:,} {end}" for end, count in ends.most_common())


def keep(name: str, content: bytes) -> None:
    """For ever: what once broke something is tried by every run."""
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}").write_bytes(content)


def plan(number: int, seed: int) -> list[str]:
    """The format of each mutant."""
    names = np.array(list(SHARES))
    weights = np.array(list(SHARES.values())) / sum(SHARES.values())
    return [str(one) for one in np.random.default_rng(seed).choice(names, number, p=weights)]


def run(number: int, seed: int, control: bool = False) -> Tally:
    """Replay the corpus, then read so many mutants."""
    tally, names = Tally(), plan(number, seed)
    old = [str(path) for path in sorted(CORPUS.glob("*-*"))]
    for path, outcome in zip(old, guarded(replayed, [(len(old), (old,))], 1, died), strict=True):
        tally.add(Path(path).name.partition("-")[0], outcome, None)
    names += CONTROLS if control else ()
    jobs = [
        (len(names[at : at + JOB]), (names[at : at + JOB], seed, at))
        for at in range(0, len(names), JOB)
    ]
    outcomes = progress(guarded(mutants, jobs, len(jobs), died), len(names), "mutants", "fuzz")
    for index, (name, outcome) in enumerate(zip(names, outcomes, strict=True)):
        tally.add(
            name,
            outcome,
            None if name in CONTROLS else lambda name=name, index=index: mutant(name, seed, index),
        )
    return tally


def shake(count: int, seed: int, broken: bool) -> bool:
    """Open `count` mutants; whether none did harm."""
    old = len(list(CORPUS.glob("*-*")))
    print(
        f"{count:,} mutants of {len(READERS)} formats, seed {seed}; the corpus has {old} files",
        flush=True,
    )
    tally = run(count, seed, broken)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    replaced = sum(number for (_, end), number in tally.kept.items() if end == "died")
    print(tally.told())
    print(f"workers that died and were replaced: {replaced:,}")
    print(f"largest worker {peak >> 20} MB; {len(tally.bugs)} errors that nobody expects")
    print(*tally.bugs[:5], sep="\n\n")
    return not (tally.bugs or peak > MAX_BYTES)
