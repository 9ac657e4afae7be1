"""Data stages killed a few times give the same bytes, and files written in place are noticed.

make harness NAME=data-kills COUNT=100      # many more kills
"""

from __future__ import annotations

from support.children import run_harness


def test_a_few_kills_change_no_byte() -> None:
    done = run_harness("data-kills", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kills (" in done.stdout.splitlines()[-1]


def test_files_that_are_named_before_they_are_written_are_noticed() -> None:
    done = run_harness("data-kills", "30", "--broken")
    assert done.returncode == 1
    assert "a run failed" in done.stderr or "other bytes" in done.stdout
