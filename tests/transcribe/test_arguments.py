"""The command line of `earshot transcribe`, in its own spelling and in that of openai-whisper."""

from __future__ import annotations

import argparse

import pytest

from asr.transcribe.arguments import hyphenated

SPELLINGS = {
    "--max_line_width 9": "--max-line-width 9",
    "--max_line_width=9": "--max-line-width=9",
    "--max-line-width 9": "--max-line-width 9",
    "--word_timestamps True a_b.wav": "--word-timestamps a_b.wav",
    "--word_timestamps a_b.wav": "--word-timestamps a_b.wav",
    "--word_timestamps=True": "--word-timestamps",
    "--condition_on_previous_text False": "--no-condition-on-previous-text",
    "--condition-on-previous-text=False a.wav": "--no-condition-on-previous-text a.wav",
    "--initial_prompt=a_b=c": "--initial-prompt=a_b=c",
    "True a.wav": "True a.wav",
    "--out a_b -- --a_b.wav True": "--out a_b -- --a_b.wav True",
    "": "",
}


@pytest.mark.parametrize("given", SPELLINGS)
def test_options_are_taken_in_the_spelling_of_openai_whisper_too(given: str) -> None:
    assert list(hyphenated(given.split())) == SPELLINGS[given].split()


def test_a_switch_is_taken_in_every_spelling() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recordings", nargs="+")
    parser.add_argument("--word-timestamps", action=argparse.BooleanOptionalAction, default=False)

    def read(line: str) -> bool:
        options = parser.parse_args(list(hyphenated(line.split())))
        assert options.recordings == ["a.wav"]
        return bool(options.word_timestamps)

    assert read("--word_timestamps True a.wav")
    assert read("--word-timestamps a.wav")
    assert read("a.wav --word_timestamps=True")
    assert not read("--word_timestamps False a.wav")
    assert not read("a.wav --no-word-timestamps")
    assert not read("a.wav")
