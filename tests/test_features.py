"""Stored features are what `WhisperFeatureExtractor` computes, for any window, in half the bytes of
fp16.
"""

import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import WhisperFeatureExtractor
from transformers.audio_utils import mel_filter_bank

from asr import features
from asr.audio import codec
from asr.whisper import FRAMES_PER_SECOND, HOP, SAMPLE_RATE
from support.data import real, voice
from support.repository import REPOSITORY

ERROR = 5e-4
LENGTHS = st.integers(1, 5 * SAMPLE_RATE)


@cache
def extractor(mels: int, window: int) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=mels, chunk_length=window)


def wanted(samples: np.ndarray, mels: int, window: int) -> np.ndarray:
    return extractor(mels, window)(
        samples, sampling_rate=SAMPLE_RATE, return_tensors="np"
    ).input_features[0]


def stored(found: features.LogMel, mels: int) -> features.LogMel:
    """As they come back from the disk."""
    edge = (
        None
        if found.edge is None
        else features.unpack(features.pack(found.edge, found.floor), mels, found.floor)[:, 0]
    )
    return features.LogMel(
        features.unpack(features.pack(found.mel, found.floor), mels, found.floor), found.floor, edge
    )


def error(samples: np.ndarray, mels: int, window: int) -> float:
    rebuilt = features.pad(
        stored(features.log_mel(samples, mels), mels), window * FRAMES_PER_SECOND
    )
    want = wanted(samples, mels, window)
    assert rebuilt.shape == want.shape
    assert rebuilt.dtype == np.float32
    return float(np.abs(rebuilt - want).max())


def noise(length: int, scale: float = 0.1, seed: int = 0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)


CLIPS = {
    "one sample": np.array([0.5], np.float32),
    "one hop": noise(HOP),
    "silence": np.zeros(SAMPLE_RATE, np.float32),
    "near silence": noise(SAMPLE_RATE, 1e-7),
    "voice": voice(3.3),
    "noise": noise(2 * SAMPLE_RATE + 77),
    "full scale square": np.sign(np.sin(np.arange(4 * SAMPLE_RATE) / 20)).astype(np.float32),
    "silence then noise": np.concatenate([np.zeros(SAMPLE_RATE), noise(3000)]).astype(np.float32),
    "noise then silence": np.concatenate([noise(3000), np.zeros(SAMPLE_RATE)]).astype(np.float32),
}


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("window", [5, 10, 30])
@pytest.mark.parametrize("clip", CLIPS)
def test_a_clip_equals_the_extractor(clip, window, mels):
    assert error(CLIPS[clip], mels, window) <= ERROR


@pytest.mark.parametrize(
    "short", [0, 1, 20, 38, 39, 40, 41, 42, 80, 159, 160, 161, 199, 200, 201, 320, 321]
)
@pytest.mark.parametrize(
    "make",
    [voice, lambda seconds: noise(round(seconds * SAMPLE_RATE), 0.3)],
    ids=["voice", "noise"],
)
def test_a_clip_that_fills_the_window_equals_the_extractor(short, make):
    assert error(make(5.0)[: 5 * SAMPLE_RATE - short], 80, 5) <= ERROR


@pytest.mark.parametrize(("mels", "window"), [(128, 5), (80, 10), (128, 30)])
def test_a_clip_that_fills_other_windows_equals_the_extractor(mels, window):
    assert error(noise(window * SAMPLE_RATE - 7), mels, window) <= ERROR


@settings(max_examples=40)
@given(LENGTHS, st.floats(1e-6, 1), st.integers(0, 1000))
def test_noise_of_any_length_and_loudness_equals_the_extractor(length, scale, seed):
    assert error(np.clip(noise(length, scale, seed), -1, 1), 80, 5) <= ERROR


def test_a_real_recording_equals_the_extractor():
    for name in ("jfk.flac", "LJ001-0002.flac"):
        samples = codec.decode(real("clips", name).read_bytes())
        for mels in (80, 128):
            assert error(samples, mels, 30) <= ERROR


