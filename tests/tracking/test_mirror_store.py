"""A store that hangs ends its process, and addresses are shown without secrets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asr.runtime import formatting
from support.mirror import run_python, saved


def test_a_store_that_hangs_ends_the_copy_and_not_the_training(tmp_path: Path) -> None:
    saved(tmp_path / "f", 6, 6)
    (tmp_path / "mirror/f").mkdir(parents=True)
    os.mkfifo(tmp_path / "mirror/f/lease.json")
    code = (
        "import sys; from asr.tracking import mirror_copy, mirror_store; "
        "mirror_store.PATIENCE_SECONDS = 0.2; mirror_copy.main()"
    )
    given = ["fetch", str(tmp_path / "f"), str(tmp_path / "log"), "a", ""]
    done = run_python(code, *given, EARSHOT_MIRROR=str(tmp_path / "mirror"))
    assert done.returncode == 4
    assert "does not answer" in done.stderr


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("s3://key:secret@bucket/a", "s3://bucket/a"),
        ("https://token@host/a?sig=x", "https://host/a"),
        ("hf://me/mine@main/a", "hf://me/mine@main/a"),
        ("/mnt/a@b", "/mnt/a@b"),
    ],
)
def test_addresses_are_shown_without_secrets(given: str, shown: str) -> None:
    assert formatting.without_secret(given) == shown
