"""The list of harnesses, and what `make harness` refuses."""

from __future__ import annotations

import pytest

from support.children import run_harness


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("browser", "--broken"), "harness browser has no broken; it takes only\n"),
        (("visitors", "20"), "harness visitors has no count; it takes only\n"),
        (("short", "--seed", "2"), "harness short has no seed; it takes nothing\n"),
        (("fuzz", "--only", "wav"), "harness fuzz has no only; it takes count, seed, broken\n"),
        (("fuzz", "0"), "0 is not a whole number above 0\n"),
    ],
)
def test_what_a_harness_has_no_use_for_is_refused(arguments: tuple[str, ...], said: str) -> None:
    done = run_harness(*arguments)
    assert done.returncode == 2
    assert done.stderr.endswith(said)
    assert done.stdout == ""
