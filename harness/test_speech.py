"""Speech is found in real recordings, and noise is not taken for it.

make harness NAME=speech     # all of them
"""

from __future__ import annotations

import numpy as np
import pytest

from asr.speech.detection import Stretch
from asr.whisper import SAMPLE_RATE
from harness import speech
from support.children import run_harness
from support.repository import ABSENT

pytestmark = pytest.mark.skipif(not speech.DATA.exists(), reason=f"{speech.DATA} is not {ABSENT}")
SECONDS = "180"


def test_speech_is_found_and_noise_is_not_taken_for_it() -> None:
    done = run_harness("speech", SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 harmed" in done.stdout


def test_a_deaf_gate_is_noticed_in_every_recording() -> None:
    done = run_harness("speech", SECONDS, "--broken")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "100.00% lost" in done.stdout
    assert "12 harmed" in done.stdout


def test_a_gate_that_hears_speech_in_everything_is_noticed() -> None:
    for name, samples, most in speech.no_speech(seconds=2, seed=1):
        everything = Stretch(0, len(samples) / SAMPLE_RATE)
        assert everything.duration > most, name


def test_a_cut_in_a_word_is_noticed() -> None:
    voiced = np.ones(1000, bool)
    assert speech.cuts_in_words([Stretch(1, 2), Stretch(2, 3)], voiced) == 4
    voiced[60:65] = False  # at 2 s
    assert speech.cuts_in_words([Stretch(1, 2), Stretch(2, 3)], voiced) == 2
