"""2,000 broken files of all formats do no harm; the harness would see it if one did.

make harness NAME=fuzz COUNT=100000     # many more of them
"""

from __future__ import annotations

from collections import Counter

import pytest

from harness import fuzz, mutants
from support.children import run_harness

SEED = 11


def test_no_broken_file_does_harm():
    """In a process of its own, so that the memory of its workers is known."""
    done = run_harness("fuzz", "2000", "--seed", str(SEED))
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"2,000 mutants of {len(fuzz.READERS)} formats, seed {SEED}" in done.stdout
    assert "; 0 errors that nobody expects" in done.stdout
    assert all(f"\n{name} " in done.stdout for name in fuzz.READERS)


def test_the_harness_sees_errors_loops_standstills_crashes_and_hunger():
    done = run_harness("fuzz", "1", "--seed", str(SEED), "--broken")
    assert done.returncode == 1, done.stdout + done.stderr
    found = {
        line.split()[0]: " ".join(line.split()[1:])
        for line in done.stdout.splitlines()
        if line.split()[:1]
    }
    assert found["bug"] == "1 1 bug"
    assert found["loop"] == "1 1 died: it takes more than 5 s"
    assert found["standstill"] == "1 1 died: it stood still for 100 s"
    assert found["crash"] == "1 1 died: its process died (SIGSEGV)"
    assert found["memory"] == "1 1 died: it wants more than 448 MB"
    assert "; 1 errors that nobody expects" in done.stdout
    assert "KeyError" in done.stdout
    assert "replaced: 4\n" in done.stdout


@pytest.mark.parametrize("name", fuzz.READERS)
def test_healthy_files_are_read(name):
    silent = [mutants.film()]
    assert [fuzz.tried(name, one) for one in mutants.healthy(name) if one not in silent] == [
        ("read", "")
    ] * (len(mutants.healthy(name)) - sum(one in silent for one in mutants.healthy(name)))


def test_a_mutant_is_known_by_format_seed_and_number():
    for name in fuzz.READERS:
        before = [mutants.mutant(name, SEED, number) for number in range(5)]
        mutants.healthy.cache_clear()
        assert [mutants.mutant(name, SEED, number) for number in range(5)] == before
        assert len({*before, *(mutants.mutant(name, SEED + 1, number) for number in range(5))}) >= 8


def test_mutants_reach_what_lies_behind_the_checksums():
    """Some are read and some refused, of every format that can be either."""
    for name in ("ogg", "opus", "tar", "gz", "wav", "mp3", "m4a", "webm"):
        ends = Counter(
            fuzz.tried(name, mutants.mutant(name, SEED, number))[0] for number in range(80)
        )
        assert min(ends["read"], ends["refused"]) >= 3, (name, ends)


def test_what_breaks_is_kept_and_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "CORPUS", tmp_path)
    tally = fuzz.Tally()
    for number in range(5):
        tally.add(
            "wav",
            ("died", "its process died (SIGSEGV)"),
            lambda number=number: bytes([number]),
        )
    tally.add("csv", ("bug", "Traceback\nKeyError: 'path'"), lambda: b"path")
    tally.add("csv", ("refused", "no column path"), lambda: b"none")
    assert sorted(path.name.partition("-")[0] for path in tmp_path.iterdir()) == [
        "csv",
        *["wav"] * fuzz.KEPT,
    ]
    assert [outcome[0] for outcome in fuzz.replayed(sorted(map(str, tmp_path.iterdir())), 0)] == [
        "refused"
    ] * 4
    assert tally.bugs == ["csv: Traceback\nKeyError: 'path'"]