@settings(max_examples=30)
@given(LENGTHS)
def test_only_the_frames_of_the_clip_are_kept(length):
    assert features.log_mel(noise(length), 80).mel.shape == (80, -(-length // HOP) + 2)


@pytest.mark.parametrize("clip", CLIPS)
def test_values_lie_between_the_floor_and_two_above_it(clip):
    found = features.log_mel(CLIPS[clip], 80)
    assert found.mel.min() >= found.floor - 1e-6
    assert found.mel.max() <= found.floor + 2 + 1e-6


@settings(max_examples=20)
@given(st.integers(SAMPLE_RATE, 8 * SAMPLE_RATE))
def test_a_second_takes_at_most_sixteen_kilobytes(length):
    found = features.log_mel(noise(length), 80)
    size = len(features.pack(found.mel, found.floor)) + (
        0 if found.edge is None else len(features.pack(found.edge, found.floor))
    )
    assert size <= 16_000 * length / SAMPLE_RATE


@settings(max_examples=40)
@given(st.integers(1, 20), st.floats(-2, 1), st.integers(0, 1000))
def test_unpacking_undoes_packing_to_half_a_level(frames, floor, seed):
    mel = (floor + np.random.default_rng(seed).uniform(0, 2, (80, frames))).astype(np.float32)
    packed = features.pack(mel, floor)
    back = features.unpack(packed, 80, floor)
    assert back.shape == mel.shape
    assert len(packed) == mel.size * 3 // 2
    assert np.abs(back - mel).max() <= 1 / 4095 + 1e-6
    assert features.pack(back, floor) == packed


@settings(max_examples=40)
@given(st.lists(st.integers(0, 4095), min_size=80, max_size=80))
def test_every_level_survives_the_round_trip(codes):
    mel = (np.array(codes, np.float32) * np.float32(2 / 4095) - np.float32(1.5)).reshape(80, 1)
    back = features.unpack(features.pack(mel, -1.5), 80, -1.5)
    assert np.rint((back + 1.5) * 4095 / 2).astype(int).ravel().tolist() == codes


def test_the_floor_comes_back_exactly():
    for floor in (-1.5, -0.73, 0.25):
        assert (
            features.unpack(features.pack(np.full((80, 3), floor, np.float32), floor), 80, floor)
            == np.float32(floor)
        ).all()


def test_silence_is_the_floor_throughout():
    found = features.log_mel(np.zeros(1600, np.float32), 80)
    assert found.floor == -1.5
    assert (found.mel == -1.5).all()


def test_features_are_the_same_whatever_window_they_are_padded_to():
    found = stored(features.log_mel(noise(3 * SAMPLE_RATE), 80), 80)
    short, long = features.pad(found, 500), features.pad(found, 3000)
    assert np.array_equal(long[:, :500], short)
    assert (long[:, 302:] == np.float32(found.floor)).all()
    assert not (long[:, 301] == np.float32(found.floor)).all()


def test_a_clip_longer_than_the_window_is_cut_at_its_end():
    found = features.log_mel(noise(3 * SAMPLE_RATE), 80)
    assert np.array_equal(features.pad(found, 200), found.mel[:, :200])


@settings(max_examples=30)
@given(st.integers(201, 5 * SAMPLE_RATE))
def test_the_edge_is_kept_for_clips_that_end_within_forty_samples_of_a_frame(length):
    assert (features.log_mel(noise(length), 80).edge is not None) == (-length % HOP < 40)


def test_features_depend_on_nothing_but_the_samples():
    samples = voice(1.0)
    before = samples.copy()
    one = features.log_mel(samples, 80)
    features.log_mel(noise(12345), 128)
    other = features.log_mel(samples, 80)
    assert np.array_equal(one.mel, other.mel)
    assert one.floor == other.floor
    assert np.array_equal(samples, before)


@pytest.mark.parametrize("shape", [(0,), (2, 100), ()])
def test_what_is_no_waveform_is_refused(shape):
    with pytest.raises(ValueError, match=r"samples have the shape \(.*\), want \(S,\) with S > 0"):
        features.log_mel(np.zeros(shape, np.float32), 80)


THREADS_AND_HASH = """
import os, sys
class Watch:
    def find_spec(name, *_):
        if name == "numpy":
            print(os.environ["OPENBLAS_NUM_THREADS"])
sys.meta_path.insert(0, Watch)
import {first}
import hashlib
import numpy as np
from asr import features
noise = np.random.default_rng(1).normal(0, 0.1, (20, 160_000)).astype(np.float32)
mels = b"".join(features.log_mel(samples, 80).mel.tobytes() for samples in noise)
print(hashlib.sha256(mels).hexdigest())
"""


def threads_and_hash(first: str) -> tuple[str, str]:
    """Threads that NumPy is imported with after `import first`, and the hash of some features.

    The environment asks for two threads.
    """
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    command = [sys.executable, "-c", THREADS_AND_HASH.format(first=first)]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    threads, digest = done.stdout.split()
    return threads, digest


def test_features_do_not_depend_on_the_number_of_threads() -> None:
    """Nor on that of cores or WORKERS. The control imports NumPy before our settings."""
    ways = ("asr", "stages.featurize", "asr.__main__", "asr.transcribe.worker")
    ((threads, _),) = {threads_and_hash(first) for first in ways}
    assert threads == "1"
    assert threads_and_hash("numpy")[0] == "2"


@pytest.mark.parametrize("mels", [80, 128])
def test_mel_filters_are_those_of_transformers_bit_for_bit(mels: int) -> None:
    theirs = mel_filter_bank(201, mels, 0.0, 8000.0, SAMPLE_RATE, norm="slaney", mel_scale="slaney")
    assert np.array_equal(features._filters(mels), theirs.T.astype(np.float32))
