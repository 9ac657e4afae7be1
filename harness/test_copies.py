"""A slice of the copies: what a second look finds of them, and what it calls copies."""

from __future__ import annotations

from support.children import run_harness

FEW = "9"  # clips, each in 21 ways


def test_copies_are_found_and_other_sentences_are_none() -> None:
    done = run_harness("copies", FEW)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no copy is lost that must not be" in done.stdout


def test_a_look_that_loses_copies_and_calls_others_copies_is_noticed() -> None:
    done = run_harness("copies", FEW, "--broken")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "lost with the same text" in done.stdout
    assert ", 0 called copies" not in done.stdout
