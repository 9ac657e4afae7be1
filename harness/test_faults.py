"""Checks that pass whatever they see are noticed: nothing catches a fault then."""

from __future__ import annotations

from support.children import run_harness


def test_the_harness_sees_checks_that_pass_whatever_they_see() -> None:
    done = run_harness("faults", "--only", "frozen_optimizer", "--broken")
    assert done.returncode == 1, done.stdout + done.stderr
    in_both = "after a few steps, and in a whole training"
    assert done.stdout.count("caught by: nothing") == 2, in_both
    assert done.stdout.endswith("2 failed\n")


def test_a_fault_is_caught_in_a_whole_training() -> None:
    done = run_harness("faults", "--only", "frozen_optimizer")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("2 passed\n")
