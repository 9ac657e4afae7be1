"""A slice of each language: its numbers sound different, and no clip is called another's copy."""

from __future__ import annotations

import pytest

from asr.sources import synthetic
from harness import languages
from support.children import run_harness

FEW = 50  # training utterances


def test_every_language_that_is_promised_is_well():
    done = run_harness("languages", str(FEW))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"40 languages, {FEW} training utterances of each, 0 harmed" in done.stdout


def test_numbers_that_cannot_be_read_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "SPELLINGS", {})
    assert languages.numbers_of_one_sound("ja", range(11)) == [list(range(11))]
