"""Checks and refusals that pass whatever they see are noticed: nothing catches a fault then.

make harness NAME=faults        # all faults
"""

from __future__ import annotations

from support.children import run_harness

# The first is planted in a training of a few steps and in a whole one, the second is refused.
TWO_FAULTS = "frozen_optimizer or (refused and wrong_language)"


def test_the_harness_sees_checks_and_refusals_that_pass_whatever_they_see() -> None:
    done = run_harness("faults", "--only", TWO_FAULTS, "--broken")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count("caught by: nothing") == 2
    assert "DID NOT RAISE" in done.stdout
    assert done.stdout.endswith("3 failed\n")


def test_faults_are_caught_and_refused() -> None:
    done = run_harness("faults", "--only", TWO_FAULTS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "refused: " in done.stdout
    assert done.stdout.endswith("3 passed\n")
